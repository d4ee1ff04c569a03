//! Bad, odd and hostile packets from the IPv4 side: what is accepted is cut to its own length and otherwise
//! unchanged, everything else ends in its own counter (D4-D8, D10, C3, M8; FAULTS 8-13, 17-19).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ------ x 10.0.0.9 (crafted)
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::packet::{Inner, Outer, UDP, link_local, udp_message};
use isatap_tests::raw::{Captured, Crafter, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};

const PORT: u16 = 4000;

/// Everything a test of this file looks at.
struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    crafter: Crafter,
    sniffer: Sniffer,
}

impl<'a> Bench<'a> {
    fn new(scene: &Opposite, daemon: &'a Daemon<'a>) -> Self {
        Self {
            daemon,
            crafter: scene.crafter(),
            sniffer: Sniffer::start(&scene.dut, TUNNEL),
        }
    }

    fn inner(&self) -> Inner {
        Inner::new(on_link(X), on_link(DUT))
    }

    /// Sends outer packets and returns what was counted for them.
    #[track_caller]
    fn count(&self, packets: &[Vec<u8>]) -> Counters {
        let before = self.daemon.counters(Direction::Decap);
        packets.iter().for_each(|packet| self.crafter.send(packet));
        let sent = u64::try_from(packets.len()).expect("a length");
        let since = self.daemon.wait_received(Direction::Decap, &before, sent);
        assert_eq!(since.received, sent, "{since}");
        since
    }

    /// Each of `packets` is dropped for `reason`, and nothing reaches the TUN interface.
    #[track_caller]
    fn dropped(&self, what: &str, reason: &str, packets: &[Vec<u8>]) {
        self.sniffer.clear();
        let since = self.count(packets);
        let sent = u64::try_from(packets.len()).expect("a length");
        assert_eq!(since.drops, BTreeMap::from([(reason.to_owned(), sent)]), "{what}");
        assert_eq!(
            self.sniffer.count(incoming),
            0,
            "{what}: something reached {TUNNEL}"
        );
    }

    /// `packet` is accepted, and the TUN interface gets exactly `expected`.
    #[track_caller]
    fn accepted(&self, what: &str, packet: &[u8], expected: &[u8]) {
        self.sniffer.clear();
        let since = self.count(&[packet.to_vec()]);
        assert!(since.drops.is_empty(), "{what}: {since}");
        let seen = self.sniffer.wait_for(what, SOON, incoming);
        assert_eq!(seen.packet, expected, "{what}");
    }
}

fn incoming(captured: &Captured) -> bool {
    !captured.outgoing
}

