//! What the receiving device merges besides TCP: datagrams for a program that asked for it (`UDP_GRO`, as those of QUIC do), and what a
//! router is told to merge on its way. In every lane they come out as they went in, and TCP with them.
//!
//! ```text
//!   a 10.0.0.2  eth0 ======== eth0 (gro on)  b 10.0.0.1  out ------ srv 2001:db8:99::2      is0 on a and b
//! ```

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use isatap_tests::daemon::{Daemon, Lane, TUNNEL, program};
use isatap_tests::flows::{FLOW_PORT, FlowBook, UdpFlows, assert_datagrams_arrive};
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SERVER, SOON, on_link, set_address};
use isatap_tests::topology::{Gro, connect, connect_v6, set_gro};
use isatap_tests::traffic::tcp_transfer;
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DEVICE: &str = "eth0";

struct Line {
    a: Netns,
    b: Netns,
    srv: Netns,
}

impl Line {
    fn new() -> Self {
        let (a, b, srv) = (Netns::new("a"), Netns::new("b"), Netns::new("srv"));
        connect(&a, DEVICE, &b, DEVICE);
        for (ns, v4) in [(&a, A), (&b, B)] {
            ns.ip(&format!("addr add {v4}/24 brd + dev {DEVICE}"));
        }
        b.sysctl("ipv6/conf/all/forwarding", "1");
        connect_v6(
            &b,
            "out",
            "2001:db8:99::1/64",
            &srv,
            "eth0",
            &format!("{SERVER}/64"),
        );
        srv.ip("route add default via 2001:db8:99::1");
        set_gro(&a, DEVICE, &b, DEVICE, Gro::On);
        Self { a, b, srv }
    }

