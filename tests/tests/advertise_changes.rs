//! A router that advertises itself, when something changes: the stop, a reload, another address, a peer that disagrees.
//! Topology: see `advertise.rs`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_tests::asker::{ALL_ROUTERS, ANSWERED, Asker, EVERYTHING};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Builder, Daemon, TUNNEL};
use isatap_tests::fault::{kill_engine, let_it_live, wait_successor};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, ROUTER_SOLICITATION};
use isatap_tests::packet::{isatap, link_local};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{DUT, Opposite, ROUTER, SERVER, SOON, Scene, host_v4};
use isatap_tests::state::{routes, snapshot};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// T7, L9: at the stop every known host is told three times that the router goes, and its routes and servers with it;
/// a real host leaves it at once.
#[test]
fn the_stop_is_told() {
    let scene = Scene::new(1);
    let mut router = Daemon::router(&scene.router, ROUTER).config(EVERYTHING).start();
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER]).start();
    let asker = Asker::new(&scene.site, 20, &scene.router, ROUTER);
    asker.ask(ALL_ROUTERS);
    asker.wait(1, ANSWERED);
    wait::holds("a default route", SOON * 2, || {
        !Configured::read(&scene.hosts[0]).default_routers().is_empty()
    });
    asker.forget();
    let took = router.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let told = asker.wait(3, SOON);
    assert_eq!(told.len(), 3);
    for last in told {
        assert_eq!((last.outer, last.lifetime()), ((ROUTER, asker.v4), 0));
        assert_eq!(last.prefixes(), []);
        for (kind, option) in last.options() {
            assert!([24, 25, 31].contains(&kind), "option {kind}");
            assert_eq!(option[2..6], [0; 4], "lifetime of option {kind}");
        }
        assert_eq!(last.options().len(), 3);
    }
    wait::until("the host to leave the router", SOON, || {
        let has = Configured::read(&scene.hosts[0]);
        let gone = has.default_routers().is_empty() && !has.addresses.is_empty();
        if gone { Ok(()) } else { Err(format!("{has:?}")) }
    });
    host.conservation();
}

/// T7: an engine that dies takes no host along, nor does a program that hands over: whoever follows tells them of changes, and that
/// the router goes. By that alone nothing has changed for a host, and none is told anything.
#[test]
fn the_next_engine_knows_the_hosts() {
    let scene = Opposite::new();
    let says =
        |mtu: u16| format!("BindAddress {DUT}\nMtu 1400\nWorkers 1\nAdvertise yes\nAdvertiseMtu {mtu}\n");
    let mut router = Builder::new(&scene.dut).config(&says(1300)).start();
    let modest = Asker::new(&scene.site, 20, &scene.dut, DUT);
    // One that takes its address for unique in the world.
    let proud = Asker::new(&scene.site, 21, &scene.dut, DUT);
    let proud_addr = v6("fe80::200:5efe:10.0.0.21");
    modest.ask(ALL_ROUTERS);
    let question = nd::router_solicitation();
    proud.send(&nd::packet(
        proud_addr,
        ALL_ROUTERS,
        ROUTER_SOLICITATION,
        &question,
    ));
    let hosts = [(&modest, modest.addr()), (&proud, proud_addr)];
    for (host, _) in hosts {
        host.wait(1, ANSWERED);
    }
    let change_to = |router: &Daemon<'_>, mtu: u16| {
        let name = "isatapd_router_advertisements_sent_total";
        assert_eq!(router.metrics().sum(name, &[]), 0);
        hosts.iter().for_each(|(host, _)| host.forget());
        router.rewrite_config(&says(mtu));
        assert!(router.ctl("reload").status.success());
        for (host, addr) in hosts {
            let told = host.wait(1, ANSWERED).remove(0);
            let told_mtu = told.of_type(5).remove(0);
            assert_eq!((told.outer, told.inner.1), ((DUT, host.v4), addr));
            assert_eq!(told_mtu[4..], mtu.to_be_bytes());
        }
    };
    let_it_live(Instant::now());
    let old = kill_engine(&router);
    wait_successor(&router, old);
    router.wait_log("known from the engine before: 2 host(s)");
    let shown = String::from_utf8(router.ctl("hosts").stdout).expect("text");
    for (host, addr) in hosts {
        let words = [&host.v4, &DUT].map(ToString::to_string);
        let is_his = |line: &&str| line.starts_with(&words[0]) && line.ends_with(&addr.to_string());
        let line = shown.lines().find(is_his);
        assert!(line.is_some_and(|line| line.contains(&words[1])), "{shown}");
    }
    change_to(&router, 1310);

    let output = router.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", router.log());
    change_to(&router, 1320);
    router.conservation();

    hosts.iter().for_each(|(host, _)| host.forget());
    router.stop();
    for (host, addr) in hosts {
        let told = host.wait_such("last words", SOON, |told| told.lifetime() == 0);
        assert_eq!((told.outer, told.inner.1), ((DUT, host.v4), addr));
    }
}

