//! The `ebpf` lane as daemons use it: the kernel carries, whatever becomes of the engine; and steps back where others have a say.
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 ---- srv 2001:db8:99::2         see `isatap_tests::scene`
//! ```

use std::net::SocketAddrV6;
use std::time::Instant;

use nix::sys::signal::Signal;

use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::fault::{kill_engine, let_it_live, restarts, wait_successor, wish};
use isatap_tests::netns::Netns;
use isatap_tests::packet::Inner;
use isatap_tests::scene::{DUT, Opposite, ROUTER, Running, SERVER, SOON, Scene, X, on_link};
use isatap_tests::steady::Stream;
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use isatap_tests::witness::{Sample, Witnessed};

/// Said when the programs begin to carry, and when they leave packets to workers.
const CARRIES: &str = "the kernel carries packets by the ebpf lane";
const LEAVES: &str = "packets are left to the workers";
/// Short lives of engines after which the monitor takes its time.
const LIVES_OF_A_LOOP: usize = 5;
/// Devices that have it cut tunnelled packets themselves.
const FEATURE: &str = "tx-ipxip4-segmentation";
/// How often an engine is killed under the transfer; more in a long run.
const KILLS: &str = "ISATAPD_TEST_KILLS";

fn started(scene: &Scene) -> Running<'_> {
    let running = scene.start(|builder| builder.lane(Lane::Ebpf).workers(2));
    running.all().for_each(Daemon::wait_programs);
    running
}

/// With every process of every daemon stopped, a connection is made and 100 MB pass: no packet of it passes a worker.
#[test]
fn the_kernel_carries_by_itself() {
    let scene = Scene::new(1);
    let running = started(&scene);
    running.all().for_each(Daemon::freeze);
    let to = SocketAddrV6::new(SERVER, 5001, 0, 0);
    let report = tcp_transfer(&scene.hosts[0], &scene.server, to, 100_000_000, SOON * 2);
    running.all().for_each(Daemon::thaw);
    report.expect("every byte arrives");
    running.conservation();
}

/// A device that cuts tunnelled packets itself would look for an outer header in what the programs have taken out of the tunnel: superpackets
/// that are forwarded there go by workers, and nothing else does, until somebody has it leave the cutting to the kernel.
#[test]
fn superpackets_that_a_device_would_cut_wrongly_are_left() {
    let scene = Scene::new(1);
    let set = |to| scene.router.run(&format!("ethtool -K out {FEATURE} {to}"));
    set("on");
    let running = started(&scene);
    let left = || {
        let labels = [("direction", "decap"), ("cause", "segmentation")];
        running
            .router
            .metrics()
            .sum("isatapd_left_packets_total", &labels)
    };
    let left_of_transfer = |to: &Netns, addr| {
        let before = left();
        let port = SocketAddrV6::new(addr, 5001, 0, 0);
        let report = tcp_transfer(&scene.hosts[0], to, port, 20_000_000, SOON * 4);
        report.expect("every byte arrives");
        left() - before
    };
    assert!(left_of_transfer(&scene.server, SERVER) > 0);
    assert_eq!(
        left_of_transfer(&scene.router, on_link(ROUTER)),
        0,
        "for the router itself"
    );
    set("off");
    wait::holds("superpackets to be carried", SOON * 4, || {
        left_of_transfer(&scene.server, SERVER) == 0
    });
    running.conservation();
}

/// From the host to the server through the tunnel, and to the router beside it.
fn witnessed(scene: &Scene) -> Witnessed {
    let witnessed = Witnessed::start(
        &scene.hosts[0],
        (&scene.server, SERVER.into()),
        (&scene.router, ROUTER.into()),
    );
    witnessed.wait_more(1);
    witnessed
}

fn zeros(samples: &[Sample]) -> usize {
    samples.iter().filter(|sample| sample.tunnel == 0).count()
}

/// Kills the engine of `daemon` and looks on. One that is followed at once leaves next to no gap on any lane: let its monitor
/// stand still, and nobody follows for half a second.
fn kill_and_look(daemon: &Daemon<'_>, witnessed: &Witnessed, is_followed: bool) {
    let at = Instant::now();
    if !is_followed {
        daemon.signal(Signal::SIGSTOP);
    }
    let old = kill_engine(daemon);
    if !is_followed {
        witnessed.wait_more(5);
        daemon.signal(Signal::SIGCONT);
    }
    witnessed.wait_more(10);
    wait_successor(daemon, old);
    let_it_live(at);
}

/// FAULTS 60: kill -9 of the engines in turn during a transfer, which does not stand still for a tenth of a second: never while
/// its witness moves.
#[test]
fn a_killed_engine_leaves_no_gap() {
    let kills = std::env::var(KILLS).map_or(4, |text| text.parse().expect("a number"));
    let scene = Scene::new(1);
    let running = started(&scene);
    let witnessed = witnessed(&scene);
    let daemons = [&running.router, &running.hosts[0]];
    for round in 0..kills {
        kill_and_look(daemons[round % 2], &witnessed, round % 4 < 2);
    }
    let samples = witnessed.finish();
    eprintln!(
        "{kills} engines killed: at least {} bytes in each of {} samples, which took up to {:.3?}",
        samples.iter().map(|sample| sample.tunnel).min().expect("some"),
        samples.len(),
        samples.iter().map(|sample| sample.took).max().expect("some")
    );
    assert_eq!(zeros(&samples), 0, "{samples:?}");
    for (daemon, turn) in daemons.into_iter().zip([1, 0]) {
        let times = u64::try_from((kills + turn) / 2).expect("a few");
        assert_eq!(restarts(daemon, "signal"), times);
    }
    running.conservation();
}

