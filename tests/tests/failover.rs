//! Several routers: shared when equal, preferred when told so, left when silent, used again when back (P12-P16, N2, N5;
//! RFC 4191, RFC 4311). Topology: see `isatap_tests::routers`.

use std::time::Duration;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::radvd::Radvd;
use isatap_tests::routers::{HOST, Routers, many_destinations, radvd_conf, router_v4, server, share};
use isatap_tests::scene::{SOON, set_address};
use isatap_tests::steady::Stream;
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;
use nix::sys::signal::Signal;

/// A dead router is left within this: nine seconds by the machine, and a busy machine.
const LEFT: Duration = Duration::from_secs(25);

/// Inner bytes that came in from the site.
fn bytes(router: &Daemon<'_>) -> u64 {
    router
        .metrics()
        .sum("isatapd_bytes_total", &[("direction", "decap")])
}

#[test]
fn equal_routers_share_the_destinations() {
    // P15, and the old manual's "only one router".
    let scene = Routers::new(2);
    let (r1, r2) = (scene.start(0, "medium"), scene.start(1, "medium"));
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let shares = share(&[&r1.daemon, &r2.daemon], || many_destinations(&scene));
    assert!(shares.iter().all(|share| *share >= 10), "{shares:?} of 64");
    let routes = String::from_utf8_lossy(&host.ctl("routes").stdout).into_owned();
    let default = routes.lines().find(|line| line.starts_with("::/0"));
    assert!(
        default.is_some_and(|line| line.contains("10.0.0.1 10.0.0.2")),
        "{routes}"
    );
    host.conservation();
}

