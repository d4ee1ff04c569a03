//! Neighbour discovery from routers and from others, each message right or with one thing wrong (RFC 4861 6.1, 7.1, 8.1;
//! RFC 5214 8.3.3; RFC 6980 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Corpus, HOST, OWN, ROUTER, SECOND_ROUTER, address};
use crate::nd;
use crate::packet::{ICMPV6, Inner, Outer, isatap, link_local, upper_checksum};
use crate::scene::PREFIX;

/// What is wrong with a message.
pub(super) const FAULTS: [&str; 9] = [
    "nothing",
    "hop limit 254",
    "hop limit 1",
    "code 1",
    "checksum",
    "cut short",
    "option of length 0",
    "option beyond the end",
    "in a fragment",
];

pub(super) fn add(corpus: &mut Corpus) {
    let senders: [(&str, Ipv4Addr, Ipv6Addr); 6] = [
        ("router", ROUTER, link_local(ROUTER)),
        ("router, global", ROUTER, isatap(PREFIX, false, ROUTER)),
        (
            "router for another",
            ROUTER,
            link_local(Ipv4Addr::new(10, 0, 0, 77)),
        ),
        ("second router", SECOND_ROUTER, link_local(SECOND_ROUTER)),
        ("host", HOST, link_local(HOST)),
        ("unspecified from a router", ROUTER, Ipv6Addr::UNSPECIFIED),
    ];
    for (sender, v4, src) in senders {
        for kind in 133..=137 {
            for fault in FAULTS {
                for dst in [link_local(OWN), address("ff02::1")] {
                    let note = format!("{sender}: type {kind} to {dst}, wrong: {fault}");
                    let packet = message(kind, src, dst, fault);
                    corpus.add("neighbour discovery", note, &Outer::new(v4, OWN), &packet);
                }
            }
        }
    }
}

pub(super) fn message(kind: u8, src: Ipv6Addr, dst: Ipv6Addr, fault: &str) -> Vec<u8> {
    let mut body = match kind {
        nd::ROUTER_SOLICITATION => nd::router_solicitation(),
        // Not a default router, no prefix: the receiver stays as it is.
        nd::ROUTER_ADVERTISEMENT => nd::router_advertisement(0, &[]),
        nd::NEIGHBOUR_SOLICITATION => nd::neighbour_solicitation(link_local(OWN)),
        nd::NEIGHBOUR_ADVERTISEMENT => nd::neighbour_advertisement(0x60, src),
        _ => nd::redirect(link_local(Ipv4Addr::new(10, 0, 0, 66)), address("2001:db8:66::1")),
    };
    match fault {
        "cut short" => body.truncate(2),
        "option of length 0" => body.extend_from_slice(&[250, 0, 0, 0, 0, 0, 0, 0]),
        "option beyond the end" => body.extend_from_slice(&[250, 2, 0, 0, 0, 0, 0, 0]),
        _ => {}
    }
    let mut inner = Inner::new(src, dst);
    inner.hop_limit = match fault {
        "hop limit 254" => 254,
        "hop limit 1" => 1,
        _ => 255,
    };
    let code = u8::from(fault == "code 1");
    if fault == "in a fragment" {
        let mut message = [&[kind, code, 0, 0][..], &body].concat();
        let sum = upper_checksum(src, dst, ICMPV6, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        return inner.wrap(44, &[&[ICMPV6, 0, 0, 0, 0, 0, 0, kind][..], &message].concat());
    }
    let mut packet = inner.icmpv6(kind, code, &body);
    if fault == "checksum" {
        packet[42] ^= 0x55;
    }
    packet
}
