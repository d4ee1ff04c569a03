//! Neighbour discovery messages as whole IPv6 packets: hop limit 255, checksum filled, every byte written.
//!
//! Our own messages carry no link-layer address options: the link has none (RFC 4213 3.8). A caller that
//! hands some in, as tests do, gets what it asks for. Every message is one packet, never fragments (RFC 6980
//! 5).

use super::{HOP_LIMIT, NdKind, NdOption, NeighborFlags, RouterAdvertisement};
use crate::wire::ext::ICMPV6;
use crate::wire::icmpv6::fill_checksum;
use crate::wire::ipv6::{self, Ipv6Header};
use std::net::Ipv6Addr;

/// Writes a router solicitation, without options, and returns its length of 48 bytes.
///
/// # Panics
/// Like every function here: when `out` is too short for the packet.
pub fn emit_router_solicitation(out: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) -> usize {
    emit(out, src, dst, NdKind::RouterSolicitation, |_| {}, &[])
}

/// Writes a router advertisement and returns the packet's length.
pub fn emit_router_advertisement(
    out: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    fields: &RouterAdvertisement,
    options: &[NdOption<'_>],
) -> usize {
    let fill = |body: &mut [u8]| {
        body[4] = fields.cur_hop_limit;
        body[5] = (fields.managed as u8) << 7 | (fields.other as u8) << 6 | fields.preference.bits() << 3;
        body[6..8].copy_from_slice(&fields.router_lifetime.to_be_bytes());
        body[8..12].copy_from_slice(&fields.reachable_time.to_be_bytes());
        body[12..16].copy_from_slice(&fields.retrans_timer.to_be_bytes());
    };
    emit(out, src, dst, NdKind::RouterAdvertisement, fill, options)
}

/// Writes a neighbour solicitation for `target` and returns the packet's length.
pub fn emit_neighbor_solicitation(
    out: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    options: &[NdOption<'_>],
) -> usize {
    let fill = |body: &mut [u8]| body[8..24].copy_from_slice(&target.octets());
    emit(out, src, dst, NdKind::NeighborSolicitation, fill, options)
}

/// Writes a neighbour advertisement of `target` and returns the packet's length.
pub fn emit_neighbor_advertisement(
    out: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    flags: NeighborFlags,
    options: &[NdOption<'_>],
) -> usize {
    let fill = |body: &mut [u8]| {
        body[4] = flags.bits();
        body[8..24].copy_from_slice(&target.octets());
    };
    emit(out, src, dst, NdKind::NeighborAdvertisement, fill, options)
}

/// Writes a redirect (to reach `redirected`, use `target`) and returns the packet's length.
pub fn emit_redirect(
    out: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    redirected: Ipv6Addr,
    options: &[NdOption<'_>],
) -> usize {
    let fill = |body: &mut [u8]| {
        body[8..24].copy_from_slice(&target.octets());
        body[24..40].copy_from_slice(&redirected.octets());
    };
    emit(out, src, dst, NdKind::Redirect, fill, options)
}

/// `fill` gets the zeroed fixed part of the message.
fn emit(
    out: &mut [u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: NdKind,
    fill: impl FnOnce(&mut [u8]),
    options: &[NdOption<'_>],
) -> usize {
    let message_len = kind.min_len() + options.iter().map(NdOption::emit_len).sum::<usize>();
    Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(message_len).expect("a message that fits a packet"),
        next_header: ICMPV6,
        hop_limit: HOP_LIMIT,
        src,
        dst,
    }
    .emit(out);
    let message = &mut out[ipv6::HEADER_LEN..ipv6::HEADER_LEN + message_len];
    let (fixed, mut rest) = message.split_at_mut(kind.min_len());
    fixed.fill(0);
    fixed[0] = kind as u8;
    fill(fixed);
    for option in options {
        let len = option.emit(rest);
        rest = &mut rest[len..];
    }
    fill_checksum(message, &src, &dst);
    ipv6::HEADER_LEN + message_len
}
