//! Router solicitations and advertisements at a router: what control answers, what the kernel hears, what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::{HOST, OWN, ROUTER, frame, outer, site, v6};
use isatap_engine::fib::{Role, Rulebook};
use isatap_engine::isatap::iid;
use isatap_engine::path::{DecapVerdict, EncapVerdict, PuntKind, decap, encap};
use isatap_engine::reason::DropReason;
use isatap_engine::wire::nd::{self, RouterAdvertisement};
use isatap_engine::wire::vnet::VnetHeader;

/// A router with the peer router 10.0.0.9, that advertises itself or leaves it to others.
fn router(advertises: bool) -> Rulebook {
    let mut builder = site(Role::Router);
    builder.advertises = advertises;
    builder.peer_routers = vec![ROUTER];
    builder.build().unwrap()
}

fn solicitation(src: Ipv6Addr, dst: &str) -> Vec<u8> {
    let mut packet = vec![0; 48];
    nd::emit_router_solicitation(&mut packet, src, v6(dst));
    packet
}

/// What becomes of a solicitation from `src` inside a packet of `from`: punted, or delivered with a copy.
fn fate(rules: &Rulebook, from: Ipv4Addr, packet: &[u8]) -> Result<PuntKind, Option<PuntKind>> {
    match decap::decide(rules, &outer(from, OWN, 0, packet)) {
        DecapVerdict::Punt(handed) => {
            assert_eq!((handed.outer_len, handed.inner_len), (20, packet.len()));
            Ok(handed.kind)
        }
        DecapVerdict::Deliver(delivery) => Err(delivery.copy),
        DecapVerdict::Drop(reason) => panic!("dropped: {}", reason.name()),
    }
}

/// P7: to all routers, and to our link-local address with either `u` bit; what is meant for others passes by.
#[test]
fn both_forms_of_solicitation_reach_whoever_answers() {
    let host = iid::link_local(HOST);
    for dst in [
        "ff02::2",
        "fe80::5efe:10.0.0.1",
        "fe80::200:5efe:10.0.0.1",
        "2001:db8:1::5efe:10.0.0.1",
    ] {
        let packet = solicitation(host, dst);
        assert_eq!(
            fate(&router(true), HOST, &packet),
            Ok(PuntKind::HostSolicitation),
            "{dst}"
        );
        assert_eq!(
            fate(&router(false), HOST, &packet),
            Err(Some(PuntKind::HostSolicitation)),
            "{dst}: another program answers"
        );
    }
    for dst in ["fe80::5efe:10.0.0.3", "2001:db8:1::5efe:10.0.0.3"] {
        assert_eq!(
            fate(&router(true), HOST, &solicitation(host, dst)),
            Err(None),
            "{dst}"
        );
    }
    let as_host = site(Role::Host).build().unwrap();
    assert_eq!(
        fate(&as_host, HOST, &solicitation(host, "fe80::5efe:10.0.0.1")),
        Err(None),
        "a host answers nobody"
    );
    assert_eq!(
        decap::decide(&as_host, &outer(HOST, OWN, 0, &solicitation(host, "ff02::2"))),
        DecapVerdict::Drop(DropReason::DstMulticast),
        "a host is none of all routers"
    );
}

/// T2, D12: from `::` only a router may ask.
#[test]
fn the_unspecified_address_is_for_routers() {
    let packet = solicitation(Ipv6Addr::UNSPECIFIED, "ff02::2");
    assert_eq!(
        fate(&router(true), ROUTER, &packet),
        Ok(PuntKind::HostSolicitation)
    );
    assert_eq!(
        decap::decide(&router(true), &outer(HOST, OWN, 0, &packet)),
        DecapVerdict::Drop(DropReason::SrcForbidden)
    );
}

/// T8, FAULTS 4: what a peer router advertises is shown to control, and reaches no kernel.
#[test]
fn advertisements_of_peers_are_compared_and_nothing_else() {
    let mut packet = vec![0; 100];
    let ours = iid::link_local(OWN);
    let says = |packet: &mut Vec<u8>, src| {
        let len = nd::emit_router_advertisement(packet, src, ours, &RouterAdvertisement::default(), &[]);
        packet.truncate(len);
    };
    says(&mut packet, iid::link_local(ROUTER));
    assert_eq!(
        fate(&router(true), ROUTER, &packet),
        Ok(PuntKind::RouterAdvertisement)
    );
    let refused = DecapVerdict::Drop(DropReason::NdNotRouter);
    assert_eq!(
        decap::decide(&router(false), &outer(ROUTER, OWN, 0, &packet)),
        refused
    );
    says(&mut packet, iid::link_local(HOST));
    for from in [HOST, ROUTER] {
        assert_eq!(
            decap::decide(&router(true), &outer(from, OWN, 0, &packet)),
            refused,
            "{from}"
        );
    }
}

/// An advertisement of our own kernel side to all nodes is for control to spread, unless control advertises itself.
#[test]
fn own_advertisements_to_all_nodes_are_spread() {
    let mut packet = vec![0; 100];
    let ours = iid::link_local(OWN);
    let all = v6("ff02::1");
    let len = nd::emit_router_advertisement(&mut packet, ours, all, &RouterAdvertisement::default(), &[]);
    let frame = frame(&VnetHeader::NONE, &packet[..len]);
    assert!(matches!(
        encap::decide(&router(false), &frame),
        EncapVerdict::Punt(PuntKind::OwnAdvertisement)
    ));
    let as_host = site(Role::Host).build().unwrap();
    for rules in [&router(true), &as_host] {
        assert!(matches!(
            encap::decide(rules, &frame),
            EncapVerdict::Drop(DropReason::DstMulticast)
        ));
    }
}
