//! Frame from the TUN in, verdict out: next hops, refusals with their ICMPv6 errors, and the outer header.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::net::Ipv4Addr;

use common::{GATEWAY, HOST, Inner, OWN, ROUTER, frame, host, outer, router, site, v6};
use isatap_engine::fib::{HopGroup, Locator, NextHop, Role, Rulebook};
use isatap_engine::isatap::ecn::EcnMode;
use isatap_engine::isatap::iid;
use isatap_engine::isatap::tos::{DscpPolicy, TtlPolicy};
use isatap_engine::path::reply::{self, MAX_REPLY_LEN};
use isatap_engine::path::{EncapVerdict, PuntKind, Route, encap};
use isatap_engine::reason::DropReason;
use isatap_engine::wire::icmpv6::{self, ErrorMessage};
use isatap_engine::wire::ipv6::Ipv6View;
use isatap_engine::wire::nd;
use isatap_engine::wire::vnet::{GsoType, VnetHeader};

const US: &str = "2001:db8:1::5efe:10.0.0.1";

fn decide(rules: &Rulebook, inner: &[u8]) -> EncapVerdict {
    encap::decide(rules, &frame(&VnetHeader::NONE, inner))
}

fn route_to(rules: &Rulebook, dst: &str) -> Route {
    match decide(rules, &Inner::udp(US, dst).bytes()) {
        EncapVerdict::Send(route) => route,
        other => panic!("{dst}: {other:?}"),
    }
}

fn refusal(rules: &Rulebook, inner: &[u8]) -> (DropReason, Option<ErrorMessage>) {
    match decide(rules, inner) {
        EncapVerdict::Drop(reason) => (reason, None),
        EncapVerdict::Reply(reason, message) => (reason, Some(message)),
        other => panic!("{other:?}"),
    }
}

const UNREACHABLE: Option<ErrorMessage> = Some(ErrorMessage::Unreachable {
    code: icmpv6::ADDRESS_UNREACHABLE,
});
const NO_ROUTE: Option<ErrorMessage> = Some(ErrorMessage::Unreachable {
    code: icmpv6::NO_ROUTE,
});

/// A8, E1, A2, V9: on-link by the embedded address with either u bit, link-local always, by route through its gateway,
/// else to the router.
#[test]
fn next_hops() {
    for (dst, to) in [
        ("2001:db8:1::5efe:10.0.0.2", HOST),
        ("2001:db8:1::200:5efe:10.0.0.2", HOST),
        ("fe80::5efe:10.0.0.2", HOST),
        ("2001:db8:7:1::1", GATEWAY),
        ("2001:db8:99::1", ROUTER),
    ] {
        let route = route_to(&host(), dst);
        assert_eq!((route.outer.dst, route.outer.src), (to, OWN), "{dst}");
    }
}

/// E2, E7, FAULTS 21 and 22: no next hop, or one that no packet may be sent to, is answered, never sent.
#[test]
fn refusals() {
    for (dst, reason, message) in [
        ("2001:db8:99::1", DropReason::NoRoute, NO_ROUTE),
        ("2001:db8:8::1", DropReason::Unresolvable, UNREACHABLE),
        ("2001:db8:1::1", DropReason::Unresolvable, UNREACHABLE),
        ("fe80::1", DropReason::Unresolvable, UNREACHABLE),
        (
            "2001:db8:1::5efe:127.0.0.1",
            DropReason::DstForbidden,
            UNREACHABLE,
        ),
        ("2001:db8:1::5efe:0.0.0.1", DropReason::DstForbidden, UNREACHABLE),
        (
            "2001:db8:1::5efe:224.0.0.1",
            DropReason::DstForbidden,
            UNREACHABLE,
        ),
        (
            "2001:db8:1::5efe:255.255.255.255",
            DropReason::DstForbidden,
            UNREACHABLE,
        ),
        (
            "2001:db8:1::5efe:10.0.0.255",
            DropReason::DstForbidden,
            UNREACHABLE,
        ),
        ("2001:db8:1::5efe:10.0.0.1", DropReason::DstForbidden, UNREACHABLE),
        ("2001:db8:1::5efe:192.0.2.1", DropReason::NotSite, UNREACHABLE),
        ("ff02::16", DropReason::DstMulticast, None),
        ("ff02::1", DropReason::DstMulticast, None),
        ("::1", DropReason::DstForbidden, None),
    ] {
        assert_eq!(
            refusal(&router(), &Inner::udp(US, dst).bytes()),
            (reason, message),
            "{dst}"
        );
    }
}

