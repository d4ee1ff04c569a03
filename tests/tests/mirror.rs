//! What an operator changes on the machine while the daemon runs, and what the kernel refuses: effective at once,
//! counted, and over when it is over (E1, A6; FAULTS 29, 56, 57).
//!
//! ```text
//!   dut 10.0.0.1 (router) ------ x 10.0.0.9 (crafted)
//! ```

use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::{Inner, isatap, link_local};
use isatap_tests::raw::{Captured, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

const PORT: u16 = 4000;
/// A change by an operator is effective within (the contract of the mirror).
const EFFECTIVE: Duration = Duration::from_millis(100);

fn incoming(captured: &Captured) -> bool {
    !captured.outgoing
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn an_added_prefix_is_effective_within_100_ms() {
    let scene = Opposite::new();
    let daemon = Daemon::router(&scene.dut, DUT).start();
    let (crafter, sniffer) = (scene.crafter(), Sniffer::start(&scene.dut, TUNNEL));
    let mut times = Vec::new();
    for round in 1..=5 {
        let prefix = format!("2001:db8:{round}::");
        let (src, dst) = (isatap(&prefix, false, X), isatap(&prefix, false, DUT));
        let packet = Inner::new(src, dst).udp(1, PORT, prefix.as_bytes());
        let before = daemon.counters(Direction::Decap);
        crafter.send_inner(&packet);
        let since = daemon.wait_received(Direction::Decap, &before, 1);
        assert_eq!(
            since.drops.get("src_prefix"),
            Some(&1),
            "not on-link yet: {since}"
        );
        scene.dut.ip(&format!("addr add {dst}/64 dev {TUNNEL} nodad"));
        let added = Instant::now();
        wait::holds("the prefix to be effective", SOON, || {
            crafter.send_inner(&packet);
            sniffer.count(|c| c.packet == packet) > 0
        });
        times.push(added.elapsed());
        // And gone with the address.
        scene.dut.ip(&format!("addr del {dst}/64 dev {TUNNEL}"));
        wait::holds("the prefix to be forgotten", SOON, || {
            let before = daemon.counters(Direction::Decap);
            crafter.send_inner(&packet);
            daemon
                .wait_received(Direction::Decap, &before, 1)
                .drops
                .contains_key("src_prefix")
        });
    }
    eprintln!("prefixes were effective after {times:?}");
    assert!(median(times.clone()) <= EFFECTIVE, "{times:?}");
    daemon.conservation();
}

#[test]
fn an_added_route_is_effective_within_100_ms() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let _sink = scene.crafter();
    let (injector, wire) = (
        Injector::tun(&scene.dut, TUNNEL),
        Sniffer::start(&scene.dut, UNDERLAY),
    );
    let mut times = Vec::new();
    for round in 1..=5 {
        let dst: Ipv6Addr = format!("2001:db8:{round}00::1").parse().expect("an address");
        let packet = Inner::new(on_link(DUT), dst).udp(1, PORT, b"route");
        let before = daemon.counters(Direction::Encap);
        injector.send(&packet);
        let since = daemon.wait_received(Direction::Encap, &before, 1);
        assert_eq!(since.drops.get("no_route"), Some(&1), "no route yet: {since}");
        scene.dut.ip(&format!(
            "route add 2001:db8:{round}00::/48 via {} dev {TUNNEL}",
            link_local(X)
        ));
        let added = Instant::now();
        wait::holds("the route to be effective", SOON, || {
            injector.send(&packet);
            wire.count(|c| c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet)) > 0
        });
        times.push(added.elapsed());
        scene
            .dut
            .ip(&format!("route del 2001:db8:{round}00::/48 dev {TUNNEL}"));
        wait::holds("the route to be forgotten", SOON, || {
            let before = daemon.counters(Direction::Encap);
            injector.send(&packet);
            daemon
                .wait_received(Direction::Encap, &before, 1)
                .drops
                .contains_key("no_route")
        });
    }
    eprintln!("routes were effective after {times:?}");
    assert!(median(times.clone()) <= EFFECTIVE, "{times:?}");
    daemon.conservation();
}

fn down_and_up(lane: Lane) {
    // FAULTS 57.
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(lane));
    let (crafter, sniffer) = (scene.crafter(), Sniffer::start(&scene.dut, TUNNEL));
    let packet = Inner::new(link_local(X), link_local(DUT)).udp(1, PORT, b"down and up");
    for round in 0..5 {
        scene.dut.ip(&format!("link set {TUNNEL} down"));
        // What programs carry to an interface that is down, the kernel drops and counts.
        daemon.wait_held();
        let before = daemon.counters(Direction::Decap);
        for _ in 0..10 {
            crafter.send_inner(&packet);
        }
        let since = daemon.wait_received(Direction::Decap, &before, 10);
        assert_eq!(since.drops.get("tun_down"), Some(&10), "round {round}: {since}");
        scene.dut.ip(&format!("link set {TUNNEL} up"));
        sniffer.clear();
        wait::holds("packets to pass again", Duration::from_secs(1), || {
            crafter.send_inner(&packet);
            sniffer.count(incoming) > 0
        });
        wait::holds(
            "the link-local address to be back",
            Duration::from_secs(1),
            || {
                scene
                    .dut
                    .ip(&format!("-6 addr show dev {TUNNEL}"))
                    .contains("fe80::5efe:a00:1/64")
            },
        );
    }
    daemon.conservation();
}

