//! Routers by name: looked up again when the answer ends, kept through every kind of outage, filtered of lies, and
//! all of it inside the chroot (P1, P3; FAULTS 45-48, 61).
//!
//! ```text
//!   dut 10.0.0.2 (host, PRL isatap.site.example) ---+--- r1  10.0.0.1 (crafted)
//!                                                   +--- r2  10.0.0.3 (crafted)
//!                                                   +--- dns 10.0.0.53 (dnsmasq, or ours)
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Builder, Daemon};
use isatap_tests::dns::{Dnsmasq, Etc, FakeDns, Says, resolv_conf};
use isatap_tests::fault::{kill_engine, let_it_live, wait_successor};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::raw::{Crafter, Sniffer};
use isatap_tests::scene::SOON;
use isatap_tests::topology::{Site, UNDERLAY, mac};
use isatap_tests::wait;
use nix::sys::signal::Signal;

const DUT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const R1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const R2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
const NAME: &str = "isatap.site.example";
/// A host far behind a router.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 2);
const FAILURES: &str = "isatapd_prl_refresh_failures_total";
const SOLICITATIONS: &str = "isatapd_router_solicitations_total";

struct Parts {
    dut: Netns,
    r1: Netns,
    r2: Netns,
    dns: Netns,
    _site: Site,
}

impl Parts {
    fn new() -> Self {
        let site = Site::new();
        Self {
            dut: site.member("dut", 2),
            r1: site.member("r1", 1),
            r2: site.member("r2", 3),
            dns: site.member("dns", 53),
            _site: site,
        }
    }

    fn crafter(&self, ns: &Netns, v4: Ipv4Addr) -> Crafter {
        Crafter::new(ns, UNDERLAY, v4, mac(&self.dut, UNDERLAY), DUT)
    }

    fn host<'a>(&'a self, etc: &'a Etc, server: &str) -> Builder<'a> {
        Daemon::host(&self.dut, DUT, &[])
            .config(&format!("ServerAddress {server}"))
            .etc(etc)
    }
}

/// A packet from behind a router: accepted from members of the PRL alone.
fn from_behind() -> Vec<u8> {
    Inner::new(FAR, link_local(DUT)).udp(9, 9, b"from behind a router")
}

/// Why `count` packets from behind `router` were dropped; empty when all were delivered.
#[track_caller]
fn refused(daemon: &Daemon<'_>, router: &Crafter, count: u64) -> Vec<String> {
    let before = daemon.counters(Direction::Decap);
    (0..count).for_each(|_| router.send_inner(&from_behind()));
    let since = daemon.wait_received(Direction::Decap, &before, count);
    since.drops.into_keys().collect()
}

#[track_caller]
fn wait_member(daemon: &Daemon<'_>, router: &Crafter) {
    wait::until(&format!("{} to be a router", router.v4), SOON, || {
        let why = refused(daemon, router, 1);
        if why.is_empty() {
            Ok(())
        } else {
            Err(format!("{why:?}"))
        }
    });
}

/// Returns how long it took.
#[track_caller]
fn wait_stranger(daemon: &Daemon<'_>, router: &Crafter) -> Duration {
    let start = Instant::now();
    wait::holds(&format!("{} to be a stranger", router.v4), SOON, || {
        !refused(daemon, router, 1).is_empty()
    });
    start.elapsed()
}

/// The addresses `isatapctl routers` lists.
fn listed(daemon: &Daemon<'_>) -> Vec<Ipv4Addr> {
    let output = daemon.ctl("routers");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().filter_map(|line| line.split_whitespace().next());
    first.filter_map(|word| word.parse().ok()).collect()
}

/// The last column of the name in `isatapctl routers`.
fn last_failure(daemon: &Daemon<'_>) -> Option<String> {
    let output = daemon.ctl("routers");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with(NAME))?;
    line.split("  ").last().map(|word| word.trim().to_owned())
}

#[track_caller]
fn wait_listed(daemon: &Daemon<'_>, expected: &[Ipv4Addr]) {
    wait::until(&format!("the routers {expected:?}"), SOON, || {
        let listed = listed(daemon);
        if listed == expected {
            Ok(())
        } else {
            Err(format!("{listed:?}"))
        }
    });
}

