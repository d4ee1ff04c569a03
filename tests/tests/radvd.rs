//! A router whose solicitations radvd answers, with the snippet we ship, and hosts that know nothing but the
//! router's IPv4 address (P2, P7, T3, U12; FAULTS 53 in the small).
//!
//! ```text
//!   srv ---- rtr 10.0.0.1 (isatapd, radvd) ---+--- h1 10.0.0.2 (isatapd 10.0.0.1)    see isatap_tests::scene
//!                                             +--- h2 10.0.0.3 (isatapd 10.0.0.1)
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::asker::{ALL_ROUTERS, Asker};
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use isatap_tests::packet::link_local;
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::radvd::Radvd;
use isatap_tests::raw::{Captured, Sniffer};
use isatap_tests::scene::{ROUTER, SERVER, SOON, Scene, host_v4, on_link, set_address};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

/// Type of the ICMPv6 message inside an outer packet from `src` to `dst`.
fn message(captured: &Captured, src: Ipv4Addr, dst: Ipv4Addr) -> Option<u8> {
    let outer = captured
        .outer()
        .filter(|outer| (outer.src(), outer.dst()) == (src, dst))?;
    Some(outer.inner()?.icmpv6()?.0)
}

fn hosts_configure_themselves(lane: Lane) {
    let scene = Scene::new(2);
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let router = Daemon::router(&scene.router, ROUTER).lane(lane).start();
    set_address(&scene.router, ROUTER);
    router.wait_route("2001:db8:1::/64");
    let _radvd = Radvd::start(&scene.router, &Radvd::snippet());
    let start = |(index, ns)| Daemon::host(ns, host_v4(index), &[ROUTER]).lane(lane).start();
    let hosts: Vec<_> = scene.hosts.iter().enumerate().map(start).collect();

    for (index, ns) in scene.hosts.iter().enumerate() {
        let address = format!("{}/128", on_link(host_v4(index)));
        wait::until(&format!("{address} and a default route"), SOON * 3, || {
            let state = ns.ip(&format!("-6 addr show dev {TUNNEL}")) + &ns.ip("-6 route show default");
            let has = state.contains(&address) && state.contains("default via fe80::5efe:a00:1");
            if has { Ok(()) } else { Err(state) }
        });
        // Both ways are unicast, and the advertisement goes to the one who asked.
        let v4 = host_v4(index);
        wire.wait_for("a solicitation", SOON, |c| {
            message(c, v4, ROUTER) == Some(ROUTER_SOLICITATION)
        });
        wire.wait_for("an advertisement", SOON, |c| {
            message(c, ROUTER, v4) == Some(ROUTER_ADVERTISEMENT)
        });
        ping_until(ns, &SERVER.to_string(), SOON);
        ping(ns, &SERVER.to_string(), 5);
    }
    // Each host takes the other's packets once it knows that their prefix is on-link.
    hosts.iter().for_each(|host| host.wait_route("2001:db8:1::/64"));
    ping(&scene.hosts[0], &on_link(host_v4(1)).to_string(), 5);
    assert_eq!(
        wire.count(|c| c.outer().is_some_and(|outer| outer.dst().is_multicast())),
        0,
        "A9: IPv4 multicast"
    );

    for host in &hosts {
        host.wait_ready();
        let metrics = host.metrics();
        // The first one is enough: it is sent when its answer can come in and be taken.
        assert_eq!(metrics.sum("isatapd_router_solicitations_total", &[]), 1);
        assert_eq!(metrics.sum("isatapd_routers", &[("state", "usable")]), 1);
        let routers = host.ctl("routers");
        assert!(routers.status.success());
        assert!(
            String::from_utf8_lossy(&routers.stdout).contains("10.0.0.1"),
            "{routers:?}"
        );
        host.conservation();
    }
    router.conservation();
    assert!(
        router.drops(Direction::Decap).is_empty(),
        "{:?}",
        router.drops(Direction::Decap)
    );
}

#[test]
fn hosts_configure_themselves_uring() {
    hosts_configure_themselves(Lane::Uring);
}

#[test]
fn hosts_configure_themselves_syscall() {
    hosts_configure_themselves(Lane::Syscall);
}

#[test]
fn hosts_configure_themselves_ebpf() {
    hosts_configure_themselves(Lane::Ebpf);
}

