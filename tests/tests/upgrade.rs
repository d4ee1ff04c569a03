//! Another program takes over while the daemon runs: same process, same interface, nobody notices; and whoever could not
//! take over is refused before anything has happened.
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 ---- srv 2001:db8:99::2         see `isatap_tests::scene`
//! ```

use std::fs;
use std::net::SocketAddrV6;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::fault::{FOLLOWED, kill_engine, let_it_live, wait_successor, wish};
use isatap_tests::installation::Installation;
use isatap_tests::netns::Netns;
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::scene::{SERVER, SOON, Scene};
use isatap_tests::state;
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use nix::sys::signal::Signal;

fn upgrades(daemon: &Daemon<'_>) -> u64 {
    let (_, status) = daemon.http("/api/v1/status").expect("a status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["control"]["upgrades"].as_u64().expect("a number")
}

/// How many filters of system calls its monitor is under.
fn filters(daemon: &Daemon<'_>) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a status");
    let line = text.lines().find(|line| line.starts_with("Seccomp_filters:"));
    line.expect("a number").to_owned()
}

/// FAULTS 72: the monitor's filters go along, and are not entered once more: the kernel would be tired of them some day.
fn a_transfer_outlives_an_upgrade(lane: Lane) {
    const BYTES: u64 = 40_000_000;
    let scene = Scene::new(1);
    let mut running = scene.start(|builder| builder.lane(lane).workers(2));
    let router = &running.router;
    let index = state::if_index(router.ns(), TUNNEL);
    let seen = state::snapshot(router.ns(), TUNNEL);
    let confined = filters(router);
    let (host, server) = (&scene.hosts[0], &scene.server);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            let mut transfers = 0;
            while !done.load(Ordering::Relaxed) {
                let to = SocketAddrV6::new(SERVER, 5001 + transfers, 0, 0);
                let report = tcp_transfer(host, server, to, BYTES, FOLLOWED);
                report.expect("every byte arrives, in order, over one connection");
                transfers += 1;
            }
        });
        for round in 1..=3 {
            let (monitor, engine) = (router.pid(), router.engine_pid());
            let output = router.ctl("upgrade");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{output:?}\n{}", router.log());
            assert!(text.contains("has taken over from"), "{text}");
            eprint!("{lane:?}: {text}");
            assert_eq!(router.pid(), monitor);
            assert_ne!(router.engine_pid(), engine);
            assert_eq!(upgrades(router), round);
        }
        done.store(true, Ordering::Relaxed);
        transfers.join().expect("the transfers");
    });
    assert_eq!(filters(router), confined);
    assert_eq!(state::if_index(router.ns(), TUNNEL), index);
    assert_eq!(state::snapshot(router.ns(), TUNNEL), seen);
    // The program that took over does everything that the one before did.
    let_it_live(Instant::now());
    let old = kill_engine(router);
    wait_successor(router, old);
    ping_until(host, &SERVER.to_string(), SOON);
    running.conservation();
    running.router.stop();
    assert!(!scene.router.has_link(TUNNEL));
    assert!(!running.router.folder().join("pid").exists());
    assert!(!running.router.folder().join("control.sock").exists());
}

#[test]
fn a_transfer_outlives_an_upgrade_uring() {
    a_transfer_outlives_an_upgrade(Lane::Uring);
}

#[test]
fn a_transfer_outlives_an_upgrade_syscall() {
    a_transfer_outlives_an_upgrade(Lane::Syscall);
}

#[test]
fn a_transfer_outlives_an_upgrade_ebpf() {
    a_transfer_outlives_an_upgrade(Lane::Ebpf);
}

/// FAULTS 72: the configuration that an engine leaves says where pid file and control socket are. Whoever has taken the engine over must
/// not have the program that takes over remove the socket of somebody else in the end, nor end before it serves.
#[test]
fn an_engine_chooses_no_file_that_is_removed() {
    let ns = Netns::new("places");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    let mut daemon = Builder::new(&ns).start();
    let victim = daemon.folder().join("victim");
    let _listener = UnixListener::bind(&victim).expect("a socket");
    let answer = wish(&daemon, "places").expect("an answer");
    assert!(answer.contains("\"ok\""), "{answer}");
    let output = daemon.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    assert_eq!(upgrades(&daemon), 1);
    daemon.stop();
    assert!(victim.exists());
    assert!(!daemon.folder().join("pid").exists());
    assert!(!daemon.folder().join("control.sock").exists());
}

