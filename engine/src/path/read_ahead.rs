//! Reading ahead for a whole batch: with a million routes each decision would wait for memory once.
//!
//! The places where the routes of all packets of a batch lie are read first, one after the other and independent of each
//! other, so that the processor waits for several at once; the decisions then find them in its cache.

use std::net::Ipv6Addr;

use crate::fib::Rulebook;
use crate::wire::vnet;

/// Offsets in the inner header.
const SRC_AT: usize = 8;
const DST_AT: usize = 24;

/// Reads ahead for frames from the TUN queue: where their destinations are routed. The number means nothing; consume it.
pub fn encap<'a>(rules: &Rulebook, frames: impl Iterator<Item = &'a [u8]>) -> usize {
    frames.map(|frame| touch(rules, frame, vnet::LEN + DST_AT)).sum()
}

/// Reads ahead for outer packets: where their inner sources are routed. The number means nothing; consume it.
pub fn decap<'a>(rules: &Rulebook, packets: impl Iterator<Item = &'a [u8]>) -> usize {
    let outer_len = |packet: &[u8]| packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    packets
        .map(|packet| touch(rules, packet, outer_len(packet) + SRC_AT))
        .sum()
}

#[inline]
fn touch(rules: &Rulebook, bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        Some(octets) => rules.touch(&Ipv6Addr::from(*octets)),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::{Ipv6Prefix, NextHop, RulebookBuilder};

    /// Reading ahead finds what a look-up would: every packet of a large table touches its route, whatever its length.
    #[test]
    fn each_packet_touches_its_route() {
        let prefix = |n: u32| Ipv6Prefix::containing(Ipv6Addr::from_bits(u128::from(n) << 80), 48).unwrap();
        let routes: Vec<_> = (1..200_000).map(|n| (prefix(n), NextHop::OnLink)).collect();
        let rules = RulebookBuilder {
            routes,
            ..RulebookBuilder::default()
        }
        .build()
        .unwrap();
        assert!(rules.is_large());
        let frame = |n: u32| {
            let mut frame = vec![0; vnet::LEN + 40];
            frame[vnet::LEN + DST_AT..].copy_from_slice(&prefix(n).addr().octets());
            frame
        };
        let frames: Vec<_> = (1..100).map(frame).collect();
        assert_eq!(encap(&rules, frames.iter().map(Vec::as_slice)), 99);
        let packets = (1..100).map(|n| [&[0x45; 20][..], &[0; 8], &prefix(n).addr().octets()].concat());
        let packets: Vec<_> = packets.collect();
        assert_eq!(decap(&rules, packets.iter().map(Vec::as_slice)), 99);
        assert_eq!(
            encap(&rules, [&[][..], &[0; 20]].into_iter()),
            0,
            "short frames are left to the verdict"
        );
        assert!(!RulebookBuilder::default().build().unwrap().is_large());
    }
}
