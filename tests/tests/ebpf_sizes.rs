//! How large packets may be that the programs of the `ebpf` lane send, to the byte: superpackets by the segments that they stand for, as
//! the path takes them and as the device takes them at this moment (M4).
//!
//! ```text
//!   a 10.0.0.1  eth0 ======== eth0  b 10.0.0.2        is0 on both: 2001:db8:1::/64
//! ```

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};

use isatap_engine::ebpf::Cause;
use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::numbers::MAX_ALONE;
use isatap_engine::isatap::mtu::{PathMtu, PathMtuMode};
use isatap_engine::stats::Direction;
use isatap_engine::wire::vnet::{self, VnetHeader};
use isatap_tests::daemon::TUNNEL;
use isatap_tests::flows::{FLOW_PORT, FlowReceiver};
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::programs::Node;
use isatap_tests::raw::{Injector, Sniffer};
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::{connect, mac};
use isatap_tests::wait;
use nix::sys::socket::{setsockopt, sockopt};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEVICE: &str = "eth0";
const MTU: u16 = 1480;
/// The headers of a datagram, and the outer one.
const HEADERS: usize = 40 + 8;
const OUTER: usize = 20;
/// In nobody's network.
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);
const NEIGHBOR_SOLICITATION: u8 = 135;

fn pair() -> (Node, Node) {
    pair_of(MTU)
}

/// The same with a tunnel and a link that take inner packets of this length.
fn pair_of(mtu: u16) -> (Node, Node) {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, DEVICE, &b, DEVICE);
    let node = |ns: Netns, v4: Ipv4Addr| {
        ns.ip(&format!("link set {DEVICE} mtu {}", usize::from(mtu) + OUTER));
        ns.ip(&format!("addr add {v4}/24 brd + dev {DEVICE}"));
        let node = Node::new(ns, v4, DEVICE, mtu);
        node.publish(node.rules(DEVICE, mtu), DEVICE);
        node
    };
    (node(a, A), node(b, B))
}

/// What becomes of one packet with `len` bytes of data, for datagrams of `size` bytes each: a superpacket if that is more than one.
#[track_caller]
fn send(a: &Node, size: usize, len: usize) -> Result<(), Cause> {
    let count = |counter| a.count(Direction::Encap, counter);
    let counts = || {
        let left = Cause::ALL
            .iter()
            .map(|cause| (Err(*cause), count(Counter::Passed(*cause))));
        left.chain([(Ok(()), count(Counter::Packets))])
            .collect::<Vec<_>>()
    };
    let socket = a.ns.enter(|| UdpSocket::bind((on_link(A), 0))).expect("a socket");
    let size = i32::try_from(size).expect("a datagram");
    setsockopt(&socket, sockopt::UdpGsoSegment, &size).expect("UDP_SEGMENT");
    let before = counts();
    socket
        .send_to(&vec![0; len], (on_link(B), FLOW_PORT))
        .expect("sent");
    let after = counts();
    let mut changed = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before.1 != after.1);
    let (outcome, more) = (changed.next(), changed.next());
    let (before, after) = outcome.expect("a packet that is counted");
    assert_eq!((after.1 - before.1, more), (1, None), "one packet");
    after.0
}

/// The last datagrams that fit, and the first that do not, alone and as superpackets.
#[track_caller]
fn fit(a: &Node, inner: usize, cause: Cause) {
    let size = inner - HEADERS;
    for count in [1, 4] {
        assert_eq!(send(a, size, count * size), Ok(()), "{count}");
        assert_eq!(send(a, size + 1, count * (size + 1)), Err(cause), "{count}");
    }
}

#[test]
fn segments_are_as_long_as_the_path_takes() {
    for (mode, link, cause) in [
        (PathMtuMode::Dynamic, u16::MAX, Cause::TooBig),
        (PathMtuMode::Static, 1400, Cause::LinkMtu),
    ] {
        let (a, b) = pair();
        let _receiver = FlowReceiver::start(&b.ns);
        let mut rules = a.rules(DEVICE, MTU);
        rules.peers.path_mtu = mode;
        rules.paths = vec![(B, PathMtu::of_path(1400).and(PathMtu::of_link(link)))];
        a.publish(rules, DEVICE);
        fit(&a, 1400 - OUTER, cause);
    }
}

/// Headers of TCP have options, and are as long as they say.
#[test]
fn segments_of_tcp_have_options() {
    // Less than an option of 12 bytes (timestamps) below what the interface takes.
    const LESS: u16 = 10;
    let (a, b) = pair();
    let mut rules = a.rules(DEVICE, MTU);
    rules.peers.path_mtu = PathMtuMode::Dynamic;
    rules.paths = vec![(B, PathMtu::of_path(1500 - LESS))];
    a.publish(rules, DEVICE);
    let to = SocketAddr::V6(SocketAddrV6::new(on_link(B), 5001, 0, 0));
    let _listener = b.ns.enter(|| TcpListener::bind(to)).expect("a listener");
    let mut stream =
        a.ns.enter(|| TcpStream::connect_timeout(&to, SOON))
            .expect("a connection");
    stream.write_all(&[0; 20_000]).expect("sent");
    let count = |counter| a.count(Direction::Encap, counter);
    wait::holds("segments that are too big", SOON, || {
        count(Counter::Passed(Cause::TooBig)) > 0
    });
    assert_eq!(count(Counter::Superpackets), 0);
}

