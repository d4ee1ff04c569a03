//! What encapsulation makes of what is known about paths: DF, sizes that are reported, where fragments are needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::net::Ipv4Addr;

use common::{GATEWAY, HOST, Inner, OWN, frame, site};
use isatap_engine::fib::{PeerPolicy, Role, Rulebook, RulebookBuilder};
use isatap_engine::isatap::mark::Mark;
use isatap_engine::isatap::mtu::{PathMtu, PathMtuMode};
use isatap_engine::path::{EncapVerdict, Route, encap};
use isatap_engine::reason::DropReason;
use isatap_engine::wire::icmpv6::ErrorMessage;
use isatap_engine::wire::vnet::{GsoType, VnetHeader};

const US: &str = "2001:db8:1::5efe:10.0.0.1";
const TO_HOST: &str = "2001:db8:1::5efe:10.0.0.2";
const TO_GATEWAY: &str = "2001:db8:7::1";

fn rules(mode: PathMtuMode, change: impl FnOnce(&mut RulebookBuilder)) -> Rulebook {
    let mut parts = site(Role::Router);
    parts.mtu = 1480;
    parts.peers.path_mtu = mode;
    parts.mark = Mark::new([1, 2]);
    change(&mut parts);
    parts.build().unwrap()
}

fn decide(rules: &Rulebook, dst: &str, len: usize) -> EncapVerdict {
    let mut inner = Inner::udp(US, dst);
    inner.payload.resize(len - 40, 0);
    encap::decide(rules, &frame(&VnetHeader::NONE, &inner.bytes()))
}

/// The route, or the MTU that is reported.
fn fate(rules: &Rulebook, dst: &str, len: usize) -> Result<Route, u32> {
    match decide(rules, dst, len) {
        EncapVerdict::Send(route) => Ok(route),
        EncapVerdict::Reply(DropReason::TooBig, ErrorMessage::PacketTooBig { mtu }) => Err(mtu),
        other => panic!("{other:?}"),
    }
}

fn df(rules: &Rulebook, dst: &str, len: usize) -> Result<bool, u32> {
    fate(rules, dst, len).map(|route| route.outer.dont_fragment)
}

/// M4, M6: the table of RFC 4213 3.2.2, for the peer whose path it is and no other.
#[test]
fn m4_each_peer_has_its_own_path() {
    for (mtu, len, expected) in [
        (1500, 1480, Ok(true)),
        (1400, 1380, Ok(true)),
        (1400, 1381, Err(1380)),
        (1300, 1280, Ok(true)),
        (1300, 1281, Err(1280)),
        (1299, 1280, Ok(false)),
        (1299, 1281, Err(1280)),
        (600, 41, Ok(false)),
        (68, 1280, Ok(false)),
        (0, 1281, Err(1280)),
    ] {
        let rules = rules(PathMtuMode::Dynamic, |parts| {
            parts.paths = vec![(HOST, PathMtu::of_path(mtu))];
        });
        assert_eq!(df(&rules, TO_HOST, len), expected, "{len} over {mtu}");
        let route = fate(&rules, TO_GATEWAY, 1480).unwrap();
        assert_eq!((route.outer.dont_fragment, route.link_mtu), (true, u16::MAX));
    }
}

/// M3, M5: static mode does not look at paths; a network of peers may be explored while others are not.
#[test]
fn m5_the_mode_is_chosen_for_each_peer() {
    let paths = vec![(HOST, PathMtu::of_path(600)), (GATEWAY, PathMtu::of_path(1400))];
    let rules = rules(PathMtuMode::Static, |parts| {
        parts.paths = paths;
        let dynamic = PeerPolicy {
            path_mtu: PathMtuMode::Dynamic,
            ..parts.peers
        };
        parts.peer_networks = vec![("10.0.0.7/32".parse().unwrap(), dynamic)];
    });
    assert_eq!(df(&rules, TO_HOST, 1480), Ok(false));
    assert_eq!(df(&rules, TO_GATEWAY, 1480), Err(1380));
    assert_eq!(df(&rules, TO_GATEWAY, 1380), Ok(true));
}

/// FAULTS 28: a link of our own that takes less than the tunnel may need is passed on, in either mode; it bounds every path.
#[test]
fn our_own_link_bounds_every_path() {
    for (link, learned, fragments_at, report) in [
        (1500, None, u16::MAX, None),
        (1400, None, 1400, Some(1380)),
        (1400, Some(PathMtu::of_path(1350)), 1400, Some(1330)),
        (1400, Some(PathMtu::of_link(1350)), 1350, Some(1330)),
        (u16::MAX, Some(PathMtu::of_link(600)), 600, Some(1280)),
    ] {
        let known = |parts: &mut RulebookBuilder| {
            parts.link_mtu = link;
            parts.paths = learned.map(|path| (HOST, path)).into_iter().collect();
        };
        let route = fate(&rules(PathMtuMode::Static, known), TO_HOST, 1480).unwrap();
        assert_eq!((route.outer.dont_fragment, route.link_mtu), (false, fragments_at));
        let told = df(&rules(PathMtuMode::Dynamic, known), TO_HOST, 1480).err();
        assert_eq!(told, report, "{link} {learned:?}");
    }
}

/// M4, DESIGN D5: the segments of a superpacket must fit the path, not the whole.
#[test]
fn segments_must_fit_the_path() {
    let mut inner = Inner::udp(US, TO_HOST);
    inner.payload.resize(8 + 3000, 1);
    let len = u16::try_from(inner.payload.len()).unwrap();
    inner.payload[4..6].copy_from_slice(&len.to_be_bytes());
    let rules = rules(PathMtuMode::Dynamic, |parts| {
        parts.paths = vec![(HOST, PathMtu::of_path(1400))];
    });
    for (gso_size, fits) in [(1332, true), (1333, false)] {
        let vnet = VnetHeader {
            needs_csum: true,
            gso: GsoType::UdpL4,
            gso_size,
            csum_start: 40,
            csum_offset: 6,
            ..VnetHeader::NONE
        };
        match encap::decide(&rules, &frame(&vnet, &inner.bytes())) {
            EncapVerdict::Send(route) => assert!(fits && route.outer.dont_fragment),
            EncapVerdict::Reply(DropReason::TooBig, ErrorMessage::PacketTooBig { mtu: 1380 }) => {
                assert!(!fits)
            }
            other => panic!("{other:?}"),
        }
    }
}

/// M9, N8: with DF the identification is the peer's mark, without it is left to the kernel.
#[test]
fn m9_packets_with_df_are_marked() {
    let dynamic = rules(PathMtuMode::Dynamic, |_| ());
    let id = |rules: &Rulebook, dst: &str| fate(rules, dst, 100).unwrap().outer.id;
    let mark = |peer: Ipv4Addr| Mark::new([1, 2]).identification(OWN, peer);
    assert_eq!(id(&dynamic, TO_HOST), mark(HOST));
    assert_eq!(id(&dynamic, TO_GATEWAY), mark(GATEWAY));
    assert_ne!(mark(HOST), mark(GATEWAY));
    assert_eq!(id(&rules(PathMtuMode::Static, |_| ()), TO_HOST), 0);
}
