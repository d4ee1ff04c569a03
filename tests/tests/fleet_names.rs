//! Three routers under one name: hosts share them, and keep their transfers while one is added, drained, killed and comes
//! back (P1, P12, P15; FAULTS 48, 60). Topology: see `isatap_tests::fleet`.

use std::time::{Duration, Instant};

use isatap_tests::daemon::Daemon;
use isatap_tests::dns::{Dnsmasq, Etc};
use isatap_tests::fleet::{DNS, Fleet, INTERVAL, NAME, Router, router_v4, server, shares};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::SOON;
use isatap_tests::steady::{Pulse, Stream};
use isatap_tests::wait;

/// A dead router is left within this: nine seconds by the machine, and a busy machine.
const LEFT: Duration = Duration::from_secs(25);
/// Flows of each host.
const FLOWS: u16 = 8;

/// Addresses of the server that host `index` talks to.
fn destinations(index: usize) -> Vec<std::net::Ipv6Addr> {
    let first = 0x100 * u16::try_from(index + 1).expect("few hosts");
    (0..FLOWS).map(|flow| server(first + flow)).collect()
}

#[track_caller]
fn wait_usable(hosts: &[Daemon<'_>], count: u64) {
    for host in hosts {
        wait::until(&format!("{count} usable routers"), SOON * 6, || {
            let usable = host.metrics().sum("isatapd_routers", &[("state", "usable")]);
            if usable == count { Ok(()) } else { Err(usable) }
        });
    }
}

/// Waits until the hosts' packets go by exactly these routers of `all`, with each flow alive.
#[track_caller]
fn wait_used(all: &[&Router<'_>], used: &[bool], pulses: &[Pulse], limit: Duration) {
    wait::until(&format!("packets by {used:?}"), limit, || {
        let seen = shares(all, || std::thread::sleep(INTERVAL * 20));
        // What is left of a router that is not used are probes whether it lives.
        let by: Vec<_> = seen.iter().map(|count| *count > 10).collect();
        if by == used {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    let now = Instant::now();
    pulses.iter().for_each(|pulse| pulse.wait_answers(now, limit));
}

/// Tells what happened to the flows since `began`, and checks it.
#[track_caller]
fn tell(what: &str, pulses: &[Pulse], began: Instant, limit: Duration) {
    let outcome = Pulse::since(pulses, began, LEFT);
    eprintln!("{what}: {outcome}");
    assert!(outcome.asked > 0 && outcome.silence < limit, "{what}: {outcome}");
}

/// P1, P12, P15, FAULTS 48, 60: everything that happens to routers in a year, in a minute.
#[test]
fn transfers_outlive_the_routers() {
    let fleet = Fleet::new(false);
    let _routing = fleet.route();
    let records =
        |indices: &[usize]| -> Vec<_> { indices.iter().map(|index| (NAME, router_v4(*index))).collect() };
    let zone = Dnsmasq::start(&fleet.dns, 2, &records(&[0, 1]));
    let etc = Etc::with_server(DNS);
    let (r1, mut r2) = (fleet.start(0, router_v4(0)), fleet.start(1, router_v4(1)));
    let hosts: Vec<_> = (0..fleet.hosts.len())
        .map(|index| fleet.host(index, NAME).etc(&etc).start())
        .collect();
    wait_usable(&hosts, 2);
    fleet.wait_ways(2, false);
    for ns in &fleet.hosts {
        ping_until(ns, &server(1).to_string(), SOON);
    }
    let pulses: Vec<_> = (0..hosts.len())
        .map(|index| Pulse::start(&fleet.hosts[index], &fleet.server, &destinations(index), INTERVAL))
        .collect();
    let streams: Vec<_> = (0..hosts.len())
        .map(|index| {
            let to = server(0x1001 + u16::try_from(index).expect("few hosts"));
            Stream::start(&fleet.hosts[index], &fleet.server, to)
        })
        .collect();
    let all_flow = || {
        streams
            .iter()
            .for_each(|stream| stream.wait_more(64 * 1024, LEFT * 3))
    };
    wait_used(&[&r1, &r2], &[true, true], &pulses, LEFT);
    all_flow();

    // One more. Hosts know it before anything comes back through it: a stranger's packets they refuse.
    let began = Instant::now();
    let mut r3 = fleet.start_unannounced(2, router_v4(2));
    zone.set(&records(&[0, 1, 2]));
    wait_usable(&hosts, 3);
    r3.announce();
    fleet.wait_ways(3, false);
    wait_used(&[&r1, &r2, &r3], &[true, true, true], &pulses, LEFT);
    eprintln!("added: in use after {:.3?}", began.elapsed());
    tell("added", &pulses, began, Duration::from_secs(3));

    // One is drained: hosts go, nothing is lost, and its IPv6 side withdraws.
    let began = Instant::now();
    assert!(
        r1.drain(false).contains("telling 3 host(s)"),
        "three hosts solicited it"
    );
    wait_usable(&hosts, 2);
    r1.wait_announced(false);
    wait_used(&[&r1, &r2, &r3], &[false, true, true], &pulses, LEFT);
    fleet.wait_ways(2, false);
    eprintln!("drained: empty after {:.3?}", began.elapsed());
    tell("drained", &pulses, began, Duration::from_secs(3));
    r1.drain(true);
    wait_usable(&hosts, 3);
    wait_used(&[&r1, &r2, &r3], &[true, true, true], &pulses, LEFT);
    all_flow();

    // One dies.
    let began = Instant::now();
    r2.kill();
    r2.wait_announced(false);
    wait_used(&[&r1, &r3], &[true, true], &pulses, LEFT);
    tell("killed", &pulses, began, LEFT);
    wait_usable(&hosts, 2);
    all_flow();

    // And comes back.
    drop(r2);
    let began = Instant::now();
    let r2 = fleet.start(1, router_v4(1));
    wait_usable(&hosts, 3);
    wait_used(&[&r1, &r2, &r3], &[true, true, true], &pulses, LEFT);
    tell("back", &pulses, began, Duration::from_secs(3));
    all_flow();

    for stream in streams {
        assert!(stream.finish() > 0);
    }
    for pulse in pulses {
        eprintln!("in all: {}", pulse.finish());
    }
    for daemon in hosts.iter().chain([&r1.daemon, &r2.daemon, &r3.daemon]) {
        daemon.conservation();
    }
}
