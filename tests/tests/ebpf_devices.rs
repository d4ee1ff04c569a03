//! The programs of the `ebpf` lane follow the devices of the IPv4 network: one that went and came back, was down for a while, or
//! that another one has taken the address of. Each time it is the kernel that carries in the end, both ways.
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1, eth0 and then eth1 ---- srv 2001:db8:99::2         see `isatap_tests::scene`
//! ```

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping_until;
use isatap_tests::raw::{Captured, Sniffer};
use isatap_tests::scene::{ROUTER, Running, SERVER, SOON, Scene, host_v4};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;
use serde_json::Value;

const OTHER: &str = "eth1";

fn started(scene: &Scene) -> Running<'_> {
    let running = scene.start(|builder| builder.lane(Lane::Ebpf).workers(1));
    running.all().for_each(Daemon::wait_programs);
    running
}

/// Packets that the kernel carried, out and in.
fn carried(daemon: &Daemon<'_>) -> [u64; 2] {
    let metrics = daemon.metrics();
    [Direction::Encap, Direction::Decap].map(|direction| {
        let labels = [("worker", "kernel"), ("direction", direction.label())];
        metrics.sum("isatapd_packets_total", &labels)
    })
}

/// Waits until the kernel carries again, both ways and at both ends.
#[track_caller]
fn carries_again(running: &Running<'_>) {
    let host = &running.hosts[0];
    let (before, of_host) = (carried(&running.router), carried(host));
    wait::holds("the kernel to carry both ways", SOON * 6, || {
        ping_until(host.ns(), &SERVER.to_string(), SOON * 6);
        let grew =
            |now: [u64; 2], before: [u64; 2]| now.iter().zip(before).all(|(now, before)| *now > before);
        grew(carried(&running.router), before) && grew(carried(host), of_host)
    });
    running.conservation();
}

fn attached_to(daemon: &Daemon<'_>) -> Vec<String> {
    let output = daemon.ctl("status --json");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let devices = status["programs"]["devices"].as_array().expect("a list").iter();
    devices
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

/// A network card that is taken out and put in again: the device gets another number.
#[test]
fn a_device_that_went_and_came_back() {
    let scene = Scene::new(1);
    let running = started(&scene);
    carries_again(&running);
    scene.router.ip(&format!("link del {UNDERLAY}"));
    wait::holds("nothing to be attached", SOON * 3, || {
        attached_to(&running.router).is_empty()
    });
    scene.site.attach(&scene.router, UNDERLAY);
    scene
        .router
        .ip(&format!("addr add {ROUTER}/24 brd + dev {UNDERLAY}"));
    forget_neighbours(&scene.hosts[0]);
    carries_again(&running);
    assert_eq!(attached_to(&running.router), [UNDERLAY]);
}

/// The same number and name, before the daemon has looked: nothing in a dump tells the two apart.
#[test]
fn a_device_that_another_one_has_replaced() {
    let scene = Scene::new(1);
    let running = started(&scene);
    running.router.freeze();
    scene.site.replace(&scene.router, UNDERLAY, ROUTER);
    running.router.thaw();
    carries_again(&running);
    assert_eq!(attached_to(&running.router), [UNDERLAY]);
}

#[test]
fn a_device_that_was_down() {
    let scene = Scene::new(1);
    let running = started(&scene);
    let ip = |line: &str| _ = scene.router.ip(&format!("link set {UNDERLAY} {line}"));
    // Too short to be seen, then long enough.
    running.router.freeze();
    ip("down");
    ip("up");
    running.router.thaw();
    carries_again(&running);
    ip("down");
    wait::holds("nothing to be attached", SOON * 3, || {
        attached_to(&running.router).is_empty()
    });
    ip("up");
    carries_again(&running);
    assert_eq!(attached_to(&running.router), [UNDERLAY]);
}

/// The locator's address moves, and the programs with it.
#[test]
fn a_locator_that_moves() {
    let scene = Scene::new(1);
    let running = started(&scene);
    // Each device answers for its own address alone, as if they were at different switches.
    scene.router.sysctl("ipv4/conf/all/arp_ignore", "1");
    scene.site.attach(&scene.router, OTHER);
    for (from, to) in [(UNDERLAY, OTHER), (OTHER, UNDERLAY)] {
        scene.router.ip(&format!("addr del {ROUTER}/24 dev {from}"));
        scene.router.ip(&format!("addr add {ROUTER}/24 brd + dev {to}"));
        forget_neighbours(&scene.hosts[0]);
        carries_again(&running);
        wait::holds("the programs at the other device", SOON, || {
            attached_to(&running.router) == [to]
        });
    }
}

/// A host with two network cards in one network has another address at the other one, again and again. Nothing leaves with the new
/// address by the device of the one before: whoever saw it would look for the address there, and its packets would be refused.
#[test]
fn a_new_locator_leaves_by_its_own_device() {
    const ELSEWHERE: &str = "2001:db8:77::2";
    const INTERVAL: Duration = Duration::from_micros(200);
    const DEVICES: [&str; 2] = [UNDERLAY, OTHER];
    const ROUNDS: usize = 10;
    let scene = Scene::new(1);
    let ns = &scene.hosts[0];
    scene.site.attach(ns, OTHER);
    let router = Daemon::router(&scene.router, ROUTER).workers(1).start();
    let host = Builder::new(ns)
        .config(&format!("BindAddress auto\nServerAddress {ROUTER}"))
        .lane(Lane::Ebpf)
        .workers(1)
        .start();
    // Packets that embed no address of ours leave with the preferred locator.
    ns.ip(&format!("addr add {ELSEWHERE}/128 dev lo"));
    ns.ip(&format!(
        "route add default via {} dev {TUNNEL}",
        link_local(ROUTER)
    ));
    host.wait_programs();
    let socket = ns.enter(|| UdpSocket::bind((ELSEWHERE, 0))).expect("a socket");
    let wires = DEVICES.map(|device| Sniffer::start(ns, device));
    let seen = |at: usize, from: Ipv4Addr| {
        let is_from = |c: &Captured| c.outgoing && c.outer().is_some_and(|outer| outer.src() == from);
        wires[at].count(is_from)
    };
    let (goes_on, ends) = mpsc::channel::<()>();
    let sending = thread::spawn(move || {
        while ends.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            // Where there is no address there is no way.
            let _ = socket.send_to(b"onwards", (SERVER, 9));
        }
    });
    let mut locator = host_v4(0);
    for round in 0..ROUNDS {
        let (from, to) = (round % 2, (round + 1) % 2);
        let next = Ipv4Addr::new(10, 0, 0, 100 + u8::try_from(round).expect("few rounds"));
        let (here, there) = (DEVICES[from], DEVICES[to]);
        // All of it is news at once.
        host.freeze();
        ns.ip_batch(&format!(
            "addr del {locator}/24 dev {here}\naddr add {next}/24 brd + dev {there}\n"
        ));
        host.thaw();
        wait::holds("packets from the new address", SOON * 3, || seen(to, next) > 0);
        wait::holds("the program where they are answered", SOON * 3, || {
            attached_to(&host) == [there]
        });
        assert_eq!(seen(from, next), 0, "round {round}: {next} by {here}");
        locator = next;
    }
    drop(goes_on);
    sending.join().expect("a sender");
    host.conservation();
    router.conservation();
}

/// The address has another Ethernet address now; a real network would say so.
fn forget_neighbours(ns: &Netns) {
    ns.ip(&format!("neigh flush dev {UNDERLAY}"));
}
