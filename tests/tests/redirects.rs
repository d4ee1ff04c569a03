//! Redirects: hosts follow their first hop's and nobody else's, routers send none and follow none (N10, T12, T13;
//! RFC 4861 8).
//!
//! ```text
//!   h 10.0.0.10 (isatapd 10.0.0.1) ---+--- r1 10.0.0.1 (crafted)
//!                                     +--- x  10.0.0.7 (crafted): the better first hop, or a forger
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::advertiser::{Stage, usual};
use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::icmp4::{self, Icmp4Error};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, Advertisement, REDIRECT};
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::ping::ping_until;
use isatap_tests::raw::{Captured, Crafter, Sniffer};
use isatap_tests::routers::{HOST, router_v4};
use isatap_tests::scene::{ROUTER, SOON, Scene, host_v4, on_link};
use isatap_tests::topology::{UNDERLAY, mac};
use isatap_tests::wait;

const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

fn far(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, n)
}

fn redirect(from: Ipv4Addr, target: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    nd::packet(
        link_local(from),
        link_local(HOST),
        REDIRECT,
        &nd::redirect(target, destination),
    )
}

fn is_redirect(captured: &Captured) -> bool {
    let inner = captured.inner().or_else(|| captured.outer()?.inner());
    inner
        .and_then(|inner| inner.icmpv6())
        .is_some_and(|(kind, _, _)| kind == REDIRECT)
}

/// Has the crafter send a packet, and returns what the daemon dropped it for.
#[track_caller]
fn outcome(daemon: &Daemon<'_>, crafter: &Crafter, packet: &[u8]) -> BTreeMap<String, u64> {
    let before = daemon.counters(Direction::Decap);
    crafter.send_inner(packet);
    daemon.wait_received(Direction::Decap, &before, 1).drops
}

fn accepted(daemon: &Daemon<'_>) -> u64 {
    daemon
        .metrics()
        .sum("isatapd_redirects_total", &[("result", "accepted")])
}

/// N10, FAULTS 5: followed from the first hop only, for one destination, until the target fails or the way is another.
#[test]
fn n10_a_host_follows_its_first_hop() {
    let stage = Stage::new(1);
    let ns = stage.site.member("x", X.octets()[3]);
    let x = Crafter::new(&ns, UNDERLAY, X, mac(&stage.host, UNDERLAY), HOST);
    let daemon = stage.start("");
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]));
    daemon.wait_route("2001:db8:1::/64");
    let (wire, tunnel) = (stage.wire(), stage.tunnel());
    let router = stage.crafter(0);
    stage.wait_way(&wire, far(1), router_v4(0));

    // Forgeries: another host of the link, in the router's name from elsewhere, off the site, about the link itself.
    let own = link_local(X);
    let nothing = BTreeMap::new();
    let dropped = |reason: &str| BTreeMap::from([(reason.to_owned(), 1)]);
    assert_eq!(
        outcome(&daemon, &x, &redirect(X, own, far(1))),
        dropped("nd_not_router")
    );
    assert_eq!(
        outcome(&daemon, &x, &redirect(router_v4(0), own, far(1))),
        dropped("src_mismatch")
    );
    for (target, destination) in [
        (link_local(Ipv4Addr::new(192, 0, 2, 1)), far(1)),
        ("fe80::1".parse().expect("an address"), far(1)),
        (own, on_link(X)),
    ] {
        assert_eq!(
            outcome(&daemon, router, &redirect(router_v4(0), target, destination)),
            dropped("nd_redirect"),
            "{destination} to {target}"
        );
    }
    stage.wait_way(&wire, far(1), router_v4(0));
    assert_eq!(accepted(&daemon), 0);

    // The real one, for this destination alone; the target may answer in its name, the kernel hears nothing of it.
    assert_eq!(
        outcome(&daemon, router, &redirect(router_v4(0), own, far(1))),
        nothing
    );
    stage.wait_way(&wire, far(1), X);
    stage.wait_way(&wire, far(2), router_v4(0));
    daemon.wait_route("2001:db8:99::1/128");
    let answer = Inner::new(far(1), isatap_tests::advertiser::net(1).1).udp(9, 9, b"from the better hop");
    assert_eq!(outcome(&daemon, &x, &answer), nothing);
    assert_eq!(
        outcome(
            &daemon,
            &x,
            &Inner::new(far(2), link_local(HOST)).udp(9, 9, b"no")
        ),
        dropped("src_mismatch")
    );
    assert_eq!(tunnel.count(is_redirect), 0, "the kernel saw a redirect");

    // The target fails: an ICMP error about a packet to it.
    stage.way(&wire, far(1));
    let offending = wire.wait_for("a packet to the target", SOON, |c| {
        c.outgoing && c.outer().is_some_and(|outer| outer.dst() == X)
    });
    router.send(&Icmp4Error::new(icmp4::UNREACHABLE, 1).about(router_v4(0), &offending.packet));
    stage.wait_way(&wire, far(1), router_v4(0));

    // And the way becomes another: a route of the operator's.
    assert_eq!(
        outcome(&daemon, router, &redirect(router_v4(0), own, far(1))),
        nothing
    );
    stage.wait_way(&wire, far(1), X);
    let other = Ipv4Addr::new(10, 0, 0, 8);
    stage.host.ip(&format!(
        "-6 route add {}/128 via {} dev {TUNNEL}",
        far(1),
        link_local(other)
    ));
    wait::until("the redirect to end", SOON, || {
        let output = daemon.ctl("routes");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains(&other.to_string()) && !text.contains(&X.to_string()) {
            Ok(())
        } else {
            Err(text)
        }
    });
    assert_eq!(accepted(&daemon), 2);
    daemon.conservation();
}

