//! IPv4 addresses that come, go, change and multiply: the tunnel follows with the interface it has (RFC 5214 6.2; A1, A4-A7,
//! D2; FAULTS 54).
//!
//! ```text
//!   srv ---- r1 10.0.0.1 (isatapd, radvd) ---- h (isatapd), eth0 and at times eth1      see isatap_tests::routers
//! ```

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Builder, Daemon, TUNNEL};
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::nd::ROUTER_SOLICITATION;
use isatap_tests::netns::Netns;
use isatap_tests::packet::{SeenInner, isatap};
use isatap_tests::ping::{is_silent, ping};
use isatap_tests::raw::Sniffer;
use isatap_tests::routers::{HOST, Routers, Running, router_v4, server};
use isatap_tests::scene::{PREFIX, SOON};
use isatap_tests::state::{self, wait_configured};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

/// A change of the machine's addresses is effective within this (FAULTS 54).
const EFFECTIVE: Duration = Duration::from_secs(1);

/// One router, the server behind it, and a host whose locator is under test.
struct Bench<'a> {
    scene: &'a Routers,
    router: Running<'a>,
    host: Daemon<'a>,
    /// What passes the router.
    wire: Sniffer,
    if_index: u32,
}

impl<'a> Bench<'a> {
    #[track_caller]
    fn start(scene: &'a Routers, bind: &str) -> Self {
        let router = scene.start(0, "medium");
        let host = Builder::new(&scene.host)
            .config(&format!("BindAddress {bind}\nServerAddress {}", router_v4(0)))
            .workers(1)
            .start();
        // As systemd has it: the other addresses outlive the one that came first.
        scene.host.sysctl("ipv4/conf/all/promote_secondaries", "1");
        scene.wait_usable(&host, 1);
        wait_configured(&scene.host, &[HOST]);
        // Of two devices on one network each answers for its own addresses: packets must arrive where the locator is (D2).
        scene.host.sysctl("ipv4/conf/all/arp_ignore", "1");
        let bench = Self {
            scene,
            router,
            host,
            wire: Sniffer::start(&scene.routers[0], UNDERLAY),
            if_index: state::if_index(&scene.host, TUNNEL),
        };
        bench.traffic_passes();
        bench
    }

    fn ns(&self) -> &Netns {
        &self.scene.host
    }

    #[track_caller]
    fn traffic_passes(&self) {
        self.answers(&format!("-6 {}", server(1)));
    }

    #[track_caller]
    fn ipv4_passes(&self) {
        self.answers(&format!("-4 {}", router_v4(0)));
    }

    #[track_caller]
    fn answers(&self, to: &str) {
        // With little patience for each: the time is looked at.
        wait::holds(&format!("an answer of ping {to}"), SOON, || {
            let output = self.ns().try_run(&format!("ping -n -c 1 -W 0.1 {to}"));
            output.status.success()
        });
    }

    /// Waits until the locators are these, the first one solicits, and traffic passes; returns how long that took.
    #[track_caller]
    fn follows(&self, locators: &[Ipv4Addr]) -> Duration {
        let started = Instant::now();
        wait_configured(self.ns(), locators);
        self.wire
            .wait_for("a solicitation of the new locator", SOON, |c| {
                c.outer().is_some_and(|outer| {
                    let kind = outer.inner().and_then(|inner| Some(inner.icmpv6()?.0));
                    outer.src() == locators[0] && kind == Some(ROUTER_SOLICITATION)
                })
            });
        self.traffic_passes();
        let took = started.elapsed();
        assert_eq!(
            state::if_index(self.ns(), TUNNEL),
            self.if_index,
            "the interface stays"
        );
        took
    }

    /// Every packet of the host left from the address that its inner source embeds.
    #[track_caller]
    fn sources_agree(&self) {
        let (mut seen, router) = (0, router_v4(0));
        for captured in self.wire.packets().iter().filter(|c| !c.outgoing) {
            let Some(outer) = captured.outer().filter(|outer| outer.dst() == router) else {
                continue;
            };
            let inner = outer.inner().expect("IPv6");
            assert_eq!(embedded(&inner), outer.src(), "{:?}", inner.src());
            seen += 1;
        }
        assert!(seen > 0, "nothing came from the host");
    }
}

/// The IPv4 address in the last four bytes of the source.
fn embedded(inner: &SeenInner<'_>) -> Ipv4Addr {
    let octets = inner.src().octets();
    Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15])
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