fn on_each_lane(test: impl Fn(&Bench<'_>)) {
    for lane in Lane::ALL {
        let scene = Opposite::new();
        // One worker: what is sent first is counted first.
        let daemon = scene.router(|builder| builder.lane(lane).workers(1));
        test(&Bench::new(&scene, &daemon));
        daemon.conservation();
    }
}

#[test]
fn bytes_after_the_inner_packet_are_cut_off() {
    on_each_lane(|bench| {
        let inner = bench.inner().udp(1, PORT, b"padded");
        for padding in [1, 7, 8, 100, 1200] {
            let padded = [inner.as_slice(), &vec![0xee; padding]].concat();
            bench.accepted(
                &format!("{padding} bytes of padding"),
                &bench.crafter.outer().wrap(&padded),
                &inner,
            );
        }
    });
}

#[test]
fn every_length_short_of_the_inner_packet_is_truncated() {
    on_each_lane(|bench| {
        let inner = bench.inner().udp(1, PORT, &[0x55; 33]);
        let cuts: Vec<_> = (1..inner.len())
            .map(|len| bench.crafter.outer().wrap(&inner[..len]))
            .collect();
        bench.dropped("inner packets cut short", "truncated", &cuts);
        bench.accepted("the whole packet", &bench.crafter.outer().wrap(&inner), &inner);
    });
}

#[test]
fn impossible_inner_headers_are_malformed() {
    on_each_lane(|bench| {
        let mut packets = Vec::new();
        for version in (0..=15).filter(|version| *version != 6) {
            let mut inner = bench.inner();
            inner.version = version;
            packets.push(bench.crafter.outer().wrap(&inner.udp(1, PORT, b"version")));
        }
        bench.dropped("versions other than 6", "malformed", &packets);
        let mut jumbo = bench.inner();
        jumbo.payload_len = Some(0);
        let jumbo = bench
            .crafter
            .outer()
            .wrap(&jumbo.udp(1, PORT, b"payload length 0"));
        bench.dropped("payload length 0", "malformed", &[jumbo]);
    });
}

#[test]
fn ipv4_options_are_skipped_and_source_routes_refused() {
    on_each_lane(|bench| {
        // The kernel hands over source-routed packets only if told to, and only at the end of the route.
        bench.daemon.ns().sysctl("ipv4/conf/all/accept_source_route", "1");
        bench
            .daemon
            .ns()
            .sysctl("ipv4/conf/eth0/accept_source_route", "1");
        let inner = bench.inner().udp(1, PORT, b"options");
        for count in (4..=40).step_by(4) {
            let mut outer = bench.crafter.outer();
            outer.options = vec![1; count];
            bench.accepted(&format!("{count} bytes of NOP"), &outer.wrap(&inner), &inner);
        }
        let routes = [131, 137].map(|kind| {
            let mut outer = bench.crafter.outer();
            outer.options = vec![kind, 7, 8, 10, 0, 0, 9, 0];
            outer.wrap(&inner)
        });
        bench.dropped("source routes", "source_route", &routes);
    });
}

#[test]
fn fragments_are_reassembled_in_any_order() {
    on_each_lane(|bench| {
        let inner = bench
            .inner()
            .udp(1, PORT, &(0..=255).cycle().take(1400).collect::<Vec<u8>>());
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (id, order) in (1..).zip(orders) {
            let mut outer = bench.crafter.outer();
            outer.id = id;
            let pieces = outer.fragments(&inner, 496);
            assert_eq!(pieces.len(), 3);
            bench.sniffer.clear();
            let before = bench.daemon.counters(Direction::Decap);
            order.iter().for_each(|piece| bench.crafter.send(&pieces[*piece]));
            let since = bench.daemon.wait_received(Direction::Decap, &before, 1);
            assert_eq!(
                (since.received, since.delivered),
                (1, 1),
                "order {order:?}: {since}"
            );
            let seen = bench.sniffer.wait_for("the reassembled packet", SOON, incoming);
            assert_eq!(seen.packet, inner, "order {order:?}");
        }
    });
}

/// C3, D10, FAULTS 17.
#[test]
fn all_ecn_combinations_follow_rfc_6040() {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    on_each_lane(|bench| {
        for outer_ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
            for inner_ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
                // RFC 6040 figure 4: CE wins, then ECT(1); Not-ECT stays, and is dropped under CE.
                let expected = match (inner_ecn, outer_ecn) {
                    (NOT_ECT, CE) => None,
                    (NOT_ECT, _) => Some(NOT_ECT),
                    (_, CE) | (CE, _) => Some(CE),
                    (_, ECT_1) | (ECT_1, _) => Some(ECT_1),
                    _ => Some(ECT_0),
                };
                let mut inner = bench.inner();
                inner.traffic_class = 46 << 2 | inner_ecn;
                let mut outer = bench.crafter.outer();
                outer.tos = 10 << 2 | outer_ecn;
                let packet = outer.wrap(&inner.udp(1, PORT, b"ecn"));
                let what = format!("outer {outer_ecn}, inner {inner_ecn}");
                match expected {
                    None => bench.dropped(&what, "ecn", &[packet]),
                    Some(ecn) => {
                        // D10: nothing but the ECN bits may change; the DSCP of the outer header is not taken over.
                        inner.traffic_class = 46 << 2 | ecn;
                        bench.accepted(&what, &packet, &inner.udp(1, PORT, b"ecn"));
                    }
                }
            }
        }
    });
}

#[test]
fn tunnels_in_the_tunnel_are_refused_unless_wanted() {
    let nested = |bench: &Bench<'_>| [4_u8, 41, 47].map(|kind| bench.inner().wrap(kind, &[0x60; 48]));
    on_each_lane(|bench| {
        let packets = nested(bench).map(|inner| bench.crafter.outer().wrap(&inner));
        bench.dropped("next headers 4, 41 and 47", "nested", &packets);
    });
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.config("NestedTunnels yes"));
    let bench = Bench::new(&scene, &daemon);
    for inner in nested(&bench) {
        bench.accepted("a nested packet", &bench.crafter.outer().wrap(&inner), &inner);
    }
}

#[test]
fn forbidden_inner_addresses_are_dropped() {
    on_each_lane(|bench| {
        let from = |src: &str| {
            let inner = Inner::new(src.parse().expect("an address"), on_link(DUT));
            bench.crafter.outer().wrap(&inner.udp(1, PORT, b"source"))
        };
        let sources = [
            "::",
            "::1",
            "ff02::1",
            "ff0e::1234",
            "::10.0.0.9",
            "::ffff:10.0.0.9",
            "fe80::5efe:a00:1",
        ];
        bench.dropped("forbidden sources", "src_forbidden", &sources.map(from));
        let to = |dst: &str| {
            let inner = Inner::new(on_link(X), dst.parse::<Ipv6Addr>().expect("an address"));
            bench.crafter.outer().wrap(&inner.udp(1, PORT, b"destination"))
        };
        bench.dropped(
            "forbidden destinations",
            "dst_forbidden",
            &["::", "::1", "::ffff:10.0.0.1"].map(to),
        );
        bench.dropped(
            "multicast",
            "dst_multicast",
            &["ff02::fb", "ff0e::1234", "ff05::2"].map(to),
        );
    });
}

