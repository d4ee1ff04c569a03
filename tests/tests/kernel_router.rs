//! The Linux kernel's own ISATAP device as the router of our host: radvd beside it, a server behind it (D1, N1,
//! P2, P7, P12).
//!
//! ```text
//!   guest: srv 2001:db8:99::2 ---- 10.0.0.1 (ip tunnel ... mode isatap, radvd, forwards) ------ h 10.0.0.2 (isatapd 10.0.0.1)
//! ```

use isatap_tests::configured::Configured;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::guest::Guest;
use isatap_tests::kernel_peer::{self, ECHO_PORT, ping_from, scoped, tcp_from, tcp_to};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_SOLICITATION};
use isatap_tests::packet::link_local;
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::raw::{Captured, Sniffer};
use isatap_tests::scene::{ROUTER, SERVER, SOON, host_v4, on_link};
use isatap_tests::topology::{Site, UNDERLAY};
use isatap_tests::traffic::serve_echo;
use isatap_tests::wait;

/// Of each TCP connection, in each direction.
const BULK: u64 = 2_000_000;

/// The kernel's tunnel with radvd, and a server in a namespace of the guest.
fn start_router(guest: &Guest) {
    kernel_peer::tunnel(guest, 1280, &[]);
    guest.run(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        ip addr add {}/64 dev {TUNNEL}
        ip netns add srv
        ip link add out type veth peer name eth0 netns srv
        ip addr add 2001:db8:99::1/64 dev out nodad
        ip link set out up
        ip -n srv addr add {SERVER}/64 dev eth0 nodad
        ip -n srv link set eth0 up
        ip -n srv route add default via 2001:db8:99::1
        mirror serve {ECHO_PORT}
        ip netns exec srv mirror serve {ECHO_PORT}",
        on_link(ROUTER),
    ));
}

/// Has radvd advertise the prefix, on-link or to be reached through the router alone.
fn advertise(guest: &Guest, on_link: bool) {
    let on_link = if on_link { "on" } else { "off" };
    guest.run(&format!(
        "cat >/tmp/radvd.conf <<'END'
interface {TUNNEL} {{
    AdvSendAdvert on; UnicastOnly on; AdvLinkMTU 1280;
    prefix 2001:db8:1::/64 {{ AdvOnLink {on_link}; AdvAutonomous on; }};
}};
END
        killall radvd 2>/dev/null || true
        radvd -n -m stderr -p /run/radvd.pid -C /tmp/radvd.conf >/tmp/radvd.log 2>&1 &"
    ));
}

fn our_host_configures_itself(guest: &Guest, host: &Daemon<'_>) {
    let ns = host.ns();
    let own = on_link(host_v4(0));
    Configured::wait(
        ns,
        "an address and a default route from the guest",
        SOON * 3,
        |seen| seen.address(own).is_some() && seen.default_routers().contains(&link_local(ROUTER)),
    );
    ping_until(ns, &SERVER.to_string(), SOON);
    ping(ns, &SERVER.to_string(), 5);
    ping_from(guest, &own.to_string(), 5);
    guest.run(&format!("ip netns exec srv ping -6 -n -c 3 -i 0.05 -W 5 {own}"));
    for addr in [link_local(ROUTER), on_link(ROUTER), SERVER] {
        tcp_to(ns, addr, BULK);
    }
    tcp_from(guest, "", link_local(host_v4(0)), BULK);
    tcp_from(guest, "", own, BULK);
    tcp_from(guest, "ip netns exec srv", own, BULK);
}

