//! Packets from the TUN interface: where they go, what the outer header says, and what the sender is told when they
//! cannot go (E1-E9, C1, C2, C5, A8, A9, M1-M3, N7; FAULTS 10, 19, 21-24).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ------ x 10.0.0.9 (swallows everything)
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::packet::{Inner, SeenInner, checksum, isatap, link_local};
use isatap_tests::raw::{Captured, Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, PREFIX, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

const PORT: u16 = 4000;
const UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;

struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    injector: Injector,
    wire: Sniffer,
    tunnel: Sniffer,
    _sink: Crafter,
}

impl Bench<'_> {
    fn with(options: impl Fn(Builder<'_>) -> Builder<'_>, test: impl FnOnce(&Bench<'_>)) {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| options(builder.workers(1)));
        let bench = Bench {
            daemon: &daemon,
            injector: Injector::tun(&scene.dut, TUNNEL),
            wire: Sniffer::start(&scene.dut, UNDERLAY),
            tunnel: Sniffer::start(&scene.dut, TUNNEL),
            _sink: scene.crafter(),
        };
        // ARP first, so that the first packet is not held up by it.
        scene.dut.run(&format!("ping -n -c 1 -W 2 {X}"));
        test(&bench);
        daemon.conservation();
    }

    fn on_each_lane(test: impl Fn(&Bench<'_>)) {
        for lane in Lane::ALL {
            Self::with(|builder| builder.lane(lane), &test);
        }
    }

    /// Injects inner packets into the TUN interface and returns what was counted for them. The kernel's own
    /// multicast, which may come between, is left out.
    #[track_caller]
    fn count(&self, packets: &[Vec<u8>]) -> Counters {
        let before = self.daemon.counters(Direction::Encap);
        packets.iter().for_each(|packet| self.injector.send(packet));
        let sent = u64::try_from(packets.len()).expect("a length");
        let mut since = self.daemon.wait_received(Direction::Encap, &before, sent);
        since.received -= since.drops.remove("dst_multicast").unwrap_or(0);
        since
    }

    /// Each of `packets` is dropped for `reason`, and none of them reaches the wire.
    #[track_caller]
    fn dropped(&self, what: &str, reason: &str, packets: &[Vec<u8>]) {
        self.wire.clear();
        let since = self.count(packets);
        let sent = u64::try_from(packets.len()).expect("a length");
        assert_eq!(since.drops, BTreeMap::from([(reason.to_owned(), sent)]), "{what}");
        assert_eq!(
            self.wire.count(|c| c.outgoing && c.outer().is_some()),
            0,
            "{what}: something left"
        );
    }

    /// `packet` is sent; returns it as seen on the wire.
    #[track_caller]
    fn sent(&self, what: &str, packet: &[u8]) -> Captured {
        self.wire.clear();
        let since = self.count(&[packet.to_vec()]);
        assert!(since.drops.is_empty(), "{what}: {since}");
        self.wire.wait_for(what, SOON, |c| {
            c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet)
        })
    }

    /// The ICMPv6 error about `packet` that comes back out of the TUN interface: type, code and its second word.
    #[track_caller]
    fn error_about(&self, packet: &[u8]) -> (u8, u8, u32) {
        let seen = self
            .tunnel
            .wait_for("an ICMPv6 error", SOON, |c| error_in(c, packet).is_some());
        let (error, kind, code, body) = error_in(&seen, packet).expect("just matched");
        assert!(error.checksum_is_right(), "checksum of the error");
        assert!(seen.packet.len() <= 1280, "RFC 4443 2.4 (c)");
        assert!(
            packet.len() + 48 > 1280 || body.len() - 4 == packet.len(),
            "the quote is as long as it may be"
        );
        assert_eq!(error.dst(), SeenInner::read(packet).expect("IPv6").src());
        (
            kind,
            code,
            u32::from_be_bytes([body[0], body[1], body[2], body[3]]),
        )
    }
}

/// Reads an ICMPv6 error that quotes `packet`: the whole, type, code, and what follows the checksum.
fn error_in<'a>(captured: &'a Captured, packet: &[u8]) -> Option<(SeenInner<'a>, u8, u8, &'a [u8])> {
    let error = captured.inner().filter(|_| !captured.outgoing)?;
    let (kind, code, body) = error.icmpv6()?;
    let quoted = body.get(4..)?;
    (kind < 128 && packet.starts_with(quoted)).then_some((error, kind, code, body))
}

fn to(dst: Ipv6Addr) -> Inner {
    Inner::new(on_link(DUT), dst)
}

