//! A router that falls silent as a whole, without a word to anybody: hosts leave it by their probes, routing by BFD (P12,
//! P16, N2). Topology: see `isatap_tests::fleet`.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_tests::daemon::Daemon;
use isatap_tests::fleet::{ANYCAST, Fleet, INTERVAL, Router, router_v4, server, shares};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::SOON;
use isatap_tests::steady::{Pulse, Stream};

/// Five seconds until a probe and three probes of a second each, and a busy machine.
const BY_PROBES: Duration = Duration::from_secs(20);
/// BFD takes one second.
const BY_ROUTING: Duration = Duration::from_secs(8);

/// Silences the busiest of three routers under traffic; returns the longest silence of a flow.
fn blackout(anycast: bool, limit: Duration) {
    let fleet = Fleet::new(anycast).with_bfd();
    let _routing = fleet.route();
    let address = |index| if anycast { ANYCAST } else { router_v4(index) };
    let routers: Vec<Router<'_>> = (0..fleet.routers.len())
        .map(|index| fleet.start(index, address(index)))
        .collect();
    fleet.wait_ways(3, anycast);
    let list: Vec<Ipv4Addr> = if anycast {
        vec![ANYCAST]
    } else {
        (0..3).map(router_v4).collect()
    };
    let list: Vec<_> = list.iter().map(ToString::to_string).collect();
    let hosts: Vec<Daemon<'_>> = (0..fleet.hosts.len())
        .map(|index| fleet.host(index, &list.join(" ")).start())
        .collect();
    let number = |index: usize| u16::try_from(index + 1).expect("few hosts");
    for host in &hosts {
        host.wait_ready();
        ping_until(host.ns(), &server(1).to_string(), SOON * 2);
    }
    let pulses: Vec<_> = (0..hosts.len())
        .map(|index| {
            let to: Vec<_> = (0..6).map(|flow| server(0x100 * number(index) + flow)).collect();
            Pulse::start(&fleet.hosts[index], &fleet.server, &to, INTERVAL)
        })
        .collect();
    let streams: Vec<_> = (0..hosts.len())
        .map(|index| Stream::start(&fleet.hosts[index], &fleet.server, server(0x1000 + number(index))))
        .collect();
    let all: Vec<_> = routers.iter().collect();
    let seen = shares(&all, || std::thread::sleep(INTERVAL * 30));
    let busiest = (0..seen.len()).max_by_key(|index| seen[*index]).expect("routers");

    let began = Instant::now();
    fleet.silence(busiest, true);
    fleet.wait_ways(2, anycast);
    let outcome = Pulse::since(&pulses, began, BY_PROBES * 2);
    eprintln!("silent, anycast {anycast}: {outcome}");
    assert!(outcome.lost > 0 && outcome.silence < limit, "{outcome}");
    streams
        .iter()
        .for_each(|stream| stream.wait_more(64 * 1024, SOON * 12));

    let began = Instant::now();
    fleet.silence(busiest, false);
    fleet.wait_ways(3, anycast);
    let outcome = Pulse::since(&pulses, began, BY_PROBES * 2);
    eprintln!("back, anycast {anycast}: {outcome}");
    assert!(outcome.silence < Duration::from_secs(4), "{outcome}");
    streams
        .into_iter()
        .for_each(|stream| assert!(stream.finish() > 0));
    for daemon in hosts.iter().chain(routers.iter().map(|router| &router.daemon)) {
        daemon.conservation();
    }
}

/// P12, N2: by name, hosts find out by themselves.
#[test]
fn a_silent_router_of_several() {
    blackout(false, BY_PROBES);
}

/// P16: under an anycast address routing finds out, and hosts do not.
#[test]
fn a_silent_anycast_router() {
    blackout(true, BY_ROUTING);
}
