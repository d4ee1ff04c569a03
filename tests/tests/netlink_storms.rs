//! Changes of the machine faster than anybody can read of them, and an interface that is set down, up and to any MTU: what the
//! daemon knows afterwards is what the kernel has (FAULTS 55, 57, 58).
//!
//! ```text
//!   dut 10.0.0.1 (router, or host with x as its router) ------ x 10.0.0.9 (crafted)
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, ROUTER_ADVERTISEMENT};
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::raw::{Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, PREFIX, SOON, X, on_link};
use isatap_tests::state::{self, wait_configured};
use isatap_tests::topology::{UNDERLAY, mac};
use isatap_tests::wait;

const PORT: u16 = 4000;
/// Route changes of one burst.
const CHANGES: u32 = 50_000;
/// How many of the routes are there at once, and at the end.
const STANDING: u32 = 200;
/// What an interface loses when it goes down is back within this after it came up (FAULTS 57).
const RESTORED: Duration = Duration::from_secs(1);

/// The prefix of the route with this number.
fn prefix(number: u32) -> String {
    let (high, low) = (number >> 8, number & 0xff);
    Ipv6Addr::from((0x2001_0db8_f000_u128 + u128::from(high)) << 80 | u128::from(low) << 64).to_string()
        + "/64"
}

/// Adds one route after another over the tunnel and removes all but the last [`STANDING`].
fn burst() -> String {
    let mut lines = String::new();
    let adds = (CHANGES + STANDING) / 2;
    for number in 0..adds {
        let gateway = link_local(X);
        let _ = writeln!(lines, "route add {} via {gateway} dev {TUNNEL}", prefix(number));
        if let Some(old) = number.checked_sub(STANDING) {
            let _ = writeln!(lines, "route del {} dev {TUNNEL}", prefix(old));
        }
    }
    assert_eq!(lines.lines().count(), CHANGES as usize);
    lines
}

/// The routes of a burst among the lines of `text`.
fn of_burst(text: &str) -> BTreeSet<String> {
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    words
        .filter(|word| word.starts_with("2001:db8:f"))
        .map(str::to_owned)
        .collect()
}

/// The daemon has the routes that the kernel has, and decides by them.
#[track_caller]
fn mirror_is_right(scene: &Opposite, daemon: &Daemon<'_>) {
    let kernel = of_burst(&state::routes(&scene.dut, TUNNEL));
    wait::until("the routes of the kernel", SOON, || {
        let output = daemon.ctl("routes");
        let known = of_burst(&String::from_utf8_lossy(&output.stdout));
        if known == kernel {
            Ok(())
        } else {
            let missing = kernel.difference(&known).count();
            Err(format!(
                "{} known, {missing} of {} missing",
                known.len(),
                kernel.len()
            ))
        }
    });
    let to = |number| {
        let address = prefix(number).replace("/64", "1");
        let question = format!("explain --src6 {} --dst6 {address}", on_link(DUT));
        String::from_utf8_lossy(&daemon.ctl(&question).stdout).into_owned()
    };
    let last = (CHANGES + STANDING) / 2 - 1;
    assert!(to(last).contains(&X.to_string()), "{}", to(last));
    let gone = last - 2 * STANDING;
    assert!(!to(gone).contains(&X.to_string()), "{}", to(gone));
}

#[test]
fn fifty_thousand_route_changes_leave_the_mirror_right() {
    // FAULTS 55: once with the daemon at work, which answers meanwhile; once while it cannot read, so that notifications are
    // lost for sure.
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let _sink = scene.crafter();
    let lines = burst();
    let done = AtomicBool::new(false);
    let (took, longest, answers) = thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let (mut longest, mut answers) = (Duration::ZERO, 0);
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                daemon.metrics();
                longest = longest.max(asked.elapsed());
                answers += 1;
                thread::sleep(Duration::from_millis(5));
            }
            (longest, answers)
        });
        let started = Instant::now();
        scene.dut.ip_batch(&lines);
        let took = started.elapsed();
        done.store(true, Ordering::Relaxed);
        let (longest, answers) = asker.join().expect("the asker");
        (took, longest, answers)
    });
    mirror_is_right(&scene, &daemon);
    let overruns = || daemon.metrics().sum("isatapd_netlink_overruns_total", &[]);
    eprintln!(
        "{CHANGES} changes in {took:?}: {answers} answers, the slowest {longest:?}; {} overruns",
        overruns()
    );
    assert!(
        answers > 5 && longest < Duration::from_secs(1),
        "{answers}, {longest:?}"
    );

    let standing = CHANGES / 2 - STANDING / 2..CHANGES / 2 + STANDING / 2;
    let clean: String = standing
        .map(|n| format!("route del {} dev {TUNNEL}\n", prefix(n)))
        .collect();
    scene.dut.ip_batch(&clean);
    let before = overruns();
    daemon.freeze();
    scene.dut.ip_batch(&lines);
    daemon.thaw();
    mirror_is_right(&scene, &daemon);
    assert!(overruns() > before, "nothing was lost: that was no storm");

    // A change in the quiet after the storm.
    let (injector, wire) = (
        Injector::tun(&scene.dut, TUNNEL),
        Sniffer::start(&scene.dut, UNDERLAY),
    );
    let mut times = Vec::new();
    for round in 1..=5 {
        let dst: Ipv6Addr = format!("2001:db8:{round}00::1").parse().expect("an address");
        let packet = Inner::new(on_link(DUT), dst).udp(1, PORT, b"quiet");
        let gateway = link_local(X);
        scene.dut.ip(&format!(
            "route add 2001:db8:{round}00::/48 via {gateway} dev {TUNNEL}"
        ));
        let added = Instant::now();
        wait::holds("the route to be effective", SOON, || {
            injector.send(&packet);
            wire.count(|c| c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet)) > 0
        });
        times.push(added.elapsed());
    }
    eprintln!("routes added afterwards were effective after {times:?}");
    times.sort();
    assert!(times[2] <= Duration::from_millis(100), "{times:?}");
    daemon.conservation();
}