#[test]
fn outer_headers_are_those_of_rfc_4213() {
    Bench::on_each_lane(|bench| {
        for len in [1, 100, 1232] {
            let packet = to(on_link(X)).udp(1, PORT, &vec![0x11; len]);
            if packet.len() > 1280 {
                continue;
            }
            let seen = bench.sent(&format!("{len} bytes of data"), &packet);
            let outer = seen.outer().expect("protocol 41");
            assert_eq!((outer.src(), outer.dst()), (DUT, X));
            assert_eq!(outer.header.ihl(), 5);
            assert_eq!(usize::from(outer.header.total_len()), packet.len() + 20);
            assert_eq!(
                seen.packet.len(),
                packet.len() + 20,
                "no byte after the inner packet"
            );
            assert_eq!((outer.header.ttl(), outer.tos()), (64, 0));
            assert!(!outer.header.dont_fragment(), "M3: DF is clear");
            assert!(!outer.header.more_fragments());
            assert_eq!(checksum(&[outer.header.slice()]), 0);
        }
    });
}

#[test]
fn ttl_and_dscp_and_ecn_follow_the_configuration() {
    let inner = |traffic_class: u8, hop_limit: u8| {
        let mut inner = to(on_link(X));
        inner.traffic_class = traffic_class;
        inner.hop_limit = hop_limit;
        inner.udp(1, PORT, b"fields")
    };
    let outer_fields = |bench: &Bench<'_>, packet: &[u8]| {
        let seen = bench.sent("a packet", packet);
        let outer = seen.outer().expect("protocol 41");
        (outer.tos(), outer.header.ttl())
    };
    for lane in Lane::ALL {
        // The defaults: DSCP 0, TTL 64, ECN copied (C1).
        Bench::with(
            |builder| builder.lane(lane),
            |bench| {
                for ecn in 0..4 {
                    assert_eq!(outer_fields(bench, &inner(46 << 2 | ecn, 7)), (ecn, 64));
                }
            },
        );
        Bench::with(
            |builder| builder.lane(lane).config("Ttl inherit\nDscp inherit\nEcn compat"),
            |bench| {
                for ecn in 0..4 {
                    assert_eq!(outer_fields(bench, &inner(46 << 2 | ecn, 7)), (46 << 2, 7), "C2");
                }
            },
        );
    }
    Bench::with(
        |builder| builder.config("Ttl 17\nDscp 10"),
        |bench| {
            assert_eq!(outer_fields(bench, &inner(46 << 2 | 2, 7)), (10 << 2 | 2, 17));
        },
    );
}

#[test]
fn next_hops_come_from_the_destination_or_the_route() {
    Bench::on_each_lane(|bench| {
        let ns = bench.daemon.ns();
        let next_hop = |dst: Ipv6Addr| {
            let seen = bench.sent(&format!("a packet to {dst}"), &to(dst).udp(1, PORT, b"next hop"));
            seen.outer().expect("protocol 41").dst()
        };
        // On-link: the address embeds it, whatever the u bit says (A2, A8).
        for prefix in ["fe80::", PREFIX] {
            for universal in [false, true] {
                assert_eq!(next_hop(isatap(prefix, universal, X)), X);
            }
        }
        // A static route (E1), with either form of the gateway.
        for (prefix, gateway) in [
            ("2001:db8:5::/48", "fe80::5efe:a00:9"),
            ("2001:db8:6::/48", "fe80::200:5efe:a00:9"),
        ] {
            ns.ip(&format!("route add {prefix} via {gateway} dev {TUNNEL}"));
            let dst: Ipv6Addr = prefix.replace("::/48", "::1").parse().expect("an address");
            wait::holds(&format!("{prefix} to be known"), SOON, || {
                bench.count(&[to(dst).udp(1, PORT, b"known?")]).drops.is_empty()
            });
            assert_eq!(next_hop(dst), X);
        }
    });
}

#[test]
fn the_sender_is_told_when_there_is_no_next_hop() {
    // E2; FAULTS 21: silence is not an answer, and nothing is sent to 0.0.0.0.
    Bench::on_each_lane(|bench| {
        let cases = [
            ("no route", "no_route", "2001:db8:66::1"),
            (
                "on-link, but no ISATAP address",
                "unresolvable",
                "2001:db8:1::1234",
            ),
        ];
        for (what, reason, dst) in cases {
            let packet = to(dst.parse().expect("an address")).udp(1, PORT, b"is there a way?");
            bench.dropped(what, reason, std::slice::from_ref(&packet));
            let (kind, code, _) = bench.error_about(&packet);
            assert_eq!(kind, UNREACHABLE, "{what}");
            assert!([0, 3].contains(&code), "{what}: code {code}");
        }
    });
}