#[test]
fn interface_down_and_up_uring() {
    down_and_up(Lane::Uring);
}

#[test]
fn interface_down_and_up_syscall() {
    down_and_up(Lane::Syscall);
}

#[test]
fn interface_down_and_up_ebpf() {
    down_and_up(Lane::Ebpf);
}

fn deleted_interface(lane: Lane) {
    // FAULTS 56: recreate it, or end with an error; never sit there.
    let scene = Opposite::new();
    let mut daemon = scene.router(|builder| builder.lane(lane));
    let old = scene.dut.ip(&format!("-o link show {TUNNEL}"));
    scene.dut.ip(&format!("link del {TUNNEL}"));
    let recreated = || {
        let link = scene.dut.try_run(&format!("ip -o link show {TUNNEL}"));
        link.status.success() && link.stdout != old.as_bytes()
    };
    let pid = daemon.pid();
    let runs = || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    wait::holds(
        "the interface to be recreated or the daemon to end",
        Duration::from_secs(2),
        || recreated() || !runs(),
    );
    if !runs() {
        let status = daemon.wait_exit(SOON);
        assert!(status.code().is_some_and(|code| code != 0), "{status:?}");
        let log = daemon.log();
        assert!(log.contains(TUNNEL), "the log names the interface: {log}");
    }
}

#[test]
fn interface_deleted_uring() {
    deleted_interface(Lane::Uring);
}

#[test]
fn interface_deleted_syscall() {
    deleted_interface(Lane::Syscall);
}

#[test]
fn interface_deleted_ebpf() {
    deleted_interface(Lane::Ebpf);
}

fn refused_sends(lane: Lane) {
    // FAULTS 29: the firewall says no; each packet is counted, and packets pass again when it says yes. It is not asked about
    // what programs carry, which the lane that is told to does all the same (`ebpf_lane::others_have_their_say`).
    const COUNT: usize = 200;
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(lane));
    let _sink = scene.crafter();
    let (injector, wire) = (
        Injector::tun(&scene.dut, TUNNEL),
        Sniffer::start(&scene.dut, UNDERLAY),
    );
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, PORT, b"refused");
    let left = || wire.count(|c| c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet));
    wait::holds("the first packet", SOON, || {
        injector.send(&packet);
        left() > 0
    });
    scene.dut.run("nft add table ip t");
    scene
        .dut
        .run("nft add chain ip t out { type filter hook output priority 0 ; }");
    scene.dut.run("nft add rule ip t out ip protocol 41 drop");
    wire.clear();
    daemon.conservation();
    let before = daemon.counters(Direction::Encap);
    for _ in 0..COUNT {
        injector.send(&packet);
    }
    let count = u64::try_from(COUNT).expect("a count");
    let since = daemon.wait_received(Direction::Encap, &before, count);
    assert_eq!(since.drops.get("send_error"), Some(&count), "{since}");
    assert_eq!(left(), 0);
    scene.dut.run("nft delete table ip t");
    injector.send(&packet);
    wire.wait_for("a packet after the rule is gone", SOON, |c| {
        c.outer().is_some_and(|outer| outer.payload == packet)
    });
    daemon.conservation();
}

#[test]
fn refused_sends_are_counted_uring() {
    refused_sends(Lane::Uring);
}

#[test]
fn refused_sends_are_counted_syscall() {
    refused_sends(Lane::Syscall);
}

