//! Programs in the kernel carry on while the daemon becomes another program, until those of that have rules; then these are in
//! their places.
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 ---- srv 2001:db8:99::2         see `isatap_tests::scene`
//! ```

use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use isatap_tests::daemon::{Daemon, Lane, TUNNEL, program};
use isatap_tests::fault::wait_successor;
use isatap_tests::installation::Installation;
use isatap_tests::metrics::Direction;
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::scene::{Running, SERVER, SOON, Scene};
use isatap_tests::steady::Pulse;
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Between two questions, each of which is answered: far fewer than a core carries, and hundreds in the time that an upgrade takes.
const INTERVAL: Duration = Duration::from_micros(500);
/// What a new engine and its neighbours say to each other, at most: solicitations, advertisements, probes.
const OF_CONTROL: u64 = 40;
/// How often it is tried to kill an engine that is as young.
const ATTEMPTS: usize = 10;
/// Said by a monitor whose programs carry from now on.
const EXCHANGED: &str = "programs in the kernel are exchanged";

fn started<'a>(scene: &'a Scene, installed: Option<&Installation>) -> Running<'a> {
    let running = scene.start(|builder| {
        let builder = builder.lane(Lane::Ebpf).workers(2);
        match installed {
            Some(installed) => builder.program(installed.path()),
            None => builder,
        }
    });
    running.all().for_each(Daemon::wait_programs);
    running
}

/// How many packets the workers of the engine of now have taken.
fn by_workers(daemon: &Daemon<'_>) -> u64 {
    daemon.metrics().taken_by_workers()
}

/// Identifiers of the programs at the tunnel interface and at the underlay.
fn programs(daemon: &Daemon<'_>) -> Vec<u32> {
    let ends = [(TUNNEL, TcAttachType::Egress), (UNDERLAY, TcAttachType::Ingress)];
    let at = |(device, end)| {
        SchedClassifier::query_tcx(device, end)
            .expect("a kernel with TCX")
            .1
    };
    let all = daemon.ns().enter(|| ends.map(at));
    all.iter().flatten().map(aya::programs::ProgramInfo::id).collect()
}

fn exchanges(daemon: &Daemon<'_>) -> usize {
    daemon.log().matches(EXCHANGED).count()
}

fn upgrade(daemon: &Daemon<'_>) {
    let output = daemon.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", daemon.log());
}

/// Three upgrades at either end under a steady stream both ways: each packet arrives once, in order, and no worker sees one of them.
#[test]
fn nothing_is_lost_nor_left_to_workers() {
    let scene = Scene::new(1);
    let running = started(&scene, None);
    let stream = Pulse::start(&scene.hosts[0], &scene.server, &[SERVER], INTERVAL);
    stream.wait_answers(Instant::now(), SOON);
    for round in 1..=3 {
        for daemon in [&running.router, &running.hosts[0]] {
            let before = programs(daemon);
            assert_eq!(before.len(), 2);
            upgrade(daemon);
            wait::holds("programs that are exchanged", SOON * 2, || {
                exchanges(daemon) == round
            });
            let after = programs(daemon);
            assert_eq!(after.len(), 2, "{before:?}, then {after:?}");
            assert!(
                !after.iter().any(|id| before.contains(id)),
                "{before:?}, then {after:?}"
            );
            stream.wait_answers(Instant::now(), SOON);
            let taken = by_workers(daemon);
            eprintln!("{} packets were taken by workers in an upgrade", taken);
            assert!(taken <= OF_CONTROL, "{taken} packets were left to workers");
        }
    }
    eprintln!("{}", stream.finish_whole());
    running.conservation();
    for daemon in running.all() {
        let metrics = daemon.metrics();
        for direction in Direction::ALL {
            let labels = [("direction", direction.label()), ("worker", "kernel")];
            let of = |name| metrics.sum(name, &labels);
            let received = of("isatapd_received_packets_total");
            assert!(received > 0);
            assert_eq!(received, of("isatapd_packets_total") + of("isatapd_drops_total"));
        }
    }
}