#[test]
fn errors_about_errors_and_multicast_are_not_sent() {
    // N7, RFC 4443 2.4 (e).
    Bench::on_each_lane(|bench| {
        let nowhere: Ipv6Addr = "2001:db8:66::1".parse().expect("an address");
        let error = to(nowhere).icmpv6(UNREACHABLE, 0, &[0; 60]);
        let from_multicast = Inner::new("ff02::5".parse().expect("an address"), nowhere).udp(1, PORT, b"x");
        let unspecified = Inner::new(Ipv6Addr::UNSPECIFIED, nowhere).udp(1, PORT, b"x");
        bench.tunnel.clear();
        let since = bench.count(&[error, from_multicast, unspecified]);
        assert_eq!((since.delivered, since.dropped()), (0, 3), "{since}");
        // One that is answered, behind those that are not.
        let packet = to(nowhere).udp(1, PORT, b"fence");
        bench.count(std::slice::from_ref(&packet));
        bench.error_about(&packet);
        assert_eq!(
            bench.tunnel.count(|c| !c.outgoing),
            1,
            "errors that must not be sent"
        );
    });
}

#[test]
fn errors_are_limited_and_drops_are_not() {
    // N7: a flood of packets without a way costs the sender's kernel a few errors.
    const FLOOD: usize = 2000;
    Bench::on_each_lane(|bench| {
        let packet = to("2001:db8:66::1".parse().expect("an address")).udp(1, PORT, b"flood");
        bench.tunnel.clear();
        let mut dropped = 0;
        for _ in 0..FLOOD / 50 {
            let since = bench.count(&vec![packet.clone(); 50]);
            dropped += since.drops.get("no_route").copied().unwrap_or(0);
        }
        assert_eq!(dropped, u64::try_from(FLOOD).expect("a count"));
        let errors = bench.tunnel.count(|c| !c.outgoing);
        assert!(
            (1..=FLOOD / 4).contains(&errors),
            "{errors} errors for {FLOOD} packets"
        );
    });
}

#[test]
fn a_flood_does_not_keep_senders_from_hearing_what_fits() {
    // N7, M2: whoever scans for hosts that are not there has used up what a worker says about them.
    const SENDERS: usize = 100;
    Bench::on_each_lane(|bench| {
        bench.daemon.ns().ip(&format!("link set {TUNNEL} mtu 1500"));
        let nowhere = to("2001:db8:66::1".parse().expect("an address")).udp(1, PORT, b"flood");
        let large = to(on_link(X)).udp(1, PORT, &[0x33; 1300]);
        for _ in 0..10 {
            bench.count(&vec![nowhere.clone(); 50]);
        }
        bench.tunnel.clear();
        for _ in 0..SENDERS {
            let mut packets = vec![nowhere.clone(); 5];
            packets.push(large.clone());
            bench.count(&packets);
        }
        wait::until("an error for each large packet", SOON, || {
            let told = bench.tunnel.count(|c| {
                let error = error_in(c, &large);
                !c.outgoing && error.is_some_and(|(_, kind, ..)| kind == PACKET_TOO_BIG)
            });
            if told == SENDERS { Ok(()) } else { Err(told) }
        });
    });
}

#[test]
fn destinations_that_lead_to_a_forbidden_ipv4_address_go_nowhere() {
    // E7; FAULTS 22. The last one is the daemon's own.
    Bench::on_each_lane(|bench| {
        let forbidden = [
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
            [10, 0, 0, 255],
            DUT.octets(),
        ];
        for prefix in ["fe80::", PREFIX] {
            let packets =
                forbidden.map(|v4| to(isatap(prefix, false, Ipv4Addr::from(v4))).udp(1, PORT, b"forbidden"));
            bench.dropped(prefix, "dst_forbidden", &packets);
        }
        let outside = to(link_local(Ipv4Addr::new(8, 8, 8, 8))).udp(1, PORT, b"outside of the site");
        bench.dropped("an IPv4 address outside of the site", "not_site", &[outside]);
    });
}