/// FAULTS 55: a dump of many routes takes longer than the time between two questions of somebody who asks all the time.
#[test]
fn questions_do_not_keep_the_mirror_from_being_right() {
    const ROUTES: u64 = 100_000;
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let route = |number: u64| {
        let (high, low, via) = (number >> 16, number & 0xffff, link_local(X));
        format!("route add 2001:dba:{high:x}:{low:x}::/64 via {via} dev {TUNNEL}\n")
    };
    let lines: String = (0..ROUTES).map(route).collect();
    // Asleep, it loses notifications.
    daemon.freeze();
    scene.dut.ip_batch(&lines);
    daemon.thaw();
    wait::holds("every route to be known", SOON * 6, || {
        daemon.metrics();
        let output = daemon.ctl("status --json");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["route_count"]
            .as_u64()
            .is_some_and(|count| count >= ROUTES)
    });
    let overruns = daemon.metrics().sum("isatapd_netlink_overruns_total", &[]);
    assert!(overruns > 0, "too few to be lost");
}

/// FAULTS 55: each host behind the tunnel interface is a neighbour of IPv6 to the kernel, which forgets one for each packet when there
/// are more than it has room for. However much it says of that, who follows the neighbours of IPv4 need not look at all of them
/// again.
#[test]
fn neighbours_of_ipv6_are_not_listened_to() {
    const HOSTS: u32 = 20_000;
    let scene = Opposite::new();
    // One that the kernel asks now and then would be news.
    let permanent = |last: u8, mac: [u8; 6]| {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        scene.dut.ip(&format!(
            "neigh replace 10.0.0.{last} lladdr {mac} dev {UNDERLAY} nud permanent"
        ));
    };
    permanent(9, mac(&scene.x, UNDERLAY));
    let daemon = scene.router(|builder| builder.workers(1).lane(Lane::Ebpf));
    daemon.wait_lane(Lane::Ebpf);
    let generations = || {
        let name = "isatapd_kernel_generations_total";
        daemon.metrics().sum(name, &[("of", "neighbours")])
    };
    let wait_known = |count| {
        wait::until("neighbours to be known", SOON, || {
            let known = daemon.metrics().sum("isatapd_kernel_neighbours", &[]);
            if known == count {
                Ok(())
            } else {
                Err(known.to_string())
            }
        });
    };
    wait_known(1);
    let before = generations();
    daemon.freeze();
    let mut news = String::new();
    for host in 0..HOSTS {
        let addr = format!("fe80::5efe:{:x}:{:x}", host >> 16, host & 0xffff);
        for change in [format!("replace {addr} nud permanent"), format!("del {addr}")] {
            writeln!(news, "neigh {change} dev {TUNNEL}").expect("text");
        }
    }
    scene.dut.ip_batch(&news);
    daemon.thaw();
    permanent(77, [2, 0, 0, 0, 0, 77]);
    wait_known(2);
    assert_eq!(generations(), before + 1);
    daemon.conservation();
}

/// A host that the crafter has configured as its router.
fn host<'a>(scene: &'a Opposite, crafter: &Crafter, lane: Lane) -> Daemon<'a> {
    let daemon = Daemon::host(&scene.dut, DUT, &[X]).workers(1).lane(lane).start();
    let prefix: Ipv6Addr = PREFIX.parse().expect("a prefix");
    let body = nd::router_advertisement(1800, &nd::prefix_option(prefix, 64, 86400, 14400));
    crafter.send_inner(&nd::packet(
        link_local(X),
        link_local(DUT),
        ROUTER_ADVERTISEMENT,
        &body,
    ));
    wait_configured(&scene.dut, &[DUT]);
    daemon.wait_route("::/0");
    daemon
}