/// Solicitations to `router` seen so far.
fn solicited(wire: &Sniffer, router: Ipv4Addr) -> usize {
    wire.count(|captured| {
        let outer = captured
            .outer()
            .filter(|outer| (outer.src(), outer.dst()) == (DUT, router));
        let inner = outer.and_then(|outer| outer.inner());
        inner.and_then(|inner| inner.icmpv6()).map(|message| message.0) == Some(ROUTER_SOLICITATION)
    })
}

#[track_caller]
fn wait_solicited(wire: &Sniffer, router: Ipv4Addr) {
    wait::holds(&format!("a solicitation to {router}"), SOON, || {
        solicited(wire, router) > 0
    });
}

fn advertise(router: &Crafter) {
    let body = nd::router_advertisement(1800, &[]);
    router.send_inner(&nd::packet(
        link_local(router.v4),
        link_local(DUT),
        ROUTER_ADVERTISEMENT,
        &body,
    ));
}

/// P1, P3, FAULTS 48: every record is a router; one that goes is refused as soon as the answer has ended, one that
/// comes is solicited. Against dnsmasq.
#[test]
fn p3_the_list_follows_the_zone() {
    let parts = Parts::new();
    let (r1, r2) = (parts.crafter(&parts.r1, R1), parts.crafter(&parts.r2, R2));
    let server = Dnsmasq::start(&parts.dns, 2, &[(NAME, R1)]);
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).start();
    wait_solicited(&wire, R1);
    wait_member(&daemon, &r1);
    assert_ne!(refused(&daemon, &r2, 1), Vec::<String>::new());

    server.set(&[(NAME, R1), (NAME, R2)]);
    wait_member(&daemon, &r2);
    wait_solicited(&wire, R2);

    server.set(&[(NAME, R2)]);
    let took = wait_stranger(&daemon, &r1);
    // TTL 2, at most a second left in the daemon's answer when the zone changed, and a twentieth of it as spread.
    assert!(took < Duration::from_secs(4), "{took:?}");
    wait_listed(&daemon, &[R2]);
    // Its advertisements are nobody's any more.
    let before = daemon.counters(Direction::Decap);
    advertise(&r1);
    let since = daemon.wait_received(Direction::Decap, &before, 1);
    assert_eq!(since.drops.keys().collect::<Vec<_>>(), ["nd_not_router"]);
    assert_eq!(refused(&daemon, &r2, 10), Vec::<String>::new());
    assert_eq!(daemon.metrics().sum(FAILURES, &[]), 0);
    daemon.conservation();
}

/// FAULTS 46: whatever happens to the DNS, packets go on, the last good list stays, and failures are counted.
#[test]
fn an_outage_costs_nothing() {
    let parts = Parts::new();
    let r1 = parts.crafter(&parts.r1, R1);
    let server = FakeDns::start(&parts.dns, Says::Addresses(1, vec![R1]));
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).start();
    wait_member(&daemon, &r1);
    advertise(&r1);
    daemon.wait_ready();
    let before = daemon.counters(Direction::Decap);

    let outages = [
        Says::ServFail,
        Says::Nothing,
        Says::Truncated,
        Says::Aliases,
        Says::NoSuchName,
        Says::NoAddress,
        Says::Slowly(Duration::from_secs(30), vec![R2]),
        Says::Addresses(1, vec![]),
        Says::Addresses(1, vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST]),
    ];
    let mut sent = 0;
    for outage in outages {
        server.say(outage.clone());
        let failures = daemon.metrics().sum(FAILURES, &[]);
        // The TTL has ended many times over before the daemon would ask again by itself.
        assert!(daemon.ctl("rs").status.success());
        wait::holds(&format!("{outage:?} to be counted"), SOON, || {
            r1.send_inner(&from_behind());
            sent += 1;
            daemon.metrics().sum(FAILURES, &[]) > failures
        });
        assert_eq!(listed(&daemon), [R1], "{outage:?}");
        // Flapping: it works again in between.
        server.say(Says::Addresses(1, vec![R1]));
        assert!(daemon.ctl("rs").status.success());
        wait::holds("the name to be looked up again", SOON, || {
            last_failure(&daemon).as_deref() == Some("-")
        });
    }
    // Dead for many refresh intervals: the TTL is one second, the first attempts come after 5 and 10.
    server.say(Says::Nothing);
    let failures = daemon.metrics().sum(FAILURES, &[]);
    wait::holds("two attempts", SOON * 6, || {
        r1.send_inner(&from_behind());
        sent += 1;
        daemon.metrics().sum(FAILURES, &[]) >= failures + 2
    });
    // It was solicited, and as a crafted router it answers when told to.
    advertise(&r1);
    let since = daemon.wait_received(Direction::Decap, &before, sent + 1);
    assert!(since.drops.is_empty(), "{since}");
    assert_eq!(listed(&daemon), [R1]);
    daemon.wait_ready();
    daemon.conservation();
}

