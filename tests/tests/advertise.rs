//! A router that advertises itself (`Advertise yes`): hosts that know nothing but its IPv4 address, what they are told,
//! and when.
//!
//! ```text
//!   srv ---- rtr 10.0.0.1 (isatapd, Advertise yes) ---+--- h1 10.0.0.2, h2 10.0.0.3 (isatapd 10.0.0.1)
//!                                                     +--- a<n> 10.0.0.<n> (crafted)     see isatap_tests::scene, asker
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isatap_tests::asker::{ALL_ROUTERS, ANSWERED, Asker, EVERYTHING};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use isatap_tests::packet::{Inner, isatap, link_local};
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{DUT, Opposite, ROUTER, SERVER, SOON, Scene, host_v4, on_link};
use isatap_tests::state::routes;
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn sent(daemon: &Daemon<'_>, result: &str) -> u64 {
    daemon
        .metrics()
        .sum("isatapd_router_advertisements_sent_total", &[("result", result)])
}

fn received(daemon: &Daemon<'_>, result: &str) -> u64 {
    let name = "isatapd_router_solicitations_received_total";
    daemon.metrics().sum(name, &[("result", result)])
}

fn hosts_configure_themselves(lane: Lane) {
    let scene = Scene::new(2);
    let router = Daemon::router(&scene.router, ROUTER)
        .lane(lane)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\n")
        .start();
    let start = |(index, ns)| Daemon::host(ns, host_v4(index), &[ROUTER]).lane(lane).start();
    let hosts: Vec<_> = scene.hosts.iter().enumerate().map(start).collect();
    for (index, ns) in scene.hosts.iter().enumerate() {
        let address = on_link(host_v4(index));
        wait::until(&format!("{address} and a default route"), SOON * 2, || {
            let has = Configured::read(ns);
            let address = has.addresses.iter().any(|own| own.addr == address);
            if address && !has.default_routers().is_empty() {
                Ok(())
            } else {
                Err(format!("{has:?}"))
            }
        });
        ping_until(ns, &SERVER.to_string(), SOON);
        ping(ns, &SERVER.to_string(), 3);
        // The router's own address in the prefix, as the first hop and as a peer.
        ping_until(ns, &on_link(ROUTER).to_string(), SOON);
    }
    ping_until(&scene.hosts[0], &on_link(host_v4(1)).to_string(), SOON);
    let own = Configured::read(&scene.router);
    assert!(
        own.addresses
            .iter()
            .any(|own| (own.addr, own.prefix_len) == (on_link(ROUTER), 128)),
        "{own:?}"
    );
    assert_eq!(sent(&router, "solicited"), 2);
    assert_eq!(
        router.counters(Direction::Decap).punted,
        2,
        "the kernel heard none of them"
    );
    let status = String::from_utf8_lossy(&router.ctl("status").stdout).into_owned();
    assert!(
        status.contains("advertises yes, 2 host(s) known\nsolicited  2 answered\ntold       2 solicited"),
        "{status}"
    );
    router.conservation();
    hosts.iter().for_each(Daemon::conservation);
}

/// T3, T6, T11 and RFC 5214 8: a host knows nothing but the router's IPv4 address, and reaches a server behind it.
#[test]
fn hosts_configure_themselves_uring() {
    hosts_configure_themselves(Lane::Uring);
}

/// The same on the other lane.
#[test]
fn hosts_configure_themselves_syscall() {
    hosts_configure_themselves(Lane::Syscall);
}

/// The same on the other lane.
#[test]
fn hosts_configure_themselves_ebpf() {
    hosts_configure_themselves(Lane::Ebpf);
}

