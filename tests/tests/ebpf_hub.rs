//! A router between two hosts of its ISATAP link, by the programs of the `ebpf` lane alone: what has come by the tunnel goes out by it
//! again, as everything does where a prefix is not on-link (RFC 6964 3.5).
//!
//! ```text
//!   a 10.0.0.1 --+-- hub 10.0.0.2        is0 on all: 2001:db8:1::/64, on a and b by way of the hub
//!   b 10.0.0.3 --+
//! ```

use std::net::{Ipv4Addr, SocketAddrV6, UdpSocket};

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::{Cause, Segmenters, Surroundings};
use isatap_engine::fib::NextHop;
use isatap_engine::stats::Direction;
use isatap_tests::flows::assert_datagrams_arrive;
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::ping::ping;
use isatap_tests::programs::Node;
use isatap_tests::scene::{PREFIX, SOON, on_link};
use isatap_tests::topology::{Gro, Site, UNDERLAY, connect};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use nix::sys::socket::{setsockopt, sockopt};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HUB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const MTU: u16 = 1480;
const BYTES: u64 = 32_000_000;
/// Bytes of each datagram of a superpacket.
const SIZE: usize = 1000;
const UDP: u8 = 17;

fn node(ns: Netns, v4: Ipv4Addr) -> Node {
    let node = Node::new(ns, v4, UNDERLAY, MTU);
    let mut rules = node.rules(UNDERLAY, MTU);
    if v4 == HUB {
        node.ns.sysctl("ipv6/conf/all/forwarding", "1");
    } else {
        let everybody = format!("{PREFIX}/64").parse().expect("a prefix");
        rules.routes = vec![(everybody, NextHop::Via(HUB))];
        rules.prl = vec![HUB];
    }
    // Whatever devices cut tunnelled packets themselves: by the tunnel is not by them.
    let surroundings = Surroundings {
        segmenters: Segmenters::Unknown,
        ..node.surroundings(UNDERLAY)
    };
    node.publish_in(rules, surroundings);
    node
}

struct Three {
    site: Site,
    a: Node,
    hub: Node,
    b: Node,
}

impl Three {
    fn new() -> Self {
        let site = Site::new();
        let node = |label, v4: Ipv4Addr| node(site.member(label, v4.octets()[3]), v4);
        let (a, hub, b) = (node("a", A), node("hub", HUB), node("b", B));
        Self { site, a, hub, b }
    }

    fn set_gro(&self, gro: Gro) {
        for (port, node) in (0..).zip([&self.a, &self.hub, &self.b]) {
            self.site.set_gro(port, &node.ns, UNDERLAY, gro);
        }
    }

    fn left_for_room(&self) -> u64 {
        self.hub.count(Direction::Encap, Counter::Passed(Cause::Room))
    }
}

/// Whole, cut by the sender and merged by the hub, or cut and merged by nobody.
#[test]
fn superpackets_go_out_as_they_came_in() {
    for gro in [None, Some(Gro::On), Some(Gro::Off)] {
        let three = Three::new();
        if let Some(gro) = gro {
            three.set_gro(gro);
        }
        ping(&three.a.ns, &on_link(B).to_string(), 3);
        for (from, to, addr) in [(&three.a.ns, &three.b.ns, B), (&three.b.ns, &three.a.ns, A)] {
            let to_port = SocketAddrV6::new(on_link(addr), 5001, 0, 0);
            let report = tcp_transfer(from, to, to_port, BYTES, SOON * 6);
            eprintln!("{gro:?}: {}", report.expect("all of it"));
        }
        let superpackets = Direction::ALL.map(|direction| three.hub.count(direction, Counter::Superpackets));
        assert_eq!(superpackets[0], superpackets[1]);
        assert_eq!(superpackets[0] > 0, gro != Some(Gro::Off), "{gro:?}");
        assert_eq!(three.left_for_room(), 0, "{gro:?}");
        for node in [&three.a, &three.hub, &three.b] {
            assert_eq!(Direction::ALL.map(|direction| node.dropped(direction)), [0, 0]);
        }
    }
}

#[test]
fn datagrams_arrive_once_and_in_order() {
    let three = Three::new();
    assert_datagrams_arrive(&three.a.ns, on_link(A), &three.b.ns, on_link(B));
    assert_eq!(three.left_for_room(), 0);
}

/// Before Linux 6.3 the kernel cannot be told that it is IPv4 again: a worker gets the packet as it would have without programs.
#[test]
fn what_cannot_go_out_again_is_left_as_it_was() {
    let (a, hub) = (Netns::new("a"), Netns::new("hub"));
    connect(&a, UNDERLAY, &hub, UNDERLAY);
    for (ns, v4) in [(&a, A), (&hub, HUB)] {
        ns.ip(&format!("addr add {v4}/24 brd + dev {UNDERLAY}"));
    }
    let (a, mut hub) = (node(a, A), node(hub, HUB));
    let count = |hub: &Node, counter| hub.count(Direction::Encap, counter);
    let left = |hub: &Node| count(hub, Counter::Passed(Cause::Room));
    let socket = a.ns.enter(|| UdpSocket::bind((on_link(A), 9))).expect("a socket");
    let size = i32::try_from(SIZE).expect("a small number");
    setsockopt(&socket, sockopt::UdpGsoSegment, &size).expect("UDP_SEGMENT");
    for datagrams in [1, 4] {
        let data: Vec<u8> = (0..=250).cycle().take(datagrams * SIZE).collect();
        let before = (left(&hub), count(&hub, Counter::Packets));
        socket.send_to(&data, (on_link(B), 9)).expect("sent");
        wait::holds("it to be carried or left", SOON, || {
            (left(&hub), count(&hub, Counter::Packets)) != before
        });
        let is_left = left(&hub) > before.0;
        let queued = hub.queued().into_iter().filter(|packet| packet[6] == UDP);
        let queued: Vec<_> = queued.collect();
        if !is_left {
            assert_eq!(queued.len(), 0, "they are carried");
            continue;
        }
        // Where TUN takes no superpackets of datagrams (before Linux 6.2), the kernel has cut it.
        for packet in &queued {
            assert_eq!((packet[0] >> 4, packet[7]), (6, 63), "IPv6, and one hop further");
            assert_eq!(packet[8..24], on_link(A).octets());
            assert_eq!(packet[24..40], on_link(B).octets());
        }
        let arrived: Vec<u8> = queued.iter().flat_map(|packet| &packet[48..]).copied().collect();
        assert_eq!(arrived, data);
    }
}

#[test]
fn an_older_kernel_leaves_them() {
    older_kernel::repeat(&["what_cannot_go_out_again_is_left_as_it_was"], "", Vec::new());
}
