//! What the programs of the `ebpf` lane put on the wire when nothing is left to hardware: each segment with checksums and an
//! identification of its own, none larger than the path takes (M4, M9, E3).
//!
//! ```text
//!   a 10.0.0.1  eth0 (no offload) ======== eth0 (gro off)  b 10.0.0.2        is0 on both: 2001:db8:1::/64
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use isatap_engine::ebpf::Cause;
use isatap_engine::ebpf::layout::Counter;
use isatap_engine::isatap::mtu::{PathMtu, PathMtuMode};
use isatap_engine::stats::Direction;
use isatap_engine::wire::ipv6::HEADER_LEN;
use isatap_engine::wire::vnet::{self, GsoType, VnetHeader};
use isatap_tests::flows::{FlowReceiver, UdpFlows};
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::packet::{Inner, SeenOuter};
use isatap_tests::ping::ping;
use isatap_tests::programs::Node;
use isatap_tests::raw::{Captured, Sniffer};
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::{Gro, connect, set_gro};
use isatap_tests::traffic::tcp_transfer;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEVICE: &str = "eth0";
const MTU: u16 = 1480;
/// Packets in a row among which no identification may repeat.
const WINDOW: usize = 8192;

fn pair() -> (Node, Node) {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, DEVICE, &b, DEVICE);
    let node = |ns: Netns, v4: Ipv4Addr| {
        ns.ip(&format!("addr add {v4}/24 brd + dev {DEVICE}"));
        let node = Node::new(ns, v4, DEVICE, MTU);
        node.publish(node.rules(DEVICE, MTU), DEVICE);
        node
    };
    let nodes = (node(a, A), node(b, B));
    set_gro(&nodes.0.ns, DEVICE, &nodes.1.ns, DEVICE, Gro::Off);
    nodes.0.ns.run(&format!("ethtool -K {DEVICE} tx off"));
    nodes
}

fn from_a<'a>(seen: &'a [Captured]) -> impl Iterator<Item = SeenOuter<'a>> {
    let outers = seen.iter().filter(|c| !c.outgoing).filter_map(Captured::outer);
    outers.filter(|outer| outer.src() == A)
}

/// Looks at each packet from `a`; how many there were.
fn check_all(seen: &[Captured]) -> usize {
    let mut ids = VecDeque::new();
    let mut count = 0;
    for outer in from_a(seen) {
        let header = outer.header.to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert!(!header.dont_fragment);
        let inner = outer.inner().expect("an inner packet");
        let inner_len = HEADER_LEN + inner.payload.len();
        assert!(inner_len <= usize::from(MTU), "{inner_len} bytes");
        assert_eq!(usize::from(header.total_len), 20 + inner_len);
        assert!(inner.checksum_is_right(), "packet {count}");
        assert!(!ids.contains(&header.identification), "an identification repeats");
        ids.push_back(header.identification);
        if ids.len() > WINDOW {
            ids.pop_front();
        }
        count += 1;
    }
    count
}

#[test]
fn each_segment_is_a_packet_of_its_own() {
    let (a, b) = pair();
    let wire = Sniffer::start(&b.ns, DEVICE);
    let to = SocketAddrV6::new(on_link(B), 5001, 0, 0);
    tcp_transfer(&a.ns, &b.ns, to, 6_000_000, SOON * 6).expect("all of it");
    let flows = UdpFlows {
        flows: 4,
        packets: 320,
        sizes: &[700],
        batch: 16,
    };
    let book = flows.run(&a.ns, on_link(A), &b.ns, on_link(B), 0);
    book.assert_exactly_once_in_order("at b", 4, 320);
    let segments = a.segments(Direction::Encap);
    let packets = a.count(Direction::Encap, Counter::Packets);
    assert!(segments > 3 * packets, "{segments} segments of {packets} packets");
    let carried = usize::try_from(segments).expect("few");
    wire.wait_count("packets from a", carried, SOON * 6, |c| {
        !c.outgoing && c.outer().is_some_and(|outer| outer.src() == A)
    });
    assert_eq!(
        check_all(&wire.packets()),
        carried,
        "the programs count what is on the wire"
    );
}

