//! Real traffic end to end, for every number of workers on every lane: ping, TCP and UDP between two hosts, from a
//! host to a server behind the router, and from the router to a host. Each datagram exactly once and in order
//! within its flow, on the wire and at the receiver; received = delivered + punted + drops (FAULTS 32, 33; E1, E6).
//!
//! ```text
//!   srv ---- rtr 10.0.0.1 ---+--- h1 10.0.0.2         see isatap_tests::scene
//!                            +--- h2 10.0.0.3
//! ```

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::flows::{FlowBook, UdpFlows};
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::netns::Netns;
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{ROUTER, Running, SERVER, SOON, Scene, host_v4, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::traffic::tcp_transfer;

/// Many more flows than workers, so that every shard of the receive filter gets some.
const MANY_FLOWS: UdpFlows = UdpFlows {
    flows: 64,
    packets: 40,
    sizes: &[64],
    batch: 1,
};
/// The same through superpackets of the TUN interface (USO), which the daemon cuts up.
const SUPERPACKETS: UdpFlows = UdpFlows {
    flows: 16,
    packets: 64,
    sizes: &[500],
    batch: 16,
};
/// Of one TCP transfer.
const TCP_BYTES: u64 = 12_000_000;

macro_rules! matrix {
    ($($name:ident: $workers:literal, $lane:ident;)+) => {
        $(
            /// FAULTS 32, 33: each once and in order.
            #[test]
            fn $name() { carries_everything($workers, Lane::$lane); }
        )+
    };
}

matrix! {
    one_worker_uring: 1, Uring;
    two_workers_uring: 2, Uring;
    four_workers_uring: 4, Uring;
    eight_workers_uring: 8, Uring;
    one_worker_syscall: 1, Syscall;
    two_workers_syscall: 2, Syscall;
    four_workers_syscall: 4, Syscall;
    eight_workers_syscall: 8, Syscall;
    two_workers_ebpf: 2, Ebpf;
}

fn carries_everything(workers: usize, lane: Lane) {
    let scene = Scene::new(2);
    let running = scene.start(|builder| builder.workers(workers).lane(lane));
    let [h1, h2] = &scene.hosts[..] else {
        panic!("two hosts")
    };
    let (a1, a2) = (on_link(host_v4(0)), on_link(host_v4(1)));
    for daemon in running.all() {
        let metrics = daemon.metrics();
        assert!(
            metrics.has("isatapd_build_info", &[("lane", lane.name())]),
            "another lane runs than asked for"
        );
        let last = (workers - 1).to_string();
        let labels = [("direction", "encap"), ("worker", last.as_str())];
        assert!(
            metrics.has("isatapd_packets_total", &labels),
            "fewer than {workers} workers run"
        );
    }

    let before = counters(&running);

    let link_local = format!("{}%{TUNNEL}", link_local(host_v4(1)));
    let routes: [(&Netns, String); 4] = [
        (h1, a2.to_string()),
        (h1, link_local),
        (h1, SERVER.to_string()),
        (&scene.router, a1.to_string()),
    ];
    for (from, to) in routes {
        eprintln!("ping {to}: at most {:?}", ping(from, &to, 20));
    }

    udp_between_hosts(&running, h1, h2, MANY_FLOWS);
    udp_between_hosts(&running, h1, h2, SUPERPACKETS);
    for (from, src, to, dst) in [
        (h1, a1, &scene.server, SERVER),
        (&scene.server, SERVER, h2, a2),
        (&scene.router, on_link(ROUTER), h1, a1),
    ] {
        let book = MANY_FLOWS.run(from, src, to, dst, 0);
        book.assert_exactly_once_in_order(&format!("{src} to {dst}"), MANY_FLOWS.flows, MANY_FLOWS.packets);
    }

    for (from, to, dst) in [
        (h1, h2, a2),
        (h1, &scene.server, SERVER),
        (&scene.server, h1, a1),
        (&scene.router, h1, a1),
    ] {
        let report = tcp_transfer(from, to, SocketAddrV6::new(dst, 5001, 0, 0), TCP_BYTES, SOON * 2);
        eprintln!(
            "TCP to {dst}: {}",
            report.unwrap_or_else(|e| panic!("TCP to {dst}: {e}"))
        );
    }

    running.conservation();
    for ((name, now), (_, before)) in counters(&running).iter().zip(&before) {
        let mut drops = now.since(before).drops;
        // The kernel's own multicast: MLD and the like.
        drops.remove("dst_multicast");
        assert!(drops.is_empty(), "drops: {name}: {drops:?}");
    }
}

/// The counters of each daemon in each direction, with a name.
fn counters(running: &Running<'_>) -> Vec<(String, Counters)> {
    let both = |daemon: &Daemon<'_>| {
        let name = daemon.ns().name().to_owned();
        Direction::ALL.map(|direction| (format!("{name} {direction:?}"), daemon.counters(direction)))
    };
    running.all().flat_map(both).collect()
}

/// Flows between hosts, counted where they leave, where they arrive, behind the tunnel, and at the receiver.
fn udp_between_hosts(running: &Running<'_>, h1: &Netns, h2: &Netns, plan: UdpFlows) {
    let leaving = Sniffer::start(h1, UNDERLAY);
    let arriving = Sniffer::start(h2, UNDERLAY);
    let behind = Sniffer::start(h2, TUNNEL);
    let (src, dst): (Ipv6Addr, Ipv6Addr) = (on_link(host_v4(0)), on_link(host_v4(1)));
    let before = running.hosts[0].counters(Direction::Encap);
    let book = plan.run(h1, src, h2, dst, 0);
    book.assert_exactly_once_in_order("receiver", plan.flows, plan.packets);
    let total = u64::from(plan.flows) * u64::from(plan.packets);
    let inside = || {
        let mut book = FlowBook::default();
        for packet in behind.packets().iter().filter(|packet| !packet.outgoing) {
            if let Some((_, _, data)) = packet.inner().and_then(|inner| inner.udp()) {
                // The daemon may hand over a run of datagrams as one superpacket.
                book.observe_merged(data, plan.sizes[0]);
            }
        }
        book
    };
    isatap_tests::wait::holds("the sniffers to catch up", Duration::from_secs(2), || {
        let counted = |book: FlowBook| book.total() >= total;
        counted(FlowBook::of_outer(&leaving.packets(), true, plan.sizes[0]))
            && counted(FlowBook::of_outer(&arriving.packets(), false, plan.sizes[0]))
            && counted(inside())
    });
    let wire = FlowBook::of_outer(&leaving.packets(), true, plan.sizes[0]);
    wire.assert_exactly_once_in_order("on the wire at the sender", plan.flows, plan.packets);
    let wire = FlowBook::of_outer(&arriving.packets(), false, plan.sizes[0]);
    wire.assert_exactly_once_in_order("on the wire at the receiver", plan.flows, plan.packets);
    inside().assert_exactly_once_in_order("on the tunnel interface", plan.flows, plan.packets);
    let since = running.hosts[0].counters(Direction::Encap).since(&before);
    if plan.batch > 1 {
        assert!(
            since.superpackets > 0,
            "the TUN interface handed over no superpacket: {since}"
        );
    }
}
