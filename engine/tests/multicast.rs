//! Multicast on a link without it (RFC 5214 6.3): every group, in both roles, from and for everybody.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::{HOST, Inner, OWN, ROUTER, frame, host, outer, router, site, v6};
use isatap_engine::fib::{Role, Rulebook};
use isatap_engine::isatap::iid;
use isatap_engine::path::{DecapVerdict, EncapVerdict, PuntKind, decap, encap};
use isatap_engine::reason::DropReason;
use isatap_engine::wire::icmpv6::{self, ErrorMessage};
use isatap_engine::wire::vnet::{GsoType, VnetHeader};
use isatap_engine::wire::{ext, nd};

/// A peer router of a router.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);
const US: &str = "2001:db8:1::5efe:10.0.0.1";
/// The solicited-node group of both of our addresses, and of one of another node.
const OWN_GROUP: &str = "ff02::1:ff00:1";
const OTHER_GROUP: &str = "ff02::1:ff00:3";

fn rules(role: Role) -> Rulebook {
    let mut parts = site(role);
    if role == Role::Router {
        parts.peer_routers = vec![PEER];
    }
    parts.build().unwrap()
}

/// RFC 5214 6.3, P7, A9, FAULTS 7: who hears which group, by the role of the receiver and that of the sender.
#[test]
fn groups_are_heard_by_their_members_only() {
    const ALL_NODES: &str = "ff02::1";
    const ALL_ROUTERS: &str = "ff02::2";
    let heard = |role, from: Ipv4Addr, group: &str| {
        let inner = Inner::udp(&iid::link_local(from).to_string(), group);
        match decap::decide(&rules(role), &outer(from, OWN, 0, &inner.bytes())) {
            DecapVerdict::Deliver(_) => true,
            DecapVerdict::Drop(DropReason::DstMulticast) => false,
            other => panic!("{group} from {from}: {other:?}"),
        }
    };
    for (role, from, groups) in [
        (Role::Host, HOST, &[OWN_GROUP][..]),
        (Role::Host, ROUTER, &[ALL_NODES, OWN_GROUP]),
        (Role::Router, HOST, &[ALL_ROUTERS, OWN_GROUP]),
        (Role::Router, PEER, &[ALL_NODES, ALL_ROUTERS, OWN_GROUP]),
    ] {
        for group in [
            ALL_NODES,
            ALL_ROUTERS,
            OWN_GROUP,
            OTHER_GROUP,
            "ff02::16",
            "ff02::fb",
            "ff01::1",
            "ff05::2",
            "ff0e::1",
        ] {
            assert_eq!(
                heard(role, from, group),
                groups.contains(&group),
                "{group} from {from} at a {role:?}"
            );
        }
    }
}

fn solicitation(src: &str, group: &str, target: &str) -> Vec<u8> {
    let mut out = vec![0; 100];
    let len = nd::emit_neighbor_solicitation(&mut out, v6(src), v6(group), v6(target), &[]);
    out.truncate(len);
    out
}

