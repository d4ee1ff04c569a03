//! Nobody outside the site uses the tunnel, and nothing goes round (L2, L3, L6, D3; FAULTS 14-16).
//!
//! ```text
//!   srv (IPv6 only) --- rtr 10.0.0.1 ---+--- h1 10.0.0.2
//!                        |              `--- inet 192.0.2.66, on the same wire (crafted)
//!                        `--- wan: another network, where packets for 10.0.0.1 arrive too (crafted)
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::daemon::TUNNEL;
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, isatap, link_local};
use isatap_tests::raw::{Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, ROUTER, SERVER, SOON, Scene, X, host_v4, on_link};
use isatap_tests::topology::{UNDERLAY, connect, mac};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const PORT: u16 = 4000;

/// The same numbers each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    fn address(&mut self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.fill_with(|| u8::try_from(self.below(256)).expect("a byte"));
        octets.into()
    }

    fn pick(&mut self, known: &[Ipv6Addr]) -> Ipv6Addr {
        match self.below(known.len() + 1) {
            0 => self.address(),
            n => known[n - 1],
        }
    }

    /// A packet of any kind.
    fn packet(&mut self, sources: &[Ipv6Addr], destinations: &[Ipv6Addr]) -> Vec<u8> {
        let mut inner = Inner::new(self.pick(sources), self.pick(destinations));
        inner.hop_limit = [1, 64, 255][self.below(3)];
        inner.traffic_class = u8::try_from(self.below(256)).expect("a byte");
        let mut data = vec![0; 1 + self.below(100)];
        data.fill_with(|| u8::try_from(self.below(256)).expect("a byte"));
        match self.below(5) {
            0 => inner.udp(1, PORT, &data),
            1 => inner.echo_request(1, 1, &data),
            2 => inner.tcp(1, PORT, 1, 2, &data),
            3 => inner.icmpv6(u8::try_from(133 + self.below(5)).expect("a type"), 0, &data),
            _ => inner.wrap(u8::try_from(self.below(256)).expect("a byte"), &data),
        }
    }
}

/// FAULTS 15, 16: a hundred thousand packets of somebody outside; not one gets anywhere, and nobody is told of it (D3).
/// What is set up decides first: also those that other checks would refuse are refused as no members of the site (L5).
#[test]
fn nothing_is_relayed_for_a_stranger() {
    const PACKETS: u64 = 100_000;
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(2));
    let inet = scene.site.member_at("inet", OUTSIDE, 24);
    let stranger = Crafter::new(&inet, UNDERLAY, OUTSIDE, mac(&scene.router, UNDERLAY), ROUTER);
    let (tunnel, out) = (
        Sniffer::start(&scene.router, TUNNEL),
        Sniffer::start(&scene.router, "out"),
    );
    let wire = Sniffer::start(&scene.router, UNDERLAY);
    let sources = [
        on_link(OUTSIDE),
        link_local(OUTSIDE),
        on_link(host_v4(0)),
        on_link(ROUTER),
        link_local(ROUTER),
        SERVER,
        Ipv6Addr::UNSPECIFIED,
    ];
    let destinations = [
        SERVER,
        on_link(host_v4(0)),
        on_link(ROUTER),
        link_local(ROUTER),
        on_link(OUTSIDE),
        "ff02::1".parse().expect("an address"),
        "ff02::2".parse().expect("an address"),
    ];
    let mut random = Random(0x5e7e_0001);
    let before = running.router.counters(Direction::Decap);
    for sent in 1..=PACKETS {
        stranger.send_inner(&random.packet(&sources, &destinations));
        if sent % 1000 == 0 {
            running.router.wait_received(Direction::Decap, &before, sent);
        }
    }
    let since = running.router.wait_received(Direction::Decap, &before, PACKETS);
    assert_eq!(since.drops, BTreeMap::from([("not_site".to_owned(), PACKETS)]));
    // The host asks for its router again, if this takes long enough.
    let asking = link_local(host_v4(0));
    let came_in = tunnel.count(|c| !c.outgoing && c.inner().is_none_or(|inner| inner.src() != asking));
    assert_eq!(came_in, 0, "something came in");
    // The router and the server speak of themselves now and then.
    let own: Ipv6Addr = "2001:db8:99::1".parse().expect("an address");
    let went_on = out.count(|c| {
        let src = c.inner().filter(|_| c.outgoing).map(|inner| inner.src());
        src.is_some_and(|src| src != own && !src.is_unicast_link_local() && !src.is_unspecified())
    });
    assert_eq!(went_on, 0, "something went on");
    let on_the_wire = wire.count(|c| c.outgoing && c.packet[0] >> 4 == 4);
    assert_eq!(on_the_wire, 0, "something went out, or was answered");
    running.conservation();
}