#[test]
fn forbidden_outer_addresses_never_reach_the_tunnel() {
    on_each_lane(|bench| {
        let inner = bench.inner().udp(1, PORT, b"outer addresses");
        let from = |src: [u8; 4]| {
            let mut outer = bench.crafter.outer();
            outer.src = Ipv4Addr::from(src);
            outer.wrap(&inner)
        };
        // These the kernel of the receiver lets through to a raw socket.
        let passing = [[240, 0, 0, 1], [254, 1, 2, 3], [10, 0, 0, 255]].map(from);
        bench.dropped("forbidden outer sources", "outer_forbidden", &passing);
        // These it stops itself, as long as nobody tells it otherwise.
        bench.sniffer.clear();
        let before = bench.daemon.counters(Direction::Decap);
        for src in [
            [0, 0, 0, 1],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            DUT.octets(),
        ] {
            bench.crafter.send(&from(src));
        }
        // D4: outer packets to a broadcast address.
        for dst in [[10, 0, 0, 255], [255, 255, 255, 255]] {
            bench
                .crafter
                .send(&Outer::new(X, Ipv4Addr::from(dst)).wrap(&inner));
        }
        bench.crafter.send(&bench.crafter.outer().wrap(&inner));
        bench
            .sniffer
            .wait_for("the last and only correct packet", SOON, incoming);
        bench.daemon.wait_received(Direction::Decap, &before, 1);
        let since = bench.daemon.counters(Direction::Decap).since(&before);
        assert_eq!(since.delivered, 1, "{since}");
        let other = since
            .drops
            .keys()
            .find(|reason| *reason != "outer_forbidden" && *reason != "not_local");
        assert_eq!(other, None, "{since}");
        assert_eq!(bench.sniffer.count(incoming), 1);
    });
}

#[test]
fn chains_of_extension_headers_pass_or_end_in_a_counter() {
    // FAULTS 18: decisions use fixed headers only.
    on_each_lane(|bench| {
        let chain = |count: usize, first_len: u8| {
            let mut body = Vec::new();
            for index in 0..count {
                let next = if index + 1 == count { UDP } else { 60 };
                // A destination options header of 8 bytes: PadN over the rest.
                body.extend_from_slice(&[next, if index == 0 { first_len } else { 0 }, 1, 4, 0, 0, 0, 0]);
            }
            body.extend_from_slice(&udp_message(1, PORT, b"behind options"));
            bench.inner().wrap(if count == 0 { UDP } else { 60 }, &body)
        };
        for count in 0..=8 {
            let inner = chain(count, 0);
            bench.accepted(
                &format!("{count} extension headers"),
                &bench.crafter.outer().wrap(&inner),
                &inner,
            );
        }
        // The first header claims more than there is.
        let since = bench.count(&[bench.crafter.outer().wrap(&chain(1, 255))]);
        assert!(since.delivered + since.dropped() == 1, "{since}");
        let other = since
            .drops
            .keys()
            .find(|reason| !["malformed", "truncated"].contains(&reason.as_str()));
        assert_eq!(other, None, "{since}");
    });
}

#[test]
fn nothing_of_an_earlier_packet_leaks_into_a_later_one() {
    // FAULTS 19, inwards: large packets of a pattern, then the smallest ones through the same buffers.
    const PATTERN: u8 = 0xa7;
    on_each_lane(|bench| {
        // No next header: packets of no transport are not merged on their way.
        let large = bench.inner().wrap(59, &[PATTERN; 1400]);
        // With and without padding that shows where a packet was cut.
        let small = bench.inner().wrap(59, &[0]);
        let padded = [small.as_slice(), &[PATTERN; 64]].concat();
        let mut packets = vec![bench.crafter.outer().wrap(&large); 600];
        packets.extend(vec![bench.crafter.outer().wrap(&small); 600]);
        packets.extend(vec![bench.crafter.outer().wrap(&padded); 600]);
        bench.sniffer.clear();
        for part in packets.chunks(100) {
            let since = bench.count(part);
            assert!(since.drops.is_empty(), "{since}");
        }
        bench.sniffer.wait_count("packets", 1800, SOON, incoming);
        let seen = bench.sniffer.packets();
        let leaks = seen
            .iter()
            .filter(|c| !c.outgoing && c.packet != large && c.packet != small)
            .count();
        assert_eq!(leaks, 0, "packets that are neither of the two sent");
    });
}

#[test]
fn packets_for_another_locator_are_not_taken() {
    // D2: 10.0.0.50 is an address of this machine, but no locator of the daemon.
    on_each_lane(|bench| {
        bench.daemon.ns().ip("addr add 10.0.0.50/24 dev eth0");
        let inner = Inner::new(on_link(X), link_local(DUT)).udp(1, PORT, b"another locator");
        let before = bench.daemon.counters(Direction::Decap);
        bench.sniffer.clear();
        bench
            .crafter
            .send(&Outer::new(X, Ipv4Addr::new(10, 0, 0, 50)).wrap(&inner));
        bench.crafter.send_inner(&bench.inner().udp(1, PORT, b"fence"));
        bench
            .sniffer
            .wait_for("the packet to the locator", SOON, incoming);
        let since = bench.daemon.wait_received(Direction::Decap, &before, 1);
        assert_eq!(since.delivered, 1, "{since}");
        assert!(since.drops.keys().all(|reason| reason == "not_local"), "{since}");
        assert_eq!(bench.sniffer.count(incoming), 1);
    });
}
