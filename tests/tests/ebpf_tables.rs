//! As many rules as a large site has: the kernel carries with 50 000 routes, steps back from more than fit its
//! tables, and carries again with fewer. Hosts take no place: their addresses say where they are.
//!
//! ```text
//!   dut 10.0.0.1 (router, Lane ebpf) ------ x 10.0.0.9: 50 000 networks behind it
//! ```

use std::fmt::Write as _;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::packet::link_local;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

const ROUTES: u32 = 50_000;
/// With the others more than a quarter of 2^18.
const MORE: u32 = 20_000;
/// A mirror of so many routes takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const UNFIT: &str = "do not fit the 262144 places of the ebpf lane";

fn network(number: u32) -> Ipv6Addr {
    let base = "2001:db9::".parse::<Ipv6Addr>().expect("an address").to_bits();
    Ipv6Addr::from_bits(base | u128::from(number) << 64)
}

fn change(daemon: &Daemon<'_>, verb: &str, numbers: std::ops::Range<u32>) {
    let mut lines = String::new();
    for number in numbers {
        let (network, via) = (network(number), link_local(X));
        writeln!(lines, "route {verb} {network}/64 via {via} dev {TUNNEL}").expect("a line");
    }
    daemon.ns().ip_batch(&lines);
}

/// Every network has its route, and the daemon knows them.
fn add_all(daemon: &Daemon<'_>) {
    change(daemon, "add", 0..ROUTES);
    wait::holds("every route to be known", PATIENCE, || {
        let output = daemon.ctl("status --json");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["route_count"]
            .as_u64()
            .is_some_and(|count| count >= ROUTES.into())
    });
}

fn carries(daemon: &Daemon<'_>) -> bool {
    daemon.metrics().sum("isatapd_kernel_carries", &[]) == 2
}

/// A packet to a network: the kernel sends it to the router of its route.
#[track_caller]
fn kernel_sends(daemon: &Daemon<'_>, wire: &Sniffer, number: u32) {
    let labels = [("worker", "kernel"), ("direction", "encap")];
    let carried = || daemon.metrics().sum("isatapd_packets_total", &labels);
    let before = carried();
    let dst = Ipv6Addr::from_bits(network(number).to_bits() | 1);
    let socket = daemon
        .ns()
        .enter(|| UdpSocket::bind((on_link(DUT), 0)))
        .expect("a socket");
    socket.send_to(b"far away", (dst, 9)).expect("sent");
    wire.wait_for("the packet", SOON, |seen| {
        seen.outer()
            .is_some_and(|outer| outer.dst() == X && outer.inner().is_some_and(|inner| inner.dst() == dst))
    });
    wait::holds("the kernel to have carried it", SOON, || carried() > before);
}

#[test]
fn a_large_site_fits() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(Lane::Ebpf).workers(1));
    daemon.wait_programs();
    add_all(&daemon);
    let wire = Sniffer::start(&scene.x, UNDERLAY);
    wait::holds("the kernel to carry", PATIENCE, || carries(&daemon));
    for number in [0, ROUTES / 2, ROUTES - 1] {
        kernel_sends(&daemon, &wire, number);
    }
    assert!(!daemon.log().contains(UNFIT), "{}", daemon.log());

    change(&daemon, "add", ROUTES..ROUTES + MORE);
    wait::holds("the kernel to carry nothing", PATIENCE, || {
        daemon.metrics().sum("isatapd_kernel_carries", &[]) == 0
    });
    daemon.wait_log(UNFIT);
    change(&daemon, "del", ROUTES..ROUTES + MORE);
    wait::holds("the kernel to carry", PATIENCE, || carries(&daemon));
    kernel_sends(&daemon, &wire, ROUTES - 1);
    daemon.conservation();
}

#[test]
fn a_storm_at_a_large_site_leaves_time_for_questions() {
    // FAULTS 55: a Rulebook of so many routes takes its time, and there would be another one every 10 ms.
    const STORM: Duration = Duration::from_secs(5);
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(Lane::Ebpf).workers(1));
    daemon.wait_programs();
    add_all(&daemon);
    wait::holds("the kernel to carry", PATIENCE, || carries(&daemon));
    let published = || daemon.metrics().sum("isatapd_rulebooks_total", &[]);
    let before = published();
    // One after the other: were there more than can be read, every route would be read anew instead.
    let flap = {
        let (network, via) = (network(ROUTES), link_local(X));
        let route = format!("{network}/64 via {via} dev {TUNNEL}");
        format!("route add {route}\nroute del {route}\n")
    };
    let overruns = || daemon.metrics().sum("isatapd_netlink_overruns_total", &[]);
    let done = AtomicBool::new(false);
    let mut times = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                daemon.ns().ip_batch(&flap);
            }
        });
        let (mut times, began) = (Vec::new(), Instant::now());
        while began.elapsed() < STORM {
            let asked = Instant::now();
            let output = daemon.ctl("status");
            assert!(output.status.success(), "{output:?}");
            times.push(asked.elapsed());
        }
        done.store(true, Ordering::Relaxed);
        times
    });
    let rulebooks = published() - before;
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!(
        "{rulebooks} Rulebooks of {ROUTES} routes in {STORM:?}: {} answers, the median after {median:?}, the slowest after \
         {slowest:?}; {} overruns",
        times.len(),
        overruns()
    );
    // Without time for questions one waits until the storm is over, and it is not before the question is answered.
    assert!(
        rulebooks > 1 && times.len() > 1 && slowest < STORM,
        "{rulebooks}, {slowest:?}"
    );
    daemon.conservation();
}
