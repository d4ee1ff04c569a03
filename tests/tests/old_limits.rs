//! What the manual of the program of 2006 says in its section "Bugs", one test for each: none of it holds here.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Builder, Daemon, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::raw::Sniffer;
use isatap_tests::routers::{HOST, Routers, many_destinations, router_v4, server, share};
use isatap_tests::scene::{DUT, Opposite, PREFIX, SOON, Scene, X, host_v4, on_link};
use isatap_tests::state::{self, wait_configured};
use isatap_tests::topology::{UNDERLAY, mac};
use isatap_tests::wait;

#[test]
fn only_one_router_can_be_used() {
    // P12, P15.
    let scene = Routers::new(2);
    let (r1, r2) = (scene.start(0, "medium"), scene.start(1, "medium"));
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let shares = share(&[&r1.daemon, &r2.daemon], || many_destinations(&scene));
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn packets_of_a_second_router_are_refused_for_want_of_a_list() {
    // D1: the questions go through one router of the PRL, the answers come through the other.
    let scene = Routers::new(2);
    let (r1, r2) = (scene.start(0, "high"), scene.start(1, "low"));
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    scene.answer_through(1);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let answers = || r2.daemon.counters(Direction::Encap).delivered;
    let before = answers();
    let questions = share(&[&r1.daemon, &r2.daemon], || {
        _ = ping(&scene.host, &server(1).to_string(), 10)
    });
    assert!(questions[0] >= 10, "the preferred one is asked: {questions:?}");
    assert!(
        answers() - before >= 10,
        "the other one answers: {}",
        answers() - before
    );
    host.conservation();
}

#[test]
fn packets_for_hosts_of_the_link_are_sent_to_the_router() {
    // E1, V8: from host to host, and the router sees none of it.
    let scene = Scene::new(2);
    let running = scene.start(|builder| builder.workers(1));
    let seen = || running.router.counters(Direction::Decap).received;
    let before = seen();
    ping(&scene.hosts[0], &on_link(host_v4(1)).to_string(), 10);
    running.conservation();
    assert_eq!(seen(), before);
}

#[test]
fn gateways_of_routes_are_ignored() {
    // E1: the gateway's own IPv4 address is where packets go.
    let scene = Opposite::new();
    let _daemon = scene.router(|builder| builder.workers(1));
    let wire = Sniffer::start(&scene.dut, UNDERLAY);
    let octets = mac(&scene.x, UNDERLAY)
        .map(|octet| format!("{octet:02x}"))
        .join(":");
    for last in [77, 78] {
        let gateway = Ipv4Addr::new(10, 0, 0, last);
        scene.dut.ip_batch(&format!(
            "neigh add {gateway} lladdr {octets} dev {UNDERLAY}\n\
             route add 2001:db8:{last}::/48 via {} dev {TUNNEL}",
            link_local(gateway)
        ));
        let to = format!("2001:db8:{last}::1");
        wait::holds("a packet for the gateway", SOON, || {
            scene.dut.try_run(&format!("ping -6 -n -c 1 -W 0.1 {to}"));
            wire.count(|c| c.outer().is_some_and(|outer| outer.dst() == gateway)) > 0
        });
    }
}

#[test]
fn addresses_and_the_default_route_are_lost_after_a_while() {
    // P5; FAULTS 53: nothing that was advertised ends before the router was asked again, over several lifetimes.
    const LIFETIME: u32 = 3;
    let scene = Opposite::new();
    let crafter = scene.crafter();
    let wire = Sniffer::start(&scene.x, UNDERLAY);
    let _daemon = Daemon::host(&scene.dut, DUT, &[X])
        .config("MinRouterSolicitInterval 1")
        .workers(1)
        .start();
    let prefix = nd::prefix_option(PREFIX.parse().expect("a prefix"), 64, LIFETIME, LIFETIME - 1);
    let body = nd::router_advertisement(u16::try_from(LIFETIME).expect("seconds"), &prefix);
    let answer = nd::packet(link_local(X), link_local(DUT), ROUTER_ADVERTISEMENT, &body);
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_secs(u64::from(2 * LIFETIME)) {
        asked += 1;
        wire.wait_count("solicitations", asked, SOON, |c| {
            let inner = c.outer().and_then(|outer| outer.inner());
            inner
                .and_then(|inner| inner.icmpv6())
                .is_some_and(|icmp| icmp.0 == ROUTER_SOLICITATION)
        });
        if asked > 1 {
            let has = state::addresses(&scene.dut, TUNNEL).len() == 2
                && state::routes(&scene.dut, TUNNEL).contains("default via fe80::5efe:a00:9");
            assert!(
                has,
                "before answer {asked}: {}",
                state::snapshot(&scene.dut, TUNNEL)
            );
        }
        crafter.send_inner(&answer);
        wait_configured(&scene.dut, &[DUT]);
    }
    assert!(asked >= 3, "{asked}");
}

#[test]
fn the_tunnel_stops_when_the_ipv4_address_changes() {
    // A6; FAULTS 54. All of it is in tests/locators.rs.
    let scene = Routers::new(1);
    let _router = scene.start(0, "medium");
    let host = Builder::new(&scene.host)
        .config(&format!("BindAddress auto\nServerAddress {}", router_v4(0)))
        .workers(1)
        .start();
    scene.wait_usable(&host, 1);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    scene.host.ip_batch(&format!(
        "addr del {HOST}/24 dev {UNDERLAY}\naddr add 10.0.0.20/24 dev {UNDERLAY}"
    ));
    wait_configured(&scene.host, &[Ipv4Addr::new(10, 0, 0, 20)]);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    host.conservation();
}

#[test]
fn a_dead_loop_when_its_own_packets_are_routed_into_the_tunnel() {
    // E8: cut the first time round, and other packets go on.
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    scene.dut.ip(&format!("route add 10.9.0.0/16 dev {TUNNEL}"));
    let before = daemon.counters(Direction::Encap);
    let to = link_local(Ipv4Addr::new(10, 9, 0, 5));
    scene
        .dut
        .try_run(&format!("ping -6 -n -c 3 -i 0.01 -W 0.1 {to}%{TUNNEL}"));
    wait::until("each to be cut", SOON, || {
        let since = daemon.counters(Direction::Encap).since(&before);
        if since.drops.get("loop") == Some(&3) {
            Ok(())
        } else {
            Err(since.to_string())
        }
    });
    daemon.conservation();
    scene.wait_prefix(&daemon);
    let since = daemon.counters(Direction::Encap).since(&before);
    assert_eq!(since.drops["loop"], 3, "{since}");
}

#[test]
fn no_path_from_the_error_to_the_sender() {
    // E2, N7: a program that sends where nobody can be hears of it by an ICMPv6 error, and need not wait for a timeout.
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    for (to, says) in [
        ("2001:db8:1::1234", "Address unreachable"),
        ("2001:db8:1::5efe:127.0.0.1", "Address unreachable"),
    ] {
        let output = scene.dut.try_run(&format!("ping -6 -n -c 1 -W 5 {to}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(says), "{to}: {text}");
    }
    // The same for a host behind this one's tunnel: the error goes back through it.
    let (crafter, wire) = (scene.crafter(), Sniffer::start(&scene.x, UNDERLAY));
    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");
    let lost = "2001:db8:1::1234".parse().expect("an address");
    crafter.send_inner(&Inner::new(on_link(X), lost).udp(1, 2, b"to nobody"));
    wire.wait_for("an error", SOON, |c| {
        let inner = c.outer().and_then(|outer| outer.inner());
        inner.is_some_and(|inner| inner.dst() == on_link(X) && inner.icmpv6().is_some_and(|icmp| icmp.0 == 1))
    });
    daemon.conservation();
}
