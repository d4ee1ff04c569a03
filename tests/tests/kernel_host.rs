//! The Linux kernel's own ISATAP device as a host of our router, and Debian's `isatapd` client beside it (D1, C1,
//! C3, E5, E6, P7, T3, T7, T11).
//!
//! ```text
//!   srv  2001:db8:99::2 ---- rtr 10.0.0.1 (isatapd) ---+--- guest 10.0.0.2 (ip tunnel ... mode isatap, isatapd of Debian)
//!                                                      +--- h2 10.0.0.3 (isatapd)
//! ```
//!
//! One guest serves all checks of a test, since it takes seconds to start.

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::guest::Guest;
use isatap_tests::kernel_peer::{
    self, ECHO_PORT, Potential, ping_from, scoped, sniffed, tcp_from, tcp_to, wait_answer_from_guest,
};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION};
use isatap_tests::packet::{Inner, SeenInner, link_local};
use isatap_tests::ping::{is_silent, ping};
use isatap_tests::radvd::Radvd;
use isatap_tests::raw::{Captured, Injector, Sniffer};
use isatap_tests::scene::{ROUTER, SERVER, SOON, Scene, host_v4, on_link, set_address};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::traffic::serve_echo;
use isatap_tests::wait;

/// Of each TCP connection, in each direction.
const BULK: u64 = 2_000_000;

fn guest_v4() -> Ipv4Addr {
    host_v4(0)
}

/// Echo and TCP between the router and the guest, and between the guest and the server behind the router.
fn everybody_reaches_everybody(scene: &Scene, guest: &Guest) {
    for (here, there) in [
        (link_local(ROUTER), link_local(guest_v4())),
        (on_link(ROUTER), on_link(guest_v4())),
    ] {
        wait_answer_from_guest(&scene.router, there);
        ping(&scene.router, &scoped(there), 5);
        ping_from(guest, &scoped(here), 5);
        tcp_to(&scene.router, there, BULK);
        tcp_from(guest, "", here, BULK);
    }
    ping(&scene.server, &on_link(guest_v4()).to_string(), 5);
    ping_from(guest, &SERVER.to_string(), 5);
    tcp_to(&scene.server, on_link(guest_v4()), BULK);
    tcp_from(guest, "", SERVER, BULK);
    // Larger than the tunnel: the guest cuts its packets itself, the server hears of the limit from the router first.
    let large = |dst| format!("ping -6 -n -i 0.05 -W 5 -c 3 -s 2000 {dst}");
    guest.wait_for(
        "answers to large requests of the guest",
        SOON * 2,
        &format!("{} | grep ' 3 received'", large(SERVER)),
    );
    wait::until("answers to large requests of the server", SOON * 2, || {
        let output = scene.server.try_run(&large(on_link(guest_v4())));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains(" 3 received") {
            Ok(())
        } else {
            Err(text)
        }
    });
}

/// The largest outer packet seen going each way: from us, from the guest.
fn largest(wire: &Sniffer) -> (u16, u16) {
    let from = |v4| {
        let packets = wire.packets().into_iter();
        let len = |c: Captured| Some(c.outer().filter(|outer| outer.src() == v4)?.header.total_len());
        packets.filter_map(len).max().unwrap_or_default()
    };
    (from(ROUTER), from(guest_v4()))
}