fn full_queue(lane: Lane) {
    // FAULTS 27: a full queue of the uplink loses packets; each is counted, as many as the queue itself counts, and the rest
    // is sent. Programs are not told what it refuses (`kernel_losses::the_queue_of_the_underlay_is_told_ebpf`).
    const COUNT: u64 = 400;
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(lane));
    let _sink = scene.crafter();
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, PORT, &[7; 1000]);
    // Only our packets may meet the queue: no IPv6 of the link's own, and no address resolution.
    scene
        .dut
        .run(&format!("sysctl -qw net.ipv6.conf.{UNDERLAY}.disable_ipv6=1"));
    wait::holds("the neighbour's address", SOON, || {
        injector.send(&packet);
        scene
            .dut
            .try_run(&format!("ip neigh change {X} dev {UNDERLAY} nud permanent"))
            .status
            .success()
    });
    daemon.conservation();
    // Room for a handful of packets, which leave at a hundred a second.
    scene.dut.run(&format!(
        "tc qdisc add dev {UNDERLAY} root tbf rate 1mbit burst 4kb limit 8kb"
    ));
    let before = daemon.counters(Direction::Encap);
    for _ in 0..COUNT {
        injector.send(&packet);
    }
    let since = daemon.wait_received(Direction::Encap, &before, COUNT);
    daemon.conservation();
    let refused = since.drops.get("send_error").copied().unwrap_or(0);
    let queue = scene.dut.run(&format!("tc -s qdisc show dev {UNDERLAY}"));
    let dropped: u64 = queue
        .split("dropped ")
        .nth(1)
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .expect("the queue's own count");
    if lane == Lane::Uring {
        assert_eq!(refused, dropped, "{since}\n{queue}");
    } else {
        // sendmmsg says nothing of the packet that ended it when others went before: that one is tried again.
        assert!((refused..=2 * refused).contains(&dropped), "{since}\n{queue}");
    }
    assert!(refused > 0 && refused < COUNT, "{since}");
    let metrics = daemon.metrics();
    let labels = [("operation", "raw_send"), ("errno", "105")];
    assert_eq!(
        metrics.sum("isatapd_io_errors_total", &labels),
        refused,
        "ENOBUFS by its own counter"
    );
    scene.dut.run(&format!("tc qdisc del dev {UNDERLAY} root"));
    let before = daemon.counters(Direction::Encap);
    injector.send(&packet);
    let mut since = daemon.wait_received(Direction::Encap, &before, 1);
    // A report of the kernel about its groups may come between.
    since.drops.remove("dst_multicast");
    assert_eq!(since.dropped(), 0, "{since}\n{:?}", daemon.metrics());
    daemon.conservation();
}

#[test]
fn a_full_queue_is_counted_uring() {
    full_queue(Lane::Uring);
}

#[test]
fn a_full_queue_is_counted_syscall() {
    full_queue(Lane::Syscall);
}

/// Waits until `/ready` answers so; what it says then.
fn wait_ready(daemon: &Daemon<'_>, want: u16) -> String {
    wait::until(&format!("/ready to answer {want}"), SOON, || {
        match daemon.http("/ready") {
            Ok((status, said)) if status == want => Ok(said),
            other => Err(format!("{other:?}")),
        }
    })
}

/// What a hardened machine says of all interfaces is not meant for one that IPv6 is all there is to; whoever says so meanwhile has it
/// put right, as who said so before the start.
#[test]
fn ipv6_that_is_switched_off_is_switched_on_again() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let (crafter, sniffer) = (scene.crafter(), Sniffer::start(&scene.dut, TUNNEL));
    let packet = Inner::new(link_local(X), link_local(DUT)).udp(1, PORT, b"off and on");
    for whose in [TUNNEL, "all"] {
        scene.dut.sysctl(&format!("ipv6/conf/{whose}/disable_ipv6"), "1");
        daemon.wait_log("it is switched on again");
        wait::holds("the link-local address to be back, alone", SOON, || {
            let addresses = scene.dut.ip(&format!("-6 addr show dev {TUNNEL}"));
            addresses.matches("inet6").count() == 1 && addresses.contains("fe80::5efe:a00:1/64")
        });
        wait_ready(&daemon, 200);
        sniffer.clear();
        wait::holds("packets to pass again", SOON, || {
            crafter.send_inner(&packet);
            sniffer.count(incoming) > 0
        });
    }
    daemon.conservation();
}

/// Where it cannot, nothing can be carried, and nobody should believe it could.
#[test]
fn without_ipv6_nothing_is_ready() {
    let read_only = tempfile::tempdir().expect("a folder");
    let program = read_only.path().join("isatapd");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$0\" \"$@\"' {} \"$@\"\n",
        isatap_tests::daemon::program("isatapd").display()
    );
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.program(&program));
    wait_ready(&daemon, 200);
    let switch = format!("ipv6/conf/{TUNNEL}/disable_ipv6");
    scene.dut.sysctl(&switch, "1");
    let said = wait_ready(&daemon, 503);
    assert!(said.contains("net.ipv6.conf.is0.disable_ipv6"), "{said}");
    assert_eq!(daemon.metrics().sum("isatapd_ready", &[]), 0);
    scene.dut.sysctl(&switch, "0");
    wait_ready(&daemon, 200);
}

#[test]
fn the_locator_may_go_and_come_back() {
    // A6, and the contract's fine print on BindAddress: not ready without it, ready with it.
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    daemon.wait_ready();
    scene.dut.ip(&format!("addr del {DUT}/24 dev {UNDERLAY}"));
    wait_ready(&daemon, 503);
    scene.dut.ip(&format!("addr add {DUT}/24 brd + dev {UNDERLAY}"));
    wait_ready(&daemon, 200);
    let (crafter, sniffer) = (scene.crafter(), Sniffer::start(&scene.dut, TUNNEL));
    let packet = Inner::new(link_local(X), link_local(DUT)).udp(1, PORT, b"back again");
    wait::holds("packets to pass again", SOON, || {
        crafter.send_inner(&packet);
        sniffer.count(incoming) > 0
    });
}
