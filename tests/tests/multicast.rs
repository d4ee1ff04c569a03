//! The multicast that an ISATAP link emulates, from programs and to the kernel (RFC 5214 6.3; A9, P7; FAULTS 7).
//!
//! ```text
//!   h 10.0.0.10 (isatapd 10.0.0.1 10.0.0.2) ---+--- r1 10.0.0.1, r2 10.0.0.2 (crafted)
//!                                              +--- x  10.0.0.7 (crafted)
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};

use isatap_tests::advertiser::{Stage, net, usual};
use isatap_tests::daemon::TUNNEL;
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{self, Advertisement, NEIGHBOUR_SOLICITATION};
use isatap_tests::packet::{Inner, isatap, link_local};
use isatap_tests::raw::{Captured, Crafter, Injector};
use isatap_tests::routers::{HOST, router_v4};
use isatap_tests::scene::SOON;
use isatap_tests::topology::{UNDERLAY, mac};

const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 4000;

/// The solicited-node group of an address (RFC 4291 2.7.1).
fn group_of(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::from_bits(
        0xff02_0000_0000_0000_0000_0001_ff00_0000 | u128::from(u32::from_be_bytes([0, a, b, c])),
    )
}

fn carries(captured: &Captured, data: &[u8]) -> bool {
    let inner = captured.inner().or_else(|| captured.outer()?.inner());
    inner
        .and_then(|inner| inner.udp())
        .is_some_and(|(_, _, seen)| seen == data)
}

/// P7: what a program says to all routers reaches each router of the list, whole, and few of a flood.
#[test]
fn p7_all_routers_get_a_copy_each() {
    let stage = Stage::new(2);
    let daemon = stage.start("");
    let wire = stage.wire();
    stage.host.enter(|| {
        let index = nix::net::if_::if_nametoindex(TUNNEL).expect("the tunnel");
        let from = SocketAddrV6::new(link_local(HOST), 0, 0, index);
        let socket = UdpSocket::bind(from).expect("a socket");
        let to = SocketAddrV6::new(ALL_ROUTERS, PORT, 0, index);
        socket
            .send_to(b"to all routers", to)
            .expect("a packet to all routers");
    });
    for index in 0..2 {
        let seen = wire.wait_for("a copy for each router", SOON, |c| {
            c.outgoing
                && carries(c, b"to all routers")
                && c.outer().is_some_and(|outer| outer.dst() == router_v4(index))
        });
        let inner = seen.outer().expect("just matched").inner().expect("IPv6");
        assert_eq!((inner.src(), inner.dst()), (link_local(HOST), ALL_ROUTERS));
        assert!(inner.checksum_is_right(), "the kernel leaves it to us");
    }
    let sent = |result: &str| {
        daemon
            .metrics()
            .sum("isatapd_all_routers_packets_total", &[("result", result)])
    };
    assert_eq!(sent("sent"), 2);
    // A flood: the routers see a few of it.
    let injector = Injector::tun(&stage.host, TUNNEL);
    let flood = Inner::new(link_local(HOST), ALL_ROUTERS).udp(1, PORT, b"flood");
    let before = daemon.counters(Direction::Encap);
    for count in 1..=2000 {
        injector.send(&flood);
        if count % 200 == 0 {
            daemon.wait_received(Direction::Encap, &before, count);
        }
    }
    let since = daemon.wait_received(Direction::Encap, &before, 2000);
    let limited = since.drops.get("rate_limited").copied().unwrap_or(0);
    assert_eq!(since.punted + limited, since.received, "{since}");
    assert!(sent("rate_limited") > 0);
    let copies = wire.count(|c| c.outgoing && carries(c, b"flood"));
    assert!(copies <= 2 * 200, "{copies} copies");
    daemon.conservation();
}

/// RFC 5214 6.3, 7.1: a solicitation to a group goes to its target; groups that nobody emulates go nowhere, in silence.
#[test]
fn solicitations_reach_their_target_and_other_groups_nobody() {
    let stage = Stage::new(1);
    let daemon = stage.start("");
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]));
    daemon.wait_route("2001:db8:1::/64");
    let (wire, tunnel) = (stage.wire(), stage.tunnel());
    let injector = Injector::tun(&stage.host, TUNNEL);
    let target = isatap(&net(1).0.to_string(), false, X);
    let _x = stage.site.member("x", X.octets()[3]);
    let question = nd::packet(
        net(1).1,
        group_of(target),
        NEIGHBOUR_SOLICITATION,
        &nd::neighbour_solicitation(target),
    );
    injector.send(&question);
    let seen = wire.wait_for("the solicitation", SOON, |c| {
        c.outgoing && c.outer().is_some_and(|outer| outer.payload == question)
    });
    assert_eq!(seen.outer().expect("protocol 41").dst(), X);

    wire.clear();
    let before = daemon.counters(Direction::Encap);
    let groups = ["ff02::1", "ff02::16", "ff02::fb", "ff05::2", "ff0e::1"];
    for group in groups {
        let dst = group.parse().expect("an address");
        injector.send(&Inner::new(link_local(HOST), dst).udp(1, PORT, b"to nobody"));
    }
    let since = daemon.wait_received(Direction::Encap, &before, 5);
    assert!(since.drops["dst_multicast"] >= 5, "{since}");
    assert_eq!(wire.count(|c| c.outgoing && carries(c, b"to nobody")), 0);
    let errors = tunnel.count(|c| {
        let error = c.inner().filter(|_| !c.outgoing);
        error
            .and_then(|inner| inner.icmpv6())
            .is_some_and(|(kind, _, _)| kind < 128)
    });
    assert_eq!(errors, 0, "somebody was told");
    daemon.conservation();
}

/// FAULTS 7: who of the link reaches a host by a group.
#[test]
fn a_host_hears_the_groups_it_is_in() {
    let stage = Stage::new(1);
    let ns = stage.site.member("x", X.octets()[3]);
    let x = Crafter::new(&ns, UNDERLAY, X, mac(&stage.host, UNDERLAY), HOST);
    let daemon = stage.start("");
    let tunnel = stage.tunnel();
    let own_group = group_of(link_local(HOST));
    for (crafter, from, dst, heard) in [
        (stage.crafter(0), router_v4(0), ALL_NODES, true),
        (stage.crafter(0), router_v4(0), ALL_ROUTERS, false),
        (stage.crafter(0), router_v4(0), own_group, true),
        (&x, X, ALL_NODES, false),
        (&x, X, ALL_ROUTERS, false),
        (&x, X, own_group, true),
        (&x, X, group_of(link_local(X)), false),
    ] {
        let packet = Inner::new(link_local(from), dst).udp(1, PORT, b"to a group");
        let before = daemon.counters(Direction::Decap);
        crafter.send_inner(&packet);
        let since = daemon.wait_received(Direction::Decap, &before, 1);
        if heard {
            assert_eq!(since.drops, BTreeMap::new(), "{dst} from {from}");
            tunnel.wait_for("the packet", SOON, |c| c.packet == packet);
        } else {
            let dropped = BTreeMap::from([("dst_multicast".to_owned(), 1)]);
            assert_eq!(since.drops, dropped, "{dst} from {from}");
        }
    }
    daemon.conservation();
}
