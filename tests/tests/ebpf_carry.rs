//! The programs of the `ebpf` lane between real devices, without any worker: what they carry arrives, whole and right;
//! what they leave is where a worker would read it, as it came (C1, C3, E3, M9; FAULTS 17).
//!
//! ```text
//!   c ------ b 10.0.0.2  eth0 ======== eth0  a 10.0.0.1        is0 on a and b: 2001:db8:1::/64, programs at is0 and eth0
//!    2001:db8:99::2                                            a: 2001:db8:99::/64 via b
//! ```

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::{Cause, Segmenters, Surroundings};
use isatap_engine::fib::{NextHop, RulebookBuilder};
use isatap_engine::isatap::mark::Mark;
use isatap_engine::isatap::mtu::PathMtuMode;
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;
use isatap_tests::daemon::TUNNEL;
use isatap_tests::flows::assert_datagrams_arrive;
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel::{self, amount};
use isatap_tests::packet::{Inner, Outer, SeenOuter, isatap, link_local};
use isatap_tests::ping::ping;
use isatap_tests::programs::Node;
use isatap_tests::raw::{Injector, Sniffer};
use isatap_tests::scene::{PREFIX, SOON, on_link};
use isatap_tests::topology::{Gro, connect, connect_v6, mac, set_gro};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEVICE: &str = "eth0";
const MTU: u16 = 1480;
const BYTES: u64 = 32_000_000;
/// Where `c` is, behind `b`.
const BEHIND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 2);
/// An address that nobody has.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);

struct Pair {
    a: Node,
    b: Node,
}

impl Pair {
    fn new() -> Self {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        connect(&a, DEVICE, &b, DEVICE);
        a.ip(&format!("addr add {A}/24 brd + dev {DEVICE}"));
        b.ip(&format!("addr add {B}/24 brd + dev {DEVICE}"));
        let node = |ns, v4| {
            let node = Node::new(ns, v4, DEVICE, MTU);
            node.publish(node.rules(DEVICE, MTU), DEVICE);
            node
        };
        Self {
            a: node(a, A),
            b: node(b, B),
        }
    }

    /// All that went out at one end came in at the other, and nothing else happened to any packet.
    #[track_caller]
    fn assert_all_carried(&self) {
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let sent = from.count(Direction::Encap, Counter::Bytes);
            assert!(sent > 0);
            assert_eq!(sent, to.count(Direction::Decap, Counter::Bytes), "bytes");
            let segments = from.segments(Direction::Encap);
            assert_eq!(segments, to.segments(Direction::Decap), "segments");
            for direction in Direction::ALL {
                assert_eq!(
                    (from.left(direction), from.dropped(direction)),
                    (0, 0),
                    "{direction:?}"
                );
            }
        }
    }
}

fn port(addr: Ipv6Addr) -> SocketAddrV6 {
    SocketAddrV6::new(addr, 5001, 0, 0)
}

#[test]
fn pings_are_answered_once() {
    let mut pair = Pair::new();
    ping(&pair.a.ns, &on_link(B).to_string(), 20);
    ping(&pair.b.ns, &on_link(A).to_string(), 20);
    ping(&pair.a.ns, &format!("{}%{TUNNEL}", link_local(B)), 5);
    for node in [&pair.a, &pair.b] {
        for direction in Direction::ALL {
            assert_eq!(node.count(direction, Counter::Packets), 45);
            assert_eq!(node.count(direction, Counter::Superpackets), 0);
        }
    }
    pair.assert_all_carried();
    assert_eq!(pair.a.queued().len() + pair.b.queued().len(), 0);
}

/// Superpackets stay whole from one TCP to the other, or are cut by the sender's device and merged by the receiver's.
#[test]
fn tcp_arrives_whole_and_in_superpackets() {
    for gro in [None, Some(Gro::Off), Some(Gro::On)] {
        let pair = Pair::new();
        if let Some(gro) = gro {
            set_gro(&pair.a.ns, DEVICE, &pair.b.ns, DEVICE, gro);
        }
        let report = tcp_transfer(&pair.a.ns, &pair.b.ns, port(on_link(B)), amount(BYTES), SOON * 6);
        eprintln!("{gro:?}: {}", report.expect("all of it"));
        let sent = pair.a.count(Direction::Encap, Counter::Packets);
        let segments = pair.a.segments(Direction::Encap);
        assert!(segments > 4 * sent, "{segments} segments in {sent} packets");
        let received = pair.b.count(Direction::Decap, Counter::Packets);
        match gro {
            None => pair.assert_all_carried(),
            Some(Gro::Off) => assert!(received >= segments - sent, "{received} packets"),
            Some(Gro::On) => assert!(
                received < segments / 2,
                "{received} packets of {segments} segments"
            ),
        }
    }
}

