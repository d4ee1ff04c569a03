//! Nothing is lost, repeated or reordered unseen under each kind of load, for 1, 2 and 4 workers on every lane, with
//! and without GRO on the underlay; what a flood loses is counted, exactly, by the daemon or by the kernel (D12).
//!
//! ```text
//!   a 10.0.0.1  eth0 ======== eth0  b 10.0.0.2        is0 on both: 2001:db8:1::5efe:<v4>/64
//!   10 000 routes 3fff:0:k::/48 via b                 all of 3fff::/20 is local
//! ```

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::thread;

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::exchange;
use isatap_tests::flows::{FLOW_PORT, FlowReceiver, UdpFlows};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::netns::Netns;
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SOON, on_link, set_address};
use isatap_tests::topology::{Gro, UNDERLAY, connect, set_gro};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// What b has behind it.
const NETWORKS: u16 = 10_000;
/// Networks that get traffic at once, each a host of its own: one socket each, within the usual limit of a process.
const NETWORKS_AT_ONCE: u16 = 500;
/// Of one TCP connection alone, and of each of many.
const TCP_BYTES: u64 = 16_000_000;
const TCP_BYTES_OF_MANY: u64 = 2_000_000;
const TCP_FLOWS: u16 = 8;
const FIRST_TCP_PORT: u16 = 5001;
/// Of one client that waits for each answer.
const QUESTIONS: u32 = 400;

/// Flows of one datagram size, or of a mix.
const fn flows(sizes: &'static [usize], batch: u32) -> UdpFlows {
    UdpFlows {
        flows: 16,
        packets: 192,
        sizes,
        batch,
    }
}

/// The simple Internet mix: seven small, four middling, one as large as the tunnel takes.
const IMIX: [usize; 12] = [16, 528, 16, 16, 528, 16, 1432, 528, 16, 16, 528, 16];
const UDP: [UdpFlows; 6] = [
    flows(&[64], 1),
    flows(&[512], 1),
    flows(&[1280], 1),
    flows(&IMIX, 1),
    flows(&[64], 32),
    flows(&[1280], 16),
];
/// Packets that each queue of the TUN interface holds during a flood.
const SHORT_QUEUE: u32 = 500;
/// More than those queues hold, however flows fall on them. Each flow fits the send buffer of its socket, since a full one
/// would block.
const FLOOD: UdpFlows = UdpFlows {
    flows: 200,
    packets: 50,
    sizes: &[1280],
    batch: 1,
};
/// More than a raw socket holds. One flow, which is one worker's: the kernel looks whether a raw socket is full before
/// it asks the filter whose packet it is, so several full ones count packets of each other as lost, too.
const FLOOD_OF_ONE: UdpFlows = UdpFlows {
    flows: 1,
    packets: 10_000,
    sizes: &[1280],
    batch: 1,
};

macro_rules! matrix {
    ($($name:ident: $workers:literal, $lane:ident;)+) => {
        $(#[test] fn $name() { every_load($workers, Lane::$lane); })+
    };
}

matrix! {
    one_worker_uring: 1, Uring;
    two_workers_uring: 2, Uring;
    four_workers_uring: 4, Uring;
    one_worker_syscall: 1, Syscall;
    two_workers_syscall: 2, Syscall;
    four_workers_syscall: 4, Syscall;
    two_workers_ebpf: 2, Ebpf;
}

struct Pair {
    a: Netns,
    b: Netns,
}

impl Pair {
    fn new() -> Self {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        connect(&a, UNDERLAY, &b, UNDERLAY);
        for (ns, v4) in [(&a, A), (&b, B)] {
            ns.ip(&format!("addr add {v4}/24 brd + dev {UNDERLAY}"));
        }
        b.ip("-6 route add local 3fff::/20 dev lo");
        // Senders in b take the address of any host behind it.
        b.sysctl("ipv6/ip_nonlocal_bind", "1");
        Self { a, b }
    }

    fn start(&self, workers: usize, lane: Lane) -> (Daemon<'_>, Daemon<'_>) {
        let start = |ns, v4| {
            let builder = Daemon::router(ns, v4).config("Mtu 1480");
            let daemon = builder.lane(lane).workers(workers).start();
            set_address(ns, v4);
            daemon
        };
        let (a, b) = (start(&self.a, A), start(&self.b, B));
        let mut routes = String::new();
        for k in 0..NETWORKS {
            let line = writeln!(
                routes,
                "route add {}/48 via {} dev {TUNNEL}",
                network(k),
                link_local(B)
            );
            line.expect("text");
        }
        self.a.ip_batch(&routes);
        wait_routes(&a, usize::from(NETWORKS) + 1);
        b.wait_route("2001:db8:1::/64");
        ping_until(&self.a, &on_link(B).to_string(), SOON);
        (a, b)
    }

    fn set(&self, gro: Gro) {
        set_gro(&self.a, UNDERLAY, &self.b, UNDERLAY, gro);
        set_gro(&self.b, UNDERLAY, &self.a, UNDERLAY, gro);
    }

    /// Both ways of each load.
    fn ways(&self) -> [(&Netns, Ipv6Addr, &Netns, Ipv6Addr); 2] {
        let (a, b) = (on_link(A), on_link(B));
        [(&self.a, a, &self.b, b), (&self.b, b, &self.a, a)]
    }
}

/// Waits until the workers have `count` routes. The list shows the first of them and says how many more there are.
fn wait_routes(daemon: &Daemon<'_>, count: usize) {
    wait::until(&format!("{count} routes"), SOON * 2, || {
        let list = String::from_utf8_lossy(&daemon.ctl("routes").stdout).into_owned();
        let more = list.lines().last().and_then(|line| line.strip_prefix("and "));
        let more = more
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or(0);
        let shown = list.lines().filter(|line| line.contains('/')).count();
        if shown + more >= count {
            Ok(())
        } else {
            Err(shown + more)
        }
    });
}

fn network(k: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x3fff, 0, k, 0, 0, 0, 0, 0)
}