#[test]
fn an_automatic_locator_follows_the_address() {
    // A6; FAULTS 54: what a DHCP client does, and a machine that is carried from one network to another.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    scene.site.attach(&scene.host, "eth1");
    scene.routers[0].ip(&format!("addr add 10.7.0.1/16 dev {UNDERLAY}"));
    let changes = [
        (
            "removed, then another",
            "addr del 10.0.0.10/24 dev eth0\naddr add 10.0.0.11/24 dev eth0",
            "10.0.0.11",
        ),
        (
            "another, then removed",
            "addr add 10.0.0.12/24 dev eth0\naddr del 10.0.0.11/24 dev eth0",
            "10.0.0.12",
        ),
        (
            "another network",
            "addr del 10.0.0.12/24 dev eth0\naddr add 10.7.0.5/16 dev eth0\nroute add 10.0.0.0/24 dev eth0",
            "10.7.0.5",
        ),
        (
            "another device",
            "route del 10.0.0.0/24 dev eth0\naddr del 10.7.0.5/16 dev eth0\naddr add 10.0.0.13/24 dev eth1",
            "10.0.0.13",
        ),
        (
            "and back",
            "addr del 10.0.0.13/24 dev eth1\naddr add 10.0.0.10/24 dev eth0",
            "10.0.0.10",
        ),
    ];
    let mut times = Vec::new();
    for (what, commands, locator) in changes {
        eprintln!("{what}: {locator}");
        bench.wire.clear();
        bench.ns().ip_batch(commands);
        times.push(bench.follows(&[v4(locator)]));
        bench.sources_agree();
    }
    eprintln!("changes of the address were effective after {times:?}");
    times.sort();
    assert!(times[times.len() / 2] <= EFFECTIVE, "{times:?}");
    bench.host.conservation();
    bench.router.daemon.conservation();
}

#[test]
fn an_engine_that_follows_stays_where_the_tunnel_is() {
    // FAULTS 54, 60: not where it was at the start, though that address is back, too.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    scene.site.attach(&scene.host, "eth1");
    let other = v4("10.0.0.13");
    bench.ns().ip_batch(&format!(
        "addr del {HOST}/24 dev {UNDERLAY}\naddr add {other}/24 dev eth1"
    ));
    bench.follows(&[other]);
    bench.ns().ip(&format!("addr add {HOST}/24 dev {UNDERLAY}"));
    let (old, log) = (kill_engine(&bench.host), bench.host.log().len());
    wait_successor(&bench.host, old);
    bench.host.wait_log(&format!("host at {other}"));
    assert!(!bench.host.log()[log..].contains(&format!("host at {HOST}")));
    wait_configured(bench.ns(), &[other]);
    bench.traffic_passes();
    // It moves on, and a reload finds no change in that.
    bench.wire.clear();
    bench.ns().ip(&format!("addr del {other}/24 dev eth1"));
    bench.follows(&[HOST]);
    let output = bench.host.ctl("reload");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("BindAddress"), "{said}");
}

#[test]
fn a_fixed_locator_is_waited_for_on_whatever_device() {
    // A6, D2: without its address the interface has none either and draws no packets; a neighbour's address is none of ours.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, &HOST.to_string());
    scene.site.attach(&scene.host, "eth1");
    let mut times = Vec::new();
    for (from, to) in [("eth0", "eth1"), ("eth1", "eth0")] {
        bench.ns().ip(&format!("addr add 10.0.0.77/24 dev {from}"));
        bench.ns().ip(&format!("addr del {HOST}/24 dev {from}"));
        times.push(wait_configured(bench.ns(), &[]));
        wait::holds("routes to go", SOON, || {
            !state::routes(bench.ns(), TUNNEL).contains("via")
        });
        assert!(matches!(bench.host.http("/ready"), Ok((503, _))));
        bench.wire.clear();
        // The router forgets which Ethernet address the locator had; a DHCP client would tell it.
        bench.ns().ip_batch(&format!(
            "addr del 10.0.0.77/24 dev {from}\naddr add {HOST}/24 dev {to}"
        ));
        scene.routers[0].ip(&format!("neigh flush dev {UNDERLAY}"));
        times.push(bench.follows(&[HOST]));
        bench.sources_agree();
    }
    eprintln!("loss and return of the address were effective after {times:?}");
    times.sort();
    assert!(times[times.len() / 2] <= EFFECTIVE, "{times:?}");
    bench.host.conservation();
}

