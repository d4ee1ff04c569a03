//! What a worker does to a packet between the two system calls: take the slot, decide, write headers in place.
//!
//! The steps are those of `engine/src/worker/carry.rs`, on the same [`Packet`] and [`Pool`], without counters and lane.

use std::hint::black_box;
use std::rc::Rc;

use isatap_engine::buf::{Packet, Pool};
use isatap_engine::fib::Rulebook;
use isatap_engine::offload::csum;
use isatap_engine::path::{self, DecapVerdict, EncapVerdict};
use isatap_engine::wire::ipv4::MIN_HEADER_LEN;
use isatap_engine::wire::{ipv6, vnet};

/// Packets of one burst: what a worker finds after one wait when it is busy.
pub const BURST: usize = 64;
/// Bytes of a slot that holds any packet of the tunnel MTU.
pub const SLOT_LEN: usize = 2048;

/// What a worker does first with a burst from the TUN.
#[inline]
pub fn read_ahead_encap(rules: &Rulebook, burst: &[Packet]) {
    if rules.is_large() {
        black_box(path::read_ahead::encap(rules, burst.iter().map(Packet::bytes)));
    }
}

/// What a worker does first with a burst from the raw socket.
#[inline]
pub fn read_ahead_decap(rules: &Rulebook, burst: &[Packet]) {
    if rules.is_large() {
        black_box(path::read_ahead::decap(rules, burst.iter().map(Packet::bytes)));
    }
}

/// A frame from the TUN becomes an IPv4 packet, in place; false when the verdict is another one.
#[inline]
pub fn encap(rules: &Rulebook, packet: &mut Packet) -> bool {
    let EncapVerdict::Send(route) = path::encap::decide(rules, packet.bytes()) else {
        return false;
    };
    packet.strip(vnet::LEN);
    packet.truncate(route.inner_len);
    if let Some(vnet) = &route.complete_checksum
        && csum::complete(vnet, packet.bytes_mut()).is_err()
    {
        return false;
    }
    let Ok(header) = packet.prepend(MIN_HEADER_LEN).try_into() else {
        return false;
    };
    route.outer.emit(header);
    true
}

/// A packet from the raw socket becomes a frame for the TUN, in place; false when the verdict is another one.
#[inline]
pub fn decap(rules: &Rulebook, packet: &mut Packet) -> bool {
    let DecapVerdict::Deliver(delivery) = path::decap::decide(rules, packet.bytes()) else {
        return false;
    };
    packet.strip(delivery.outer_len);
    packet.truncate(delivery.inner_len);
    if let Some(mark) = delivery.set_ecn {
        ipv6::set_ecn(packet.bytes_mut(), mark);
    }
    let Ok(header) = packet.prepend(vnet::LEN).try_into() else {
        return false;
    };
    delivery.vnet.emit(header);
    true
}

/// Puts `bytes` into a slot as the kernel would; `None` when the pool is empty or the slot too small.
pub fn receive(pool: &Rc<Pool>, bytes: &[u8]) -> Option<Packet> {
    let mut packet = Packet::received(pool.take()?, bytes.len());
    packet.bytes_mut().get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(packet)
}
