//! People rename interfaces, and rules of a device manager do. The kernel goes on counting by its index, and so does the daemon:
//! what it carries, sets, attaches and says goes by the name of now.

use std::time::Instant;

use isatap_tests::advertiser::{Stage, net, usual};
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::fault::{kill_engine, let_it_live, wait_successor};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::Advertisement;
use isatap_tests::netns::Netns;
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SERVER, SOON, Scene};
use isatap_tests::wait;

/// The new name.
const NEW: &str = "tun6";

fn rename(ns: &Netns, daemon: &Daemon<'_>) {
    ns.ip(&format!("link set {TUNNEL} name {NEW}"));
    daemon.wait_log(&format!("interface {TUNNEL} is called {NEW} now"));
    shows_the_new_name(daemon);
}

#[track_caller]
fn shows_the_new_name(daemon: &Daemon<'_>) {
    let status = String::from_utf8(daemon.ctl("status").stdout).expect("text");
    let line = status.lines().find(|line| line.starts_with("interface"));
    assert!(
        line.is_some_and(|line| line.contains(&format!(" {NEW} up"))),
        "{status}"
    );
}

/// Packets of the other daemon's host reach the server and come back, by whoever carries them at `daemon`.
#[track_caller]
fn carries(scene: &Scene, daemon: &Daemon<'_>, lane: Lane) {
    let carried = || {
        let packets = |direction| daemon.settled(direction).delivered;
        let by_workers = daemon.metrics().taken_by_workers();
        (packets(Direction::Encap), packets(Direction::Decap), by_workers)
    };
    let before = carried();
    ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
    let now = carried();
    assert!(
        now.0 > before.0 && now.1 > before.1,
        "{before:?} {now:?}\n{}",
        daemon.log()
    );
    if lane == Lane::Ebpf {
        // More than what control says to its neighbours is the kernel's.
        wait::holds("the kernel to carry", SOON, || {
            let before = carried();
            for _ in 0..3 {
                ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
            }
            carried().2 - before.2 < 6
        });
    }
}

fn a_router_goes_on(lane: Lane) {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.lane(lane).workers(1));
    running.all().for_each(|daemon| daemon.wait_lane(lane));
    let router = &running.router;
    rename(&scene.router, router);
    carries(&scene, router, lane);

    let_it_live(Instant::now());
    let old = kill_engine(router);
    wait_successor(router, old);
    carries(&scene, router, lane);
    shows_the_new_name(router);

    let output = router.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", router.log());
    if lane == Lane::Ebpf {
        router.wait_log("programs in the kernel are exchanged");
    }
    carries(&scene, router, lane);
    shows_the_new_name(router);
    running.conservation();
}

#[test]
fn a_router_goes_on_ebpf() {
    a_router_goes_on(Lane::Ebpf);
}

#[test]
fn a_router_goes_on_uring() {
    a_router_goes_on(Lane::Uring);
}

#[test]
fn what_routers_say_is_set_at_the_new_name() {
    let stage = Stage::new(1);
    let daemon = stage.start("");
    rename(&stage.host, &daemon);
    let mut says = Advertisement::new(&[usual(1)]);
    says.hop_limit = 33;
    stage.advertise(&daemon, 0, &says);
    let hop_limit = || stage.host.read_sysctl(&format!("ipv6/conf/{NEW}/hop_limit"));
    wait::holds("the hop limit of the advertisement", SOON, || hop_limit() == "33");
    let addr = net(1).1.to_string();
    let output = stage.host.ip(&format!("-6 addr show dev {NEW}"));
    assert!(output.contains(&addr), "{addr}: {output}");
    daemon.conservation();
}