/// The host of that network.
fn host(k: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x3fff, 0, k, 0, 0, 0, 0, 5)
}

fn every_load(workers: usize, lane: Lane) {
    let pair = Pair::new();
    let (a, b) = pair.start(workers, lane);
    for (gro, networks) in [(Gro::Off, 0..NETWORKS / 2), (Gro::On, NETWORKS / 2..NETWORKS)] {
        pair.set(gro);
        accounted(&a, &b, &[], || {
            for (from, src, to, dst) in pair.ways() {
                for plan in UDP {
                    let book = plan.run(from, src, to, dst, 0);
                    let what = format!("{:?} bytes to {dst}, {gro:?}", plan.sizes);
                    book.assert_exactly_once_in_order(&what, plan.flows, plan.packets);
                }
            }
            many_hosts(&pair, networks);
        });
        // The kernel carries whoever stands still: nothing overflows.
        if gro == Gro::Off && lane != Lane::Ebpf {
            // Before TCP, whose last segments come when they like.
            flood(&pair, &a, &b, Stopped::Receiver);
            flood(&pair, &a, &b, Stopped::Sender);
        }
        accounted(&a, &b, &[], || {
            for (from, _, to, dst) in pair.ways() {
                questions_and_answers(from, to, dst);
            }
        });
        // TCP fills every queue there is, and the daemon hears of what the link refused.
        accounted(&a, &b, &["send_error"], || {
            for (from, _, to, dst) in pair.ways() {
                tcp(from, to, dst);
            }
        });
    }
}

/// Both daemons account for everything they receive during `load`, and drop nothing for other reasons than `allowed`.
fn accounted(a: &Daemon<'_>, b: &Daemon<'_>, allowed: &[&str], load: impl FnOnce()) {
    let before = both(a, b);
    load();
    for daemon in [a, b] {
        daemon.conservation();
    }
    for (now, before) in both(a, b).iter().zip(&before) {
        let mut drops = now.since(before).drops;
        // The kernel's own multicast: MLD and the like.
        drops.remove("dst_multicast");
        drops.retain(|reason, _| !allowed.contains(&reason.as_str()));
        assert!(drops.is_empty(), "{drops:?}");
    }
}

fn both(a: &Daemon<'_>, b: &Daemon<'_>) -> Vec<Counters> {
    let of = |daemon: &Daemon<'_>| Direction::ALL.map(|direction| daemon.counters(direction));
    [of(a), of(b)].concat()
}

fn questions_and_answers(from: &Netns, to: &Netns, dst: Ipv6Addr) {
    let (asked, answered) = exchange::over_udp(from, to, dst, QUESTIONS);
    asked.assert_exactly_once_in_order("questions", 1, QUESTIONS);
    answered.assert_exactly_once_in_order("answers", 1, QUESTIONS);
    exchange::over_tcp(from, to, dst, QUESTIONS).expect("questions over TCP");
}

