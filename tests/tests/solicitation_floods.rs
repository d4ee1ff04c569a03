//! A hundred thousand router solicitations a second from invented sources, while an honest host asks as well: it is served,
//! whoever answers, and the daemon stays as small as it was (FAULTS 51, 52).
//!
//! ```text
//!   dut 10.0.0.1 (isatapd, Advertise yes or radvd) ---+--- x   10.0.0.9   the flood, in others' names
//!                                                     +--- a20 10.0.0.20  honest
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::asker::{ALL_ROUTERS, Asker};
use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, ROUTER_SOLICITATION};
use isatap_tests::packet::{Outer, link_local};
use isatap_tests::radvd::Radvd;
use isatap_tests::routers::radvd_conf;
use isatap_tests::scene::{DUT, Opposite, SOON};
use isatap_tests::state::resident_kib;
use isatap_tests::wait;

/// Solicitations of one flood, and different ones among them.
const FLOOD: usize = 600_000;
const DIFFERENT: usize = 40_000;
/// Those before it: enough that every buffer has been in use.
const WARM_UP: usize = 240_000;
/// Within so long the honest host is to be served (FAULTS 51).
const SERVED: Duration = Duration::from_secs(2);
/// It repeats its question so often: a packet may be lost before any program sees it.
const REPEAT: Duration = Duration::from_millis(500);
/// Between an answer and its next question.
const PAUSE: Duration = Duration::from_millis(700);
/// Hosts that a router remembers at most.
const REMEMBERED: u64 = 16_384;
/// How much the daemon may grow (FAULTS 52), in KiB.
const GROWTH: u64 = 1024;

/// Whose names the flood uses.
#[derive(Clone, Copy, Debug)]
enum Names {
    /// Every other host of the connected network.
    Neighbours,
    /// All of 10/8.
    Anybody,
}

/// The sources, without pattern.
fn invented(names: Names) -> impl Iterator<Item = Ipv4Addr> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = u32::try_from(state >> 40).expect("24 bits");
        let bits = match names {
            Names::Neighbours => random & 0xff,
            Names::Anybody => random,
        };
        Some(Ipv4Addr::from_bits(0x0a00_0000 | bits))
    })
    .filter(|v4| {
        let [_, b, c, last] = v4.octets();
        let ours = (b, c) == (0, 0) && [0, 1, 9, 20, 255].contains(&last);
        !ours
    })
}

fn solicitation(v4: Ipv4Addr) -> Vec<u8> {
    let inner = nd::packet(
        link_local(v4),
        ALL_ROUTERS,
        ROUTER_SOLICITATION,
        &nd::router_solicitation(),
    );
    Outer::new(v4, DUT).wrap(&inner)
}

/// Floods a router while the honest host asks, three times anew; returns the daemon to look at.
fn flood(scene: &Opposite, router: &Daemon<'_>, honest: &Asker, names: Names) {
    let packets: Vec<_> = invented(names).take(DIFFERENT).map(solicitation).collect();
    let crafter = scene.crafter();
    // Tables, queues and buffers have been used by then, however fast this machine sends: what comes through goes by the second.
    for packet in packets.iter().cycle().take(WARM_UP) {
        crafter.send(packet);
    }
    let (before, lost) = (router.settled(Direction::Decap), KernelDrops::read(&scene.dut));
    let memory = resident_kib(router.engine_pid());
    let done = AtomicBool::new(false);
    let done = &done;
    let (took, waits) = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let start = Instant::now();
            for packet in packets.iter().cycle().take(FLOOD) {
                crafter.send(packet);
            }
            done.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        let mut waits = Vec::new();
        while !done.load(Ordering::Relaxed) {
            waits.push(ask(honest));
            // One host gets a few answers a second (T4).
            thread::sleep(PAUSE);
        }
        (sender.join().expect("the flood"), waits)
    });
    let since = wait::until("every solicitation to be accounted for", SOON, || {
        let since = router.counters(Direction::Decap).since(&before);
        if since.balanced() {
            Ok(since)
        } else {
            Err(since.to_string())
        }
    });
    let grown = resident_kib(router.engine_pid()).saturating_sub(memory);
    let lost = KernelDrops::read(&scene.dut).since(&lost);
    let rate = FLOOD as f64 / took.as_secs_f64();
    let report = format!(
        "{names:?}: {FLOOD} in {took:?} ({rate:.0}/s); {since}; lost before the daemon {lost:?}; {grown} KiB more; the honest \
         host waited {waits:?}"
    );
    println!("{report}");
    assert!(waits.iter().all(|wait| *wait <= SERVED), "{report}");
    assert!(grown < GROWTH, "{report}");
    let passed = since.delivered + since.punted;
    let most = u64::try_from((took.as_millis() + 1000) * 6).expect("a short test");
    assert!(
        passed < most && since.drops.keys().eq(["rate_limited"]),
        "{report}"
    );
    router.conservation();
}

/// How long the honest host waits for an advertisement.
fn ask(honest: &Asker) -> Duration {
    honest.forget();
    let start = Instant::now();
    let mut again = start;
    while start.elapsed() < SERVED * 2 {
        if Instant::now() >= again {
            honest.ask(ALL_ROUTERS);
            again += REPEAT;
        }
        if let Some(told) = honest.told().first() {
            return told.at - start;
        }
        thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

fn advertise_yes(lane: Lane, names: Names) {
    let scene = Opposite::new();
    let router = Daemon::router(&scene.dut, DUT)
        .lane(lane)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\n")
        .start();
    let honest = Asker::new(&scene.site, 20, &scene.dut, DUT);
    ask(&honest);
    flood(&scene, &router, &honest, names);
    let clients = router.metrics().sum("isatapd_router_clients", &[]);
    assert!((1..=REMEMBERED).contains(&clients), "{clients} hosts remembered");
}

/// FAULTS 51, 52, T4: the flood uses the names of the honest host's neighbours.
#[test]
fn invented_neighbours_uring() {
    advertise_yes(Lane::Uring, Names::Neighbours);
}

/// The same on the other lane.
#[test]
fn invented_neighbours_syscall() {
    advertise_yes(Lane::Syscall, Names::Neighbours);
}

/// The same on the other lane.
#[test]
fn invented_neighbours_ebpf() {
    advertise_yes(Lane::Ebpf, Names::Neighbours);
}

/// FAULTS 51, 52: the flood uses sixteen million names. Control is what counts them, whichever lane brings the packets.
#[test]
fn invented_hosts_of_everywhere() {
    advertise_yes(Lane::Uring, Names::Anybody);
}

/// FAULTS 51: the same limit protects radvd, which answers behind the tunnel interface.
#[test]
fn radvd_is_protected() {
    let scene = Opposite::new();
    // radvd insists.
    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");
    let router = scene.router(|builder| builder);
    let _radvd = Radvd::start(&scene.dut, &radvd_conf("medium", 1800, 86400));
    let honest = Asker::new(&scene.site, 20, &scene.dut, DUT);
    wait::until("radvd to answer", SOON * 2, || {
        let waited = ask(&honest);
        if waited < SERVED {
            Ok(())
        } else {
            Err(format!("{waited:?}"))
        }
    });
    flood(&scene, &router, &honest, Names::Anybody);
    let inner: Ipv6Addr = honest
        .told()
        .first()
        .map_or(Ipv6Addr::UNSPECIFIED, |told| told.inner.1);
    assert_eq!(inner, honest.addr());
}
