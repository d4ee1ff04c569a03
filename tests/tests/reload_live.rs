//! Every name of the configuration, changed by a reload under traffic: what is documented as live takes effect, and nothing
//! else is touched; what waits for a restart says so (FAULTS 61, 62).
//!
//! ```text
//!   srv 2001:db8:99::2 ---- rtr 10.0.0.1 (isatapd) ---+--- h1 10.0.0.2 (isatapd), questions and a transfer to srv
//!                                                     +--- x 10.0.0.9, p 10.0.0.30 (crafted)
//!                                                     +--- a20 10.0.0.20 (asks for routers), dns 10.0.0.53
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use isatap_tests::asker::{ALL_ROUTERS, ANSWERED, Asker, Told};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::dns::{Etc, FakeDns, Says};
use isatap_tests::metrics::{Direction, http_get};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, isatap, link_local};
use isatap_tests::ping::ping_until;
use isatap_tests::raw::{Captured, Crafter, Sniffer};
use isatap_tests::reloading::{
    Control, Scraper, Untouched, assert_holds, documented, in_force, lasting, status, with_line,
};
use isatap_tests::scene::{ROUTER, SERVER, SOON, Scene, host_v4, on_link, set_address};
use isatap_tests::steady::{Pulse, Stream};
use isatap_tests::topology::{UNDERLAY, mac};
use isatap_tests::wait;

const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 30);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
const NAME: &str = "isatap.site.example";
/// Between two questions of a flow: some two thousand packets a second, both ways together.
const INTERVAL: Duration = Duration::from_millis(2);
const FLOWS: u16 = 2;

/// A change of one name, and what it must bring about.
struct Row {
    name: &'static str,
    /// The new line; in force until the next row, when the base is again.
    line: &'static str,
    effect: fn(&Bench<'_>),
}

const fn row(name: &'static str, line: &'static str, effect: fn(&Bench<'_>)) -> Row {
    Row { name, line, effect }
}

/// What effects are looked at with.
struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    x: Crafter,
    peer: Crafter,
    asker: Asker,
    server: &'a Netns,
}

impl Bench<'_> {
    /// Why a crafted packet was dropped; `None` when it was delivered.
    #[track_caller]
    fn refused(&self, from: &Crafter, inner: &[u8]) -> Option<String> {
        let inside = Sniffer::start(self.daemon.ns(), TUNNEL);
        let before = self.daemon.counters(Direction::Decap);
        from.send_inner(inner);
        wait::until("a verdict", SOON, || {
            let since = self.daemon.counters(Direction::Decap).since(&before);
            if let Some(reason) = since.drops.into_keys().next() {
                return Ok(Some(reason));
            }
            if inside.count(|seen| seen.packet == inner) > 0 {
                return Ok(None);
            }
            Err("nothing yet")
        })
    }

    /// What a host is told that asks now.
    #[track_caller]
    fn told(&self) -> Told {
        self.asker.forget();
        self.asker.ask(ALL_ROUTERS);
        // What was said of changes before is on its way, too.
        self.asker.wait(1, ANSWERED).pop().expect("an advertisement")
    }