#[test]
fn a_preferred_router_is_left_when_silent_and_used_when_back() {
    // P12, P13, P14, N2.
    let scene = Routers::new(2);
    let (r1, r2) = (scene.start(0, "high"), scene.start(1, "low"));
    let daemons = [&r1.daemon, &r2.daemon];
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let shares = share(&daemons, || many_destinations(&scene));
    assert!(shares[0] >= 64 && shares[1] < 10, "the preferred one: {shares:?}");

    // Silence: nothing of the tunnel gets in any more, and no error tells.
    let ns = &scene.routers[0];
    ns.run("nft add table inet t");
    for hook in ["input", "forward"] {
        ns.run(&format!(
            "nft add chain inet t {hook} {{ type filter hook {hook} priority 0; }}"
        ));
        // The programs of the ebpf lane carry past the first until they are told of it.
        ns.run(&format!("nft add rule inet t {hook} meta l4proto 41 drop"));
        ns.run(&format!("nft add rule inet t {hook} iifname {TUNNEL} drop"));
    }
    ping_until(&scene.host, &server(2).to_string(), LEFT);
    let state = |state| host.metrics().sum("isatapd_routers", &[("state", state)]);
    assert_eq!((state("usable"), state("unreachable")), (1, 1));
    let shares = share(&daemons, || many_destinations(&scene));
    assert!(shares[1] >= 64, "the one that answers: {shares:?}");

    ns.run("nft delete table inet t");
    wait::until("the preferred router to be used again", LEFT, || {
        let shares = share(&daemons, || _ = ping(&scene.host, &server(3).to_string(), 1));
        if shares[0] > 0 {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    });
    scene.wait_usable(&host, 2);
    host.conservation();
}

/// What one engine has found out the next one need not, at the cost of a share of all flows (P12, N2).
#[test]
fn a_silent_router_stays_left_by_the_next_engine() {
    let scene = Routers::new(2);
    let (r1, r2) = (scene.start(0, "medium"), scene.start(1, "medium"));
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    scene.routers[0].ip(&format!("link set {UNDERLAY} down"));
    wait::until("the silent router to be left", LEFT, || {
        // Nobody is asked whom nobody uses.
        scene
            .host
            .try_run(&format!("ping -6 -n -c 1 -W 0.1 {}", server(1)));
        match host.metrics().sum("isatapd_routers", &[("state", "unreachable")]) {
            1 => Ok(()),
            _ => Err(host.log()),
        }
    });
    let old = kill_engine(&host);
    wait_successor(&host, old);
    many_destinations(&scene);
    let upgraded = host.ctl("upgrade");
    assert!(upgraded.status.success(), "{upgraded:?}");
    many_destinations(&scene);
    scene.routers[0].ip(&format!("link set {UNDERLAY} up"));
    scene.wait_usable(&host, 2);
    [&host, &r1.daemon, &r2.daemon]
        .into_iter()
        .for_each(Daemon::conservation);
}

#[test]
fn a_transfer_outlives_its_router() {
    // P12, N5: kill -9 under a TCP transfer; a flow moves without a reset.
    const BYTES: u64 = 400_000;
    let scene = Routers::new(2);
    let (mut r1, r2) = (scene.start(0, "high"), scene.start(1, "low"));
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    scene.server.sysctl("ipv6/ip_nonlocal_bind", "1");
    let stream = Stream::start(&scene.host, &scene.server, server(1));
    stream.wait_more(BYTES, SOON * 2);
    assert!(bytes(&r1.daemon) > BYTES, "through the preferred router");
    r1.daemon.signal(Signal::SIGKILL);
    r1.daemon.wait_exit(SOON);
    stream.wait_more(BYTES, LEFT);
    stream.finish();
    let moved = bytes(&r2.daemon);
    assert!(moved > BYTES / 2, "{moved} bytes through the second router");
    host.conservation();
}

#[test]
fn an_anycast_router_address_may_move() {
    // P16: two routers have the address of the list on their loopback device; routing decides which one is meant.
    let scene = Routers::new(2);
    let anycast = std::net::Ipv4Addr::new(10, 1, 1, 1);
    let mut running = Vec::new();
    for ns in &scene.routers {
        ns.ip("link set lo up");
        ns.ip(&format!("addr add {anycast}/32 dev lo"));
        let daemon = Daemon::router(ns, anycast).workers(1).start();
        set_address(ns, anycast);
        daemon.wait_route("2001:db8:1::/64");
        running.push((daemon, Radvd::start(ns, &radvd_conf("medium", 1800, 86400))));
    }
    let via = |index| {
        let route = format!("route replace {anycast} via {} dev {UNDERLAY}", router_v4(index));
        scene.host.ip(&route);
    };
    via(0);
    let host = Daemon::host(&scene.host, HOST, &[anycast]).workers(1).start();
    scene.wait_usable(&host, 1);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let daemons = [&running[0].0, &running[1].0];
    let shares = share(&daemons, || _ = ping(&scene.host, &server(1).to_string(), 5));
    assert!(shares[0] >= 5, "{shares:?}");
    // Not one packet is lost: each is answered. Programs in the kernel go the old way until they are told of the new one.
    via(1);
    wait::until("the second router to be meant", SOON, || {
        let shares = share(&daemons, || _ = ping(&scene.host, &server(1).to_string(), 5));
        if shares[1] >= 5 {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    });
    host.conservation();
}

/// E1: what a packet does not say cannot be honoured, and is told.
#[test]
fn routes_of_other_tables_and_for_sources_are_told_of() {
    let scene = Routers::new(2);
    let _routers = (scene.start(0, "high"), scene.start(1, "low"));
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    let gateway = format!("via fe80::5efe:10.0.0.2 dev {TUNNEL}");
    assert!(!host.log().contains("of the routes of"), "{}", host.log());
    scene.host.ip(&format!(
        "-6 route add 2001:db8:77::/48 from 2001:db8:1::/64 {gateway}"
    ));
    host.wait_log("as if they were not there (2001:db8:77::/48 from 2001:db8:1::/64)");
    scene.host.ip(&format!("-6 route add default {gateway} table 77"));
    host.wait_log("tables 77, main");
    host.conservation();
}

/// E1: with `nexthop_compat_mode=0` the kernel says of a route that is made of an object the object's number alone, and nothing at all
/// when the object becomes another, or goes.
#[test]
fn objects_are_known_where_routes_do_not_say_more() {
    let scene = Routers::new(2);
    let _routers = (scene.start(0, "high"), scene.start(1, "low"));
    scene.host.run("sysctl -qw net.ipv4.nexthop_compat_mode=0");
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    let to = "2001:db8:99::/64";
    let leads = |expected: Option<&str>| {
        wait::until(&format!("{to} to lead to {expected:?}"), SOON, || {
            let output = host.ctl("routes");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(to));
            match lines.next().map(str::trim) == expected {
                true => Ok(()),
                false => Err(text),
            }
        });
    };
    let via = |n| format!("via fe80::5efe:10.0.0.{n} dev {TUNNEL}");
    // One that leads elsewhere at first.
    scene.host.ip("-6 nexthop add id 5 blackhole");
    scene.host.ip(&format!("-6 route add {to} nhid 5"));
    scene.host.ip(&format!("nexthop add id 7 {}", via(2)));
    leads(None);
    scene.host.ip(&format!("-6 route replace {to} nhid 7"));
    leads(Some("10.0.0.2"));
    scene.host.ip(&format!("nexthop replace id 7 {}", via(1)));
    leads(Some("10.0.0.1"));
    scene.host.ip(&format!("nexthop add id 8 {}", via(2)));
    scene.host.ip("nexthop add id 9 group 7/8");
    scene.host.ip(&format!("-6 route replace {to} nhid 9"));
    leads(Some("10.0.0.1 10.0.0.2"));
    scene.host.ip("nexthop del id 7");
    leads(Some("10.0.0.2"));
    scene.host.ip("nexthop del id 8");
    leads(None);
    // There before the daemon, as after a restart of it.
    scene.host.ip(&format!("nexthop add id 7 {}", via(2)));
    scene.host.ip(&format!("-6 route add {to} nhid 7"));
    leads(Some("10.0.0.2"));
    kill_engine(&host);
    leads(Some("10.0.0.2"));
    scene.host.ip(&format!("-6 route del {to} nhid 7"));
    leads(None);
    host.conservation();
}

#[test]
fn a_gateway_of_a_static_route_is_honoured() {
    // E1, and the old manual's "gateways are ignored": with either u bit, by nexthop objects, by several of them.
    let scene = Routers::new(2);
    let (r1, r2) = (scene.start(0, "high"), scene.start(1, "low"));
    let daemons = [&r1.daemon, &r2.daemon];
    let host = scene.host().start();
    scene.wait_usable(&host, 2);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let to = server(0x77);
    let through = |expected: [bool; 2]| {
        wait::until(&format!("a packet through {expected:?}"), SOON, || {
            let shares = share(&daemons, || _ = ping(&scene.host, &to.to_string(), 1));
            let used = [shares[0] > 0, shares[1] > 0];
            if used == expected {
                Ok(())
            } else {
                Err(format!("{shares:?}"))
            }
        });
    };
    let route = |what: &str| _ = scene.host.ip(&format!("-6 route {what}"));
    for gateway in ["fe80::5efe:10.0.0.2", "fe80::200:5efe:10.0.0.2"] {
        route(&format!("add {to} via {gateway} dev {TUNNEL}"));
        through([false, true]);
        route(&format!("del {to} dev {TUNNEL}"));
        through([true, false]);
    }
    // One that refuses packets takes its place, and goes: of the one whose place it was the kernel says nothing.
    route(&format!("add {to} via fe80::5efe:10.0.0.2 dev {TUNNEL}"));
    through([false, true]);
    route(&format!("replace blackhole {to} metric 1024"));
    route(&format!("del blackhole {to} metric 1024"));
    through([true, false]);
    scene
        .host
        .ip(&format!("nexthop add id 7 via fe80::5efe:10.0.0.2 dev {TUNNEL}"));
    route(&format!("add {to} nhid 7"));
    through([false, true]);
    scene.host.ip(&format!(
        "nexthop replace id 7 via fe80::5efe:10.0.0.1 dev {TUNNEL}"
    ));
    through([true, false]);
    scene.host.ip(&format!(
        "nexthop replace id 7 via fe80::5efe:10.0.0.2 dev {TUNNEL}"
    ));
    through([false, true]);
    scene.host.ip("nexthop del id 7");
    through([true, false]);
    // One that leaves its group takes its share along, and the kernel says nothing of the route.
    for (id, n) in [(7, 2), (8, 1)] {
        scene.host.ip(&format!(
            "nexthop add id {id} via fe80::5efe:10.0.0.{n} dev {TUNNEL}"
        ));
    }
    scene.host.ip("nexthop add id 9 group 7/8");
    route("add 2001:db8:99::/64 nhid 9");
    let spread = |expected: [bool; 2]| {
        wait::until(&format!("destinations spread over {expected:?}"), SOON, || {
            let shares = share(&daemons, || many_destinations(&scene));
            if [shares[0] >= 10, shares[1] >= 10] == expected {
                Ok(())
            } else {
                Err(format!("{shares:?}"))
            }
        });
    };
    spread([true, true]);
    scene.host.ip("nexthop del id 8");
    spread([false, true]);
    route("del 2001:db8:99::/64 nhid 9");
    let hop = |n| format!("nexthop via fe80::5efe:10.0.0.{n} dev {TUNNEL}");
    scene
        .host
        .ip(&format!("-6 route add 2001:db8:99::/64 {} {}", hop(1), hop(2)));
    wait::until("both gateways of one route", SOON, || {
        let shares = share(&daemons, || many_destinations(&scene));
        if shares.iter().all(|share| *share >= 10) {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    });
    host.conservation();
}
