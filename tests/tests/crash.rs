//! Engines that die, in every way there is: another one goes on with the same interface, and nobody notices but the
//! packets of a moment (FAULTS 34, 60).
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 ---- srv 2001:db8:99::2         see `isatap_tests::scene`
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddrV6, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::advertiser::{DAY, Stage, net};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Builder, Lane, METRICS, TUNNEL};
use isatap_tests::fault::{FOLLOWED, kill_engine, let_it_live, restarts, wait_successor, wish};
use isatap_tests::nd::{Advertisement, prefix_option};
use isatap_tests::netns::Netns;
use isatap_tests::numbered::Numbered;
use isatap_tests::packet::link_local;
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::scene::{ROUTER, SERVER, SOON, Scene};
use isatap_tests::state;
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often an engine is killed under the transfer; more in a long run.
const KILLS: &str = "ISATAPD_TEST_KILLS";
/// A gap in the service is as long as this at most.
const GAP: Duration = Duration::from_secs(1);

/// FAULTS 60: kill -9 of the engine, again and again, under a TCP transfer that never breaks. Host and router take turns.
fn a_transfer_outlives_its_engines(lane: Lane) {
    const BYTES: u64 = 40_000_000;
    let kills = std::env::var(KILLS).map_or(10, |text| text.parse().expect("a number"));
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.lane(lane).workers(2));
    let daemons = [&running.router, &running.hosts[0]];
    let before = daemons.map(|daemon| state::if_index(daemon.ns(), TUNNEL));
    let (host, server) = (&scene.hosts[0], &scene.server);
    let (streaming, transferring) = (AtomicBool::new(false), AtomicBool::new(false));
    let (tunnel, beside) = ((server, SERVER.into()), (&scene.router, ROUTER.into()));
    let (numbered, killed, transfers) = thread::scope(|scope| {
        let stream = scope.spawn(|| Numbered::stream(host, tunnel, beside, &streaming));
        let transfers = scope.spawn(|| {
            let mut transfers = 0;
            while !transferring.load(Ordering::Relaxed) {
                let to = SocketAddrV6::new(SERVER, 5001 + transfers % 1000, 0, 0);
                let report = tcp_transfer(host, server, to, BYTES, FOLLOWED);
                report.expect("every byte arrives, in order, over one connection");
                transfers += 1;
            }
            transfers
        });
        let mut killed = Vec::new();
        for round in 0..kills {
            let daemon = daemons[round % 2];
            let at = Instant::now();
            let old = kill_engine(daemon);
            killed.push(at);
            wait_successor(daemon, old);
            let_it_live(at);
        }
        transferring.store(true, Ordering::Relaxed);
        let transfers = transfers.join().expect("the transfers");
        streaming.store(true, Ordering::Relaxed);
        (stream.join().expect("the stream"), killed, transfers)
    });
    let gap = |at: &Instant| numbered.gap(*at, *at + GAP * 2).unwrap_or(GAP * 10);
    let mut gaps: Vec<_> = killed.iter().map(gap).collect();
    gaps.sort_unstable();
    let sent = numbered.sent;
    let lost = sent - numbered.through.len();
    eprintln!(
        "{lane:?}: {kills} engines killed: gap median {:.1?}, worst {:.1?}; {lost} of {sent} datagrams lost; {transfers} transfers",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
    );
    assert!(gaps[gaps.len() / 2] <= GAP, "{gaps:?}");
    for (daemon, (index, turn)) in daemons.iter().zip(before.into_iter().zip([1, 0])) {
        assert_eq!(
            state::if_index(daemon.ns(), TUNNEL),
            index,
            "the interface is the same"
        );
        let times = u64::try_from((kills + turn) / 2).expect("a few");
        assert_eq!(restarts(daemon, "signal"), times);
    }
    running.conservation();
}

#[test]
fn a_transfer_outlives_its_engines_uring() {
    a_transfer_outlives_its_engines(Lane::Uring);
}

#[test]
fn a_transfer_outlives_its_engines_syscall() {
    a_transfer_outlives_its_engines(Lane::Syscall);
}

#[test]
fn a_transfer_outlives_its_engines_ebpf() {
    a_transfer_outlives_its_engines(Lane::Ebpf);
}