    #[track_caller]
    fn wait_told(&self, what: &str, wanted: impl Fn(&Told) -> bool) {
        wait::until(what, SOON, || {
            let told = self.told();
            if wanted(&told) {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        });
    }

    /// An outer packet of the flows that goes out now.
    #[track_caller]
    fn wait_outer(&self, what: &str, wanted: impl Fn(&Captured) -> bool) {
        let wire = Sniffer::start(self.daemon.ns(), UNDERLAY);
        wire.wait_for(what, SOON, |seen| {
            seen.outgoing && seen.packet[9] == 41 && wanted(seen)
        });
    }

    #[track_caller]
    fn shows(&self, name: &str, value: &str) {
        assert_eq!(in_force(self.daemon, name), [value], "{name}");
    }
}

/// ECN of the outer header for an inner packet with ECT(0) from the server.
fn outer_of_ect(bench: &Bench<'_>) -> u8 {
    let wire = Sniffer::start(bench.daemon.ns(), UNDERLAY);
    let to = on_link(bench.asker.v4);
    bench.server.try_run(&format!("ping -6 -n -c 1 -W 1 -Q 2 {to}"));
    let seen = wire.wait_for("a packet with ECT(0)", SOON, |seen| {
        let inner = seen.outer().and_then(|outer| outer.inner());
        seen.outgoing && inner.is_some_and(|inner| inner.dst() == to)
    });
    seen.packet[1] & 3
}

fn option(told: &Told, kind: u8) -> Vec<u8> {
    told.of_type(kind).concat()
}

const ROUTER_ROWS: &[Row] = &[
    row("BindAddress", "BindAddress auto", |bench| {
        let status = status(bench.daemon);
        assert_eq!(status["locator"]["automatic"], true);
        assert_eq!(status["locator"]["address"], ROUTER.to_string());
    }),
    // What it does to the system log is tried beside the log; the console has no facility.
    row("SyslogFacility", "SyslogFacility local3", |bench| {
        bench.shows("SyslogFacility", "local3")
    }),
    row("LogLevel", "LogLevel error", |bench| {
        let told = || bench.daemon.log().matches("nothing changed").count();
        let before = told();
        assert!(bench.daemon.ctl("reload").status.success());
        bench.shows("LogLevel", "error");
        assert_eq!(told(), before);
    }),
    row("Mtu", "Mtu 1400", |bench| {
        let link = bench.daemon.ns().ip(&format!("-o link show dev {TUNNEL}"));
        assert!(link.contains("mtu 1400"), "{link}");
    }),
    row("PathMtu", "PathMtu dynamic", |bench| {
        bench.wait_outer("a packet with DF", |seen| seen.packet[6] & 0x40 != 0);
    }),
    row("PathMtu", "PathMtu dynamic 10.0.0.2/32", |bench| {
        bench.wait_outer("a packet with DF", |seen| seen.packet[6] & 0x40 != 0);
    }),
    row("Ttl", "Ttl 33", |bench| {
        bench.wait_outer("a packet with TTL 33", |seen| seen.packet[8] == 33)
    }),
    row("Dscp", "Dscp 10", |bench| {
        bench.wait_outer("a packet with DSCP 10", |seen| seen.packet[1] >> 2 == 10)
    }),
    row("Ecn", "Ecn compat 10.0.0.20/32", |bench| {
        assert_eq!(outer_of_ect(bench), 0)
    }),
    row("Ecn", "Ecn normal 10.0.0.20/32", |bench| {
        assert_eq!(outer_of_ect(bench), 2)
    }),
    row("SiteNetwork", "SiteNetwork 10.0.0.2", |bench| {
        let packet = Inner::new(on_link(X), on_link(ROUTER)).udp(9, 9, b"from another network");
        assert_eq!(bench.refused(&bench.x, &packet).as_deref(), Some("not_site"));
    }),
    row("PeerRouter", "PeerRouter 10.0.0.30", |bench| {
        let packet =
            Inner::new("2001:db8:77::1".parse().expect("an address"), on_link(ROUTER)).udp(9, 9, b"a peer's");
        assert_eq!(bench.refused(&bench.x, &packet).as_deref(), Some("src_mismatch"));
        assert_eq!(bench.refused(&bench.peer, &packet), None);
    }),
    row("NestedTunnels", "NestedTunnels yes", |bench| {
        let packet = Inner::new(on_link(X), on_link(ROUTER)).wrap(41, &[0x60; 48]);
        assert_eq!(bench.refused(&bench.x, &packet), None);
    }),
    row("StrictIngress", "StrictIngress no", |bench| {
        let packet = Inner::new(isatap("2001:db8:77::", false, X), on_link(ROUTER)).udp(9, 9, b"off-link");
        assert_eq!(bench.refused(&bench.x, &packet), None);
    }),
    row("LoopChecks", "LoopChecks no", |bench| {
        let packet = Inner::new(on_link(X), isatap("2001:db8:77::", false, ROUTER)).udp(9, 9, b"round");
        assert_eq!(bench.refused(&bench.x, &packet), None);
    }),
    row("Advertise", "Advertise no", |bench| {
        let noted = || {
            let name = "isatapd_router_solicitations_received_total";
            bench.daemon.metrics().sum(name, &[("result", "noted")])
        };
        let before = noted();
        bench.asker.ask(ALL_ROUTERS);
        wait::holds("a solicitation that nobody answers", SOON, || noted() > before);
    }),
    row("AdvertisePrefix", "AdvertisePrefix 2001:db8:5::/64", |bench| {
        bench.wait_told("another prefix", |told| {
            let live = |prefix: &(std::net::Ipv6Addr, u8, u32, u32)| prefix.2 > 0;
            let prefixes: Vec<_> = told.prefixes().into_iter().filter(live).collect();
            prefixes.len() == 1 && prefixes[0].0.to_string() == "2001:db8:5::"
        });
    }),
    row("AdvertiseRoute", "AdvertiseRoute 2001:db8:f000::/36", |bench| {
        bench.wait_told("a route", |told| option(told, 24).first() == Some(&36));
    }),
    row("AdvertiseDns", "AdvertiseDns 2001:db8::53", |bench| {
        bench.wait_told("a name server", |told| option(told, 25).ends_with(&[0x53]));
    }),
    row("AdvertiseSearch", "AdvertiseSearch example.org", |bench| {
        bench.wait_told("a search domain", |told| {
            option(told, 31).windows(7).any(|part| part == b"example")
        });
    }),
    row("AdvertiseMtu", "AdvertiseMtu 1281", |bench| {
        bench.wait_told("another MTU", |told| option(told, 5).ends_with(&[5, 1]));
    }),
    row("RouterLifetime", "RouterLifetime 600", |bench| {
        bench.wait_told("another lifetime", |told| told.lifetime() == 600);
    }),
    row("RouterPreference", "RouterPreference low", |bench| {
        bench.wait_told("another preference", |told| told.body[1] >> 3 & 3 == 3);
    }),
    row("MetricsListen", "MetricsListen 127.0.0.1:9442", |bench| {
        let ns = bench.daemon.ns();
        let page = |port| http_get(ns, std::net::SocketAddr::from(([127, 0, 0, 1], port)), "/metrics");
        assert_eq!(page(9442).expect("the page at its new place").0, 200);
        assert!(page(9441).is_err(), "and nowhere else");
    }),
];

const HOST_ROWS: &[Row] = &[
    row(
        "ServerAddress",
        "ServerAddress isatap.site.example 10.0.0.7",
        |bench| {
            let status = status(bench.daemon);
            let state = |address: &str| {
                let routers = status["routers"].as_array().expect("a list");
                let one = routers.iter().find(|router| router["address"] == address);
                one.map(|router| router["state"].as_str().expect("a state").to_owned())
            };
            assert_eq!(state("10.0.0.7").as_deref(), Some("unknown"));
            assert_eq!(
                state("10.0.0.1").as_deref(),
                Some("usable"),
                "it was known and stays known"
            );
        },
    ),
    row("PrlRefreshInterval", "PrlRefreshInterval 7", |bench| {
        wait::until("a look at the name within seven seconds", SOON, || {
            let next = status(bench.daemon)["names"][0]["next_lookup_seconds"].as_f64();
            if next.is_some_and(|next| next <= 7.0) {
                Ok(())
            } else {
                Err(format!("{next:?}"))
            }
        });
    }),
    row(
        "MinRouterSolicitInterval",
        "MinRouterSolicitInterval 3000",
        |bench| {
            // It holds from the next advertisement on: a reload asks for one.
            wait::until("the next solicitation to be late", SOON, || {
                let next = status(bench.daemon)["routers"][0]["next_solicitation_seconds"].as_f64();
                if next.is_some_and(|next| next > 2900.0) {
                    Ok(())
                } else {
                    Err(format!("{next:?}"))
                }
            });
        },
    ),
    row("DefaultRoute", "DefaultRoute yes metric 2048", |bench| {
        Configured::wait(
            bench.daemon.ns(),
            "one default route with metric 2048",
            SOON,
            |seen| {
                let metrics: Vec<_> = seen.to("default").iter().map(|route| route.metric).collect();
                metrics == [2048]
            },
        );
    }),
];

/// Goes through `rows` with `daemon`, whose file says `base`.
fn change_one_by_one(bench: &Bench<'_>, base: &str, rows: &[Row]) {
    let daemon = bench.daemon;
    let held = lasting(daemon);
    let mut control = Control::connect(daemon);
    for row in rows {
        let mut scraper = Scraper::connect(daemon);
        scraper.scrape();
        let before = Untouched::look(daemon, row.name);
        let values = in_force(daemon, row.name);

        daemon.rewrite_config(&with_line(base, row.line));
        let changes = control
            .reload()
            .unwrap_or_else(|error| panic!("{}: {error}", row.line));
        let [change] = &changes[..] else {
            panic!("{}: {changes:?}", row.line)
        };
        assert!(
            change.starts_with(&format!("{}: ", row.name)) && !change.contains("restart"),
            "{change}"
        );
        (row.effect)(bench);
        assert_eq!(Untouched::look(daemon, row.name), before, "{}", row.line);

        daemon.rewrite_config(base);
        let changes = control.reload().expect("the base again");
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(in_force(daemon, row.name), values, "{}", row.name);
        // Whoever was connected still is; the listener alone may have moved.
        scraper.scrape();
        if row.name != "MetricsListen" {
            assert_holds(daemon, &held);
        }
        eprintln!("{}", row.line);
    }
}

/// The traffic that must not notice anything.
struct Unharmed {
    pulse: Pulse,
    stream: Stream,
}

impl Unharmed {
    fn start(scene: &Scene) -> Self {
        let servers: Vec<_> = (0..FLOWS)
            .map(|number| {
                let mut segments = SERVER.segments();
                segments[7] += number;
                std::net::Ipv6Addr::from(segments)
            })
            .collect();
        for address in servers.iter().skip(1) {
            scene.server.ip(&format!("addr add {address}/64 dev eth0 nodad"));
        }
        let host = &scene.hosts[0];
        for address in &servers {
            ping_until(host, &address.to_string(), SOON * 2);
        }
        Self {
            pulse: Pulse::start(host, &scene.server, &servers, INTERVAL),
            stream: Stream::start(host, &scene.server, SERVER),
        }
    }