#[test]
fn every_address_of_the_device_carries_the_tunnel() {
    // A1, A4, A6, E4: a link-local and an autoconfigured address for each, and packets leave from the one they embed.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    scene.routers[0].ip_batch(&format!(
        "addr add 10.5.0.1/16 dev {UNDERLAY}\naddr add 9.9.9.1/24 dev {UNDERLAY}"
    ));
    let all = [HOST, v4("10.0.0.11"), v4("10.5.0.10"), v4("9.9.9.10")];
    bench.ns().ip_batch(&format!(
        "addr add 10.0.0.11/24 dev {UNDERLAY}\naddr add 10.5.0.10/16 dev {UNDERLAY}\n\
         addr add 9.9.9.10/24 dev {UNDERLAY}"
    ));
    wait_configured(bench.ns(), &all);
    // What begins, begins at the preferred one, however new the others are (RFC 6724 5, rule 3).
    let begins_at = |locator: Ipv4Addr| {
        let own = isatap(PREFIX, locator == all[3], locator);
        wait::until(&format!("{own} as the source"), SOON, || {
            let route = bench.ns().ip(&format!("-6 route get {}", server(1)));
            let source = route.split_whitespace().skip_while(|word| *word != "src").nth(1);
            if source == Some(own.to_string().as_str()) {
                Ok(())
            } else {
                Err(route)
            }
        });
    };
    begins_at(all[0]);
    let check = |locators: &[Ipv4Addr]| {
        for locator in locators {
            let own = isatap(PREFIX, *locator == all[3], *locator);
            let output = wait::until(&format!("an answer to {own}"), SOON, || {
                let output = bench
                    .ns()
                    .try_run(&format!("ping -6 -n -c 1 -W 1 -I {own} {}", server(1)));
                if output.status.success() {
                    Ok(output)
                } else {
                    Err(format!("{output:?}"))
                }
            });
            assert!(output.status.success());
            bench.wire.wait_for(&format!("a packet of {locator}"), SOON, |c| {
                c.outer().is_some_and(|outer| outer.src() == *locator)
            });
            ping(&scene.routers[0], &own.to_string(), 2);
            ping(
                &scene.routers[0],
                &format!("{}%{TUNNEL}", isatap("fe80::", *locator == all[3], *locator)),
                2,
            );
        }
        bench.sources_agree();
    };
    check(&all);
    // One goes, and none but its own addresses with it; then the preferred one.
    bench.ns().ip(&format!("addr del 10.5.0.10/16 dev {UNDERLAY}"));
    wait_configured(bench.ns(), &[all[0], all[1], all[3]]);
    check(&[all[0], all[1], all[3]]);
    bench.wire.clear();
    bench.ns().ip(&format!("addr del {HOST}/24 dev {UNDERLAY}"));
    bench.follows(&[all[1], all[3]]);
    begins_at(all[1]);
    check(&[all[1], all[3]]);
    assert_eq!(state::if_index(bench.ns(), TUNNEL), bench.if_index);
    bench.host.conservation();
}

#[test]
fn a_link_local_address_carries_the_tunnel_only_for_want_of_another() {
    // A6: what a machine gives itself while no DHCP server answers, and what follows when one does.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    let makeshift = v4("169.254.7.7");
    scene.routers[0].ip(&format!("addr add 169.254.0.1/16 dev {UNDERLAY}"));
    bench.ns().ip(&format!("addr add {makeshift}/16 dev {UNDERLAY}"));
    bench.ns().ip(&format!("addr add 10.0.0.11/24 dev {UNDERLAY}"));
    wait_configured(bench.ns(), &[HOST, v4("10.0.0.11")]);
    bench.wire.clear();
    bench.ns().ip_batch(&format!(
        "addr del {HOST}/24 dev {UNDERLAY}\naddr del 10.0.0.11/24 dev {UNDERLAY}\nroute add {} dev {UNDERLAY}",
        router_v4(0)
    ));
    bench.follows(&[makeshift]);
    bench.wire.clear();
    bench.ns().ip_batch(&format!(
        "route del {} dev {UNDERLAY}\naddr add 10.0.0.12/24 dev {UNDERLAY}",
        router_v4(0)
    ));
    bench.follows(&[v4("10.0.0.12")]);
    bench.sources_agree();
    bench.host.conservation();
}