/// FAULTS 34: panics, aborts, a worker or the control loop that stands still: each is found, told, counted and mended.
#[test]
fn each_way_to_die_is_found_told_and_mended() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let daemon = &running.hosts[0];
    let index = state::if_index(daemon.ns(), TUNNEL);
    let server = SERVER.to_string();
    for (fault, reason, said) in [
        ("control_panic", "panic", "as a test wished"),
        ("worker_panic", "panic", "as a test wished"),
        ("abort", "signal", "it was killed by SIGABRT"),
        // FAULTS 71: nothing in an engine starts programs.
        (
            "program",
            "forbidden_call",
            "it made a system call that nothing in it makes",
        ),
        // FAULTS 43: nor does it make a ring once it serves.
        (
            "ring",
            "forbidden_call",
            "it made a system call that nothing in it makes",
        ),
        (
            "worker_wedge",
            "wedged_worker",
            "worker 0 is stuck: it was woken, makes no turn and sleeps",
        ),
        (
            "worker_spin",
            "wedged_worker",
            "worker 0 is stuck: it was woken, makes no turn and runs in circles",
        ),
        ("nonsense", "fault", "it said something that is no message"),
        (
            "control_wedge",
            "wedged_control",
            "its control loop gives no sign of life",
        ),
    ] {
        let before = restarts(daemon, reason);
        let old = daemon.engine_pid();
        let at = Instant::now();
        let_it_live(at);
        let wished = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| wish(daemon, fault));
            wait_successor(daemon, old);
        });
        eprintln!("{fault}: served again after {:.1?}", wished.elapsed());
        assert_eq!(restarts(daemon, reason), before + 1, "{fault}\n{}", daemon.log());
        assert!(daemon.log().contains(said), "{fault}: {}", daemon.log());
        ping_until(&scene.hosts[0], &server, SOON);
        ping(&scene.hosts[0], &server, 20);
        assert_eq!(state::if_index(daemon.ns(), TUNNEL), index);
    }
    running.conservation();
}

/// Does something while four times as much as there are cores wants to run.
fn beside_hogs(act: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..4 * cores {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        done.store(true, Ordering::Relaxed);
        acted.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
}

/// FAULTS 68: four times as much work as cores: whoever waits for a core is not stuck.
#[test]
fn a_busy_machine_wedges_nobody() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let daemon = &running.router;
    let engine = daemon.engine_pid();
    beside_hogs(|| {
        // Nothing can be waited for: nothing is to happen.
        thread::sleep(Duration::from_secs(6));
    });
    ping_until(&scene.hosts[0], &SERVER.to_string(), FOLLOWED);
    assert_eq!(daemon.try_engine_pid(), Some(engine), "{}", daemon.log());
    running.conservation();
}

/// FAULTS 34, 68: a worker that is stuck is told from those that wait, on a machine where all of them do.
#[test]
fn a_stuck_worker_is_found_on_a_busy_machine() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let daemon = &running.router;
    for fault in ["worker_wedge", "worker_spin"] {
        let old = daemon.engine_pid();
        let_it_live(Instant::now());
        beside_hogs(|| {
            let wished = Instant::now();
            wish(daemon, fault);
            wait_successor(daemon, old);
            eprintln!("{fault}: served again after {:.1?}", wished.elapsed());
        });
        ping_until(&scene.hosts[0], &SERVER.to_string(), FOLLOWED);
    }
    assert_eq!(restarts(daemon, "wedged_worker"), 2, "{}", daemon.log());
    running.conservation();
}

/// FAULTS 68: an engine that gets no time at all, since its class is the idle one and others are busy, is not wedged either.
#[test]
fn a_starved_engine_is_not_wedged() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(1));
    let daemon = &running.router;
    let engine = daemon.engine_pid();
    let class = |option: &str| {
        daemon
            .ns()
            .run(&format!("chrt --all-tasks {option} --pid 0 {engine}"));
    };
    beside_hogs(|| {
        class("--idle");
        wait::until("the monitor to see that it starves", 3 * FOLLOWED, || {
            let log = daemon.log();
            let seen = log.contains("waits for a core that others have");
            if seen { Ok(()) } else { Err(log) }
        });
        class("--other");
    });
    ping_until(&scene.hosts[0], &SERVER.to_string(), FOLLOWED);
    assert_eq!(daemon.try_engine_pid(), Some(engine), "{}", daemon.log());
    running.conservation();
}

