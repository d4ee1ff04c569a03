//! Reading ahead for a whole batch: with a million routes each decision would wait for memory once.
//!
//! The places where the routes of all packets of a batch lie are read first, one after the other and independent of each
//! other, so that the processor waits for several at once; the decisions then find them in its cache.

use std::net::Ipv6Addr;

use crate::fib::{READ_AHEAD, Rulebook};
use crate::wire::vnet;

/// Offsets in the inner header.
const SRC_AT: usize = 8;
const DST_AT: usize = 24;

/// Reads ahead for frames from the TUN queue: where their destinations are routed. The number means nothing; consume it.
pub fn encap<'a>(rules: &Rulebook, frames: impl Iterator<Item = &'a [u8]>) -> usize {
    touch(
        rules,
        frames.filter_map(|frame| address(frame, vnet::LEN + DST_AT)),
    )
}

/// Reads ahead for outer packets: where their inner sources are routed. The number means nothing; consume it.
pub fn decap<'a>(rules: &Rulebook, packets: impl Iterator<Item = &'a [u8]>) -> usize {
    let outer_len = |packet: &[u8]| packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    touch(
        rules,
        packets.filter_map(|packet| address(packet, outer_len(packet) + SRC_AT)),
    )
}

fn touch(rules: &Rulebook, mut addresses: impl Iterator<Item = Ipv6Addr>) -> usize {
    let mut touched = 0;
    let mut some = [Ipv6Addr::UNSPECIFIED; READ_AHEAD];
    loop {
        let mut count = 0;
        for (place, address) in some.iter_mut().zip(&mut addresses) {
            *place = address;
            count += 1;
        }
        if count == 0 {
            return touched;
        }
        touched += rules.touch(&some[..count]);
    }
}

#[inline]
fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets = bytes.get(at..)?.first_chunk::<16>()?;
    Some(Ipv6Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::{Ipv6Prefix, NextHop, RulebookBuilder};
    use crate::miri::cases;

    /// Reading ahead finds what a look-up would: every packet of a large table touches its route, whatever its length.
    #[test]
    fn each_packet_touches_its_route() {
        let prefix = |n: u32| Ipv6Prefix::containing(Ipv6Addr::from_bits(u128::from(n) << 80), 48).unwrap();
        let routes: Vec<_> = (1..cases(200_000, 17_000))
            .map(|n| (prefix(n), NextHop::OnLink))
            .collect();
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
        // More than are read at once.
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
