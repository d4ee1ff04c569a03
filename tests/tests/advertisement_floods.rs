//! A router of the list that advertises without end: little of it is looked at, the rest is counted, and everything else
//! goes on, the other routers' advertisements among it (FAULTS 50). Topology: see `isatap_tests::advertiser`, with
//! a peer 10.0.0.77 that runs a daemon.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::advertiser::{Stage, results, router, usual};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::metrics::Direction;
use isatap_tests::nd::Advertisement;
use isatap_tests::netns::Netns;
use isatap_tests::packet::link_local;
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::routers::router_v4;
use isatap_tests::scene::SOON;
use isatap_tests::state::resident_kib;
use isatap_tests::wait;

/// What the router says besides that it goes.
fn what() -> Advertisement {
    Advertisement::new(&[usual(1)])
}

/// A neighbour with a daemon of its own.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);

/// Seconds that the main thread, which is control, has run.
fn control_seconds(daemon: &Daemon<'_>) -> f64 {
    let pid = daemon.engine_pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).expect("a running thread");
    let nanos: u64 = stat
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .expect("nanoseconds");
    Duration::from_nanos(nanos).as_secs_f64()
}

/// What control counted of advertisements, and what never reached it.
#[derive(Clone, Copy, Debug)]
struct Counted {
    accepted: u64,
    limited: u64,
    overflow: u64,
}

impl Counted {
    fn read(daemon: &Daemon<'_>) -> Self {
        let labels = [("event", "punt_overflow")];
        Self {
            accepted: results(daemon, "accepted"),
            limited: results(daemon, "rate_limited"),
            overflow: daemon.metrics().sum("isatapd_loop_events_total", &labels),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            accepted: self.accepted - before.accepted,
            limited: self.limited - before.limited,
            overflow: self.overflow - before.overflow,
        }
    }
}

/// Pings once and again until told to stop: how many were sent, and how many of them answered.
fn ping_meanwhile(ns: &Netns, dst: &str, done: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut answered) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        sent += 1;
        let output = ns.try_run(&format!("ping -6 -n -c 1 -W 0.2 {dst}"));
        answered += u64::from(output.status.success());
    }
    (sent, answered)
}

fn a_flood_is_bounded(lane: Lane) {
    // FAULTS 50. The flood says that the router goes and that it is back, in turn.
    const FLOOD: u64 = 150_000;
    /// As fast as it may come, so that answers to pings do not wait behind more than they have time for, on a machine that sends faster
    /// than workers carry.
    const PER_SECOND: u32 = 40_000;
    /// Per second and at once, of each router.
    const LIMIT: u64 = 10;
    let stage = Stage::new(2);
    let peer_ns = stage.site.member("p", PEER.octets()[3]);
    let daemon = stage.start(&format!("Lane {}\n", lane.name()));
    let _peer = Daemon::host(&peer_ns, PEER, &[router_v4(0)]).workers(1).start();
    stage.advertise(&daemon, 0, &what());
    let peer = format!("{}%{TUNNEL}", link_local(PEER));
    ping_until(&stage.host, &peer, SOON);
    let state = Configured::read(&stage.host).timeless();
    let packets = [what(), Advertisement::new(&[]).lifetime(0)];
    let packets = packets.map(|says| stage.crafter(0).outer().wrap(&stage.packet(0, &says)));
    let other = stage.packet(1, &Advertisement::new(&[]));
    let (mad, sane) = (stage.crafter(0), stage.crafter(1));
    let (host, daemon) = (&stage.host, &daemon);

    let (counters, counted) = (daemon.counters(Direction::Decap), Counted::read(daemon));
    let lost = KernelDrops::read(host);
    let (memory, cpu, start) = (
        resident_kib(daemon.engine_pid()),
        control_seconds(daemon),
        Instant::now(),
    );
    let done = AtomicBool::new(false);
    let done = &done;
    let (took, slowest, (sent, answered), heard) = thread::scope(|scope| {
        let flood = scope.spawn(move || {
            for n in 0..FLOOD {
                if n % 100 == 0 {
                    let due = Duration::from_secs(n) / PER_SECOND;
                    thread::sleep(due.saturating_sub(start.elapsed()));
                }
                mad.send(&packets[usize::from(n % 2 == 1)]);
            }
            done.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        let status = scope.spawn(move || {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let output = daemon.ctl("status");
                assert!(output.status.success(), "{output:?}");
                slowest = slowest.max(asked.elapsed());
            }
            slowest
        });
        let pings = scope.spawn(|| ping_meanwhile(host, &peer, done));
        // Another router speaks as rarely as routers do, and is heard.
        let mut heard = false;
        while !done.load(Ordering::Relaxed) && !heard {
            sane.send_inner(&other);
            thread::sleep(Duration::from_millis(20));
            heard = Configured::read(host).default_routers().contains(&router(1));
        }
        (
            flood.join().expect("the flood"),
            status.join().expect("status"),
            pings.join().expect("pings"),
            heard,
        )
    });
    let (elapsed, cpu) = (start.elapsed(), control_seconds(daemon) - cpu);
    let rate = FLOOD as f64 / took.as_secs_f64();
    // Each packet that was read is accounted for, once all are: an advertisement, or an answer to a ping and what goes with it.
    let (since, counted) = wait::until("advertisements to be accounted for", SOON, || {
        let since = daemon.counters(Direction::Decap).since(&counters);
        let counted = Counted::read(daemon).since(counted);
        let others = since
            .delivered
            .checked_sub(counted.accepted + counted.limited + counted.overflow);
        if since.balanced() && others.is_some_and(|others| (answered..answered + 50).contains(&others)) {
            Ok((since, counted))
        } else {
            Err(format!("{since}, {counted:?}, {answered} pings"))
        }
    });
    let grown = resident_kib(daemon.engine_pid()).saturating_sub(memory);
    let lost = KernelDrops::read(host).since(&lost);
    let report = format!(
        "{FLOOD} in {took:?} ({rate:.0}/s); {since}; {counted:?}; lost {lost:?}; control {cpu:.3} s of {elapsed:?}; \
         {grown} KiB more; slowest status {slowest:?}; {answered} of {sent} pings"
    );
    println!("{report}");
    assert!(heard, "the other router is not heard: {report}");
    // Two routers spoke.
    let most = 2 * (LIMIT + elapsed.as_secs() * LIMIT + LIMIT);
    assert!((1..=most).contains(&counted.accepted), "{report}");
    assert!(since.drops.is_empty(), "{report}");
    assert!(answered * 2 >= sent && answered >= 5, "{report}");
    assert!(slowest < Duration::from_secs(1), "{report}");
    assert!(cpu < elapsed.as_secs_f64() / 2.0, "{report}");
    assert!(grown < 8 << 10, "{report}");

    // Right afterwards: what the router says now holds, and the other one is still there.
    stage.advertise(daemon, 0, &what());
    let seen = Configured::read(host).timeless();
    assert!(seen.routes.is_superset(&state.routes), "{seen:?}");
    assert_eq!(seen.default_routers(), [0, 1].map(router).into());
    assert_eq!(seen.addresses, state.addresses);
    ping(host, &peer, 5);
    daemon.conservation();
}

#[test]
fn a_flood_from_a_router_of_the_list_is_bounded_uring() {
    a_flood_is_bounded(Lane::Uring);
}

#[test]
fn a_flood_from_a_router_of_the_list_is_bounded_syscall() {
    a_flood_is_bounded(Lane::Syscall);
}

#[test]
fn a_flood_from_a_router_of_the_list_is_bounded_ebpf() {
    a_flood_is_bounded(Lane::Ebpf);
}