#[test]
fn no_multicast_leaves_the_tunnel() {
    // A9: and so no outer packet ever goes to 224/4.
    Bench::on_each_lane(|bench| {
        bench.wire.clear();
        let before = bench.daemon.counters(Direction::Encap);
        let groups = ["ff02::1", "ff02::2", "ff02::fb", "ff05::2", "ff0e::1234"];
        for group in groups {
            bench
                .injector
                .send(&to(group.parse().expect("an address")).udp(1, PORT, b"group"));
        }
        let sent = u64::try_from(groups.len()).expect("a count");
        let since = bench.daemon.wait_received(Direction::Encap, &before, sent);
        assert_eq!(since.delivered, 0, "{since}");
        assert!(since.drops["dst_multicast"] >= sent, "{since}");
        assert_eq!(bench.wire.count(|c| c.outgoing && c.outer().is_some()), 0);
    });
}

#[test]
fn bad_inner_packets_are_refused() {
    // E9; FAULTS 10.
    Bench::on_each_lane(|bench| {
        let mut jumbo = to(on_link(X));
        jumbo.payload_len = Some(0);
        bench.dropped("payload length 0", "malformed", &[jumbo.udp(1, PORT, b"jumbo")]);
        let mut odd = to(on_link(X));
        odd.version = 5;
        bench.dropped("version 5", "malformed", &[odd.udp(1, PORT, b"version")]);
        let mut long = to(on_link(X));
        long.payload_len = Some(200);
        bench.dropped("longer than it is", "truncated", &[long.udp(1, PORT, b"short")]);
        for kind in [4, 41, 47] {
            bench.dropped("nested", "nested", &[to(on_link(X)).wrap(kind, &[0x60; 48])]);
        }
        let src =
            |src: &str| Inner::new(src.parse().expect("an address"), on_link(X)).udp(1, PORT, b"source");
        bench.dropped(
            "sources",
            "src_forbidden",
            &["::1", "ff02::1", "::ffff:1.2.3.4"].map(src),
        );
    });
}

#[test]
fn packets_over_the_tunnel_mtu_are_reported() {
    // M2, M3; FAULTS 24. The interface takes larger packets than the tunnel only when somebody changed it.
    Bench::on_each_lane(|bench| {
        let ns = bench.daemon.ns();
        assert!(ns.ip(&format!("link show {TUNNEL}")).contains("mtu 1280"));
        let fits = to(on_link(X)).udp(1, PORT, &[0x22; 1232]);
        bench.sent("1280 bytes", &fits);
        ns.ip(&format!("link set {TUNNEL} mtu 1500"));
        let packet = to(on_link(X)).udp(1, PORT, &[0x33; 1300]);
        bench.dropped("1348 bytes", "too_big", std::slice::from_ref(&packet));
        assert_eq!(bench.error_about(&packet), (PACKET_TOO_BIG, 0, 1280));
    });
}

#[test]
fn own_packets_routed_back_into_the_tunnel_are_stopped() {
    // E8: the underlay's route leads into the tunnel itself.
    Bench::on_each_lane(|bench| {
        let ns = bench.daemon.ns();
        ns.ip(&format!("route add 10.9.0.0/16 dev {TUNNEL}"));
        let before = bench.daemon.counters(Direction::Encap);
        let packet = to(link_local(Ipv4Addr::new(10, 9, 0, 5))).udp(1, PORT, b"round and round");
        bench.injector.send(&packet);
        wait::until("the loop to be cut", SOON, || {
            let since = bench.daemon.counters(Direction::Encap).since(&before);
            if since.drops.contains_key("loop") {
                Ok(())
            } else {
                Err(since.to_string())
            }
        });
        let since = bench.daemon.counters(Direction::Encap).since(&before);
        assert_eq!(since.drops["loop"], 1, "it went round once: {since}");
    });
}

#[test]
fn nothing_of_an_earlier_packet_leaves_with_a_later_one() {
    // FAULTS 19, outwards.
    const PATTERN: u8 = 0xa7;
    Bench::on_each_lane(|bench| {
        let large = to(on_link(X)).udp(1, PORT, &[PATTERN; 1232]);
        let small = to(on_link(X)).wrap(59, &[0]);
        bench.wire.clear();
        for packet in [&large, &small] {
            for _ in 0..8 {
                let since = bench.count(&vec![packet.clone(); 64]);
                assert!(since.drops.is_empty(), "{since}");
            }
        }
        bench
            .wire
            .wait_count("packets", 1024, SOON, |c| c.outgoing && c.outer().is_some());
        let seen = bench.wire.packets();
        for captured in seen.iter().filter(|c| c.outgoing) {
            let Some(outer) = captured.outer() else { continue };
            assert!(outer.payload == large || outer.payload == small);
            assert_eq!(captured.packet.len(), 20 + outer.payload.len());
        }
    });
}
