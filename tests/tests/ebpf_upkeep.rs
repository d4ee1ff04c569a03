//! The daemon with the `ebpf` lane where the kernel has no TCX: its filters carry, are there again after a crash, and go when it ends.
//!
//! ```text
//!   a 10.0.0.1  eth0 ======== eth0  b 10.0.0.2        is0 on both: 2001:db8:1::/64
//! ```

use std::env;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use isatap_engine::io::ebpf::{Hook, Programs};
use isatap_engine::stats::Direction as End;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL, program};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SOON, on_link, set_address};
use isatap_tests::steady::Pulse;
use isatap_tests::topology::{UNDERLAY, connect};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use nix::sys::signal::Signal;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BYTES: u64 = 16_000_000;

/// Set where the kernel is known to have no TCX, so that there must be filters.
const FILTERS: &str = "ISATAP_EXPECT_FILTERS";

/// Filters of ours at the underlay.
fn filters(ns: &Netns) -> usize {
    let shown = ns.run(&format!("tc filter show dev {UNDERLAY} ingress"));
    shown.lines().filter(|line| line.contains("isatap_decap")).count()
}

/// Waits until the kernel carries both ways, and has TCP arrive that way.
#[track_caller]
fn carries(a: &Daemon<'_>, b: &Daemon<'_>) {
    for daemon in [a, b] {
        wait::holds("the kernel to carry", SOON * 6, || {
            daemon.metrics().sum("isatapd_kernel_carries", &[]) == 2
        });
    }
    ping_until(a.ns(), &on_link(B).to_string(), SOON * 6);
    let carried = || {
        let labels = [("worker", "kernel"), ("direction", Direction::Decap.label())];
        b.metrics().sum("isatapd_bytes_total", &labels)
    };
    let before = carried();
    let to = SocketAddrV6::new(on_link(B), 5001, 0, 0);
    let report = tcp_transfer(a.ns(), b.ns(), to, BYTES, SOON * 6);
    eprintln!("{}", report.expect("all of it"));
    wait::holds("bytes carried by the kernel", SOON * 6, || {
        carried() - before >= BYTES
    });
}

/// A router of this lane with its first address.
fn start(ns: &Netns, v4: Ipv4Addr) -> Daemon<'_> {
    ns.ip(&format!("addr add {v4}/24 brd + dev {UNDERLAY}"));
    let daemon = Daemon::router(ns, v4).lane(Lane::Ebpf).start();
    set_address(ns, v4);
    daemon
}

#[test]
fn filters_come_again_and_go() {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, UNDERLAY, &b, UNDERLAY);
    let (one, mut two) = (start(&a, A), start(&b, B));
    carries(&one, &two);
    let expected = usize::from(env::var_os(FILTERS).is_some());
    assert_eq!(filters(&b), expected);
    two.signal(Signal::SIGKILL);
    two.wait_exit(SOON * 6);
    wait::holds("the interface to go", SOON * 6, || !b.has_link(TUNNEL));
    assert_eq!(filters(&b), expected, "nobody detached it");
    let mut two = two.start_again();
    set_address(&b, B);
    carries(&one, &two);
    assert_eq!(filters(&b), expected, "the one of before is gone");
    two.stop();
    assert_eq!(filters(&b), 0);
}

/// A killed daemon's filter would lose all that comes in: a start whose lane has no programs takes it away, too.
#[test]
fn filters_go_when_workers_carry() {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, UNDERLAY, &b, UNDERLAY);
    let start = |ns, v4, lane| {
        let daemon = Daemon::router(ns, v4).lane(lane).start();
        set_address(ns, v4);
        daemon
    };
    for (ns, v4) in [(&a, A), (&b, B)] {
        ns.ip(&format!("addr add {v4}/24 brd + dev {UNDERLAY}"));
    }
    let (one, mut two) = (start(&a, A, Lane::Ebpf), start(&b, B, Lane::Ebpf));
    carries(&one, &two);
    two.signal(Signal::SIGKILL);
    two.wait_exit(SOON * 6);
    wait::holds("the interface to go", SOON * 6, || !b.has_link(TUNNEL));
    if env::var_os(FILTERS).is_none() {
        // What a kernel without TCX would have left.
        b.enter(|| {
            let mut programs = Programs::load(64, TUNNEL).expect("programs");
            let attached = programs.attach_by(Hook::Clsact, End::Decap, UNDERLAY);
            mem::forget(attached.expect("attached"));
        });
    }
    assert_eq!(filters(&b), 1);
    let mut two = start(&b, B, Lane::Syscall);
    two.wait_log("filters of a daemon that was killed are taken away: eth0");
    assert_eq!(filters(&b), 0);
    ping_until(&a, &on_link(B).to_string(), SOON * 6);
    two.stop();
}

/// The filters of before carry until those of the new monitor have rules, and are the same filters afterwards.
#[test]
fn filters_are_exchanged_in_an_upgrade() {
    /// What engines and neighbours say to each other, at most.
    const OF_CONTROL: u64 = 40;
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, UNDERLAY, &b, UNDERLAY);
    let (mut one, mut two) = (start(&a, A), start(&b, B));
    carries(&one, &two);
    let stream = Pulse::start(&a, &b, &[on_link(B)], Duration::from_millis(1));
    stream.wait_answers(Instant::now(), SOON * 6);
    let expected = usize::from(env::var_os(FILTERS).is_some());
    for daemon in [&one, &two] {
        let output = daemon.ctl("upgrade");
        assert!(output.status.success(), "{output:?}\n{}", daemon.log());
        wait::holds("programs that are exchanged", SOON * 6, || {
            daemon.log().contains("programs in the kernel are exchanged")
        });
        stream.wait_answers(Instant::now(), SOON * 6);
        let taken = daemon.metrics().taken_by_workers();
        assert!(taken <= OF_CONTROL, "{taken} packets were left to workers");
        assert_eq!(filters(daemon.ns()), expected);
    }
    eprintln!("{}", stream.finish_whole());
    for daemon in [&mut one, &mut two] {
        daemon.conservation();
        daemon.stop();
        assert_eq!(filters(daemon.ns()), 0);
        let qdiscs = daemon.ns().run(&format!("tc qdisc show dev {UNDERLAY}"));
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    }
}

#[test]
fn filters_come_again_and_go_on_an_older_kernel() {
    let environment = format!("{FILTERS}=yes");
    older_kernel::repeat(
        &[
            "filters_come_again_and_go",
            "filters_go_when_workers_carry",
            "filters_are_exchanged_in_an_upgrade",
        ],
        &environment,
        vec![program("isatapd"), program("isatapctl")],
    );
}