/// Marks and hop limits of packets both ways: outer as on the wire, inner as received.
fn marks_and_hop_limits(scene: &Scene, guest: &Guest) {
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let inside = Sniffer::start(&scene.router, TUNNEL);
    guest.run(&format!("rm -f /tmp/seen; sniff {TUNNEL} /tmp/seen"));
    let injector = Injector::tun(&scene.router, TUNNEL);
    let mut last = Vec::new();
    for ecn in 0..4 {
        let mut inner = Inner::new(link_local(ROUTER), link_local(guest_v4()));
        inner.traffic_class = 46 << 2 | ecn;
        last = inner.udp(1, 5000 + u16::from(ecn), b"marked");
        injector.send(&last);
        ping_from(
            guest,
            &format!("-Q {} {}", 46 << 2 | ecn, scoped(link_local(ROUTER))),
            1,
        );
    }
    let arrived = |packets: Vec<Vec<u8>>, wanted: &dyn Fn(&SeenInner<'_>) -> bool| -> Vec<(u8, u8)> {
        let read = |packet: &Vec<u8>| {
            let inner = SeenInner::read(packet)?;
            wanted(&inner).then(|| (inner.header.traffic_class(), inner.header.hop_limit()))
        };
        packets.iter().filter_map(read).collect()
    };
    // Whatever the mark, it arrives as it was sent, and the tunnel is one hop (C1, C3, E6).
    let expected: Vec<_> = (0..4).map(|ecn| (46 << 2 | ecn, 64)).collect();
    let in_guest = sniffed(guest, "/tmp/seen", &last).into_iter();
    let in_guest = in_guest
        .filter(|(sent, _)| !sent)
        .map(|(_, packet)| packet)
        .collect();
    assert_eq!(
        arrived(in_guest, &|i| i.udp().is_some_and(|(_, to, _)| to >= 5000)),
        expected
    );
    let here = inside
        .packets()
        .into_iter()
        .filter(|c| !c.outgoing)
        .map(|c| c.packet)
        .collect();
    assert_eq!(
        arrived(here, &|i| i.icmpv6().is_some_and(|(kind, ..)| kind == 128)),
        expected
    );
    // The outer header: ours copies the mark, the kernel's too but for CE, which it sends as ECT(0) (RFC 3168 9.1.1).
    let outer = |v4: Ipv4Addr, kind: &dyn Fn(&SeenInner<'_>) -> bool| -> Vec<(u8, u8)> {
        let packets = wire.packets();
        let read = |c: &Captured| {
            let outer = c.outer().filter(|outer| outer.src() == v4)?;
            kind(&outer.inner()?).then(|| (outer.tos(), outer.header.ttl()))
        };
        packets.iter().filter_map(read).collect()
    };
    assert_eq!(
        outer(ROUTER, &|i| i.udp().is_some_and(|(_, to, _)| to >= 5000)),
        [(0, 64), (1, 64), (2, 64), (3, 64)]
    );
    assert_eq!(
        outer(guest_v4(), &|i| i.icmpv6().is_some_and(|(kind, ..)| kind == 128)),
        [(0, 64), (1, 64), (2, 64), (2, 64)]
    );
    guest.run("killall sniff");
}

fn has_default_route(guest: &Guest) -> bool {
    guest
        .run("ip -6 route show default")
        .contains("via fe80::5efe:a00:1")
}

/// The guest asks our router, and is answered by it or by radvd beside it.
fn guest_asks(guest: &Guest) {
    let script = format!("rdisc6 -1 -r 1 -w 2000 {} {TUNNEL}", link_local(ROUTER));
    let answer = guest.wait_for("an advertisement", SOON * 2, &script);
    assert!(answer.contains("2001:db8:1::/64"), "{answer}");
}

/// D1, C1, C3, E5, E6, M2, P7, T3, T6, T7.
#[test]
fn the_kernel_is_a_host_of_our_router() {
    let scene = Scene::new(0);
    let Some(guest) = Guest::start(&scene.site, guest_v4()) else {
        return;
    };
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let mut router = Daemon::router(&scene.router, ROUTER)
        .config("Lane uring\nAdvertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link")
        .config("AdvertiseRoute 2001:db8:f000::/36")
        .start();
    kernel_peer::tunnel(&guest, 1280, &[Potential::NoDefault(ROUTER)]);
    guest.run(&format!(
        "echo 64 >/proc/sys/net/ipv6/conf/{TUNNEL}/accept_ra_rt_info_max_plen\nmirror serve {ECHO_PORT}"
    ));
    serve_echo(&scene.router, ECHO_PORT);
    serve_echo(&scene.server, ECHO_PORT);

    // From a potential router that is not to be a default one the kernel takes routes alone, no prefixes.
    let has_address = format!(
        "ip -6 addr show dev {TUNNEL} | grep -F {}/64",
        on_link(guest_v4())
    );
    let has_route = format!(
        "ip -6 route show 2001:db8:f000::/36 | grep 'via {}'",
        link_local(ROUTER)
    );
    guest_asks(&guest);
    guest.wait_for("a route", SOON, &has_route);
    assert_ne!(guest.try_run(&has_address).status, 0);
    assert!(!has_default_route(&guest));
    guest.run(&format!("ip tunnel prl prl-delete {ROUTER} dev {TUNNEL}"));
    guest.run(&format!("ip tunnel prl prl-default {ROUTER} dev {TUNNEL}"));
    guest_asks(&guest);
    guest.wait_for("an address", SOON, &has_address);
    assert!(has_default_route(&guest));

    everybody_reaches_everybody(&scene, &guest);
    assert_eq!(
        largest(&wire),
        (1300, 1300),
        "largest outer packets at a tunnel MTU of 1280"
    );
    marks_and_hop_limits(&scene, &guest);
    let path = guest.run(&format!("rltraceroute6 -n -q 1 -w 2 {SERVER}"));
    let hops: Vec<_> = path
        .lines()
        .filter(|line| line.trim_start().starts_with(char::is_numeric))
        .collect();
    assert!(
        hops.len() == 2
            && hops[0].contains(&on_link(ROUTER).to_string())
            && hops[1].contains(&SERVER.to_string()),
        "{path}"
    );
    router.conservation();
    assert!(
        router.drops(Direction::Decap).is_empty(),
        "{:?}",
        router.drops(Direction::Decap)
    );
    // The kernel hears that the router goes.
    router.stop();
    drop(router);
    wait::holds("the default route to go", SOON, || !has_default_route(&guest));

    // radvd beside us, the other lane, and the largest tunnel that an Ethernet carries unfragmented.
    wire.clear();
    guest.run(&format!("ip link set {TUNNEL} mtu 1480"));
    let router = Daemon::router(&scene.router, ROUTER)
        .config("Lane syscall\nMtu 1480")
        .start();
    set_address(&scene.router, ROUTER);
    router.wait_route("2001:db8:1::/64");
    let _radvd = Radvd::start(&scene.router, &Radvd::snippet());
    guest_asks(&guest);
    assert!(has_default_route(&guest));
    everybody_reaches_everybody(&scene, &guest);
    assert_eq!(
        largest(&wire),
        (1500, 1500),
        "largest outer packets at a tunnel MTU of 1480"
    );
    router.conservation();
    assert!(
        router.drops(Direction::Decap).is_empty(),
        "{:?}",
        router.drops(Direction::Decap)
    );

    // N6: without its tunnel the kernel answers "port unreachable", as it does beside a daemon that takes the packets: that
    // is no news of the host.
    guest.run(&format!("ip link set {TUNNEL} down"));
    wait::until("an ICMPv4 error of the kernel", SOON, || {
        assert!(is_silent(&scene.server, &on_link(guest_v4()).to_string()));
        let kept = [("result", "kept")];
        match router
            .metrics()
            .sum("isatapd_icmp_errors_translated_total", &kept)
        {
            0 => Err("none is counted"),
            _ => Ok(()),
        }
    });
}

