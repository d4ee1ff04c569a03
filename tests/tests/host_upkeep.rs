//! What routers have made of a host's interface, in the hands of others: operators, reloads, a change of role, the end;
//! and what a program is told when there is no way (V2, V3, P4, E2, N7; FAULTS 48).
//! Topology: see `isatap_tests::advertiser`.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use isatap_tests::advertiser::{DAY, Stage, net, router, usual};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::TUNNEL;
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{Advertisement, route_option};
use isatap_tests::packet::Inner;
use isatap_tests::raw::Injector;
use isatap_tests::routers::{router_v4, server};
use isatap_tests::scene::SOON;
use isatap_tests::wait;

/// What is restored or withdrawn without an advertisement takes no longer.
const AT_ONCE: Duration = Duration::from_secs(1);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

#[test]
fn what_somebody_takes_away_comes_back_and_what_is_his_stays() {
    // V2, V12 against operators and other programs: only what this daemon has set is its business.
    let stage = Stage::new(1);
    let daemon = stage.start("");
    let ip = |line: &str| _ = stage.host.ip(&format!("-6 {line}"));
    for line in [
        "addr add 2001:db8:77::7/64 dev is0 nodad",
        "route add 2001:db8:78::/48 via fe80::5efe:10.0.0.1 dev is0",
        "route add default via fe80::5efe:10.0.0.1 dev is0 metric 2000",
        "route add 2001:db8:79::/64 dev is0 proto ra",
    ] {
        ip(line);
    }
    let foreign = Configured::read(&stage.host).timeless();
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]));
    let ours = Configured::read(&stage.host).timeless();
    assert!(ours.routes.is_superset(&foreign.routes) && ours.addresses.is_superset(&foreign.addresses));
    assert_eq!(ours.routes.len(), foreign.routes.len() + 2, "{ours:?}");
    for line in [
        "addr del 2001:db8:1::5efe:10.0.0.10/128 dev is0".to_owned(),
        "route del default via fe80::5efe:10.0.0.1 dev is0 metric 1024".to_owned(),
        "route del 2001:db8:1::/64 dev is0".to_owned(),
        "route flush dev is0 proto ra".to_owned(),
        format!("link set {TUNNEL} down up"),
    ] {
        let up = line.contains("down up");
        if up {
            stage.host.ip(&format!("link set {TUNNEL} down"));
            stage.host.ip(&format!("link set {TUNNEL} up"));
        } else {
            ip(&line);
        }
        let back = |seen: &Configured| {
            let seen = seen.clone().timeless();
            let mut routes = ["default", "2001:db8:1::/64"]
                .into_iter()
                .flat_map(|prefix| ours.to(prefix));
            let back = routes.all(|route| route.metric > 1024 || seen.routes.contains(route));
            back && seen.address(net(1).1).is_some()
        };
        Configured::wait(&stage.host, &line, AT_ONCE, back);
    }
    // An address that ended with the interface was the operator's to keep: `keep_addr_on_down`.
    let seen = Configured::read(&stage.host);
    assert!(seen.address(v6("2001:db8:77::7")).is_some(), "{seen:?}");

    // Taken back by the end of the router: what is not ours stays.
    let stranger = "2001:db8:7a::/48";
    ip(&format!(
        "route add {stranger} via fe80::5efe:10.0.0.1 dev {TUNNEL}"
    ));
    stage.advertise(&daemon, 0, &Advertisement::new(&[]).lifetime(0));
    let seen = Configured::read(&stage.host);
    assert_eq!(seen.to(stranger).len(), 1, "{seen:?}");
    daemon.conservation();
}