/// A node without any IPv4 address sends nothing.
#[test]
fn nothing_is_sent_without_a_locator() {
    let mut parts = site(Role::Host);
    parts.locators.clear();
    let rules = parts.build().unwrap();
    assert_eq!(
        refusal(&rules, &Inner::udp(US, "2001:db8:99::1").bytes()),
        (DropReason::NoRoute, None)
    );
}

/// E9, FAULTS 9 and 10: at every length; E8: our own outer packet routed back into the tunnel.
#[test]
fn bad_inner_packets() {
    let whole = frame(&VnetHeader::NONE, &Inner::udp(US, "fe80::5efe:10.0.0.2").bytes());
    for cut in 0..whole.len() {
        assert!(
            matches!(
                encap::decide(&router(), &whole[..cut]),
                EncapVerdict::Drop(DropReason::Truncated)
            ),
            "{cut}"
        );
    }
    let mut jumbo = Inner::udp(US, "fe80::5efe:10.0.0.2").bytes();
    jumbo[4..6].fill(0);
    assert_eq!(refusal(&router(), &jumbo), (DropReason::Malformed, None));
    let ours = outer(OWN, HOST, 0, &jumbo);
    assert_eq!(refusal(&router(), &ours), (DropReason::Loop, None));
    assert_eq!(
        refusal(&router(), &outer(HOST, OWN, 0, &jumbo)),
        (DropReason::Malformed, None)
    );
    let unspecified = Inner::udp("::", "fe80::5efe:10.0.0.2").bytes();
    assert_eq!(refusal(&router(), &unspecified), (DropReason::SrcForbidden, None));
    let nested = Inner {
        next_header: 41,
        ..Inner::udp(US, "fe80::5efe:10.0.0.2")
    };
    assert_eq!(refusal(&router(), &nested.bytes()), (DropReason::Nested, None));
}

/// E3, E5, M3, C1, C2, C5: the outer header, by policy.
#[test]
fn outer_headers() {
    for ecn in 0..4u8 {
        let inner = Inner {
            traffic_class: 0xb8 | ecn,
            hop_limit: 17,
            ..Inner::udp(US, "fe80::5efe:10.0.0.2")
        };
        let outer_of = |change: fn(&mut isatap_engine::fib::RulebookBuilder)| {
            let mut parts = site(Role::Router);
            change(&mut parts);
            match decide(&parts.build().unwrap(), &inner.bytes()) {
                EncapVerdict::Send(route) => route.outer,
                other => panic!("{other:?}"),
            }
        };
        let default = outer_of(|_| ());
        assert_eq!(
            (default.tos, default.ttl, default.dont_fragment),
            (ecn, 64, false)
        );
        assert_eq!(usize::from(default.payload_len), inner.bytes().len());
        assert_eq!(outer_of(|parts| parts.peers.ecn = EcnMode::Compat).tos, 0);
        assert_eq!(outer_of(|parts| parts.dscp = DscpPolicy::Inherit).tos, 0xb8 | ecn);
        assert_eq!(outer_of(|parts| parts.ttl = TtlPolicy::Inherit).ttl, 17);
        assert_eq!(outer_of(|parts| parts.ttl = TtlPolicy::Fixed(9)).ttl, 9);
    }
}

/// M2, FAULTS 24: the tunnel MTU is reported, never below 1280; padding behind the packet does not count (FAULTS 19).
#[test]
fn sizes() {
    let of_len = |len: usize| {
        let mut inner = Inner::udp(US, "fe80::5efe:10.0.0.2");
        inner.payload.resize(len - 40, 0);
        inner.bytes()
    };
    assert!(matches!(decide(&router(), &of_len(1280)), EncapVerdict::Send(_)));
    assert_eq!(
        refusal(&router(), &of_len(1281)),
        (DropReason::TooBig, Some(ErrorMessage::PacketTooBig { mtu: 1280 }))
    );
    let padded = [of_len(1280), vec![0xaa; 100]].concat();
    match decide(&router(), &padded) {
        EncapVerdict::Send(route) => assert_eq!(route.inner_len, 1280),
        other => panic!("{other:?}"),
    }
}