/// The samples do show a gap: where workers carry, nothing moves while nobody follows a dead engine.
#[test]
fn a_gap_is_seen_where_there_is_one() {
    for lane in Lane::OF_WORKERS {
        let scene = Scene::new(1);
        let running = scene.start(|builder| builder.lane(lane).workers(1));
        let witnessed = witnessed(&scene);
        kill_and_look(&running.hosts[0], &witnessed, false);
        // However long it stood still, every byte arrives.
        let samples = witnessed.finish();
        assert!(zeros(&samples) > 0, "{lane:?}: {samples:?}");
        running.conservation();
    }
}

/// Filters, IPsec policies and traffic control of others are heard of when they come and when they go: nothing else has the monitor look
/// around here.
#[test]
fn others_are_heard_of() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.args("--lane auto").workers(1));
    daemon.wait_programs();
    wish(&daemon, "other_signs").expect("an answer");
    let carries = || daemon.metrics().sum("isatapd_kernel_carries", &[]);
    wait::holds("the kernel to carry both directions", SOON, || carries() == 2);
    for (come, go, left) in [
        (
            "nft add table ip seen { chain in { type filter hook input priority 0 ; counter ; } ; }",
            "nft delete table ip seen",
            0,
        ),
        (
            "ip xfrm policy add dir out dst 192.0.2.2 proto 41 action block",
            "ip xfrm policy deleteall",
            0,
        ),
        (
            "tc qdisc add dev is0 root pfifo",
            "tc qdisc delete dev is0 root",
            1,
        ),
    ] {
        scene.dut.run(come);
        wait::holds(come, SOON, || carries() == left);
        scene.dut.run(go);
        wait::holds(go, SOON, || carries() == 2);
    }
    let restarts = daemon.metrics().sum("isatapd_engine_restarts_total", &[]);
    assert_eq!(restarts, 0, "an engine that begins is told, too");
}

/// A filter that comes while no engine is there to have the programs step back sees what comes, all the same.
#[test]
fn a_filter_sees_packets_while_there_is_no_engine() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.args("--lane auto").workers(1));
    daemon.wait_programs();
    let crafter = scene.crafter();
    // After these deaths the next engine comes in five seconds.
    for _ in 0..LIVES_OF_A_LOOP - 1 {
        let old = kill_engine(&daemon);
        wait::holds("the next engine", SOON, || {
            daemon.try_engine_pid().is_some_and(|engine| engine != old)
        });
    }
    kill_engine(&daemon);
    daemon.wait_log("the engine is started again in 5s");
    for part in [
        "table ip seen",
        "chain ip seen in { type filter hook input priority 0 ; }",
        "rule ip seen in ip protocol 41 counter",
    ] {
        scene.dut.run(&format!("nft add {part}"));
    }
    wait::holds("the filter to see a packet", SOON, || {
        crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(1, 9, b"who sees me?"));
        !scene.dut.run("nft list chain ip seen in").contains("packets 0 ")
    });
    assert_eq!(daemon.try_engine_pid(), None, "an engine has them step back, too");
}

/// `Lane auto` gives way to filters and to IPsec while there are any; `Lane ebpf` was told not to.
#[test]
fn others_have_their_say() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.args("--lane auto"));
    let (router, host) = (&running.router, &running.hosts[0]);
    running.all().for_each(Daemon::wait_programs);
    let lines =
        |daemon: &Daemon<'_>, text: &str| daemon.log().lines().filter(|line| line.contains(text)).count();
    let stream = Stream::start(&scene.hosts[0], &scene.server, SERVER);

    for part in [
        "table ip seen",
        "chain ip seen in { type filter hook input priority 0 ; }",
        "rule ip seen in counter",
    ] {
        router.ns().run(&format!("nft add {part}"));
    }
    router.wait_log("netfilter has rules for IPv4");
    // The filter sees what it would see without the lane.
    let seen = || {
        router
            .ns()
            .run("nft list chain ip seen in")
            .contains("packets 0 ")
    };
    stream.wait_more(1_000_000, SOON * 6);
    assert!(!seen(), "the rule counts packets");
    router.ns().run("nft delete table ip seen");
    wait::holds("the kernel to carry again", SOON * 3, || {
        lines(router, CARRIES) == 2
    });

    host.ns()
        .run("ip xfrm policy add dir out src 192.0.2.1 dst 192.0.2.2 proto 41 tmpl proto esp mode transport");
    host.wait_log("there are IPsec policies");
    host.ns().run("ip xfrm policy deleteall");
    wait::holds("the kernel to carry again", SOON * 3, || {
        lines(host, CARRIES) == 2
    });
    assert_eq!((lines(router, LEAVES), lines(host, LEAVES)), (1, 1));
    stream.wait_more(1_000_000, SOON * 6);
    stream.finish();
    running.conservation();
}