    #[track_caller]
    fn finish(self) {
        self.stream.wait_more(32 * 1024, SOON);
        self.stream.finish();
        eprintln!("{}", self.pulse.finish_whole());
    }
}

fn bench<'a>(scene: &'a Scene, daemon: &'a Daemon<'a>, members: &'a [Netns; 2]) -> Bench<'a> {
    let crafter = |ns, v4| Crafter::new(ns, UNDERLAY, v4, mac(daemon.ns(), UNDERLAY), ROUTER);
    Bench {
        daemon,
        x: crafter(&members[0], X),
        peer: crafter(&members[1], PEER),
        asker: Asker::new(&scene.site, 20, &scene.router, ROUTER),
        server: &scene.server,
    }
}

/// FAULTS 61, 62: each name of a router.
#[test]
fn each_live_name_of_a_router() {
    let scene = Scene::new(1);
    let members = [scene.site.member("x", 9), scene.site.member("p", 30)];
    let base = "BindAddress 10.0.0.1\nWorkers 1\nAdvertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\n";
    let router = isatap_tests::daemon::Builder::new(&scene.router)
        .config(base.trim_end())
        .start();
    // Its own address and route come and go with what it advertises, as those of hosts do: the traffic has its own.
    scene
        .router
        .ip(&format!("-6 route add 2001:db8:1::/64 dev {TUNNEL} metric 2000"));
    let host = Daemon::router(&scene.hosts[0], host_v4(0))
        .workers(1)
        .config(&format!("PeerRouter {ROUTER}"))
        .start();
    set_address(&scene.hosts[0], host_v4(0));
    scene.hosts[0].ip(&format!(
        "route add default via {} dev {TUNNEL}",
        link_local(ROUTER)
    ));
    host.wait_ready();
    let bench = bench(&scene, &router, &members);
    let traffic = Unharmed::start(&scene);
    change_one_by_one(&bench, base, ROUTER_ROWS);
    traffic.finish();
    router.conservation();
    host.conservation();
}

/// FAULTS 61, 62: each name of a host.
#[test]
fn each_live_name_of_a_host() {
    let scene = Scene::new(1);
    let members = [scene.site.member("x", 9), scene.site.member("p", 30)];
    let dns = scene.site.member("dns", DNS.octets()[3]);
    let _server = FakeDns::start(&dns, Says::Addresses(3600, vec![ROUTER]));
    let router = Daemon::router(&scene.router, ROUTER)
        .workers(1)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link")
        .start();
    let etc = Etc::with_server(DNS);
    let base = format!("BindAddress 10.0.0.2\nWorkers 1\nServerAddress {NAME}\n");
    let host = isatap_tests::daemon::Builder::new(&scene.hosts[0])
        .config(base.trim_end())
        .etc(&etc)
        .start();
    host.wait_ready();
    let bench = bench(&scene, &host, &members);
    let traffic = Unharmed::start(&scene);
    change_one_by_one(&bench, &base, HOST_ROWS);
    traffic.finish();
    router.conservation();
    host.conservation();
}

/// No live name is missing above.
#[test]
fn the_rows_are_all_live_names() {
    let tried: BTreeSet<_> = ROUTER_ROWS
        .iter()
        .chain(HOST_ROWS)
        .map(|row| row.name.to_owned())
        .collect();
    let live = documented()
        .into_iter()
        .filter(|name| name.live)
        .map(|name| name.name);
    assert_eq!(tried, live.collect::<BTreeSet<_>>());
}

/// FAULTS 62: what waits for a restart says so and keeps its value, and what is live in the same file is in force.
#[test]
fn what_waits_for_a_restart() {
    let scene = Scene::new(1);
    // A lane of the command line would be none to change.
    let running = scene.start(|builder| builder.workers(1).config("Lane auto"));
    let router = &running.router;
    let base = format!("BindAddress {ROUTER}\nWorkers 1\n");
    let traffic = Unharmed::start(&scene);
    let held = lasting(router);
    let before = Untouched::look(router, "Ttl");
    let mut control = Control::connect(router);
    let waiting = [("InterfaceName", "is7"), ("Workers", "2"), ("Lane", "syscall")];
    let lines: String = waiting
        .iter()
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect();
    let restart = documented()
        .into_iter()
        .filter(|name| !name.live)
        .map(|name| name.name);
    let all = [
        "ChrootDir",
        "ControlSocket",
        "InterfaceName",
        "Lane",
        "PidFile",
        "SandboxWaive",
        "User",
        "Workers",
    ];
    assert_eq!(restart.collect::<BTreeSet<_>>(), all.map(str::to_owned).into());

    router.rewrite_config(&format!("BindAddress {ROUTER}\nTtl 33\n{lines}"));
    for expected in [4, 3] {
        // Said again at each reload, as long as it waits.
        let changes = control.reload().expect("a reload");
        assert_eq!(changes.len(), expected, "{changes:?}");
        for (name, value) in waiting {
            let change = changes
                .iter()
                .find(|change| change.starts_with(&format!("{name}: ")));
            let change = change.unwrap_or_else(|| panic!("{name} is not in {changes:?}"));
            assert!(
                change.ends_with(&format!("-> {value} (waits for a restart)")),
                "{change}"
            );
        }
    }
    assert_eq!(in_force(router, "Ttl"), ["33"]);
    assert_eq!(Untouched::look(router, "Ttl"), before, "running values stay");
    assert!(String::from_utf8_lossy(&router.ctl("reload").stdout).contains("waits for a restart"));

    // Accounts cannot be looked up where the daemon lives now: the whole file is refused, and nothing changes.
    router.rewrite_config(&format!("{base}Ttl 34\nUser daemon\n"));
    let refused = control.reload().expect_err("another account");
    assert!(
        refused.contains(":5:6: ") && refused.contains("restart"),
        "{refused}"
    );
    assert_eq!(in_force(router, "Ttl"), ["33"]);
    // ChrootDir and PidFile were named on the command line: the file has no say.
    router.rewrite_config(&format!("{base}ChrootDir /elsewhere\nPidFile /elsewhere.pid\n"));
    let changes = control.reload().expect("a reload");
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_holds(router, &held);
    traffic.finish();
    running.conservation();
}