/// A superpacket is decided about once; its segments must fit; metadata that does not fit is refused (FAULTS 31).
#[test]
fn superpackets() {
    let mut inner = Inner::udp(US, "fe80::5efe:10.0.0.2");
    inner.payload.resize(8 + 3000, 1);
    let len = u16::try_from(inner.payload.len()).unwrap();
    inner.payload[4..6].copy_from_slice(&len.to_be_bytes());
    let vnet = |gso_size| VnetHeader {
        needs_csum: true,
        gso: GsoType::UdpL4,
        hdr_len: 48,
        gso_size,
        csum_start: 40,
        csum_offset: 6,
        ..VnetHeader::NONE
    };
    let verdict = |gso_size| encap::decide(&router(), &frame(&vnet(gso_size), &inner.bytes()));
    match verdict(1232) {
        EncapVerdict::Send(route) => {
            let plan = route.split.unwrap();
            assert_eq!(
                (plan.count, plan.segment_len(), route.complete_checksum),
                (3, 1280, None)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        verdict(1233),
        EncapVerdict::Reply(DropReason::TooBig, _)
    ));
    assert!(matches!(verdict(0), EncapVerdict::Drop(DropReason::BadOffload)));
}

/// P15, E1: the flows of a route with several gateways are spread over them, and each stays where it is.
#[test]
fn p15_flows_of_a_group_are_spread() {
    let mut builder = site(Role::Host);
    builder.groups = vec![HopGroup::new(OWN, &[(ROUTER, 1), (GATEWAY, 1)], &[]).unwrap()];
    builder
        .routes
        .push(("2001:db8:9::/48".parse().unwrap(), NextHop::Group(0)));
    let rules = builder.clone().build().unwrap();
    let to = |host: u16| route_to(&rules, &format!("2001:db8:9::{host:x}")).outer.dst;
    let through_router = (0..1000).filter(|host| to(*host) == ROUTER).count();
    assert!((350..=650).contains(&through_router), "{through_router} of 1000");
    assert!((0..1000).all(|host| to(host) == to(host)));
    builder.default_hop = Some(NextHop::Group(1));
    assert!(builder.build().is_err(), "there is no group 1");
}

/// RFC 4213 3.5, RFC 5214 7.3: with several locators a packet leaves from the one its source embeds, or the receiver
/// refuses it; any other source leaves from the preferred one.
#[test]
fn the_outer_source_follows_the_inner_one() {
    let second = Ipv4Addr::new(10, 0, 0, 33);
    let mut builder = site(Role::Router);
    builder.locators.push(Locator {
        addr: second,
        if_index: 0,
    });
    let rules = builder.build().unwrap();
    for (src, expected) in [
        (US, OWN),
        ("2001:db8:1::5efe:10.0.0.33", second),
        ("fe80::200:5efe:10.0.0.33", second),
        ("2001:db8:1::5efe:10.0.0.44", OWN),
        ("2001:db8:77::1", OWN),
    ] {
        match decide(&rules, &Inner::udp(src, "2001:db8:1::5efe:10.0.0.2").bytes()) {
            EncapVerdict::Send(route) => assert_eq!(route.outer.src, expected, "{src}"),
            other => panic!("{src}: {other:?}"),
        }
    }
}

/// A solicitation to all routers is control's business: the link has no multicast.
#[test]
fn solicitations_are_punted() {
    let mut out = [0; 48];
    nd::emit_router_solicitation(&mut out, iid::link_local(OWN), v6("ff02::2"));
    assert!(matches!(
        decide(&host(), &out),
        EncapVerdict::Punt(PuntKind::RouterSolicitation)
    ));
    nd::emit_router_solicitation(&mut out, iid::link_local(OWN), iid::link_local(ROUTER));
    assert!(matches!(decide(&host(), &out), EncapVerdict::Send(Route { outer, .. }) if outer.dst == ROUTER));
}

/// N7: what we answer with, and to what we never answer.
#[test]
fn errors_that_are_sent() {
    let offending = Inner::udp("2001:db8:99::5", "2001:db8:1::1").bytes();
    let mut out = [0; MAX_REPLY_LEN];
    let message = ErrorMessage::Unreachable {
        code: icmpv6::ADDRESS_UNREACHABLE,
    };
    let len = reply::build(&router(), message, &offending, &mut out).unwrap();
    let view = Ipv6View::new(&out[..len]).unwrap();
    assert_eq!((view.src(), view.dst()), (v6(US), v6("2001:db8:99::5")));
    assert!(icmpv6::verify(view.packet(), 40));

    let local = Inner::udp("fe80::5efe:10.0.0.1", "fe80::1").bytes();
    let len = reply::build(&router(), message, &local, &mut out).unwrap();
    assert_eq!(
        Ipv6View::new(&out[..len]).unwrap().src(),
        iid::link_local(Ipv4Addr::new(10, 0, 0, 1))
    );

    let about_error = out[..len].to_vec();
    assert_eq!(reply::build(&router(), message, &about_error, &mut out), None);
    let multicast = Inner::udp(US, "ff05::9").bytes();
    assert_eq!(reply::build(&router(), message, &multicast, &mut out), None);
}