fn sent_to(rules: &Rulebook, inner: &[u8]) -> Result<Ipv4Addr, DropReason> {
    match encap::decide(rules, &frame(&VnetHeader::NONE, inner)) {
        EncapVerdict::Send(route) => Ok(route.outer.dst),
        EncapVerdict::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

/// RFC 5214 6.3 and 7.1, A8: a solicitation goes to the node in its target, and to that one alone.
#[test]
fn solicitations_go_to_their_target() {
    let nowhere = Err(DropReason::DstMulticast);
    for (src, group, target, expected) in [
        (
            US,
            "ff02::1:ff00:2",
            "2001:db8:1::5efe:10.0.0.2",
            Ok("10.0.0.2".parse().unwrap()),
        ),
        (
            "fe80::5efe:10.0.0.1",
            "ff02::1:ff00:2",
            "fe80::200:5efe:10.0.0.2",
            Ok("10.0.0.2".parse().unwrap()),
        ),
        (US, OTHER_GROUP, "2001:db8:1::5efe:10.0.0.2", nowhere),
        (US, "ff02::1:ff00:2", "2001:db8:1::2", nowhere),
        (US, "ff02::1:ff00:2", "2001:db8:99::5efe:10.0.0.2", nowhere),
        (US, "ff02::1:ff00:1", "2001:db8:1::5efe:127.0.0.1", nowhere),
        (US, "ff02::1:ff00:201", "2001:db8:1::5efe:192.0.2.1", nowhere),
        // Nobody asks whether an address is taken (A3): neither its own, nor another's.
        ("::", "ff02::1:ff00:2", "2001:db8:1::5efe:10.0.0.2", nowhere),
        ("::", OWN_GROUP, US, nowhere),
        (US, OWN_GROUP, US, nowhere),
        (US, "ff02::1", "2001:db8:1::5efe:10.0.0.2", nowhere),
    ] {
        for rules in [host(), router()] {
            assert_eq!(
                sent_to(&rules, &solicitation(src, group, target)),
                expected,
                "{target} by {group} from {src}"
            );
        }
    }
    let mut spoilt = solicitation(US, "ff02::1:ff00:2", "2001:db8:1::5efe:10.0.0.2");
    spoilt[43] ^= 1;
    assert_eq!(sent_to(&host(), &spoilt), nowhere);
    let data = Inner::udp(US, "ff02::1:ff00:2").bytes();
    assert_eq!(sent_to(&host(), &data), nowhere, "no solicitation at all");
}

/// P7: what a host says to all routers is control's business; nobody else may, and other groups carry nothing.
#[test]
fn all_routers_are_spoken_to_by_hosts() {
    let verdict = |rules: &Rulebook, vnet: &VnetHeader, inner: &Inner| {
        encap::decide(rules, &frame(vnet, &inner.bytes()))
    };
    let punted = |rules: &Rulebook, inner: &Inner| {
        matches!(
            verdict(rules, &VnetHeader::NONE, inner),
            EncapVerdict::Punt(PuntKind::AllRouters)
        )
    };
    let ours = Inner::udp(US, "ff02::2");
    assert!(punted(&host(), &ours));
    assert!(punted(&host(), &Inner::udp("fe80::5efe:10.0.0.1", "ff02::2")));
    assert!(!punted(&router(), &ours), "a router knows of none to ask");
    assert!(!punted(&host(), &Inner::udp("2001:db8:99::1", "ff02::2")));
    assert!(!punted(&host(), &Inner::udp("::", "ff02::2")));
    for group in ["ff02::1", "ff02::16", "ff02::fb", "ff05::2", "ff0e::1"] {
        for rules in [host(), router()] {
            assert!(!punted(&rules, &Inner::udp(US, group)), "{group}");
            assert!(matches!(
                verdict(&rules, &VnetHeader::NONE, &Inner::udp(US, group)),
                EncapVerdict::Drop(DropReason::DstMulticast)
            ));
        }
    }
    let mut alone = site(Role::Host);
    alone.prl.clear();
    assert!(!punted(&alone.build().unwrap(), &ours));

    let too_big = |verdict| {
        matches!(
            verdict,
            EncapVerdict::Reply(DropReason::TooBig, ErrorMessage::PacketTooBig { mtu: 1280 })
        )
    };
    let mut large = ours.clone();
    large.payload.resize(1241, 0);
    assert!(too_big(verdict(&host(), &VnetHeader::NONE, &large)));
    let superpacket = VnetHeader {
        gso: GsoType::UdpL4,
        gso_size: 8,
        hdr_len: 48,
        ..VnetHeader::NONE
    };
    assert!(too_big(verdict(&host(), &superpacket, &ours)));
}

fn redirect(src: Ipv6Addr, dst: Ipv6Addr, target: &str, destination: &str) -> Vec<u8> {
    let mut out = vec![0; 200];
    let len = nd::emit_redirect(&mut out, src, dst, v6(target), v6(destination), &[]);
    out.truncate(len);
    out
}

/// N10, FAULTS 5: a host takes a redirect of its first hop for the destination, to a host of the site, and gives it to
/// control; everything else has a counter, and the kernel sees none.
#[test]
fn n10_redirects_are_for_control() {
    let received = |rules: &Rulebook, from: Ipv4Addr, target: &str, destination: &str| {
        let inner = redirect(iid::link_local(from), iid::link_local(OWN), target, destination);
        match decap::decide(rules, &outer(from, OWN, 0, &inner)) {
            DecapVerdict::Punt(handed) if handed.kind == PuntKind::Redirect => {
                assert_eq!((handed.outer_len, handed.inner_len), (20, inner.len()));
                None
            }
            DecapVerdict::Drop(reason) => Some(reason),
            other => panic!("{other:?}"),
        }
    };
    let refused = Some(DropReason::NdRedirect);
    let far = "2001:db8:99::1";
    for (from, target, destination, expected) in [
        (ROUTER, "fe80::5efe:10.0.0.7", far, None),
        (ROUTER, "fe80::200:5efe:10.0.0.7", far, None),
        // On-link behind a prefix that was not said to be.
        (
            ROUTER,
            "2001:db8:5::5efe:10.0.0.2",
            "2001:db8:5::5efe:10.0.0.2",
            None,
        ),
        (HOST, "fe80::5efe:10.0.0.7", far, Some(DropReason::NdNotRouter)),
        // Not its first hop: another route, the link itself, nowhere.
        (ROUTER, "fe80::5efe:10.0.0.2", "2001:db8:7::1", refused),
        (
            ROUTER,
            "fe80::5efe:10.0.0.7",
            "2001:db8:1::5efe:10.0.0.2",
            refused,
        ),
        (ROUTER, "fe80::5efe:10.0.0.7", "2001:db8:8::1", refused),
        (ROUTER, "fe80::5efe:10.0.0.7", US, refused),
        // Targets that are no hosts of the site.
        (ROUTER, "fe80::5efe:192.0.2.1", far, refused),
        (ROUTER, "fe80::5efe:127.0.0.1", far, refused),
        (ROUTER, "fe80::5efe:224.0.0.1", far, refused),
        (ROUTER, "fe80::5efe:10.0.0.255", far, refused),
        (ROUTER, "fe80::1", far, refused),
        (ROUTER, "fe80::5efe:10.0.0.1", far, refused),
        (ROUTER, "fe80::5efe:10.0.0.9", far, refused),
        (ROUTER, far, far, refused),
        // RFC 4861 8.1 itself.
        (
            ROUTER,
            "fe80::5efe:10.0.0.7",
            "ff05::1",
            Some(DropReason::NdAddress),
        ),
        (
            ROUTER,
            "2001:db8:1::5efe:10.0.0.7",
            far,
            Some(DropReason::NdAddress),
        ),
    ] {
        assert_eq!(
            received(&host(), from, target, destination),
            expected,
            "{destination} to {target}"
        );
    }
    assert_eq!(
        received(&rules(Role::Router), PEER, "fe80::5efe:10.0.0.7", far),
        refused,
        "T13: a router takes none"
    );
}

/// T12: our own kernel redirects when it forwards back to the link; no redirect leaves.
#[test]
fn t12_no_redirect_leaves() {
    let inner = redirect(
        iid::link_local(OWN),
        v6("2001:db8:1::5efe:10.0.0.2"),
        "fe80::5efe:10.0.0.7",
        "2001:db8:7::1",
    );
    assert_eq!(inner[40], icmpv6::REDIRECT);
    for rules in [host(), router()] {
        assert_eq!(sent_to(&rules, &inner), Err(DropReason::OwnRedirect));
    }
    let mut echo = Inner::udp(US, "2001:db8:1::5efe:10.0.0.2");
    echo.next_header = ext::ICMPV6;
    echo.payload[0] = icmpv6::ECHO_REQUEST;
    assert_eq!(sent_to(&router(), &echo.bytes()), Ok(HOST));
}