/// T6, V12: what a reload took back, the engine that follows goes on taking back: a host that was away meanwhile hears it
/// when it asks.
#[test]
fn the_next_engine_goes_on_taking_back() {
    let scene = Opposite::new();
    let says = |prefix: &str| {
        let prefix = format!("AdvertisePrefix {prefix} on-link\nAdvertiseSearch Corp.example\n");
        format!("BindAddress {DUT}\nWorkers 1\nAdvertise yes\n{prefix}")
    };
    let router = Builder::new(&scene.dut).config(&says("2001:db8:1::/64")).start();
    router.rewrite_config(&says("2001:db8:2::/64"));
    assert!(router.ctl("reload").status.success());
    let hears = |number: u8| {
        let host = Asker::new(&scene.site, number, &scene.dut, DUT);
        host.ask(ALL_ROUTERS);
        let told = host.wait(1, ANSWERED).remove(0);
        let prefixes = told.of_type(3).into_iter().map(|option| {
            let lifetime = u32::from_be_bytes(option[2..6].try_into().unwrap());
            let prefix: [u8; 16] = option[14..30].try_into().unwrap();
            (std::net::Ipv6Addr::from(prefix).to_string(), lifetime)
        });
        assert_eq!(
            prefixes.collect::<Vec<_>>(),
            [
                ("2001:db8:2::".to_owned(), 2_592_000),
                ("2001:db8:1::".to_owned(), 0)
            ],
            "host {number}"
        );
    };
    hears(30);
    let_it_live(Instant::now());
    let old = kill_engine(&router);
    wait_successor(&router, old);
    hears(31);
    let output = router.ctl("upgrade");
    assert!(output.status.success(), "{output:?}\n{}", router.log());
    hears(32);
    router.conservation();
}

/// T6, V12, RFC 4861 6.2.4 and 6.2.7: a reload is told to the hosts known: the new prefix comes, the old one is
/// deprecated and no longer on-link; the router's own part follows, and goes with `Advertise no`.
#[test]
fn a_reload_renumbers_the_hosts() {
    let scene = Scene::new(1);
    let base = format!("BindAddress {ROUTER}\nWorkers 1\n");
    let says = |lines: &str| format!("{base}{lines}");
    let old = says("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\n");
    let router = Builder::new(&scene.router).config(&old).start();
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER]).start();
    let ns = &scene.hosts[0];
    let [first, second] = ["2001:db8:1::", "2001:db8:2::"].map(|prefix| isatap(prefix, false, host_v4(0)));
    wait::holds("the first address", SOON * 2, || {
        Configured::read(ns).addresses.iter().any(|own| own.addr == first)
    });

    router.rewrite_config(&says("Advertise yes\nAdvertisePrefix 2001:db8:2::/64 on-link\n"));
    assert!(router.ctl("reload").status.success());
    let has = wait::until("the hosts to be renumbered", SOON * 2, || {
        let has = Configured::read(ns);
        let deprecated = |addr| {
            has.addresses
                .iter()
                .find(|own| own.addr == addr)
                .map(|own| own.deprecated)
        };
        let on_link = has.routes.iter().any(|route| route.prefix == "2001:db8:1::/64");
        if (deprecated(first), deprecated(second), on_link) == (Some(true), Some(false), false) {
            Ok(has)
        } else {
            Err(format!("{has:?}"))
        }
    });
    assert!(!has.default_routers().is_empty(), "{has:?}");
    ping_until(ns, &SERVER.to_string(), SOON);
    ping_until(ns, &isatap("2001:db8:2::", false, ROUTER).to_string(), SOON);
    let own = Configured::read(&scene.router);
    let addresses: Vec<_> = own.addresses.iter().map(|own| own.addr).collect();
    assert_eq!(
        addresses.iter().filter(|addr| addr.segments()[2] != 0x99).count(),
        1,
        "{own:?}"
    );
    assert!(!routes(&scene.router, TUNNEL).contains("2001:db8:1::/64"));

    router.rewrite_config(&says("Advertise no\n"));
    assert!(router.ctl("reload").status.success());
    wait::until("the host to leave the router", SOON, || {
        let has = Configured::read(ns);
        if has.default_routers().is_empty() {
            Ok(())
        } else {
            Err(format!("{has:?}"))
        }
    });
    wait::until("nothing of it to be left at the router", SOON, || {
        let table = routes(&scene.router, TUNNEL);
        if table.contains("proto 41") {
            Err(table)
        } else {
            Ok(())
        }
    });
    router.conservation();
    host.conservation();
}