/// D1, N1, N2, P2, P7, V4.
#[test]
fn the_kernel_is_the_router_of_our_host() {
    let site = Site::new();
    let ns = site.member("h", host_v4(0).octets()[3]);
    let Some(guest) = Guest::start(&site, ROUTER) else {
        return;
    };
    start_router(&guest);
    advertise(&guest, true);
    serve_echo(&ns, ECHO_PORT);
    for lane in Lane::ALL {
        let wire = Sniffer::start(&ns, UNDERLAY);
        let host = Daemon::host(&ns, host_v4(0), &[ROUTER]).lane(lane).start();
        our_host_configures_itself(&guest, &host);

        // The kernel answers our probes: a router in use is asked by unicast whether it is still there.
        let messages = |outgoing, wanted| {
            wire.count(|c| {
                let kind = c.outer().and_then(|outer| Some(outer.inner()?.icmpv6()?.0));
                c.outgoing == outgoing && kind == Some(wanted)
            })
        };
        assert!(messages(true, ROUTER_SOLICITATION) >= 1);
        wait::holds("an answer of the kernel to a probe", SOON * 2, || {
            messages(true, NEIGHBOUR_SOLICITATION) >= 1 && messages(false, NEIGHBOUR_ADVERTISEMENT) >= 1
        });
        host.wait_ready();
        assert_eq!(host.metrics().sum("isatapd_routers", &[("state", "usable")]), 1);

        // And we answer such a question of the guest: solicited, and from a host.
        for own in [link_local(host_v4(0)), on_link(host_v4(0))] {
            let flags = guest.run(&format!("solicit {}", scoped(own)));
            let flags = u8::from_str_radix(flags.trim(), 16).expect("flags");
            assert_eq!(flags & 0xc0, 0x40, "flags of the advertisement of {own}");
        }
        host.conservation();
        assert!(
            host.drops(Direction::Decap).is_empty(),
            "{:?}",
            host.drops(Direction::Decap)
        );
    }
}

/// V8, N10: hosts of a prefix that is not on-link meet through the kernel, and take the shorter way that it tells them.
#[test]
fn the_kernel_tells_our_hosts_of_a_shorter_way() {
    let site = Site::new();
    let hosts = [0, 1].map(|index| site.member(&format!("h{}", index + 1), host_v4(index).octets()[3]));
    let Some(guest) = Guest::start(&site, ROUTER) else {
        return;
    };
    start_router(&guest);
    advertise(&guest, false);
    let daemons: Vec<_> = hosts
        .iter()
        .zip(0..)
        .map(|(ns, index)| Daemon::host(ns, host_v4(index), &[ROUTER]).start())
        .collect();
    for (ns, index) in hosts.iter().zip(0..) {
        Configured::wait(ns, "an address and a default route", SOON * 3, |seen| {
            seen.address(on_link(host_v4(index))).is_some() && !seen.default_routers().is_empty()
        });
    }
    let wire = Sniffer::start(&hosts[0], UNDERLAY);
    let there = on_link(host_v4(1));
    ping_until(&hosts[0], &there.to_string(), SOON);
    // Nothing is lost while one of the two has heard of the shorter way and the other has not.
    ping(&hosts[0], &there.to_string(), 10);
    serve_echo(&hosts[1], ECHO_PORT);
    tcp_to(&hosts[0], there, BULK);
    let direct = |c: &Captured| {
        let ends = c.outer().map(|outer| (outer.src(), outer.dst()));
        ends == Some((host_v4(0), host_v4(1))) || ends == Some((host_v4(1), host_v4(0)))
    };
    let redirects = wire.count(|c| c.outer().and_then(|o| Some(o.inner()?.icmpv6()?.0)) == Some(REDIRECT));
    assert!(redirects > 0, "the kernel says nothing of a shorter way");
    assert!(wire.count(direct) > 0, "our hosts do not take the shorter way");
    wire.clear();
    ping(&hosts[0], &there.to_string(), 5);
    let longer = |c: &Captured| {
        c.outer().is_some_and(|outer| {
            outer.dst() == ROUTER && outer.inner().is_some_and(|inner| inner.dst() == there)
        })
    };
    assert_eq!(wire.count(longer), 0, "packets that still take the longer way");
    for daemon in &daemons {
        daemon.conservation();
        let drops = daemon.drops(Direction::Decap);
        // A second redirect of the same router comes too late to be one of the first hop.
        let others: Vec<_> = drops.keys().filter(|reason| *reason != "nd_redirect").collect();
        assert!(others.is_empty(), "{drops:?}");
    }
}