fn down_and_up_under_traffic(lane: Lane) {
    // FAULTS 57: what comes meanwhile is counted, and everything that advertisements brought is back at once.
    const ROUNDS: u32 = 200;
    let scene = Opposite::new();
    let crafter = scene.crafter();
    let daemon = host(&scene, &crafter, lane);
    let before = state::snapshot(&scene.dut, TUNNEL);
    let if_index = state::if_index(&scene.dut, TUNNEL);
    let restored = |times: &mut Vec<Duration>| {
        let up = Instant::now();
        wait::until("what was there before", SOON, || {
            let now = state::snapshot(&scene.dut, TUNNEL);
            if now == before { Ok(()) } else { Err(now) }
        });
        times.push(up.elapsed());
    };
    // From behind the router, so that only a configured host takes it.
    let beyond = "2001:db8:99::2".parse().expect("an address");
    let packet = Inner::new(beyond, on_link(DUT)).udp(1, PORT, b"on and on");
    let tunnel = Sniffer::start(&scene.dut, TUNNEL);
    let (stop, sent) = (AtomicBool::new(false), scene.crafter());
    let mut times = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sent.send_inner(&packet);
                thread::sleep(Duration::from_micros(500));
            }
        });
        for round in 1..=ROUNDS {
            scene.dut.ip(&format!("link set {TUNNEL} down"));
            scene.dut.ip(&format!("link set {TUNNEL} up"));
            if round % 20 == 0 {
                restored(&mut times);
                tunnel.clear();
                tunnel.wait_for("a packet of the flow", SOON, |c| {
                    !c.outgoing && c.packet == packet
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let counters = daemon.counters(Direction::Decap);
    eprintln!("{lane:?}: restored after {times:?}; {counters}");
    assert!(
        counters.drops.get("tun_down").is_some_and(|count| *count > 0),
        "{counters}"
    );
    times.sort();
    assert!(times[times.len() / 2] <= RESTORED, "{times:?}");
    assert_eq!(state::if_index(&scene.dut, TUNNEL), if_index);
    daemon.conservation();
}

#[test]
fn an_interface_that_flaps_is_restored_uring() {
    down_and_up_under_traffic(Lane::Uring);
}

#[test]
fn an_interface_that_flaps_is_restored_syscall() {
    down_and_up_under_traffic(Lane::Syscall);
}

#[test]
fn an_interface_that_flaps_is_restored_ebpf() {
    down_and_up_under_traffic(Lane::Ebpf);
}

fn any_mtu_of_an_operator_is_lived_with(lane: Lane) {
    // FAULTS 58: below 1280 there is no IPv6, so the interface is set up anew, with what advertisements brought; above, the
    // senders are told what the tunnel carries.
    let scene = Opposite::new();
    let crafter = scene.crafter();
    let daemon = host(&scene, &crafter, lane);
    daemon.wait_lane(lane);
    let before = state::snapshot(&scene.dut, TUNNEL);
    let if_index = state::if_index(&scene.dut, TUNNEL);
    let wire = Sniffer::start(&scene.dut, UNDERLAY);
    let mut times = Vec::new();
    for mtu in [68, 1280, 65535, 1279, 1280] {
        scene.dut.ip(&format!("link set {TUNNEL} mtu {mtu}"));
        let set = Instant::now();
        let lived_with = format!("mtu {} ", mtu.max(1280));
        wait::until(&format!("MTU {mtu} to be lived with"), SOON, || {
            let link = scene.dut.ip(&format!("link show dev {TUNNEL}"));
            let now = state::snapshot(&scene.dut, TUNNEL);
            if link.contains(&lived_with) && now == before {
                Ok(())
            } else {
                Err(format!("{link}{now}"))
            }
        });
        times.push(set.elapsed());
        assert!(scene.dut.ip(&format!("link show dev {TUNNEL}")).contains("UP"));
        if mtu == 65535 {
            // One too long for the tunnel: its sender hears of it, and what it sends next fits.
            let too_big = || {
                daemon
                    .drops(Direction::Encap)
                    .get("too_big")
                    .copied()
                    .unwrap_or(0)
            };
            scene
                .dut
                .try_run("ping -6 -n -c 1 -W 0.1 -M do -s 3000 2001:db8:99::2");
            assert_eq!(too_big(), 1);
            let output = scene
                .dut
                .try_run("ping -6 -n -c 1 -W 0.1 -M do -s 3000 2001:db8:99::2");
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("mtu: 1280") || text.contains("mtu=1280"), "{text}");
        }
        wire.clear();
        scene.dut.try_run("ping -6 -n -c 1 -W 0.1 2001:db8:99::2");
        wire.wait_for("an echo request", SOON, |c| {
            c.outgoing && c.outer().is_some_and(|outer| outer.dst() == X)
        });
    }
    daemon.wait_log("was given MTU 68, ");
    daemon.wait_log("was given MTU 65535; the tunnel carries packets of 1280");
    eprintln!("effective after {times:?}");
    times.sort();
    assert!(times[2] <= RESTORED, "{times:?}");
    assert_eq!(state::if_index(&scene.dut, TUNNEL), if_index);
    daemon.conservation();
}

#[test]
fn any_mtu_of_an_operator_is_lived_with_uring() {
    any_mtu_of_an_operator_is_lived_with(Lane::Uring);
}

#[test]
fn any_mtu_of_an_operator_is_lived_with_ebpf() {
    any_mtu_of_an_operator_is_lived_with(Lane::Ebpf);
}