/// A crash loop becomes slow, says why, and ends as soon as the reason is gone.
#[test]
fn a_crash_loop_backs_off() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    let started = Instant::now();
    let mut killed = 0;
    while started.elapsed() < Duration::from_secs(3) {
        if let Some(engine) = daemon.try_engine_pid() {
            let _ = kill(Pid::from_raw(engine), Signal::SIGKILL);
            killed += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    // 0, 0.1, 0.5, 1, 5 seconds: at most five of them live within three seconds, and a corpse may be shot once more.
    daemon.wait_log("since it dies again and again: it was killed by SIGKILL");
    wait::until("an engine that is left alone", FOLLOWED, || {
        match daemon.http("/healthz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let counted = restarts(&daemon, "signal");
    assert!((3..=6).contains(&counted), "{counted} restarts, {killed} shots");
    daemon.stop();
    assert!(!ns.has_link(TUNNEL));
}

/// TERM while there is no engine: the daemon ends all the same.
#[test]
fn a_daemon_without_an_engine_can_be_stopped() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    for _ in 0..4 {
        wait::holds("an engine", FOLLOWED, || daemon.try_engine_pid().is_some());
        kill_engine(&daemon);
        let log = daemon.log();
        wait::holds("its death to be noticed", SOON, || daemon.log() != log);
    }
    daemon.stop();
    assert!(!ns.has_link(TUNNEL));
}

fn lonely() -> Netns {
    let ns = Netns::new("dut");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    ns
}

/// Who asks while the engine is dead waits a moment, and is answered.
#[test]
fn clients_wait_instead_of_failing() {
    let ns = lonely();
    let daemon = Builder::new(&ns).start();
    for _ in 0..3 {
        let_it_live(Instant::now());
        let old = kill_engine(&daemon);
        let status = daemon.ctl("status");
        assert!(status.status.success(), "{status:?}");
        let (code, _) = daemon.http("/metrics").expect("an answer");
        assert_eq!(code, 200);
        wait_successor(&daemon, old);
    }
}

/// FAULTS 60: the monitor killed: no engine is left, the interface is gone, and the next daemon starts in the same place.
#[test]
fn nothing_outlives_the_monitor() {
    for lane in Lane::ALL {
        let ns = lonely();
        let mut daemon = Builder::new(&ns).lane(lane).start();
        let engine = daemon.engine_pid();
        daemon.signal(Signal::SIGKILL);
        daemon.wait_exit(SOON);
        wait::holds("the engine to be gone", SOON, || {
            std::fs::read_link(format!("/proc/{engine}/exe")).is_err()
        });
        wait::holds("the interface to be gone", SOON, || !ns.has_link(TUNNEL));
        // What it left behind keeps nobody from starting.
        let (pidfile, socket) = (daemon.folder().join("pid"), daemon.folder().join("control.sock"));
        assert!(
            pidfile.exists() && socket.exists(),
            "nobody is left who could have removed them"
        );
        let mut next = daemon.start_again();
        next.stop();
        assert!(!pidfile.exists() && !socket.exists());
    }
}

/// Whether somebody answers for metrics within a moment.
fn answers_at_once(ns: &Netns) -> bool {
    ns.enter(|| {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        stream.read(&mut [0])
    })
    .is_ok_and(|len| len > 0)
}

/// An engine whose control loop stands still dies with the monitor as well.
#[test]
fn a_wedged_engine_does_not_outlive_the_monitor() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns).start();
    let engine = daemon.engine_pid();
    thread::scope(|scope| {
        scope.spawn(|| wish(&daemon, "control_wedge"));
        wait::holds("the control loop to stand still", SOON, || !answers_at_once(&ns));
        daemon.signal(Signal::SIGKILL);
    });
    daemon.wait_exit(SOON);
    wait::holds("the engine to be gone", SOON, || {
        std::fs::read_link(format!("/proc/{engine}/exe")).is_err()
    });
}

fn near(seen: Option<u32>, seconds: u32) -> bool {
    seen.is_some_and(|seen| seen <= seconds && seen + 20 > seconds)
}

/// A host keeps what its routers promised, with the time that is left, and goes on from there.
#[test]
fn a_host_keeps_its_addresses_and_routes() {
    let stage = Stage::new(1);
    let daemon = stage.start("");
    let (prefix, addr) = net(1);
    let lasting = || Advertisement::new(&[prefix_option(prefix, 64, DAY, 7200)]);
    stage.advertise(&daemon, 0, &lasting());
    let has = |seen: &Configured| seen.address(addr).is_some() && seen.to("default").len() == 1;
    let before = Configured::wait(&stage.host, "what was advertised", SOON, has);
    let mut watch = std::process::Command::new("ip");
    watch.args(["-6", "-o", "monitor", "address", "route"]);
    watch.stdout(std::process::Stdio::piped());
    let mut watch = stage.host.spawn(&mut watch);
    for _ in 0..3 {
        let_it_live(Instant::now());
        let old = kill_engine(&daemon);
        assert!(has(&Configured::read(&stage.host)), "while there is no engine");
        wait_successor(&daemon, old);
        daemon.wait_log("taken over from the engine before: 1 address(es)");
    }
    let after = Configured::read(&stage.host);
    assert_eq!(after.clone().timeless(), before.timeless());
    let address = after.address(addr).expect("the address");
    assert!(
        near(address.valid, DAY) && near(address.preferred, 7200),
        "{address:?}"
    );
    // What was taken over is this engine's to end.
    stage.advertise(
        &daemon,
        0,
        &Advertisement::new(&[prefix_option(prefix, 64, DAY, 0)]).lifetime(0),
    );
    let ended = |seen: &Configured| {
        seen.to("default").is_empty() && seen.address(addr).is_some_and(|address| address.deprecated)
    };
    Configured::wait(&stage.host, "the end of both", SOON, ended);
    watch.kill().expect("end ip monitor");
    let output = watch.wait_with_output().expect("its output");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let deleted: Vec<_> = lines.lines().filter(|line| line.starts_with("Deleted")).collect();
    assert!(
        deleted.iter().all(|line| line.contains("default")),
        "nothing but the route that ended: {deleted:?}"
    );
    daemon.conservation();
}

/// A router recognises its own part in the prefixes it advertises, and takes it back when they are configured no more.
#[test]
fn a_router_keeps_its_own_part() {
    let ns = lonely();
    let text = "Advertise yes\nAdvertisePrefix 2001:db8:5::/64 on-link\n";
    let daemon = Builder::new(&ns).config(text).start();
    let own = || {
        let addresses = state::addresses(&ns, TUNNEL);
        let has = |addr: &str| addresses.iter().any(|it| it == addr);
        (
            has("2001:db8:5::5efe:a00:1/128"),
            state::routes(&ns, TUNNEL).contains("2001:db8:5::/64"),
        )
    };
    wait::holds("the router's own part", SOON, || own() == (true, true));
    let_it_live(Instant::now());
    let old = kill_engine(&daemon);
    assert_eq!(own(), (true, true));
    wait_successor(&daemon, old);
    assert_eq!(own(), (true, true));
    let link_local = format!("{}/64", link_local("10.0.0.1".parse().expect("an address")));
    assert!(state::addresses(&ns, TUNNEL).contains(&link_local));
    daemon.rewrite_config("Advertise no\n");
    assert!(daemon.ctl("reload").status.success());
    wait::holds("it to be taken back", SOON, || own() == (false, false));
    daemon.conservation();
}

/// What a reload has put in force stays in force, also when the file has gone bad since.
#[test]
fn a_reload_outlives_the_engine_that_did_it() {
    let ns = lonely();
    let daemon = Builder::new(&ns).start();
    daemon.rewrite_config("Ttl 33\nMetricsListen 127.0.0.1:9555\n");
    assert!(daemon.ctl("reload").status.success());
    daemon.rewrite_config("Ttl 999\n");
    let_it_live(Instant::now());
    let at = "127.0.0.1:9555".parse().expect("an address");
    let http = |path: &str| isatap_tests::metrics::http_get(&ns, at, path);
    let old = kill_engine(&daemon);
    wait::until("another engine", FOLLOWED, || match daemon.try_engine_pid() {
        Some(engine) if engine != old => http("/healthz"),
        other => Err(format!("{other:?}")),
    });
    let (_, status) = http("/api/v1/status").expect("a status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let settings = status["configuration"].as_array().expect("settings");
    let ttl = settings
        .iter()
        .find(|setting| setting["name"] == "Ttl")
        .expect("Ttl");
    assert_eq!(ttl["value"], "33");
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["engine_pid"], daemon.engine_pid());
    assert!(
        daemon.http("/healthz").is_err(),
        "nobody listens where it was before"
    );
}

/// The counters of a dead engine's workers are gone with it, those of the programs go on; what there is adds up.
fn counters_after_an_engine_add_up(lane: Lane) {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.lane(lane));
    let host = &running.hosts[0];
    running.all().for_each(|daemon| daemon.wait_lane(lane));
    ping(&scene.hosts[0], &SERVER.to_string(), 50);
    let_it_live(Instant::now());
    let old = kill_engine(host);
    wait_successor(host, old);
    let received = host
        .metrics()
        .sum("isatapd_received_packets_total", &[("direction", "encap")]);
    assert_eq!(received >= 50, lane == Lane::Ebpf, "{received}");
    ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
    running.conservation();
}

#[test]
fn counters_of_workers_begin_anew_and_add_up() {
    counters_after_an_engine_add_up(Lane::Uring);
}

#[test]
fn counters_of_programs_go_on_and_add_up() {
    counters_after_an_engine_add_up(Lane::Ebpf);
}