/// FAULTS 46, 60: an engine that follows another one knows the list that one had. Name servers may be silent, or reached
/// by the tunnel itself.
#[test]
fn an_outage_outlives_the_engine() {
    let parts = Parts::new();
    let (r1, r2) = (parts.crafter(&parts.r1, R1), parts.crafter(&parts.r2, R2));
    let server = FakeDns::start(&parts.dns, Says::Addresses(3600, vec![R1]));
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).start();
    wait_member(&daemon, &r1);
    server.say(Says::Nothing);
    for _ in 0..2 {
        let_it_live(Instant::now());
        let old = kill_engine(&daemon);
        wait_successor(&daemon, old);
        assert_eq!(listed(&daemon), [R1]);
        assert_eq!(refused(&daemon, &r1, 1), Vec::<String>::new());
    }
    // It is no more than what was known: the first answer is a better one.
    server.say(Says::Addresses(3600, vec![R2]));
    wait_member(&daemon, &r2);
    wait_listed(&daemon, &[R2]);
    daemon.conservation();
}

/// FAULTS 54: a machine that comes to another network finds its routers there, however long the answer of before is good for.
#[test]
fn a_machine_that_moved_asks_again() {
    let parts = Parts::new();
    let server = FakeDns::start(&parts.dns, Says::Addresses(3600, vec![R1]));
    let etc = Etc::with_server(SERVER);
    let daemon = Builder::new(&parts.dut)
        .config(&format!("ServerAddress {NAME}"))
        .etc(&etc)
        .start();
    wait_listed(&daemon, &[R1]);
    server.say(Says::Addresses(3600, vec![R2]));
    let moves = format!("addr del {DUT}/24 dev {UNDERLAY}\naddr add 10.0.0.12/24 dev {UNDERLAY}");
    parts.dut.ip_batch(&moves);
    daemon.wait_log("the tunnel moves from 10.0.0.2 to 10.0.0.12");
    wait_listed(&daemon, &[R2]);

    // An address that comes and goes is no reason to ask for each time.
    let asked = server.asked();
    for _ in 0..50 {
        parts.dut.ip(&format!("addr del 10.0.0.12/24 dev {UNDERLAY}"));
        parts.dut.ip(&format!("addr add 10.0.0.12/24 dev {UNDERLAY}"));
    }
    server.say(Says::Addresses(3600, vec![R1]));
    wait_listed(&daemon, &[R1]);
    assert!(server.asked() <= asked + 10, "{}", server.asked() - asked);
}

/// A server that is silent costs its time once, not for each domain of the search list.
#[test]
fn a_long_search_list_behind_a_dead_server() {
    let parts = Parts::new();
    let _server = Dnsmasq::start(&parts.dns, 3600, &[(NAME, R1)]);
    let etc = Etc::new(
        "nameserver 10.0.0.54\nnameserver 10.0.0.53\noptions timeout:3\n\
         search a.example b.example c.example site.example\n",
    );
    let daemon = parts.host(&etc, "isatap").start();
    wait::holds("the router", SOON * 2, || listed(&daemon) == [R1]);
}