/// L3: nor does anything leave to an address outside the site.
#[test]
fn l3_strangers_are_not_sent_to() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let wire = Sniffer::start(&scene.dut, UNDERLAY);
    let before = daemon.counters(Direction::Encap);
    injector.send(&Inner::new(on_link(DUT), on_link(OUTSIDE)).udp(1, PORT, b"to nobody"));
    let since = daemon.wait_received(Direction::Encap, &before, 1);
    assert_eq!(since.drops.get("not_site"), Some(&1), "{since}");
    assert_eq!(wire.count(|c| c.outgoing && c.outer().is_some()), 0);
    daemon.conservation();
}

/// L2, FAULTS 14: addresses in a tunnel's format that name ourselves without being ours, received and sent.
#[test]
fn l2_addresses_that_name_ourselves_go_nowhere() {
    let scene = Opposite::new();
    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");
    let daemon = scene.router(|builder| builder.workers(1));
    let crafter = scene.crafter();
    let tunnel = Sniffer::start(&scene.dut, TUNNEL);
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let six_to_four = |v4: Ipv4Addr| {
        let [a, b, c, d] = v4.octets().map(u16::from);
        Ipv6Addr::new(0x2002, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 1)
    };
    let loops = BTreeMap::from([("loop".to_owned(), 1)]);
    for addr in [
        six_to_four(DUT),
        isatap("2001:db8:5::", false, DUT),
        isatap("2001:db8:5::", true, DUT),
    ] {
        tunnel.clear();
        let before = daemon.counters(Direction::Decap);
        crafter.send_inner(&Inner::new(on_link(X), addr).udp(1, PORT, b"round"));
        assert_eq!(
            daemon.wait_received(Direction::Decap, &before, 1).drops,
            loops,
            "to {addr}"
        );
        assert_eq!(tunnel.count(|c| !c.outgoing), 0);
        let before = daemon.counters(Direction::Encap);
        injector.send(&Inner::new(addr, on_link(X)).udp(1, PORT, b"round"));
        let mut drops = daemon.wait_received(Direction::Encap, &before, 1).drops;
        drops.remove("dst_multicast");
        assert_eq!(drops, loops, "from {addr}");
    }
    daemon.conservation();
}

/// L6, D2: what arrives from another network for our own address is not even looked at, however much it looks like a host of
/// the site.
#[test]
fn l6_other_networks_do_not_reach_the_tunnel() {
    let scene = Opposite::new();
    let wan = Netns::new("wan");
    connect(&scene.dut, "wan", &wan, UNDERLAY);
    let daemon = scene.router(|builder| builder.workers(1));
    let outside = Injector::ethernet(&wan, UNDERLAY, mac(&scene.dut, "wan"));
    let inside = scene.crafter();
    let (tunnel, arrivals) = (
        Sniffer::start(&scene.dut, TUNNEL),
        Sniffer::start(&scene.dut, "wan"),
    );
    let packet = |data: &[u8]| Inner::new(on_link(X), on_link(DUT)).udp(1, PORT, data);
    let before = daemon.counters(Direction::Decap);
    for _ in 0..100 {
        outside.send(&inside.outer().wrap(&packet(b"from outside")));
    }
    arrivals.wait_count("packet", 100, SOON, |c| !c.outgoing && c.outer().is_some());
    // Behind them one that is welcome.
    let welcome = packet(b"from inside");
    inside.send_inner(&welcome);
    tunnel.wait_for("the packet from inside", SOON, |c| c.packet == welcome);
    assert_eq!(tunnel.count(|c| !c.outgoing), 1, "something came in from outside");
    let since = daemon.counters(Direction::Decap).since(&before);
    assert_eq!(since.received, 1, "{since}");
    daemon.conservation();
}