/// P7, T3, T11: Debian's client makes the kernel's tunnel and asks our router by unicast; under a prefix that is not
/// on-link it and our host meet through the router.
#[test]
fn debians_client_and_our_host_meet_through_our_router() {
    let scene = Scene::new(1);
    let (host_v4, guest_v4) = (host_v4(0), host_v4(1));
    let Some(guest) = Guest::start(&scene.site, guest_v4) else {
        return;
    };
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let router = Daemon::router(&scene.router, ROUTER)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64")
        .start();
    let host = Daemon::host(&scene.hosts[0], host_v4, &[ROUTER]).start();
    serve_echo(&scene.server, ECHO_PORT);
    serve_echo(&scene.hosts[0], ECHO_PORT);
    guest.run(&format!(
        "isatapd --link eth0 --name {TUNNEL} --router {ROUTER} --mtu 1280 >/tmp/isatapd.log 2>&1 &
        mirror serve {ECHO_PORT}"
    ));
    guest.wait_for(
        "an address and a default route",
        SOON * 4,
        &format!(
            "ip -6 addr show dev {TUNNEL} | grep -F {}/64 && ip -6 route show default | grep -F 'via {}' || \
             {{ cat /tmp/isatapd.log; false; }}",
            on_link(guest_v4),
            link_local(ROUTER)
        ),
    );
    let messages = |from, to, wanted| {
        wire.count(|c| {
            let outer = c.outer().filter(|outer| (outer.src(), outer.dst()) == (from, to));
            let kind = outer.and_then(|outer| Some(outer.inner()?.icmpv6()?.0));
            kind == Some(wanted)
        })
    };
    let asked = messages(guest_v4, ROUTER, ROUTER_SOLICITATION);
    let answered = messages(ROUTER, guest_v4, ROUTER_ADVERTISEMENT);
    assert!(
        asked >= 1 && answered >= 1,
        "{asked} solicitations, {answered} answers"
    );
    ping_from(&guest, &SERVER.to_string(), 5);
    tcp_from(&guest, "", SERVER, BULK);
    ping(&scene.server, &on_link(guest_v4).to_string(), 5);

    let beside = Sniffer::start(&scene.hosts[0], UNDERLAY);
    wait_answer_from_guest(&scene.hosts[0], on_link(guest_v4));
    ping(&scene.hosts[0], &on_link(guest_v4).to_string(), 5);
    ping_from(&guest, &on_link(host_v4).to_string(), 5);
    tcp_to(&scene.hosts[0], on_link(guest_v4), BULK);
    tcp_from(&guest, "", on_link(host_v4), BULK);
    let past_the_router = beside.count(|c| {
        let outer = c.outer();
        outer.is_some_and(|outer| [outer.src(), outer.dst()].contains(&guest_v4))
    });
    assert_eq!(past_the_router, 0, "packets past the router");
    for daemon in [&router, &host] {
        daemon.conservation();
        let drops = daemon.drops(Direction::Decap);
        assert!(drops.is_empty(), "{drops:?}");
    }
}