/// `b` forwards between the tunnel and another link, where `c` is.
fn behind_a_router(pair: &Pair) -> (Netns, RulebookBuilder) {
    let c = Netns::new("c");
    connect_v6(
        &pair.b.ns,
        "out",
        "2001:db8:99::1/64",
        &c,
        "in",
        "2001:db8:99::2/64",
    );
    c.ip("route add default via 2001:db8:99::1");
    pair.b.ns.sysctl("ipv6/conf/all/forwarding", "1");
    pair.a.ns.ip(&format!(
        "route add 2001:db8:99::/64 via {} dev {TUNNEL}",
        link_local(B)
    ));
    let mut rules = pair.a.rules(DEVICE, MTU);
    rules
        .routes
        .push(("2001:db8:99::/64".parse().expect("a prefix"), NextHop::Via(B)));
    (c, rules)
}

/// What was decapsulated goes on to another link, which has to cut superpackets itself: nothing of the tunnel may stick to them.
#[test]
fn a_router_forwards_superpackets() {
    for (gro, tso) in [
        (None, "on"),
        (None, "off"),
        (Some(Gro::On), "on"),
        (Some(Gro::On), "off"),
    ] {
        let pair = Pair::new();
        let (c, rules) = behind_a_router(&pair);
        pair.b.ns.run(&format!("ethtool -K out tso {tso} gso {tso}"));
        pair.a.publish(rules, DEVICE);
        if let Some(gro) = gro {
            set_gro(&pair.a.ns, DEVICE, &pair.b.ns, DEVICE, gro);
        }
        ping(&pair.a.ns, &BEHIND.to_string(), 3);
        for (from, to, addr) in [(&pair.a.ns, &c, BEHIND), (&c, &pair.a.ns, on_link(A))] {
            let report = tcp_transfer(from, to, port(addr), amount(BYTES), SOON * 6);
            eprintln!("{gro:?}, tso {tso}: {}", report.expect("all of it"));
        }
        assert_eq!(
            pair.b.dropped(Direction::Decap) + pair.b.left(Direction::Decap),
            0
        );
    }
}

/// Superpackets are left, and what follows them, when they are to be forwarded by one of the devices that cut tunnelled packets themselves:
/// here to nobody, so that a transfer stands still. Others are none of theirs.
#[test]
fn superpackets_for_a_device_that_cuts_tunnels_are_left() {
    let pair = Pair::new();
    let (c, rules) = behind_a_router(&pair);
    pair.a.publish(rules, DEVICE);
    ping(&pair.a.ns, &BEHIND.to_string(), 3);
    let left = || {
        pair.b
            .count(Direction::Decap, Counter::Passed(Cause::Segmentation))
    };
    let index = |device: &str| pair.b.index(device);
    let publish = |segmenters: &Segmenters| {
        let surroundings = Surroundings {
            segmenters: segmenters.clone(),
            ..pair.b.surroundings(DEVICE)
        };
        pair.b.publish_in(pair.b.rules(DEVICE, MTU), surroundings);
    };
    // For this machine itself, first: transfers that were left go on trying.
    publish(&Segmenters::Unknown);
    let report = tcp_transfer(&pair.a.ns, &pair.b.ns, port(on_link(B)), amount(BYTES), SOON * 6);
    report.expect("all of it");
    assert_eq!(left(), 0);
    for (segmenters, is_left) in [
        (Segmenters::Known(vec![index(DEVICE), index(TUNNEL)]), false),
        (Segmenters::Known(vec![index(DEVICE), index("out")]), true),
        (Segmenters::default(), false),
        (Segmenters::Unknown, true),
    ] {
        publish(&segmenters);
        let before = left();
        let patience = if is_left { SOON / 5 } else { SOON * 6 };
        let report = tcp_transfer(&pair.a.ns, &c, port(BEHIND), amount(BYTES), patience);
        assert_eq!(report.is_err(), is_left, "{segmenters:?}: {report:?}");
        assert_eq!(left() > before, is_left, "{segmenters:?}");
    }
}

/// Small datagrams, and superpackets of datagrams (USO), each once and in order.
#[test]
fn datagrams_arrive_once_and_in_order() {
    let pair = Pair::new();
    assert_datagrams_arrive(&pair.a.ns, on_link(A), &pair.b.ns, on_link(B));
}