/// T6, V12: a site that has a prefix for each of its many networks is renumbered by one reload: the first network hears that
/// its old prefix is gone as well as the last.
#[test]
fn a_reload_renumbers_every_network() {
    const NETWORKS: u16 = 200;
    let scene = Opposite::new();
    let of_site = |site: u16| {
        // The last one of the file is ours, too.
        let network = |number| match number {
            NETWORKS => "10.0.0.0/24".to_owned(),
            1 => "10.0.0.0/25".to_owned(),
            _ => format!("10.77.{number}.0/24"),
        };
        let line = |number| {
            format!(
                "AdvertisePrefix 2001:db8:{site}:{number:x}::/64 for {}\n",
                network(number)
            )
        };
        let lines: String = (1..=NETWORKS).map(line).collect();
        format!("BindAddress {DUT}\nWorkers 1\nAdvertise yes\n{lines}")
    };
    let router = Builder::new(&scene.dut).config(&of_site(1)).start();
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    asker.ask(ALL_ROUTERS);
    asker.wait(1, ANSWERED);
    asker.forget();
    router.rewrite_config(&of_site(2));
    assert!(router.ctl("reload").status.success());
    let told = asker.wait(1, ANSWERED);
    let mut prefixes: Vec<_> = told[0]
        .prefixes()
        .into_iter()
        .map(|(prefix, _, valid, preferred)| (prefix, valid, preferred))
        .collect();
    prefixes.sort_unstable();
    let expected = [(1, 0, 0), (2, 2_592_000, 604_800)].map(|(site, valid, preferred)| {
        [1, NETWORKS].map(|number| {
            let prefix = Ipv6Addr::new(0x2001, 0xdb8, site, number, 0, 0, 0, 0);
            (prefix, valid, preferred)
        })
    });
    assert_eq!(prefixes, expected.concat());
    router.conservation();
}