#[test]
fn an_address_without_a_way_to_the_router_is_left_alone() {
    // FAULTS 54: the bridge of some containers is all that is left for a moment; and a route that comes after its address.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    scene.routers[0].ip(&format!("addr add 10.7.0.1/16 dev {UNDERLAY}"));
    bench
        .ns()
        .ip_batch("link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up");
    bench.ns().ip(&format!("addr del {HOST}/24 dev {UNDERLAY}"));
    wait_configured(bench.ns(), &[]);
    bench.wire.clear();
    bench.ns().ip(&format!("addr add 10.0.0.11/24 dev {UNDERLAY}"));
    bench.follows(&[v4("10.0.0.11")]);
    bench.ns().ip_batch(&format!(
        "addr del 10.0.0.11/24 dev {UNDERLAY}\naddr add 10.7.0.5/16 dev {UNDERLAY}"
    ));
    wait_configured(bench.ns(), &[]);
    bench.wire.clear();
    bench.ns().ip(&format!("route add 10.0.0.0/24 dev {UNDERLAY}"));
    let took = bench.follows(&[v4("10.7.0.5")]);
    eprintln!("effective {took:?} after the route came");
    bench.host.conservation();
}

#[test]
fn the_underlay_may_go_down_and_up() {
    // FAULTS 54: the addresses stay, so does everything above them, and traffic passes again at once.
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    let addresses = state::addresses(bench.ns(), TUNNEL);
    let mut times = Vec::new();
    for _ in 0..3 {
        bench.ns().ip(&format!("link set {UNDERLAY} down"));
        assert!(is_silent(bench.ns(), &server(1).to_string()));
        assert_eq!(state::addresses(bench.ns(), TUNNEL), addresses);
        bench.ns().ip(&format!("link set {UNDERLAY} up"));
        // The kernel may ask twice by ARP, a second apart: what the tunnel adds counts from when IPv4 itself passes.
        bench.ipv4_passes();
        let up = Instant::now();
        bench.traffic_passes();
        times.push(up.elapsed());
    }
    eprintln!("traffic passed after IPv4 in {times:?}");
    times.sort();
    assert!(times[1] <= EFFECTIVE, "{times:?}");
    assert_eq!(state::if_index(bench.ns(), TUNNEL), bench.if_index);
    assert_eq!(state::addresses(bench.ns(), TUNNEL), addresses);
    bench.host.conservation();
}

#[test]
fn an_address_that_flaps_leaves_no_trace() {
    // FAULTS 54: nothing is made anew, nothing leaks, nobody is stormed, and the end is as the beginning. More with
    // ISATAP_FLAPS=1000.
    let wanted = std::env::var("ISATAP_FLAPS").map(|text| text.parse().expect("a number"));
    let rounds = wanted.unwrap_or(200);
    let scene = Routers::new(1);
    let bench = Bench::start(&scene, "auto");
    let routes = state::routes(bench.ns(), TUNNEL);
    let flap = format!("addr del {HOST}/24 dev {UNDERLAY}\naddr add {HOST}/24 dev {UNDERLAY}\n");
    let solicitations = || {
        bench
            .host
            .metrics()
            .sum("isatapd_router_solicitations_total", &[])
    };
    let flap_often = |rounds: u32| {
        for round in 1..=rounds {
            bench.ns().ip_batch(&flap);
            // Some on the heels of each other, some after everything has settled.
            if round % 25 == 0 {
                wait_configured(bench.ns(), &[HOST]);
            }
        }
        wait_configured(bench.ns(), &[HOST]);
        bench.traffic_passes();
    };
    flap_often(rounds / 4);
    let pid = bench.host.engine_pid();
    let (descriptors, memory) = (state::descriptors(pid), state::resident_kib(pid));
    let (asked, started) = (solicitations(), Instant::now());
    flap_often(rounds);
    let most = 4 * started.elapsed().as_secs() + 8;
    assert!(
        solicitations() - asked <= most,
        "{} solicitations",
        solicitations() - asked
    );
    wait::until(
        "as many descriptors as before",
        SOON,
        || match state::descriptors(pid) {
            now if now <= descriptors => Ok(()),
            now => Err(format!("{now}, and {descriptors} before")),
        },
    );
    let grown = state::resident_kib(pid).saturating_sub(memory);
    eprintln!(
        "{rounds} flaps in {:?}: {grown} KiB more memory",
        started.elapsed()
    );
    assert!(grown < 2048, "{grown} KiB more memory than {memory}");
    assert_eq!(state::if_index(bench.ns(), TUNNEL), bench.if_index);
    wait::until("the routes of before", SOON, || {
        let now = state::routes(bench.ns(), TUNNEL);
        if now == routes { Ok(()) } else { Err(now) }
    });
    bench.host.conservation();
}