/// T6: radvd's own reader takes our advertisement for one of radvd, with everything that is configured.
#[test]
fn radvdump_shows_what_is_configured() {
    let scene = Scene::new(1);
    let _router = Daemon::router(&scene.router, ROUTER).config(EVERYTHING).start();
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER])
        .config("MinRouterSolicitInterval 1")
        .start();
    host.wait_ready();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = Command::new("radvdump");
    command
        .stdout(file.reopen().expect("the file again"))
        .stderr(Stdio::null());
    let mut dump = Ended(scene.hosts[0].spawn(&mut command));
    let text = wait::until("radvdump to write an advertisement down", SOON * 4, || {
        host.ctl("rs");
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        if text.contains("DNSSL") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    dump.end();
    for expected in [
        "AdvManagedFlag off;",
        "AdvOtherConfigFlag off;",
        "AdvDefaultLifetime 1200;",
        "AdvDefaultPreference high;",
        "AdvLinkMTU 1400;",
        "prefix 2001:db8:1::/64",
        "AdvValidLifetime 7200;",
        "AdvPreferredLifetime 3600;",
        "AdvOnLink on;",
        "AdvAutonomous on;",
        "route 2001:db8:f000::/36",
        "AdvRoutePreference high;",
        "AdvRouteLifetime 600;",
        "RDNSS 2001:db8::53 2001:db8::54",
        "DNSSL example.org",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
}

/// A program that is ended with the test.
struct Ended(Child);

impl Ended {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}

/// P7, T3, T4, T6, M12: rdisc6, which we did not write, shows everything that is configured; each answer is unicast and
/// within half a second.
#[test]
fn rdisc6_shows_what_is_configured() {
    let scene = Scene::new(1);
    let router = Daemon::router(&scene.router, ROUTER).config(EVERYTHING).start();
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER]).start();
    host.wait_ready();
    let wire = Sniffer::start(&scene.hosts[0], UNDERLAY);
    let text = wait::until("an answer to rdisc6", SOON * 2, || {
        let output = scene.hosts[0].try_run(&format!("rdisc6 -1 -r 1 -w 2000 {TUNNEL}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("from fe80::5efe:a00:1") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for expected in [
        "Hop limit : 64 ( 0x40)",
        "Stateful address conf. : No",
        "Stateful other conf. : No",
        "Router preference : high",
        "Router lifetime : 1200 (0x000004b0) seconds",
        "Reachable time : unspecified (0x00000000)",
        "Retransmit time : unspecified (0x00000000)",
        "Prefix : 2001:db8:1::/64",
        "On-link : Yes",
        "Autonomous address conf.: Yes",
        "Valid time : 7200 (0x00001c20) seconds",
        "Pref. time : 3600 (0x00000e10) seconds",
        "Route : 2001:db8:f000::/36",
        "Route preference : high",
        "Route lifetime : 600 (0x00000258) seconds",
        "MTU : 1400 bytes (valid)",
        "Recursive DNS server : 2001:db8::53",
        "Recursive DNS server : 2001:db8::54",
        "DNS servers lifetime : 900 (0x00000384) seconds",
        "DNS search list : example.org",
        "DNS search list lifetime: 800 (0x00000320) seconds",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "no {expected:?} in\n{text}"
        );
    }
    assert!(!text.contains("Source link-layer"), "T5: {text}");
    let both = |kind: u8, outgoing: bool| {
        let seen = wire.packets().into_iter().filter(move |c| c.outgoing == outgoing);
        let at = seen.filter(move |c| {
            c.outer().and_then(|o| o.inner()?.icmpv6().map(|(seen, ..)| seen)) == Some(kind)
        });
        at.map(|c| c.at).collect::<Vec<_>>()
    };
    // The sniffer may see it later than rdisc6.
    let delay = wait::until("the answer on the wire", SOON, || {
        let (asked, answered) = (both(ROUTER_SOLICITATION, true), both(ROUTER_ADVERTISEMENT, false));
        let times = asked.last().zip(answered.last());
        let delay = times.and_then(|(asked, answered)| answered.checked_duration_since(*asked));
        delay.ok_or("none")
    });
    assert!(delay < Duration::from_millis(700), "{delay:?}");
    router.conservation();
    host.conservation();
}

/// P7, T3, T4, T5: both forms of solicitation, with a link-layer address of somebody else inside; several before the
/// answer are one.
#[test]
fn the_one_who_asked_is_answered_once() {
    let scene = Opposite::new();
    let router = Daemon::router(&scene.dut, DUT).config(EVERYTHING).start();
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    let mut delays = Vec::new();
    for dst in ["ff02::2", "fe80::5efe:10.0.0.1", "fe80::200:5efe:10.0.0.1"].map(v6) {
        asker.forget();
        let asked = Instant::now();
        // Another machine's Ethernet address, as if this link had any (RFC 4213 3.8).
        let body = [
            &nd::router_solicitation()[..],
            &nd::link_layer_option(1, [2, 0, 10, 0, 0, 9]),
        ]
        .concat();
        let packet = nd::packet(asker.addr(), dst, ROUTER_SOLICITATION, &body);
        (0..3).for_each(|_| asker.send(&packet));
        let told = asker.wait(1, ANSWERED);
        delays.push(told[0].at.duration_since(asked));
        assert_eq!(told[0].outer, (DUT, asker.v4));
        assert_eq!(told[0].inner, (link_local(DUT), asker.addr()));
        assert_eq!((told[0].hop_limit, told[0].lifetime()), (255, 1200));
        assert_eq!(told[0].of_type(1), [[0; 0]; 0], "no link-layer address");
        assert_eq!(told[0].of_type(5), [[0, 0, 0, 0, 5, 120]], "an MTU of 1400");
        assert_eq!(told[0].prefixes(), [(v6("2001:db8:1::"), 0xc0, 7200, 3600)]);
    }
    assert!(delays.iter().all(|delay| *delay < ANSWERED), "{delays:?}");
    assert_eq!(sent(&router, "solicited"), 3);
    assert_eq!(received(&router, "answered"), 3);
    // Three at once may be cut to what one host is granted; none of them was answered again.
    let limited = router
        .drops(Direction::Decap)
        .get("rate_limited")
        .copied()
        .unwrap_or(0);
    assert_eq!(received(&router, "merged") + limited, 6);
    router.conservation();
}

/// T2, T5, D12, FAULTS 51: what breaks a rule is not answered, each for its own reason; nothing reaches the kernel.
#[test]
fn bad_solicitations_are_not_answered() {
    let scene = Opposite::new();
    let router = Daemon::router(&scene.dut, DUT)
        .config(EVERYTHING)
        .config("PeerRouter 10.0.0.30")
        .start();
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    let peer = Asker::new(&scene.site, 30, &scene.dut, DUT);
    let tunnel = Sniffer::start(&scene.dut, TUNNEL);
    let good = |src| nd::packet(src, ALL_ROUTERS, ROUTER_SOLICITATION, &nd::router_solicitation());
    let changed = |at: usize, value: u8| {
        let mut packet = good(asker.addr());
        packet[at] = value;
        packet
    };
    let code = {
        let mut inner = Inner::new(asker.addr(), ALL_ROUTERS);
        inner.hop_limit = 255;
        inner.icmpv6(ROUTER_SOLICITATION, 1, &nd::router_solicitation())
    };
    let long_option = nd::packet(
        asker.addr(),
        ALL_ROUTERS,
        ROUTER_SOLICITATION,
        &[0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0],
    );
    let short = nd::packet(asker.addr(), ALL_ROUTERS, ROUTER_SOLICITATION, &[0; 2]);
    let nameless = [&nd::router_solicitation()[..], &nd::link_layer_option(1, [2; 6])].concat();
    let nameless = nd::packet(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, ROUTER_SOLICITATION, &nameless);
    let table = [
        (&asker, changed(7, 254), "nd_hop_limit"),
        (&asker, changed(43, 0xaa), "nd_checksum"),
        (&asker, code, "nd_code"),
        (&asker, long_option, "nd_length"),
        (&asker, short, "nd_length"),
        (&asker, good(Ipv6Addr::UNSPECIFIED), "src_forbidden"),
        (
            &asker,
            good(link_local(Ipv4Addr::new(10, 0, 0, 21))),
            "src_mismatch",
        ),
        (&peer, nameless, "nd_address"),
    ];
    for (from, packet, reason) in table {
        let before = router.counters(Direction::Decap);
        from.send(&packet);
        let since = router.wait_received(Direction::Decap, &before, 1);
        assert_eq!(since.drops.get(reason), Some(&1), "{reason}: {since}");
    }
    // A router may ask without an address, and is answered at the group.
    peer.send(&good(Ipv6Addr::UNSPECIFIED));
    let told = peer.wait(1, ANSWERED);
    assert_eq!(told[0].outer, (DUT, peer.v4));
    assert_eq!(told[0].inner, (link_local(DUT), v6("ff02::1")));
    assert_eq!(asker.told(), []);
    assert_eq!(
        (sent(&router, "solicited"), received(&router, "answered")),
        (1, 1)
    );
    assert_eq!(
        tunnel.count(|c| c.inner().and_then(|i| i.icmpv6().map(|(kind, ..)| kind)) == Some(ROUTER_SOLICITATION)),
        0
    );
    router.conservation();
}

/// T1: nobody advertises unless told to; the kernel hears what hosts ask, so that another program can answer.
#[test]
fn by_default_nothing_is_advertised() {
    let scene = Opposite::new();
    let mut router = scene.router(|builder| builder);
    let asker = Asker::new(&scene.site, 20, &scene.dut, DUT);
    let tunnel = Sniffer::start(&scene.dut, TUNNEL);
    asker.ask(ALL_ROUTERS);
    tunnel.wait_for("the solicitation", SOON, |c| {
        c.inner().and_then(|i| i.icmpv6().map(|(kind, ..)| kind)) == Some(ROUTER_SOLICITATION)
    });
    wait::holds("the sender to be remembered", SOON, || {
        received(&router, "noted") == 1
    });
    let status = String::from_utf8_lossy(&router.ctl("status").stdout).into_owned();
    assert!(
        status.contains("advertises no, 1 host(s) known\nsolicited  1 noted\n\n"),
        "{status}"
    );
    router.conservation();
    router.stop();
    assert_eq!(asker.told(), []);
}

/// T10: two networks have their own prefixes and a third host has none; all are told of the router.
#[test]
fn each_network_has_its_prefixes() {
    let scene = Opposite::new();
    let config = "Advertise yes\nAdvertisePrefix 2001:db8:a::/64 on-link for 10.0.0.16/28\n\
                  AdvertisePrefix 2001:db8:b::/64 for 10.0.0.32/28\nWorkers 1\n";
    let router = Daemon::router(&scene.dut, DUT).config(config).start();
    let askers = [20, 40, 60].map(|last| Asker::new(&scene.site, last, &scene.dut, DUT));
    let forever = (2_592_000, 604_800);
    let expected = [
        vec![(v6("2001:db8:a::"), 0xc0, forever.0, forever.1)],
        vec![(v6("2001:db8:b::"), 0x40, forever.0, forever.1)],
        vec![],
    ];
    for (asker, expected) in askers.iter().zip(expected) {
        asker.ask(link_local(DUT));
        let told = asker.wait(1, ANSWERED);
        assert_eq!((told[0].prefixes(), told[0].lifetime()), (expected, 1800));
    }
    // Both are this router's: packets of their hosts are taken, and only in the on-link one it has an address.
    let own = Configured::read(&scene.dut);
    let addresses: Vec<_> = own.addresses.iter().map(|own| own.addr).collect();
    assert_eq!(addresses, [isatap("2001:db8:a::", false, DUT)]);
    let table = routes(&scene.dut, TUNNEL);
    for prefix in ["2001:db8:a::/64 proto 41", "2001:db8:b::/64 proto 41"] {
        assert!(table.contains(prefix), "{table}");
    }
    router.conservation();
}

/// T11, T12: without the on-link flag hosts reach each other through the router alone, which forwards between them.
#[test]
fn hub_and_spoke_goes_through_the_router() {
    let scene = Scene::new(2);
    let router = Daemon::router(&scene.router, ROUTER)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64\n")
        .start();
    let start = |(index, ns)| Daemon::host(ns, host_v4(index), &[ROUTER]).start();
    let hosts: Vec<_> = scene.hosts.iter().enumerate().map(start).collect();
    hosts.iter().for_each(Daemon::wait_ready);
    let peer = on_link(host_v4(1)).to_string();
    ping_until(&scene.hosts[0], &peer, SOON * 2);
    let wire = Sniffer::start(&scene.hosts[0], UNDERLAY);
    ping(&scene.hosts[0], &peer, 5);
    let to = |v4| wire.count(|c| c.outgoing && c.outer().is_some_and(|outer| outer.dst() == v4));
    assert_eq!((to(host_v4(1)), to(ROUTER) >= 5), (0, true));
    let redirected =
        wire.count(|c| c.outer().and_then(|o| o.inner()?.icmpv6().map(|(kind, ..)| kind)) == Some(REDIRECT));
    assert_eq!(redirected, 0, "T12: that would lead past the router");
    ping_until(&scene.hosts[1], &SERVER.to_string(), SOON);
    router.conservation();
    hosts.iter().for_each(Daemon::conservation);
}