/// A6, T11: an address that moves takes the router's own addresses along, and answers come from the new one.
#[test]
fn a_new_locator_speaks() {
    let scene = Opposite::new();
    let config = "Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\nBindAddress auto\nWorkers 1\n";
    let router = Builder::new(&scene.dut).config(config).start();
    let moved = Ipv4Addr::new(10, 0, 0, 5);
    scene.dut.ip(&format!("addr add {moved}/24 dev {UNDERLAY}"));
    scene.dut.ip(&format!("addr del {DUT}/24 dev {UNDERLAY}"));
    scene.dut.ip(&format!("addr replace {moved}/24 dev {UNDERLAY}"));
    wait::until("the address in the prefix to move", SOON, || {
        let own = Configured::read(&scene.dut);
        let addresses: Vec<_> = own.addresses.iter().map(|own| own.addr).collect();
        if addresses == [isatap("2001:db8:1::", false, moved)] {
            Ok(())
        } else {
            Err(format!("{own:?}"))
        }
    });
    let asker = Asker::new(&scene.site, 20, &scene.dut, moved);
    wait::until("an answer of the new address", SOON, || {
        asker.ask(ALL_ROUTERS);
        match asker.told().first() {
            Some(told) if (told.outer.0, told.inner.0) == (moved, link_local(moved)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    router.conservation();
}

/// T8: a peer router that says something else is told about once, and counted each time; it configures nothing here.
#[test]
fn disagreements_with_peers_are_told() {
    let scene = Opposite::new();
    let router = Daemon::router(&scene.dut, DUT)
        .config(EVERYTHING)
        .config("PeerRouter 10.0.0.30")
        .start();
    let peer = Asker::new(&scene.site, 30, &scene.dut, DUT);
    let stranger = Asker::new(&scene.site, 40, &scene.dut, DUT);
    let mut says = nd::Advertisement::new(&[
        nd::mtu_option(1280),
        nd::prefix_option(v6("2001:db8:1::"), 64, 7200, 60),
        nd::prefix_option(v6("2001:db8:bad::"), 64, 7200, 60),
        nd::dns_option(&[v6("2001:db8::99")], 900),
    ]);
    says.hop_limit = 32;
    wait::holds("the router's own part", SOON, || {
        let has = snapshot(&scene.dut, TUNNEL);
        has.contains("2001:db8:1::5efe:a00:1/128") && has.contains("proto 41")
    });
    let before = snapshot(&scene.dut, TUNNEL);
    for _ in 0..2 {
        peer.send(&says.packet(peer.addr(), link_local(DUT)));
    }
    stranger.send(&says.packet(stranger.addr(), link_local(DUT)));
    let counted = |field: &str| {
        let labels = [("field", field)];
        router
            .metrics()
            .sum("isatapd_router_disagreements_total", &labels)
    };
    wait::holds("both to be compared", SOON, || counted("hop_limit") == 2);
    assert_eq!(["mtu", "prefix_lifetime", "name_server"].map(counted), [2, 2, 2]);
    assert_eq!(
        ["managed", "reachable_time", "search_domain"].map(counted),
        [0, 0, 0]
    );
    for line in [
        "router 10.0.0.30 advertises hop limit 32, and we 64",
        "router 10.0.0.30 advertises MTU 1280, and we 1400",
        "router 10.0.0.30 advertises 2001:db8:1::/64 preferred for 60 s, and we for 3600 s",
        "router 10.0.0.30 advertises name server 2001:db8::99, and we others",
    ] {
        router.wait_log(line);
        assert_eq!(router.log().matches(line).count(), 1, "{line}");
    }
    assert_eq!(snapshot(&scene.dut, TUNNEL), before);
    assert_eq!(
        router.drops(Direction::Decap).get("nd_not_router"),
        Some(&1),
        "the stranger"
    );
    router.conservation();
}

/// T1, RFC 4861 6.2.4: a router that begins to advertise tells the hosts that asked before; from then on it answers, and
/// the kernel hears no more questions.
#[test]
fn advertising_may_begin_at_any_time() {
    let scene = Opposite::new();
    let base = format!("BindAddress {DUT}\nWorkers 1\n");
    let router = Builder::new(&scene.dut).config(&base).start();
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    asker.ask(ALL_ROUTERS);
    let noted = [("result", "noted")];
    let name = "isatapd_router_solicitations_received_total";
    wait::holds("the question to be noted", SOON, || {
        router.metrics().sum(name, &noted) == 1
    });
    router.rewrite_config(&format!("{base}Advertise yes\nAdvertisePrefix 2001:db8:1::/64\n"));
    assert!(router.ctl("reload").status.success());
    let told = asker.wait(1, ANSWERED);
    assert_eq!((told[0].lifetime(), told[0].prefixes().len()), (1800, 1));

    asker.forget();
    let before = router.counters(Direction::Decap);
    asker.ask(link_local(DUT));
    let since = router.wait_received(Direction::Decap, &before, 1);
    assert_eq!((since.punted, since.delivered), (1, 0));
    asker.wait(1, ANSWERED);
    let status = String::from_utf8_lossy(&router.ctl("status --json").stdout).into_owned();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let advertising = &status["advertising"];
    assert_eq!(
        (&advertising["on"], &advertising["clients"]),
        (&true.into(), &1.into())
    );
    let prefixes = advertising["prefixes"].as_array().expect("a list");
    assert_eq!(prefixes, &["2001:db8:1::/64 valid 2592000 preferred 604800"]);
    let sent = &status["control"]["advertisements_sent"];
    assert_eq!((&sent["unsolicited"], &sent["solicited"]), (&1.into(), &1.into()));
    router.conservation();
}

/// T11, FAULTS 57: what the router owns comes back with the interface.
#[test]
fn the_interface_may_go_down_and_up() {
    let scene = Opposite::new();
    let router = Daemon::router(&scene.dut, DUT).config(EVERYTHING).start();
    let own_part = || {
        let has = snapshot(&scene.dut, TUNNEL);
        let whole = [
            "2001:db8:1::5efe:a00:1/128",
            "2001:db8:1::/64 proto 41",
            "fe80::5efe:a00:1/64",
        ];
        if whole.iter().all(|line| has.contains(line)) {
            Ok(())
        } else {
            Err(has)
        }
    };
    wait::until("the router's own part", SOON, own_part);
    for _ in 0..3 {
        scene.dut.ip(&format!("link set {TUNNEL} down"));
        scene.dut.ip(&format!("link set {TUNNEL} up"));
        wait::until("it to come back", SOON, own_part);
    }
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    asker.ask(ALL_ROUTERS);
    asker.wait(1, ANSWERED);
    router.conservation();
}