/// T13: a flood of redirects makes a bounded number of changes.
#[test]
fn a_flood_of_redirects_is_bounded() {
    let stage = Stage::new(1);
    let daemon = stage.start("");
    let router = stage.crafter(0);
    let before = daemon.counters(Direction::Decap);
    let rulebooks = daemon.metrics().sum("isatapd_rulebooks_total", &[]);
    for n in 0..2000 {
        router.send_inner(&redirect(router_v4(0), link_local(X), far(n)));
        if n % 200 == 0 {
            daemon.wait_received(Direction::Decap, &before, u64::from(n));
        }
    }
    let since = daemon.wait_received(Direction::Decap, &before, 2000);
    let limited = since.drops.get("rate_limited").copied().unwrap_or(0);
    assert_eq!(since.punted + limited, since.received, "{since}");
    let metrics = daemon.metrics();
    let by_result = metrics.by_label("isatapd_redirects_total", &[], "result");
    assert!(by_result["accepted"] <= 60, "{by_result:?}");
    let rulebooks = metrics.sum("isatapd_rulebooks_total", &[]) - rulebooks;
    assert!(rulebooks <= 70, "{rulebooks} new Rulebooks");
    daemon.conservation();
}

/// T12, T13: a router that forwards from host to host over the one link. Its kernel redirects each of them; no redirect
/// leaves. It follows none itself.
#[test]
fn t12_a_router_between_hosts_sends_no_redirect() {
    let scene = Scene::new(2);
    let running = scene.start(|builder| builder.workers(1));
    // Not on-link for the hosts: all they say goes through the router (RFC 6964 3.5).
    for (from, to) in [(0, 1), (1, 0)] {
        scene.hosts[from].ip(&format!(
            "-6 route add {}/128 via {} dev {TUNNEL}",
            on_link(host_v4(to)),
            link_local(ROUTER)
        ));
    }
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let tunnel = Sniffer::start(&scene.router, TUNNEL);
    ping_until(&scene.hosts[0], &on_link(host_v4(1)).to_string(), SOON);
    wait::until("the router's kernel to redirect", SOON, || {
        scene.hosts[0].try_run(&format!("ping -6 -n -c 1 -W 1 {}", on_link(host_v4(1))));
        let drops = running.router.drops(Direction::Encap);
        if drops.contains_key("own_redirect") {
            Ok(())
        } else {
            Err(format!("{drops:?}"))
        }
    });
    tunnel.wait_for("a redirect of the kernel", SOON, |c| c.outgoing && is_redirect(c));
    assert_eq!(wire.count(is_redirect), 0, "a redirect left");
    let crossed = wire.count(|c| c.outgoing && c.outer().is_some_and(|outer| outer.dst() == host_v4(1)));
    assert!(crossed > 0, "nothing went through the router");
    running.conservation();
}