/// In order, an upgrade loses nothing: what arrives meanwhile waits for the successor.
#[test]
fn an_upgrade_loses_no_packet() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let (host, server) = (&scene.hosts[0], SERVER.to_string());
    let done = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                // Each request is answered, exactly once.
                ping(host, &server, 20);
                rounds += 1;
            }
            rounds
        });
        for daemon in [&running.router, &running.hosts[0], &running.router] {
            let output = daemon.ctl("upgrade");
            assert!(output.status.success(), "{output:?}\n{}", daemon.log());
        }
        done.store(true, Ordering::Relaxed);
        pings.join().expect("no request without its answer")
    });
    assert!(rounds > 0);
    running.conservation();
}

fn lonely() -> Netns {
    let ns = Netns::new("dut");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    ns
}

/// A program that is no daemon, that says another version, that says nothing, that others could have written: refused
/// with the reason, and the daemon goes on as if nobody had asked.
#[test]
fn what_could_not_take_over_is_refused() {
    let ns = lonely();
    let installed = Installation::new();
    let mut daemon = Builder::new(&ns).program(installed.path()).start();
    let engine = daemon.engine_pid();
    let refused = |why: &str| {
        let output = daemon.ctl("upgrade");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text.contains(why), "{why:?} is not in {text}");
        assert_eq!((daemon.engine_pid(), upgrades(&daemon)), (engine, 0));
    };
    installed.put("#!/bin/sh\necho 4711 9.9.9\n", 0o755);
    refused("it speaks version 4711 of the messages");
    installed.put("#!/bin/sh\nexit 2\n", 0o755);
    refused("it does not know how; restart the daemon instead");
    installed.put("#!/bin/sh\necho 'something is wrong with me'; exit 1\n", 0o755);
    refused("something is wrong with me");
    installed.put("#!/bin/sh\nexec sleep 60\n", 0o755);
    refused("does not say within 5s");
    installed.put("#!/bin/sh\necho 1 9.9.9\n", 0o757);
    refused("others could have written this file");
    installed.remove();
    refused("No such file or directory");
    // A dead engine is followed by one of the program that runs, wherever its file is.
    let_it_live(Instant::now());
    let old = kill_engine(&daemon);
    wait_successor(&daemon, old);
    // And the right one can take over at last.
    installed.put_daemon();
    let output = daemon.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    daemon.stop();
}

/// Two who ask at once, as a package and an operator may: each is told that a new program serves, whoever's it was.
#[test]
fn two_may_ask_at_once() {
    let ns = lonely();
    let daemon = Builder::new(&ns).start();
    for _ in 0..5 {
        thread::scope(|scope| {
            let asking = [(); 2].map(|()| scope.spawn(|| daemon.ctl("upgrade")));
            for asked in asking {
                let output = asked.join().expect("isatapctl");
                assert!(output.status.success(), "{output:?}\n{}", daemon.log());
            }
        });
    }
    assert!(upgrades(&daemon) >= 5);
}

/// A program that passes the trial and cannot be executed afterwards: the one of before goes on, and whoever asked hears so.
#[test]
fn a_jump_that_fails_is_no_end() {
    let ns = lonely();
    let installed = Installation::new();
    let daemon = Builder::new(&ns).program(installed.path()).start();
    let index = state::if_index(&ns, TUNNEL);
    let old = daemon.engine_pid();
    installed.put_patient();
    thread::scope(|scope| {
        let asking = scope.spawn(|| daemon.ctl("upgrade"));
        installed.vanish();
        daemon.wait_log("the upgrade failed, the program of before goes on: No such file or directory");
        wait_successor(&daemon, old);
        assert_eq!(state::if_index(&ns, TUNNEL), index);
        let output = asking.join().expect("isatapctl");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            text.contains("did not take over; the one of before goes on"),
            "{text}"
        );
        daemon.signal(Signal::SIGTERM);
    });
    wait::holds("the interface to be gone", Duration::from_secs(5), || {
        !ns.has_link(TUNNEL)
    });
}