#[test]
fn rdisc6_on_a_host_is_answered() {
    // P7: a solicitation of any program to ff02::2 reaches each router of the PRL as unicast.
    let scene = Scene::new(1);
    let _router = Daemon::router(&scene.router, ROUTER).start();
    set_address(&scene.router, ROUTER);
    let _radvd = Radvd::start(&scene.router, &Radvd::snippet());
    let _host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER]).start();
    wait::until("an answer to rdisc6", SOON * 2, || {
        let output = scene.hosts[0].try_run(&format!("rdisc6 -1 -r 1 -w 1000 {TUNNEL}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complete = text.contains("2001:db8:1::/64") && text.contains("from fe80::5efe:a00:1");
        if complete { Ok(()) } else { Err(text) }
    });
}

#[test]
fn v10_name_servers_of_advertisements() {
    // RFC 8106: taken, shown, and forgotten when a router withdraws them. Who keeps this machine's is the daemon's own test.
    let scene = Scene::new(1);
    let _router = Daemon::router(&scene.router, ROUTER).start();
    set_address(&scene.router, ROUTER);
    let conf =
        |options: &str| format!("interface {TUNNEL} {{ AdvSendAdvert on; UnicastOnly on; {options} }};\n");
    let radvd = Radvd::start(
        &scene.router,
        &conf(
            "RDNSS 2001:db8::53 2001:db8::54 { AdvRDNSSLifetime 1200; }; DNSSL example.org { AdvDNSSLLifetime 1200; };",
        ),
    );
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER])
        .config("MinRouterSolicitInterval 1")
        .start();
    let wait = |what: &str, expected: [&[&str]; 2]| {
        wait::until(what, SOON * 2, || {
            let text = String::from_utf8_lossy(&host.ctl("status --json").stdout).into_owned();
            let status: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let seen = ["servers", "search"].map(|list| status["resolver"][list].clone());
            if seen == expected.map(|list| serde_json::json!(list)) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        });
    };
    wait(
        "name servers and domains",
        [&["2001:db8::53", "2001:db8::54"], &["example.org"]],
    );
    drop(radvd);
    let _radvd = Radvd::start(
        &scene.router,
        &conf("RDNSS 2001:db8::53 { AdvRDNSSLifetime 0; }; DNSSL example.org { AdvDNSSLLifetime 0; };"),
    );
    assert!(host.ctl("rs").status.success());
    wait("what is left after the withdrawal", [&["2001:db8::54"], &[]]);
    host.conservation();
}

/// P7, A9, T3: without `UnicastOnly` radvd speaks to all nodes, on a link that has no multicast: whoever solicited lately
/// gets a copy, and nobody else. No IPv4 multicast leaves.
#[test]
fn advertisements_to_all_nodes_reach_who_solicited() {
    let scene = Scene::new(1);
    let router = Daemon::router(&scene.router, ROUTER).workers(1).start();
    set_address(&scene.router, ROUTER);
    router.wait_route("2001:db8:1::/64");
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let (asker, silent) = (
        Asker::new(&scene.site, 20, &scene.router, ROUTER),
        Asker::new(&scene.site, 30, &scene.router, ROUTER),
    );
    let _radvd = Radvd::start(
        &scene.router,
        &format!(
            "interface {TUNNEL} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; \
             prefix 2001:db8:1::/64 {{ AdvOnLink on; AdvAutonomous on; }}; }};\n"
        ),
    );
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER])
        .workers(1)
        .start();
    asker.ask(ALL_ROUTERS);
    // Answers go to the one who asked; this one nobody asked for.
    let all_nodes: Ipv6Addr = "ff02::1".parse().expect("an address");
    let told = asker.wait_such("an advertisement to all nodes", SOON * 3, |told| {
        told.inner.1 == all_nodes
    });
    assert_eq!(told.outer, (ROUTER, asker.v4));
    assert_eq!(told.inner.0, link_local(ROUTER));
    assert_eq!((told.hop_limit, told.prefixes().len()), (255, 1));
    host.wait_ready();
    ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
    assert_eq!(silent.told(), []);
    assert_eq!(
        wire.count(|c| c.outer().is_some_and(|outer| outer.dst().is_multicast())),
        0
    );
    let name = "isatapd_router_advertisements_sent_total";
    assert!(router.metrics().sum(name, &[("result", "spread")]) >= 1);
    assert!(router.counters(Direction::Encap).punted >= 1);
    router.conservation();
    host.conservation();
}