/// A packet that does not fit a page need not lie in one piece. Of these all behind the IPv6 header is elsewhere, where the type of an
/// ICMPv6 message has to be read.
#[test]
fn headers_may_be_in_pieces() {
    const ECHO_REQUEST: u8 = 128;
    let (a, _b) = pair_of(9000);
    let mut queue = a.forward_others();
    let header = VnetHeader {
        hdr_len: 40,
        ..VnetHeader::NONE
    };
    let count = |counter| a.count(Direction::Encap, counter);
    for (kind, expected) in [(ECHO_REQUEST, (1, 0)), (NEIGHBOR_SOLICITATION, (1, 1))] {
        let mut frame = vec![0; vnet::LEN];
        header.emit(frame.first_chunk_mut().expect("room for it"));
        frame.extend(Inner::new(OTHER, on_link(B)).icmpv6(kind, 0, &[0; 5000]));
        queue.write_all(&frame).expect("a packet to forward");
        wait::holds("each to be carried, or to be looked at", SOON, || {
            let looked_at = count(Counter::Passed(Cause::Control));
            (count(Counter::Packets), looked_at) == expected
        });
    }
}

/// The same on the way in, where not even the outer header lies in one piece; and what congestion has marked is written there.
#[test]
fn headers_that_come_in_may_be_in_pieces() {
    const CE: u8 = 3;
    const ECT0: u8 = 2;
    let (a, b) = pair_of(9000);
    let seen = Sniffer::start(&b.ns, TUNNEL);
    let wire = Injector::ethernet(&a.ns, DEVICE, mac(&b.ns, DEVICE)).in_pieces();
    let outer = Outer {
        tos: CE,
        ..Outer::new(A, B)
    };
    let mut inner = Inner::new(on_link(A), on_link(B));
    inner.traffic_class = ECT0;
    let marked = Inner {
        traffic_class: CE,
        ..inner.clone()
    };
    let of_each_kind = |inner: &Inner| {
        [
            inner.udp(9, 9, &[7; 5000]),
            inner.echo_request(1, 1, &[8; 5000]),
            inner.tcp(9, 9, 1, 0, &[9; 5000]),
        ]
    };
    for (packet, expected) in of_each_kind(&inner).iter().zip(of_each_kind(&marked)) {
        wire.send(&outer.wrap(packet));
        seen.wait_for("the packet, with its mark", SOON, |seen| seen.packet == expected);
    }
    let count = |counter| b.count(Direction::Decap, counter);
    assert_eq!((count(Counter::Packets), b.left(Direction::Decap)), (3, 0));
    // What asks for a neighbour is read as such, and a packet from nowhere is one.
    wire.send(&outer.wrap(&inner.icmpv6(NEIGHBOR_SOLICITATION, 0, &[0; 5000])));
    wire.send(&outer.wrap(&Inner::new(OTHER, on_link(B)).udp(9, 9, &[0; 5000])));
    wait::holds("one to be looked at, and one to be refused", SOON, || {
        (
            count(Counter::Passed(Cause::Control)),
            b.dropped(Direction::Decap),
        ) == (1, 1)
    });
    assert_eq!((count(Counter::Packets), b.left(Direction::Decap)), (3, 1));
}

/// The rules follow the device a moment later.
#[test]
fn a_device_takes_what_it_takes_now() {
    let (a, b) = pair();
    let _receiver = FlowReceiver::start(&b.ns);
    let size = usize::from(MTU) - HEADERS;
    assert_eq!([1, 4].map(|count| send(&a, size, count * size)), [Ok(()); 2]);
    a.ns.ip(&format!("link set {DEVICE} mtu 1400"));
    fit(&a, 1400 - OUTER, Cause::LinkMtu);
    a.ns.ip(&format!("link del {DEVICE}"));
    assert_eq!(send(&a, 100, 100), Err(Cause::Route));
}

/// No IPv4 header says that there is more behind it, not even one that is cut into others later.
#[test]
fn a_superpacket_is_no_longer_than_its_header_says() {
    const LONGEST: usize = 0xffff - OUTER - HEADERS;
    let (a, b) = pair();
    let _receiver = FlowReceiver::start(&b.ns);
    for (len, expected) in [(LONGEST, Ok(())), (LONGEST + 1, Err(Cause::Length))] {
        assert_eq!(send(&a, 1400, len), expected, "{len}");
    }
}

/// The kernel makes no packet longer than four pages that is no superpacket, and it asks at each of the two headers: what would get one
/// alone is lost. A worker has it before.
#[test]
fn what_the_kernel_has_no_room_for_is_left_whole() {
    const LONGEST: usize = MAX_ALONE as usize;
    let (a, b) = pair_of(17_000);
    let _receiver = FlowReceiver::start(&b.ns);
    for inner in LONGEST - 2..=17_000 {
        let expected = if inner > LONGEST { Err(Cause::Room) } else { Ok(()) };
        assert_eq!(send(&a, inner, inner - HEADERS), expected, "{inner}");
    }
    // Of its segments none gets a header before it is cut.
    assert_eq!(send(&a, 16_000, 48_000), Ok(()));
}

#[test]
fn sizes_on_an_older_kernel() {
    older_kernel::repeat(
        &[
            "segments_of_tcp_have_options",
            "what_the_kernel_has_no_room_for_is_left_whole",
        ],
        "",
        Vec::new(),
    );
}