/// E3, M9: the header of each packet, and identifications that do not repeat where packets may be fragmented.
#[test]
fn outer_headers_are_right() {
    for mode in [PathMtuMode::Static, PathMtuMode::Dynamic] {
        let pair = Pair::new();
        let mark = Mark::new([1, 2]);
        let mut rules = pair.a.rules(DEVICE, MTU);
        (rules.peers.path_mtu, rules.mark) = (mode, mark);
        pair.a.publish(rules, DEVICE);
        let wire = Sniffer::start(&pair.b.ns, DEVICE);
        ping(&pair.a.ns, &on_link(B).to_string(), 200);
        let seen = wire.packets();
        let outers: Vec<_> = seen
            .iter()
            .filter(|c| !c.outgoing)
            .filter_map(|c| c.outer())
            .collect();
        assert_eq!(outers.len(), 200);
        let ids: BTreeSet<_> = outers.iter().map(|outer| outer.header.identification()).collect();
        for outer in &outers {
            check_outer(outer, mode);
        }
        match mode {
            PathMtuMode::Static => assert_eq!(ids.len(), 200, "identifications repeat"),
            PathMtuMode::Dynamic => assert_eq!(ids, BTreeSet::from([mark.identification(A, B)])),
        }
    }
}

fn check_outer(outer: &SeenOuter<'_>, mode: PathMtuMode) {
    let header = &outer.header;
    assert_eq!((outer.src(), outer.dst()), (A, B));
    assert_eq!((header.ttl(), header.protocol().0), (64, 41));
    assert_eq!(header.dont_fragment(), mode == PathMtuMode::Dynamic);
    assert_eq!(
        header.header_checksum(),
        header.to_header().calc_header_checksum()
    );
    assert!(outer.inner().expect("an inner packet").checksum_is_right());
}

/// What the programs leave is read by a worker as if they were not there.
#[test]
fn what_is_left_is_left_as_it_was() {
    let mut pair = Pair::new();
    // To a group, to an address that is not ISATAP's, with extension headers: sent by the kernel into the tunnel.
    let all_nodes = "ff02::1".parse().expect("an address");
    let nowhere = "2001:db8:1::1".parse().expect("an address");
    let mut sent = vec![
        Inner::new(link_local(A), all_nodes).udp(1, 9, b"for all"),
        Inner::new(on_link(A), nowhere).udp(1, 9, b"for nobody"),
        Inner::new(on_link(A), on_link(B)).wrap(60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &[0; 8]].concat()),
    ];
    let injector = Injector::tun(&pair.a.ns, TUNNEL);
    sent.iter().for_each(|packet| injector.send(packet));
    let mut queued = Vec::new();
    wait::holds("three packets for the worker", SOON, || {
        queued.extend(pair.a.queued());
        queued.len() >= sent.len()
    });
    queued.sort();
    sent.sort();
    assert_eq!(queued, sent);
    for cause in [Cause::Multicast, Cause::Refused, Cause::Extension] {
        assert_eq!(
            pair.a.count(Direction::Encap, Counter::Passed(cause)),
            1,
            "{cause:?}"
        );
    }
    assert_eq!(pair.a.count(Direction::Encap, Counter::Packets), 0);
}

/// C3, FAULTS 17, 1: congestion marks of the outer header reach the inner one; who lies about its address does not get in.
#[test]
fn what_comes_in_is_marked_or_refused() {
    let pair = Pair::new();
    let tunnel = Sniffer::start(&pair.b.ns, TUNNEL);
    let wire = Injector::ethernet(&pair.a.ns, DEVICE, mac(&pair.b.ns, DEVICE));
    let packet = |tos: u8, traffic_class: u8, from: Ipv4Addr| {
        let mut outer = Outer::new(A, B);
        outer.tos = tos;
        let mut inner = Inner::new(isatap(PREFIX, false, from), on_link(B));
        inner.traffic_class = traffic_class;
        outer.wrap(&inner.udp(1, 9, &[tos, traffic_class]))
    };
    let table = [
        (0, 0, 0),
        (0, 2, 2),
        (1, 2, 1),
        (2, 1, 1),
        (3, 2, 3),
        (3, 1, 3),
        (0, 3, 3),
        (3, 0xb9, 0xbb),
    ];
    for (outer, inner, _) in table {
        wire.send(&packet(outer, inner, A));
    }
    wire.send(&packet(0, 0, STRANGER));
    for (outer, inner, expected) in table {
        let seen = tunnel.wait_for("a datagram", SOON, |c| {
            let udp = c.inner().and_then(|inner| inner.udp());
            udp.is_some_and(|(_, _, data)| data == [outer, inner])
        });
        let seen = seen.inner().expect("an inner packet");
        assert_eq!(
            seen.header.traffic_class(),
            expected,
            "outer {outer}, inner {inner}"
        );
        assert!(seen.checksum_is_right());
    }
    let mismatches = || {
        pair.b
            .count(Direction::Decap, Counter::Dropped(DropReason::SrcMismatch))
    };
    wait::holds("a refusal", SOON, || mismatches() == 1);
    assert_eq!(
        pair.b.count(Direction::Decap, Counter::Packets),
        table.len() as u64
    );
    assert_eq!(tunnel.count(|c| !c.outgoing), table.len());
}