#[test]
fn a_reload_changes_what_it_says_and_nothing_else() {
    // P4, V3: `DefaultRoute`, a router that leaves the list, a host that becomes a router; FAULTS 48.
    let stage = Stage::new(2);
    let mut daemon = stage.start("");
    for index in 0..2 {
        let mut what = Advertisement::new(&[usual(1), route_option(v6("2001:db8:9::"), 48, 0, DAY)]);
        what.hop_limit = 33;
        stage.advertise(&daemon, index, &what);
    }
    let reload = |servers: usize, more: &str| {
        daemon.rewrite_config(&stage.config(servers, more));
        let output = daemon.ctl("reload");
        assert!(output.status.success(), "{output:?}");
        // What is shown is what the workers have: nothing that is sent from now on meets the old rules.
        assert!(daemon.ctl("routes").status.success());
    };
    let wait = |what: &str, is_so: &dyn Fn(&Configured) -> bool| {
        Configured::wait(&stage.host, what, AT_ONCE, is_so);
    };
    let both: BTreeSet<_> = [router(0), router(1)].into();
    assert_eq!(Configured::read(&stage.host).default_routers(), both);
    let metrics = |seen: &Configured| seen.to("default").iter().map(|r| r.metric).collect::<Vec<_>>();
    reload(2, "DefaultRoute no\n");
    wait("no default route", &|seen| {
        seen.to("default").is_empty()
            && seen.to("2001:db8:9::/48").len() == 2
            && seen.address(net(1).1).is_some()
    });
    reload(2, "DefaultRoute metric 300\n");
    wait("another metric", &|seen| metrics(seen) == [300, 300]);
    reload(2, "");
    wait("the usual metric", &|seen| metrics(seen) == [1024, 1024]);

    // The first router is one no more: its routes go, the other's stay, and its packets are refused.
    let from_server = Inner::new(server(1), net(1).1).udp(9, 9, b"from far away");
    let passed = |reason: Option<&str>| {
        wait::until(&format!("a packet to be dropped: {reason:?}"), SOON, || {
            let before = daemon.counters(Direction::Decap);
            stage.crafter(0).send_inner(&from_server);
            let since = daemon.wait_received(Direction::Decap, &before, 1);
            let drops: Vec<_> = since.drops.keys().map(String::as_str).collect();
            if drops.as_slice() == reason.as_slice() {
                Ok(())
            } else {
                Err(since.to_string())
            }
        });
    };
    passed(None);
    daemon.rewrite_config(
        &stage
            .config(2, "")
            .replacen(&format!("ServerAddress {}\n", router_v4(0)), "", 1),
    );
    assert!(daemon.ctl("reload").status.success());
    wait("the other router alone", &|seen| {
        let only = seen.default_routers() == [router(1)].into() && seen.to("2001:db8:9::/48").len() == 1;
        only && seen.address(net(1).1).is_some()
    });
    passed(Some("src_mismatch"));
    let before = daemon.counters(Direction::Decap);
    stage
        .crafter(0)
        .send_inner(&stage.packet(0, &Advertisement::new(&[usual(5)])));
    let since = daemon.wait_received(Direction::Decap, &before, 1);
    assert_eq!(
        since.drops.keys().collect::<Vec<_>>(),
        ["nd_not_router"],
        "{since}"
    );
    assert!(Configured::read(&stage.host).address(net(5).1).is_none());

    // A router has no use for what hosts are told.
    reload(0, "");
    wait("nothing that was advertised", &|seen| {
        seen.addresses.is_empty() && seen.routes.is_empty() && seen.hop_limit == 64
    });
    // And back; the link's prefixes live on, a default router must speak again.
    reload(1, "");
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]));
    wait("a host again", &|seen| {
        seen.default_routers() == [router(0)].into() && seen.address(net(1).1).is_some()
    });
    daemon.conservation();
    daemon.stop();
    assert!(!stage.host.has_link(TUNNEL), "an orderly stop leaves nothing");
    let left = stage.host.ip("-6 route show") + &stage.host.ip("-6 addr show");
    assert!(!left.contains("2001:db8") && !left.contains("5efe"), "{left}");
}

#[test]
fn a_host_is_told_when_there_is_no_way() {
    // E2, N7: address unreachable for a neighbour that has no IPv4 address in its own, no route without a router; and
    // the sender's kernel gets a bounded number of errors.
    const MANY: u16 = 1000;
    let stage = Stage::new(1);
    let daemon = stage.start("DefaultRoute no");
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]));
    daemon.wait_route("2001:db8:1::/64");
    // The kernel takes packets to a new address in only after it has run its own work queue.
    wait::holds("the address to be taken for its own", SOON, || {
        let local = stage.host.ip("-6 route show table local");
        local.contains(&format!("local {} ", net(1).1))
    });
    let output = stage.host.try_run("ping -6 -n -c 1 -W 2 2001:db8:1::1234");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("Destination unreachable: Address unreachable"),
        "{text}"
    );
    let output = stage.host.try_run("ping -6 -n -c 1 -W 2 2001:db8:66::1");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("unreachable"), "{text}");

    let tunnel = stage.tunnel();
    let injector = Injector::tun(&stage.host, TUNNEL);
    let before = daemon.counters(Direction::Encap);
    for sequence in 1..=MANY {
        injector.send(&Inner::new(net(1).1, v6("2001:db8:1::1234")).echo_request(1, sequence, b"anybody?"));
        // Never more on the way than the queue of the interface holds.
        if sequence % 100 == 0 {
            daemon.wait_received(Direction::Encap, &before, u64::from(sequence));
        }
    }
    let since = daemon.wait_received(Direction::Encap, &before, u64::from(MANY));
    assert_eq!(since.drops["unresolvable"], u64::from(MANY), "{since}");
    let codes: Vec<_> = tunnel
        .packets()
        .iter()
        .filter(|c| !c.outgoing)
        .filter_map(|c| c.inner()?.icmpv6().map(|(kind, code, _)| (kind, code)))
        .collect();
    assert!(codes.iter().all(|seen| *seen == (1, 3)), "{codes:?}");
    assert!(
        (1..=usize::from(MANY) / 2).contains(&codes.len()),
        "{} errors",
        codes.len()
    );
    daemon.conservation();
}
