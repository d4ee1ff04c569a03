//! Reloads by the hundred under load: not one packet is lost, and each is counted (FAULTS 61, 62).
//!
//! ```text
//!   srv 2001:db8:99::2 ---- rtr 10.0.0.1 (isatapd) ----- h1 10.0.0.2 (isatapd), questions and a transfer to srv
//! ```

use std::time::{Duration, Instant};

use isatap_tests::daemon::Daemon;
use isatap_tests::ping::ping_until;
use isatap_tests::reloading::{Control, assert_holds, in_force, lasting};
use isatap_tests::scene::{ROUTER, SERVER, SOON, Scene};
use isatap_tests::state::{descriptors_of, resident_kib_of};
use isatap_tests::steady::{Pulse, Stream};
use isatap_tests::wait;
use nix::sys::signal::Signal;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(1);
/// Between two reloads: several packets meet each.
const PACE: Duration = Duration::from_millis(5);
const RELOADS: &str = "isatapd_config_reloads_total";
/// Room for what a machine does with memory that is free again.
const GROWTH_KIB: u64 = 4096;

/// How many reloads; the issue asks for a thousand.
fn reloads() -> u64 {
    let text = std::env::var("ISATAPD_TEST_RELOADS");
    text.map_or(200, |text| {
        text.parse().expect("ISATAPD_TEST_RELOADS is a number")
    })
}

fn count(daemon: &Daemon<'_>, result: &str) -> u64 {
    daemon.metrics().sum(RELOADS, &[("result", result)])
}

/// Configurations in turn: each differs from the one before in several names.
const IN_TURN: [&str; 4] = [
    "Ttl 63\nMtu 1280",
    "Ttl 62\nMtu 1400\nDscp 8\nSiteNetwork 10.0.0.0/8",
    "PathMtu dynamic 10.9.0.0/16\nAdvertiseDns 2001:db8::53\nLogLevel warn\nPeerRouter 10.0.0.7",
    "Ttl 64\nLogLevel info\nNestedTunnels yes\nAdvertisePrefix 2001:db8:5::/64\nEcn compat 10.8.0.0/16",
];

struct Loaded<'a> {
    scene: &'a Scene,
    pulse: Pulse,
    stream: Stream,
}

impl<'a> Loaded<'a> {
    fn start(scene: &'a Scene) -> Self {
        let host = &scene.hosts[0];
        ping_until(host, &SERVER.to_string(), SOON);
        Self {
            scene,
            pulse: Pulse::start(host, &scene.server, &[SERVER], INTERVAL),
            stream: Stream::start(host, &scene.server, SERVER),
        }
    }

    #[track_caller]
    fn finish(self) {
        self.stream.wait_more(32 * 1024, SOON);
        let bytes = self.stream.finish();
        let outcome = self.pulse.finish_whole();
        eprintln!("{}: {outcome}, {bytes} bytes over TCP", self.scene.router.name());
    }
}

/// FAULTS 61, 62: every other one is a change, every fifth one is refused.
#[test]
fn reloads_lose_nothing() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let router = &running.router;
    let base = format!("BindAddress {ROUTER}\nWorkers 2\n");
    let load = Loaded::start(&scene);
    let mut control = Control::connect(router);
    let held = lasting(router);
    let (memory, began) = (resident_kib_of(router), Instant::now());
    let (mut done, mut refused) = (0, 0);
    for number in 0..reloads() {
        let turn = usize::try_from(number / 2).unwrap_or(0) % IN_TURN.len();
        let bad = number % 5 == 4;
        let wrong = if bad { "\nTeaTime 17" } else { "" };
        router.rewrite_config(&format!("{base}{}{wrong}\n", IN_TURN[turn]));
        match control.reload() {
            Ok(_) if !bad => done += 1,
            Err(error) if bad => {
                assert!(error.contains("\"TeaTime\" is no name of this file"), "{error}");
                refused += 1;
            }
            other => panic!("reload {number}: {other:?}"),
        }
        std::thread::sleep(PACE);
    }
    let took = began.elapsed();
    assert_eq!(
        (count(router, "success"), count(router, "failure")),
        (done, refused)
    );
    assert_holds(router, &held);
    let grown = resident_kib_of(router).saturating_sub(memory);
    eprintln!("{done} reloads, {refused} refused, in {took:.3?}; memory grew by {grown} KiB");
    assert!(grown < GROWTH_KIB, "{grown} KiB in {done} reloads");
    load.finish();
    running.conservation();
}

/// FAULTS 61: a thousand signals a second, and what the file says at the end is in force.
#[test]
fn a_storm_of_signals() {
    const STORM: Duration = Duration::from_secs(2);
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let router = &running.router;
    let load = Loaded::start(&scene);
    let open = descriptors_of(router);
    let began = Instant::now();
    let mut sent = 0u32;
    while began.elapsed() < STORM {
        let turn = usize::try_from(sent / 100).unwrap_or(0) % IN_TURN.len();
        if sent.is_multiple_of(100) {
            router.rewrite_config(&format!("BindAddress {ROUTER}\nWorkers 2\n{}\n", IN_TURN[turn]));
        }
        router.signal(Signal::SIGHUP);
        sent += 1;
        std::thread::sleep(
            (began + Duration::from_millis(1) * sent).saturating_duration_since(Instant::now()),
        );
    }
    router.rewrite_config(&format!("BindAddress {ROUTER}\nWorkers 2\nTtl 77\n"));
    router.signal(Signal::SIGHUP);
    wait::until("the last file to be in force", SOON, || {
        let ttl = in_force(router, "Ttl");
        if ttl == ["77"] {
            Ok(())
        } else {
            Err(format!("{ttl:?}"))
        }
    });
    let (done, failed) = (count(router, "success"), count(router, "failure"));
    eprintln!("{sent} signals: {done} reloads, {failed} refused");
    // A file that is being written when it is read may be refused, or seem empty; what it says in the end counts.
    assert!(done > 0 && done + failed <= u64::from(sent) + 1);
    wait::holds("no descriptor to be left", SOON, || {
        descriptors_of(router) <= open
    });
    load.finish();
    running.conservation();
}