/// What a CPU remembers of a flow is of packets that come the same way: by the same device, and to this machine (FAULTS 15).
#[test]
fn a_flow_is_known_by_where_it_comes_from() {
    const OTHER: &str = "eth1";
    let mut pair = Pair::new();
    connect(&pair.a.ns, OTHER, &pair.b.ns, OTHER);
    pair.b.attach_to(OTHER);
    // Places are a CPU's own, and a packet is received where it is sent.
    let mut one = CpuSet::new();
    one.set(0).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &one).expect("CPU 0");
    let packet = Outer::new(A, B).wrap(&Inner::new(on_link(A), on_link(B)).udp(1, 9, b"by which way?"));
    let [wire, other] =
        [DEVICE, OTHER].map(|device| Injector::ethernet(&pair.a.ns, device, mac(&pair.b.ns, device)));
    let passing = Injector::ethernet(&pair.a.ns, DEVICE, [2, 0, 0, 0, 0, 9]);
    let sent = [
        (&wire, 1, 0),
        (&wire, 2, 0),
        (&other, 2, 1),
        (&passing, 2, 1),
        (&wire, 3, 1),
    ];
    for (way, carried, left) in sent {
        way.send(&packet);
        wait::holds("each packet to be where it belongs", SOON, || {
            let now = pair.b.count(Direction::Decap, Counter::Packets);
            (now, pair.b.left(Direction::Decap)) == (carried, left)
        });
    }
    assert_eq!(pair.b.count(Direction::Decap, Counter::Passed(Cause::Device)), 1);
}

/// A frame of a VLAN is for the device of that VLAN, whatever address of ours it is for; the kernel has taken its tag off before the programs
/// see it. A tag of no VLAN, with a priority alone, makes no difference.
#[test]
fn what_is_of_a_vlan_is_left_to_it() {
    let pair = Pair::new();
    let mut one = CpuSet::new();
    one.set(0).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &one).expect("CPU 0");
    let packet = Outer::new(A, B).wrap(&Inner::new(on_link(A), on_link(B)).udp(1, 9, b"of which VLAN?"));
    let wire = || Injector::ethernet(&pair.a.ns, DEVICE, mac(&pair.b.ns, DEVICE));
    let (plain, tagged, priority) = (wire(), wire().tagged(5), wire().tagged(0));
    // The flow is not known, and then it is.
    for (way, carried) in [
        (&tagged, 0),
        (&priority, 1),
        (&tagged, 1),
        (&plain, 2),
        (&tagged, 2),
        (&priority, 3),
    ] {
        way.send(&packet);
        wait::holds("all that are of no VLAN to be carried", SOON, || {
            pair.b.count(Direction::Decap, Counter::Packets) >= carried
        });
    }
    assert_eq!(pair.b.count(Direction::Decap, Counter::Packets), 3);
    assert_eq!(
        (pair.b.left(Direction::Decap), pair.b.dropped(Direction::Decap)),
        (0, 0)
    );
}

/// Before Linux 6.3 the outer header is taken off in another way, and must leave as little behind.
#[test]
fn a_router_forwards_superpackets_on_an_older_kernel() {
    older_kernel::repeat(
        &[
            "a_router_forwards_superpackets",
            "superpackets_for_a_device_that_cuts_tunnels_are_left",
        ],
        "",
        Vec::new(),
    );
}

#[test]
fn all_this_holds_on_an_older_kernel() {
    older_kernel::repeat(
        &[
            "pings_are_answered_once",
            "tcp_arrives_whole_and_in_superpackets",
            "datagrams_arrive_once_and_in_order",
            "outer_headers_are_right",
            "what_is_left_is_left_as_it_was",
            "what_comes_in_is_marked_or_refused",
            "a_flow_is_known_by_where_it_comes_from",
            "what_is_of_a_vlan_is_left_to_it",
        ],
        "",
        Vec::new(),
    );
}