    /// Both daemons, `b`'s in `lane`.
    fn start(&self, lane: Lane, workers: usize) -> [(Daemon<'_>, Counters); 2] {
        let a = Daemon::host(&self.a, A, &[B])
            .lane(Lane::Syscall)
            .config("Mtu 1480")
            .start();
        let b = Daemon::router(&self.b, B)
            .lane(lane)
            .workers(workers)
            .config("Mtu 1480")
            .start();
        set_address(&self.a, A);
        set_address(&self.b, B);
        self.a
            .ip(&format!("route add default via {} dev {TUNNEL}", link_local(B)));
        b.wait_lane(lane);
        ping_until(&self.a, &SERVER.to_string(), SOON);
        ping_until(&self.a, &on_link(B).to_string(), SOON);
        [a, b].map(|daemon| {
            // What came before an address was known is counted.
            let before = daemon.settled(Direction::Decap);
            (daemon, before)
        })
    }
}

/// Receives until nothing comes any more; also how many datagrams the kernel had merged at most.
fn receive(socket: &UdpSocket) -> (FlowBook, usize) {
    let mut book = FlowBook::default();
    let mut most = 0;
    let mut buffer = vec![0; 1 << 16];
    let mut space = cmsg_space!(i32);
    loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrIn6>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        );
        let Ok(message) = received else {
            return (book, most);
        };
        let len = message.bytes;
        let size = message.cmsgs().expect("room").find_map(|one| match one {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let size = size.unwrap_or(len);
        most = most.max(len.div_ceil(size.max(1)));
        book.observe_merged(&buffer[..len], size);
    }
}

/// Nothing that came in was dropped.
#[track_caller]
fn assert_nothing_lost(daemons: &[(Daemon<'_>, Counters)], where_seen: &str) {
    for (daemon, before) in daemons {
        daemon.conservation();
        let drops = daemon.settled(Direction::Decap).since(before).drops;
        assert!(drops.is_empty(), "{where_seen}: {drops:?}");
    }
}

/// A program that takes merged datagrams gets each of them, whole and in order, large or small.
fn datagrams_stay_apart(lane: Lane) {
    let line = Line::new();
    let daemons = line.start(lane, 2);
    for size in [&[100], &[700], &[1200]] {
        let socket = line.b.enter(|| {
            let socket = UdpSocket::bind(SocketAddrV6::new(on_link(B), FLOW_PORT, 0, 0)).expect("bind");
            setsockopt(&socket, sockopt::UdpGroSegment, &true).expect("UDP_GRO");
            setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).expect("root may enlarge buffers");
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .expect("a timeout");
            socket
        });
        // Few at once: what a queue before the tunnel loses is no fault.
        let flows = UdpFlows {
            flows: 4,
            packets: 48,
            sizes: size,
            batch: 12,
        };
        flows.flood(&line.a, on_link(A), on_link(B));
        let (book, most) = receive(&socket);
        book.assert_exactly_once_in_order(&format!("{lane:?}, {size:?}"), flows.flows, flows.packets);
        assert!(most > 1, "{lane:?}, {size:?}: nothing was merged");
    }
    assert_nothing_lost(&daemons, &format!("{lane:?}"));
}

/// A router that is told to merge what it forwards: datagrams for others, or all as lists.
fn what_a_router_merges_passes(lane: Lane) {
    what_a_router_merges_passes_to(lane, "off");
}

/// The same, where the device that it goes on by cuts tunnelled packets itself, or does not.
fn what_a_router_merges_passes_to(lane: Lane, cuts: &str) {
    let line = Line::new();
    line.b
        .run(&format!("ethtool -K out tx-ipxip4-segmentation {cuts}"));
    let daemons = line.start(lane, 2);
    for feature in ["rx-udp-gro-forwarding", "rx-gro-list"] {
        line.b.run(&format!("ethtool -K {DEVICE} {feature} on"));
        for size in [&[100], &[1200]] {
            let flows = UdpFlows {
                flows: 4,
                packets: 480,
                sizes: size,
                batch: 12,
            };
            let book = flows.run(&line.a, on_link(A), &line.srv, SERVER, 0);
            book.assert_exactly_once_in_order(
                &format!("{lane:?}, {feature}, {size:?}"),
                flows.flows,
                flows.packets,
            );
        }
        let to = SocketAddrV6::new(SERVER, 5001, 0, 0);
        tcp_transfer(&line.a, &line.srv, to, 4_000_000, SOON).unwrap_or_else(|e| panic!("{feature}: {e}"));
        let damaged = line.srv.run("cat /proc/net/snmp");
        let damaged: Vec<_> = damaged.lines().filter(|line| line.starts_with("Tcp:")).collect();
        let at = damaged[0]
            .split(' ')
            .position(|name| name == "InCsumErrors")
            .expect("a counter");
        assert_eq!(
            damaged[1].split(' ').nth(at),
            Some("0"),
            "{lane:?}, {feature}: checksums"
        );
        line.b.run(&format!("ethtool -K {DEVICE} {feature} off"));
    }
    assert_nothing_lost(&daemons, &format!("{lane:?}"));
}

/// What a worker receives at once it may hand on merged, as far as the kernel takes that.
fn bursts_arrive(lane: Lane) {
    let line = Line::new();
    let daemons = line.start(lane, 1);
    set_gro(&line.a, DEVICE, &line.b, DEVICE, Gro::Off);
    assert_datagrams_arrive(&line.a, on_link(A), &line.b, on_link(B));
    assert_nothing_lost(&daemons, &format!("{lane:?}"));
}

#[test]
fn datagrams_stay_apart_with_a_ring() {
    datagrams_stay_apart(Lane::Uring);
}

#[test]
fn datagrams_stay_apart_by_system_calls() {
    datagrams_stay_apart(Lane::Syscall);
}

#[test]
fn datagrams_stay_apart_by_programs() {
    datagrams_stay_apart(Lane::Ebpf);
}

#[test]
fn what_a_router_merges_passes_with_a_ring() {
    what_a_router_merges_passes(Lane::Uring);
}

#[test]
fn what_a_router_merges_passes_by_system_calls() {
    what_a_router_merges_passes(Lane::Syscall);
}

#[test]
fn what_a_router_merges_passes_by_programs() {
    what_a_router_merges_passes(Lane::Ebpf);
}

/// What the programs leave to workers is not overtaken by what of the same flow was not merged.
#[test]
fn what_a_router_merges_passes_beside_programs() {
    what_a_router_merges_passes_to(Lane::Ebpf, "on");
}

#[test]
fn bursts_arrive_with_a_ring() {
    bursts_arrive(Lane::Uring);
}

#[test]
fn bursts_arrive_by_system_calls() {
    bursts_arrive(Lane::Syscall);
}

/// Before Linux 6.2 a TUN interface takes no merged datagrams. That kernel has no ring for us.
#[test]
fn bursts_arrive_on_an_older_kernel() {
    older_kernel::repeat(
        &["bursts_arrive_by_system_calls"],
        "",
        vec![program("isatapd"), program("isatapctl")],
    );
}