/// Superpackets of a guest of this machine, which come without a word of how many segments they stand for.
#[test]
fn segments_of_others_are_counted() {
    const GUEST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);
    const SEGMENT: u16 = 1000;
    const SEGMENTS: usize = 3;
    const SENT: usize = 4;
    let (a, b) = pair();
    let mut queue = a.forward_others();
    ping(&a.ns, &on_link(B).to_string(), 1);
    let header = VnetHeader {
        needs_csum: true,
        gso: GsoType::TcpV6,
        hdr_len: 60,
        gso_size: SEGMENT,
        csum_start: 40,
        csum_offset: 16,
        ..VnetHeader::NONE
    };
    // The last segment is as short or as long as may be.
    let most = usize::from(SEGMENT) * SEGMENTS;
    let frames = [most - usize::from(SEGMENT) + 1, most].map(|len| {
        let mut frame = vec![0; vnet::LEN];
        header.emit(frame.first_chunk_mut().expect("room for it"));
        frame.extend(Inner::new(GUEST, on_link(B)).tcp(1, 2, 3, 0x10, &vec![0; len]));
        frame
    });
    let wire = Sniffer::start(&b.ns, DEVICE);
    let before = a.segments(Direction::Encap);
    for frame in frames.iter().cycle().take(SENT) {
        queue.write_all(frame).expect("a packet of the guest");
    }
    let is_of_guest = |c: &Captured| {
        let outer = c.outer().filter(|_| !c.outgoing);
        outer.is_some_and(|outer| outer.inner().is_some_and(|inner| inner.src() == GUEST))
    };
    wire.wait_count("segments", SENT * SEGMENTS, SOON, is_of_guest);
    let seen = wire.packets();
    let ids = seen.iter().filter(|c| is_of_guest(c)).filter_map(Captured::outer);
    let ids: BTreeSet<_> = ids.map(|outer| outer.header.identification()).collect();
    assert_eq!(ids.len(), SENT * SEGMENTS, "an identification repeats");
    let counted = a.segments(Direction::Encap) - before;
    assert_eq!(counted, (SENT * SEGMENTS) as u64);
}

/// M4: a superpacket whose segments the path does not take is left whole, for a worker to tell the sender.
#[test]
fn a_narrow_path_leaves_superpackets_to_a_worker() {
    for (mode, link, cause) in [
        (PathMtuMode::Dynamic, u16::MAX, Cause::TooBig),
        (PathMtuMode::Static, 1400, Cause::LinkMtu),
    ] {
        let (mut a, b) = pair();
        let mut rules = a.rules(DEVICE, MTU);
        rules.peers.path_mtu = mode;
        rules.paths = vec![(B, PathMtu::of_path(1400).and(PathMtu::of_link(link)))];
        a.publish(rules, DEVICE);
        // Somebody listens, so that nobody says that nobody does.
        let _receiver = FlowReceiver::start(&b.ns);
        for (size, left) in [(1300, 0), (1432, 10)] {
            let flows = UdpFlows {
                flows: 1,
                packets: 40,
                sizes: if size == 1300 { &[1300] } else { &[1432] },
                batch: 4,
            };
            flows.flood(&a.ns, on_link(A), on_link(B));
            assert_eq!(
                a.count(Direction::Encap, Counter::Passed(cause)),
                left,
                "{mode:?} {size}"
            );
            assert_eq!(a.count(Direction::Encap, Counter::Packets), 10);
        }
        let queued = a.queued();
        assert_eq!(queued.len(), 10);
        assert!(
            queued
                .iter()
                .all(|packet| packet.len() == HEADER_LEN + 8 + 4 * 1432)
        );
    }
}

/// The other test needs superpackets of datagrams from the TUN interface, which takes them from Linux 6.2 on.
#[test]
fn each_segment_is_a_packet_on_an_older_kernel() {
    older_kernel::repeat(&["each_segment_is_a_packet_of_its_own"], "", Vec::new());
}
