//! Fragments that others made: IPv4 ones are whole before we see them, inner ones are none of our business (M7, M8, M11).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ------ x 10.0.0.9 (crafted)
//! ```

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::Inner;
use isatap_tests::raw::{Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::{UNDERLAY, mac};

const FRAGMENT: u8 = 44;
const UDP: u8 = 17;

struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    crafter: Crafter,
    injector: Injector,
    wire: Sniffer,
    tunnel: Sniffer,
}

impl Bench<'_> {
    fn on_each_lane(test: impl Fn(&Bench<'_>)) {
        for lane in Lane::ALL {
            let scene = Opposite::new();
            let daemon = scene.router(|builder| builder.lane(lane));
            let bench = Bench {
                daemon: &daemon,
                crafter: Crafter::new(&scene.x, UNDERLAY, X, mac(&scene.dut, UNDERLAY), DUT),
                injector: Injector::tun(&scene.dut, TUNNEL),
                wire: Sniffer::start(&scene.dut, UNDERLAY),
                tunnel: Sniffer::start(&scene.dut, TUNNEL),
            };
            scene.dut.run(&format!("ping -n -c 1 -W 2 {X}"));
            test(&bench);
            daemon.conservation();
        }
    }

    /// The inner packet is delivered as it is, once.
    #[track_caller]
    fn delivered(&self, what: &str, inner: &[u8]) {
        self.tunnel
            .wait_for(what, SOON, |c| !c.outgoing && c.packet == inner);
    }
}

fn inner() -> Inner {
    Inner::new(on_link(X), on_link(DUT))
}

/// M8: what IPv4 carries in fragments arrives, in any order of them, up to the largest datagram there is.
#[test]
fn m8_reassembled_datagrams_arrive() {
    Bench::on_each_lane(|bench| {
        let before = bench.daemon.counters(Direction::Decap);
        let mut outer = bench.crafter.outer();
        let sizes = [1280, 1500, 9000, 65_514, 65_515];
        for (len, n) in sizes.into_iter().zip(1..) {
            let packet = inner().udp(n, 9, &vec![0x33; len - 48]);
            assert_eq!(packet.len(), len);
            // Whatever size the pieces have, last first, and from the middle.
            for step in [504, 1480] {
                outer.id += 1;
                let mut pieces = outer.fragments(&packet, step);
                pieces.reverse();
                let half = pieces.len() / 2;
                pieces.rotate_left(half);
                bench.tunnel.clear();
                pieces.iter().for_each(|piece| bench.crafter.send(piece));
                bench.delivered(&format!("{len} bytes in {} pieces", pieces.len()), &packet);
            }
        }
        let sent = 2 * u64::try_from(sizes.len()).expect("few");
        let since = bench.daemon.wait_received(Direction::Decap, &before, sent);
        assert!(since.drops.is_empty(), "{since}");
    });
}

/// M8, FAULTS 12: a datagram of which a piece is missing, or that overlaps itself with other bytes, is no packet; the next
/// one arrives.
#[test]
fn incomplete_datagrams_are_nothing() {
    Bench::on_each_lane(|bench| {
        let packet = inner().udp(1, 9, &[0x44; 1232]);
        let mut outer = bench.crafter.outer();
        for missing in 0..3 {
            outer.id += 1;
            for (index, piece) in outer.fragments(&packet, 504).iter().enumerate() {
                if index != missing {
                    bench.crafter.send(piece);
                }
            }
        }
        let fence = inner().udp(2, 9, b"whole");
        bench.crafter.send_inner(&fence);
        bench.delivered("a whole packet", &fence);
        assert_eq!(bench.tunnel.count(|c| c.packet == packet), 0);
    });
}

/// A Fragment header (RFC 8200 4.5): offset in bytes, M flag, identification.
fn fragment_header(offset: u16, more: bool, id: u32) -> Vec<u8> {
    let place = offset | u16::from(more);
    [&[UDP, 0][..], &place.to_be_bytes(), &id.to_be_bytes()].concat()
}

/// M7, M11: inner fragments, atomic, overlapping or in disorder, pass both ways byte for byte: they are their receiver's
/// business, and none is added.
#[test]
fn m11_inner_fragments_are_not_touched() {
    Bench::on_each_lane(|bench| {
        let fragments = [
            (0, false, 1),
            (0, true, 2),
            (400, true, 2),
            (800, false, 2),
            (1200, true, 2),
            (65_528, false, 3),
        ];
        let body = |header: Vec<u8>, n: u8| [header, vec![n; 800]].concat();
        let there: Vec<_> = fragments
            .into_iter()
            .zip(1..)
            .map(|((offset, more, id), n)| {
                inner().wrap(FRAGMENT, &body(fragment_header(offset, more, id), n))
            })
            .collect();
        for packet in &there {
            bench.crafter.send_inner(packet);
            bench.delivered("an inner fragment", packet);
        }
        let back = Inner::new(on_link(DUT), on_link(X));
        for ((offset, more, id), n) in fragments.into_iter().zip(1..) {
            let packet = back.wrap(FRAGMENT, &body(fragment_header(offset, more, id), n));
            bench.injector.send(&packet);
            bench.wire.wait_for("an inner fragment on the wire", SOON, |c| {
                c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet)
            });
        }
        // A whole packet that just fits stays whole inside.
        let whole = back.udp(1, 9, &[0x55; 1232]);
        bench.injector.send(&whole);
        bench.wire.wait_for("a whole packet", SOON, |c| {
            c.outgoing && c.outer().is_some_and(|outer| outer.payload == whole)
        });
        let drops = bench.daemon.drops(Direction::Decap);
        assert!(drops.keys().all(|reason| reason == "src_prefix"), "{drops:?}");
    });
}