/// FAULTS 46: a name that is gone for good goes, when it was gone for a whole interval.
#[test]
fn a_name_that_stays_away_is_believed() {
    let parts = Parts::new();
    let r1 = parts.crafter(&parts.r1, R1);
    let server = FakeDns::start(&parts.dns, Says::Addresses(1, vec![R1]));
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).config("PrlRefreshInterval 1").start();
    wait_member(&daemon, &r1);
    server.say(Says::NoSuchName);
    daemon.wait_log("there is no such name; its last 1 router(s) stay in use");
    assert_eq!(refused(&daemon, &r1, 1), Vec::<String>::new());
    wait::holds("the router to go", SOON * 2, || {
        !refused(&daemon, &r1, 1).is_empty()
    });
    assert!(listed(&daemon).is_empty());
    daemon.wait_log("leads to no router any more");
    let (status, text) = daemon.http("/ready").expect("an answer");
    assert_eq!(status, 503);
    assert!(
        text.contains("no router is known (isatap.site.example: there is no such name)"),
        "{text}"
    );
}

/// FAULTS 45, L8.
#[test]
fn impossible_addresses_are_no_routers() {
    let parts = Parts::new();
    let r1 = parts.crafter(&parts.r1, R1);
    let lies = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.9",
        "255.255.255.255",
        "240.0.0.1",
        "10.0.0.2",
    ];
    let mut addrs: Vec<Ipv4Addr> = lies.iter().map(|lie| lie.parse().expect("an address")).collect();
    addrs.extend([R1, R1, R2, R1]);
    let server = FakeDns::start(&parts.dns, Says::Addresses(3600, addrs));
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).start();
    wait_listed(&daemon, &[R1, R2]);
    daemon.wait_log("5 cannot be a router's and are ignored");
    wait_solicited(&wire, R1);

    // 1000 records come over TCP; those in use keep their room, wherever they are in the answer.
    let mut many: Vec<Ipv4Addr> = (0..998).map(|i| Ipv4Addr::from_bits(0xc633_6400 + i)).collect();
    many.extend([R2, R1]);
    server.say(Says::Addresses(3600, many));
    assert!(daemon.ctl("rs").status.success());
    wait::holds("64 routers", SOON, || listed(&daemon).len() == 64);
    assert_eq!(listed(&daemon)[..2], [R1, R2]);
    assert_eq!(refused(&daemon, &r1, 3), Vec::<String>::new());
    daemon.wait_log("936 are ignored: 64 are the most");
    daemon.conservation();
}

/// FAULTS 47, L8: whoever guesses an answer and is first is not believed; a single label stays inside the search list.
#[test]
fn guessed_answers_and_single_labels() {
    let parts = Parts::new();
    let server = FakeDns::start(&parts.dns, Says::EvilFirst(R2, vec![R1]));
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, "isatap").start();
    wait_listed(&daemon, &[R1]);
    server.say(Says::NoSuchName);
    assert!(daemon.ctl("rs").status.success());
    daemon.wait_log("there is no such name");
    let asked: Vec<String> = server.names().into_iter().collect();
    assert_eq!(asked, ["isatap.site.example."]);
    assert_eq!(listed(&daemon), [R1]);
}

/// P3: an answer with TTL 0 is good for one solicitation.
#[test]
fn p3_ttl_zero_means_one_lookup_for_each_solicitation() {
    let parts = Parts::new();
    let server = FakeDns::start(&parts.dns, Says::Addresses(0, vec![R1]));
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).start();
    wait_solicited(&wire, R1);
    assert_eq!(server.asked(), 1);
    // R1 is silent: it is solicited again after about 4 s.
    wait::holds("another solicitation", SOON * 2, || solicited(&wire, R1) == 2);
    assert_eq!(server.asked(), 2);
    assert_eq!(daemon.metrics().sum(SOLICITATIONS, &[]), 2);
}

/// Started before there is a name server; then resolv.conf and the hosts file change, and a signal says so. All of
/// that inside the chroot.
#[test]
fn a_reload_reads_the_machines_files_again() {
    let parts = Parts::new();
    let (r1, r2) = (parts.crafter(&parts.r1, R1), parts.crafter(&parts.r2, R2));
    let _server = Dnsmasq::start(&parts.dns, 3600, &[(NAME, R1)]);
    // Nobody has this address.
    let etc = Etc::with_server(Ipv4Addr::new(10, 0, 0, 54));
    let daemon = parts.host(&etc, "isatap").start();
    daemon.wait_log("isatap cannot be looked up: ");
    assert!(listed(&daemon).is_empty());
    assert_eq!(daemon.http("/ready").expect("an answer").0, 503);

    etc.set_resolv_conf(&resolv_conf(SERVER));
    daemon.signal(Signal::SIGHUP);
    wait_member(&daemon, &r1);

    etc.set_hosts("10.0.0.3 isatap.other isatap # the second router\n");
    daemon.signal(Signal::SIGHUP);
    wait_member(&daemon, &r2);
    wait_stranger(&daemon, &r1);
    wait_listed(&daemon, &[R2]);

    etc.set_hosts("");
    assert!(daemon.ctl("reload").status.success());
    wait_listed(&daemon, &[R1]);
    daemon.conservation();
}