/// The first engine of the new version dies before it has written rules: the programs of before carry on until the next one has.
#[test]
fn an_engine_that_dies_before_it_has_rules_changes_nothing() {
    let scene = Scene::new(1);
    let running = started(&scene, None);
    let router = &running.router;
    let stream = Pulse::start(&scene.hosts[0], &scene.server, &[SERVER], INTERVAL);
    stream.wait_answers(Instant::now(), SOON);
    let died_before = (1..=ATTEMPTS).find(|round| {
        let old = router.engine_pid();
        let was_exchanged = thread::scope(|scope| {
            let asking = scope.spawn(|| upgrade(router));
            let engine = wait::until("the next engine", SOON * 2, || match router.try_engine_pid() {
                Some(engine) if engine != old => Ok(engine),
                other => Err(format!("{other:?}")),
            });
            kill(Pid::from_raw(engine), Signal::SIGKILL).expect("an engine to kill");
            wait::holds("a dead engine", SOON, || router.try_engine_pid() != Some(engine));
            let was_exchanged = exchanges(router) == *round;
            asking.join().expect("an upgrade");
            was_exchanged
        });
        wait::holds("programs that are exchanged", SOON * 2, || {
            exchanges(router) == *round
        });
        stream.wait_answers(Instant::now(), SOON);
        let taken = by_workers(router);
        assert!(taken <= OF_CONTROL, "{taken} packets were left to workers");
        !was_exchanged
    });
    assert!(died_before.is_some(), "it had written rules each time");
    eprintln!("in attempt {died_before:?}: {}", stream.finish_whole());
}

/// The new version has programs that this kernel does not take: those of before go, since nobody writes rules for them any more.
#[test]
fn programs_that_nobody_follows_go() {
    let installed = Installation::new();
    let scene = Scene::new(1);
    let running = started(&scene, Some(&installed));
    installed.put_without_programs();
    let router = &running.router;
    upgrade(router);
    router.wait_log("workers carry all packets");
    assert_eq!(programs(router), [0; 0]);
    ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
    let before = by_workers(router);
    ping(&scene.hosts[0], &SERVER.to_string(), 5);
    assert!(by_workers(router) >= before + 10, "five there, five back");
    // And come back with a version that has some.
    installed.put_daemon();
    upgrade(router);
    wait::holds("the kernel to carry", SOON * 2, || {
        router.metrics().sum("isatapd_kernel_carries", &[]) == 2
    });
    assert_eq!(programs(router).len(), 2);
}

/// The new version cannot be executed after all: the programs carry on meanwhile, and are taken away where they may not be.
#[test]
fn a_jump_that_fails_keeps_programs() {
    let installed = Installation::new();
    let scene = Scene::new(1);
    let running = started(&scene, Some(&installed));
    let host = &running.hosts[0];
    let (engine, before) = (host.engine_pid(), programs(host));
    installed.put_patient();
    let stream = Pulse::start(&scene.hosts[0], &scene.server, &[SERVER], INTERVAL);
    stream.wait_answers(Instant::now(), SOON);
    let socket = host.folder().join("control.sock");
    let mut asking = host.ns().enter(|| {
        let mut command = std::process::Command::new(program("isatapctl"));
        command.arg("--socket").arg(socket).arg("upgrade");
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.spawn().expect("isatapctl")
    });
    installed.vanish();
    host.wait_log("the upgrade failed, the program of before goes on");
    wait_successor(host, engine);
    stream.wait_answers(Instant::now(), SOON);
    let taken = by_workers(host);
    assert!(taken <= OF_CONTROL, "{taken} packets were left to workers");
    eprintln!("{}", stream.finish_whole());
    assert_eq!(programs(host), before);
    // Nothing holds the one of a device that has lost its right.
    host.ns().ip(&format!("addr flush dev {UNDERLAY}"));
    wait::holds("the program to be taken from the device", SOON * 2, || {
        programs(host).len() == 1
    });
    asking.kill().expect("it waits");
    asking.wait().expect("it is gone");
}