/// One connection, then many at once; each byte is compared.
fn tcp(from: &Netns, to: &Netns, dst: Ipv6Addr) {
    let transfer = |port, bytes| {
        let to_port = SocketAddrV6::new(dst, port, 0, 0);
        tcp_transfer(from, to, to_port, bytes, SOON * 2).unwrap_or_else(|e| panic!("TCP to {to_port}: {e}"))
    };
    transfer(FIRST_TCP_PORT, TCP_BYTES);
    thread::scope(|scope| {
        for port in FIRST_TCP_PORT..FIRST_TCP_PORT + TCP_FLOWS {
            scope.spawn(move || transfer(port, TCP_BYTES_OF_MANY));
        }
    });
}

/// A packet or two to each host behind b, and from each.
fn many_hosts(pair: &Pair, networks: std::ops::Range<u16>) {
    let plan = UdpFlows {
        flows: NETWORKS_AT_ONCE,
        packets: 2,
        sizes: &[64],
        batch: 1,
    };
    let at = |addr| SocketAddrV6::new(addr, FLOW_PORT, 0, 0);
    for first in networks.step_by(usize::from(NETWORKS_AT_ONCE)) {
        let book = plan.run_between(&pair.a, &pair.b, |flow| (on_link(A), at(host(first + flow))));
        book.assert_exactly_once_in_order("hosts", plan.flows, plan.packets);
        let book = plan.run_between(&pair.b, &pair.a, |flow| (host(first + flow), at(on_link(A))));
        book.assert_exactly_once_in_order("from hosts", plan.flows, plan.packets);
    }
}

/// Whose daemon does not run while the flood comes, so that a queue overflows for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Sender,
    Receiver,
}

fn flood(pair: &Pair, a: &Daemon<'_>, b: &Daemon<'_>, stopped: Stopped) {
    let kernel = || [KernelDrops::read(&pair.a), KernelDrops::read(&pair.b)];
    let (before, lost_before) = (both(a, b), kernel());
    let lost = || {
        let [a, b] = kernel();
        [a.since(&lost_before[0]), b.since(&lost_before[1])]
    };
    let receiver = FlowReceiver::start(&pair.b);
    let (daemon, plan) = match stopped {
        Stopped::Sender => {
            pair.a.ip(&format!("link set {TUNNEL} txqueuelen {SHORT_QUEUE}"));
            (a, FLOOD)
        }
        Stopped::Receiver => (b, FLOOD_OF_ONE),
    };
    daemon.freeze();
    plan.flood(&pair.a, on_link(A), on_link(B));
    if stopped == Stopped::Receiver {
        wait::until("the sender's daemon to send all", SOON, || {
            let since = a.counters(Direction::Encap).since(&before[0]);
            let all = since.balanced() && since.received + lost()[0].total() >= plan.total();
            if all { Ok(()) } else { Err(since.to_string()) }
        });
    }
    daemon.thaw();
    wait::until("every packet to arrive or to be counted as lost", SOON, || {
        let (counted, kernel) = (both(a, b), lost());
        let since: Vec<_> = counted
            .iter()
            .zip(&before)
            .map(|(now, before)| now.since(before))
            .collect();
        // The kernel's own multicast is none of the flood.
        let of_flood = |c: &Counters| c.dropped() - c.drops.get("dst_multicast").unwrap_or(&0);
        let dropped: u64 = since.iter().map(of_flood).sum();
        let accounted = receiver.arrived() + dropped + kernel[0].total() + kernel[1].total();
        if accounted == plan.total() && since.iter().all(Counters::balanced) {
            Ok(())
        } else {
            let arrived = receiver.arrived();
            Err(format!(
                "{accounted}: {arrived} arrived, {since:?}, kernel {kernel:?}"
            ))
        }
    });
    let arrived = receiver.arrived();
    let book = receiver.finish();
    book.assert_at_most_once_in_order("flood");
    assert_eq!(
        book.total(),
        arrived,
        "nothing comes after everything was accounted for"
    );
    let [at_a, at_b] = lost();
    match stopped {
        Stopped::Sender => {
            assert!(at_a.total() > 0, "the TUN queue overflows: {at_a:?}");
            // FAULTS 30.
            let told = a
                .metrics()
                .sum("isatapd_kernel_drops_total", &[("queue", "tun_txq")]);
            assert_eq!(
                told,
                KernelDrops::read(&pair.a).at("is0 tx"),
                "as the daemon tells it"
            );
        }
        Stopped::Receiver => {
            assert!(at_b.at("raw") > 0, "the raw sockets overflow: {at_b:?}");
            let told = b.metrics().by_label("isatapd_kernel_drops_total", &[], "queue");
            let sockets = told.iter().filter(|(queue, _)| *queue != "tun_txq");
            assert_eq!(
                sockets.map(|(_, count)| count).sum::<u64>(),
                KernelDrops::read(&pair.b).at("raw"),
                "as the daemon tells it"
            );
        }
    }
}