/// Names and addresses together; a reload that changes one name leaves the other's routers alone.
#[test]
fn a_reload_of_the_list_touches_what_changed() {
    let parts = Parts::new();
    let r1 = parts.crafter(&parts.r1, R1);
    let names = [(NAME, R1), ("second.site.example", R2)];
    let _server = Dnsmasq::start(&parts.dns, 3600, &names);
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let etc = Etc::with_server(SERVER);
    let daemon = parts.host(&etc, NAME).start();
    wait_member(&daemon, &r1);
    wait_solicited(&wire, R1);
    advertise(&r1);
    daemon.wait_ready();
    daemon.rewrite_config(&format!(
        "BindAddress {DUT}\nServerAddress {NAME} second.site.example 10.0.0.7\n"
    ));
    daemon.signal(Signal::SIGHUP);
    wait_listed(&daemon, &[Ipv4Addr::new(10, 0, 0, 7), R1, R2]);
    wait_solicited(&wire, R2);
    // Whoever was known stays known, and is one of the list all the while; a reload asks everybody once more.
    let unknown = daemon.metrics().sum("isatapd_routers", &[("state", "unknown")]);
    assert_eq!(unknown, 2);
    assert!(refused(&daemon, &r1, 1).is_empty());
    daemon.wait_ready();
}

/// Without BindAddress the first router known tells which of two addresses to use.
#[test]
fn the_way_to_the_router_decides_the_locator() {
    let parts = Parts::new();
    parts.dut.ip("link add aside type veth peer name other");
    parts.dut.ip("addr add 192.168.7.2/24 dev aside");
    parts.dut.ip("link set aside up");
    parts.dut.ip("link set other up");
    parts.dut.ip("route add default via 192.168.7.1 dev aside");
    let server = FakeDns::start(&parts.dns, Says::Nothing);
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let etc = Etc::with_server(SERVER);
    let daemon = Builder::new(&parts.dut)
        .config(&format!("ServerAddress {NAME}"))
        .etc(&etc)
        .start();
    daemon.wait_log("host at 192.168.7.2");
    server.say(Says::Addresses(3600, vec![R1]));
    assert!(daemon.ctl("reload").status.success());
    daemon.wait_log("the tunnel moves there from 192.168.7.2");
    wait_solicited(&wire, R1);
}

#[test]
fn a_check_looks_names_up() {
    let parts = Parts::new();
    let server = FakeDns::start(&parts.dns, Says::Addresses(5, vec![Ipv4Addr::LOCALHOST, R1]));
    let etc = Etc::with_server(SERVER);
    let check = || parts.host(&etc, NAME).args("--check-config").output();
    let good = check();
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{good:?}");
    let expected = "# ISATAP host at 10.0.0.2\n# potential router list: 10.0.0.1\n";
    assert!(text.starts_with(expected), "{text}");
    for (says, reason) in [
        (
            Says::NoSuchName,
            ":3:15: the name \"isatap.site.example\" cannot be resolved: there is no such name",
        ),
        (
            Says::NoAddress,
            ":3:15: the name \"isatap.site.example\" has no IPv4 address",
        ),
        (Says::ServFail, "cannot be resolved: the name server says: "),
        (Says::Nothing, "cannot be resolved: no answer (10.0.0.53)"),
        (
            Says::Addresses(5, vec![Ipv4Addr::LOCALHOST]),
            "has no IPv4 address that a host can have (127.0.0.1)",
        ),
        (
            Says::Addresses(5, vec![DUT]),
            "leads to our own address alone (10.0.0.2)",
        ),
    ] {
        server.say(says);
        let refused = check();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(78), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}
