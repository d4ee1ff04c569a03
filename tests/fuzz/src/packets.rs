//! Whole packets: what may enter, what may leave, and that no byte beyond a packet is touched (FAULTS 1-3, 6-11, 13, 18-23).

use std::net::Ipv4Addr;

use isatap_engine::isatap::{classify, iid};
use isatap_engine::path::{self, DecapVerdict, EncapVerdict};
use isatap_engine::wire::ipv4::{Ipv4View, MIN_HEADER_LEN};
use isatap_engine::wire::ipv6::{Ipv6Header, Ipv6View};
use isatap_engine::wire::{ext, vnet};

use crate::site::{GATEWAY, ON_LINK, OWN, ROUTER, RULES};

/// An outer packet as a raw socket gives it: what is accepted has a source that the rules allow, told apart here by other
/// means than the engine's.
///
/// # Panics
/// A promise is broken.
pub fn decap(data: &[u8]) {
    for rules in &*RULES {
        let (outer_len, inner_len) = match path::decap::decide(rules, data) {
            DecapVerdict::Drop(_) => continue,
            DecapVerdict::Deliver(delivery) => {
                assert!(delivery.segments >= 1, "a packet stands for nothing");
                assert!(delivery.set_ecn.is_none_or(|ecn| ecn < 4), "ECN has two bits");
                (delivery.outer_len, delivery.inner_len)
            }
            DecapVerdict::Punt(handed) => (handed.outer_len, handed.inner_len),
        };
        let outer = data.get(..outer_len).expect("the outer header is in the packet");
        let inner = data
            .get(outer_len..outer_len + inner_len)
            .expect("the inner packet is in the packet");
        let (src, dst) = (v4(outer, 12), v4(outer, 16));
        assert_eq!(dst, OWN, "not for us");
        assert!(src.octets()[0] == 10 && src != OWN, "{src} is not of the site");
        let view = Ipv6View::new(inner).expect("what is delivered is IPv6");
        assert_eq!(view.total_len(), inner_len, "padding is cut off");
        let (from, to) = (view.src(), view.dst());
        assert!(!from.is_multicast() && !from.is_loopback(), "from {from}");
        assert!(!to.is_loopback() && !to.is_unspecified(), "to {to}");
        let octets = from.octets();
        let embeds_sender = octets[9..12] == [0, 0x5e, 0xfe] && octets[12..] == src.octets();
        let behind_gateway = octets[..6] == [0x20, 1, 0x0d, 0xb8, 0, 7] && src == GATEWAY;
        let behind_group = octets[..6] == [0x20, 1, 0x0d, 0xb8, 0, 6] && [ROUTER, GATEWAY].contains(&src);
        assert!(
            embeds_sender || src == ROUTER || behind_gateway || behind_group,
            "{from} came from {src}"
        );
        if embeds_sender && src != ROUTER && !behind_gateway && !behind_group {
            let prefix = u128::from_be_bytes(octets) >> 64;
            let allowed = [0xfe80 << 48, ON_LINK.to_bits() >> 64];
            assert!(allowed.contains(&prefix), "{from} is not on this link");
        }
    }
}

/// A frame as the TUN gives it, vnet header first: what is sent goes to where the rules lead, and in a size that fits.
///
/// # Panics
/// A promise is broken.
pub fn encap(data: &[u8]) {
    for rules in &*RULES {
        let EncapVerdict::Send(route) = path::encap::decide(rules, data) else {
            continue;
        };
        let inner = data
            .get(vnet::LEN..vnet::LEN + route.inner_len)
            .expect("the inner packet is in the frame");
        let view = Ipv6View::new(inner).expect("what is sent is IPv6");
        assert_eq!(
            view.total_len(),
            route.inner_len,
            "nothing behind the packet leaves"
        );
        let mut header = [0; MIN_HEADER_LEN];
        route.outer.emit(&mut header);
        let (src, dst) = (v4(&header, 12), v4(&header, 16));
        assert_eq!(src, OWN);
        assert!(!classify::invalid_next_hop(dst) && dst != OWN, "sent to {dst}");
        let to = view.dst();
        let direct = iid::embedded(&to) == Some(dst);
        assert!(
            direct || [ROUTER, GATEWAY].contains(&dst),
            "{to} was sent to {dst}, whom no route names"
        );
        let largest = route.split.map_or(route.inner_len, |plan| plan.segment_len());
        assert!(
            largest <= usize::from(rules.tunnel().mtu.tunnel_mtu()),
            "{largest} bytes do not fit"
        );
    }
}

/// Each view by itself: a header that was accepted says nothing about bytes that are not there.
///
/// # Panics
/// A promise is broken.
pub fn headers(data: &[u8]) {
    if let Ok(outer) = Ipv4View::new(data) {
        assert_eq!(outer.header_len() + outer.payload().len(), outer.total_len());
        assert_eq!(outer.options().len() + MIN_HEADER_LEN, outer.header_len());
        let _ = (outer.options_ok(), outer.has_source_route(), outer.is_fragment());
    }
    if let Ok(inner) = Ipv6View::new(data) {
        let mut again = [0; 40];
        Ipv6Header::parse(&inner).emit(&mut again);
        assert_eq!(again, data[..40], "parse and emit are each other's inverse");
    }
    if let Ok(upper) = ext::walk(data) {
        assert!(upper.offset <= data.len(), "the upper layer starts in the packet");
        assert!(
            usize::from(upper.headers) <= data.len() / 8,
            "each header takes room"
        );
    }
}

fn v4(header: &[u8], at: usize) -> Ipv4Addr {
    let octets: [u8; 4] = header[at..at + 4].try_into().expect("four bytes");
    octets.into()
}
