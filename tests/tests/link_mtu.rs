//! Links of our own that take less than the tunnel carries: fragments of our making without DF, an answer with it (M3, M4,
//! M9, M10; FAULTS 28).
//!
//! ```text
//!   dut 10.0.0.1  eth0, MTU 1500 -> 1300, 1299, 600 ------ x 10.0.0.9 (swallows everything)
//! ```

use std::sync::mpsc;
use std::thread;

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::fragments::{Datagram, datagrams};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::raw::{Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

const PORT: u16 = 4000;
const PACKET_TOO_BIG: u8 = 2;

struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    injector: Injector,
    wire: Sniffer,
    tunnel: Sniffer,
    _sink: Crafter,
}

impl Bench<'_> {
    /// A daemon with tunnel MTU 1480 in each lane, its link as usual.
    fn each(mode: &str, test: impl Fn(&Bench<'_>)) {
        for lane in Lane::ALL {
            let scene = Opposite::new();
            let config = format!("Mtu 1480\nPathMtu {mode}");
            let daemon = scene.router(|builder| builder.lane(lane).workers(1).config(&config));
            let bench = Bench {
                daemon: &daemon,
                injector: Injector::tun(&scene.dut, TUNNEL),
                wire: Sniffer::start(&scene.dut, UNDERLAY),
                tunnel: Sniffer::start(&scene.dut, TUNNEL),
                _sink: scene.crafter(),
            };
            scene.dut.run(&format!("ping -n -c 1 -W 2 {X}"));
            test(&bench);
            daemon.conservation();
        }
    }

    fn set_link(&self, mtu: u16) {
        self.daemon.ns().ip(&format!("link set {UNDERLAY} mtu {mtu}"));
    }

    /// Injects packets at once; returns what went out for them, put together, in order.
    #[track_caller]
    fn send(&self, packets: &[Vec<u8>]) -> Vec<Datagram> {
        self.wire.clear();
        packets.iter().for_each(|packet| self.injector.send(packet));
        wait::until("every packet on the wire", SOON, || {
            let seen = datagrams(&self.wire.packets());
            if seen.len() >= packets.len() {
                Ok(seen)
            } else {
                Err(format!("{} of {}", seen.len(), packets.len()))
            }
        })
    }

    /// The MTU of the Packet Too Big about `packet` that comes back out of the tunnel interface.
    #[track_caller]
    fn told(&self, packet: &[u8]) -> u32 {
        let before = self.daemon.counters(Direction::Encap);
        self.tunnel.clear();
        self.injector.send(packet);
        let seen = self.tunnel.wait_for("Packet Too Big", SOON, |c| {
            let inner = c.inner().filter(|_| !c.outgoing);
            inner.is_some_and(|inner| {
                inner
                    .icmpv6()
                    .is_some_and(|(kind, _, body)| kind == PACKET_TOO_BIG && packet.starts_with(&body[4..]))
            })
        });
        let (_, _, body) = seen
            .inner()
            .and_then(|inner| inner.icmpv6())
            .expect("just matched");
        let since = self.daemon.wait_received(Direction::Encap, &before, 1);
        assert_eq!(since.drops.get("too_big"), Some(&1), "{since}");
        u32::from_be_bytes([body[0], body[1], body[2], body[3]])
    }
}

/// An inner packet of `len` bytes whose content tells `n`.
fn packet(len: usize, n: u8) -> Vec<u8> {
    Inner::new(link_local(DUT), link_local(X)).udp(u16::from(n), PORT, &vec![n; len - 48])
}

/// M3, M9, M10, FAULTS 28: whatever the link takes, from the first packet on nothing is lost or reordered, each fragment fits,
/// and DF is clear.
#[test]
fn static_mode_fragments_for_its_own_link() {
    Bench::each("static", |bench| {
        let sizes = [1480, 100, 1280, 48, 1400, 1281];
        let packets: Vec<_> = sizes
            .into_iter()
            .zip(1..)
            .map(|(len, n)| packet(len, n))
            .collect();
        for mtu in [1500, 1300, 1299, 600, 68, 1500] {
            bench.set_link(mtu);
            // Nobody waits for the daemon to learn of it.
            for round in 0..3 {
                let seen = bench.send(&packets);
                let what = format!("link MTU {mtu}, round {round}");
                let mut payloads: Vec<_> = seen.iter().map(|datagram| datagram.payload.clone()).collect();
                let mut sent = packets.clone();
                // Each is a flow of its own: what programs carry overtakes what a worker has to fragment.
                payloads.sort();
                sent.sort();
                assert!(payloads == sent, "{what}: damaged or lost");
                for datagram in &seen {
                    assert!(!datagram.dont_fragment, "{what}: M3");
                    assert!(
                        datagram.pieces.iter().all(|len| *len <= usize::from(mtu)),
                        "{what}: {seen:?}"
                    );
                }
                let mut ids: Vec<_> = seen.iter().map(|datagram| datagram.id).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), packets.len(), "{what}: M9: a number was used twice");
            }
        }
        wait::until("whole packets again over the wide link", SOON, || {
            let pieces: Vec<_> = bench
                .send(&packets)
                .into_iter()
                .map(|datagram| datagram.pieces.len())
                .collect();
            if pieces.iter().all(|count| *count == 1) {
                Ok(())
            } else {
                Err(format!("{pieces:?}"))
            }
        });
        let since = bench.daemon.counters(Direction::Encap);
        assert_eq!(since.drops.get("send_error"), None, "{since}");
        let labels = [("event", "fragmented")];
        assert!(bench.daemon.metrics().sum("isatapd_loop_events_total", &labels) > 0);
    });
}

/// FAULTS 28: a link that is narrow for a moment under load. What the kernel said of packets in that moment comes to control when the
/// link is wide again, and is not believed: it would hold for ten minutes.
#[test]
fn what_was_said_of_a_narrow_link_is_not_believed_of_a_wide_one() {
    const MOMENTS: usize = 8;
    Bench::each("static", |bench| {
        let said = || {
            let all = bench.daemon.metrics();
            let with = |result| all.sum("isatapd_path_mtu_messages_total", &[("result", result)]);
            with("link") + with("outdated")
        };
        let (goes_on, stops) = mpsc::channel();
        thread::scope(|scope| {
            let injector = &bench.injector;
            scope.spawn(move || {
                while goes_on.send(()).is_ok() {
                    injector.send(&packet(1480, 7));
                }
            });
            let (mut heard, mut moments) = (0, 0);
            wait::holds("packets that were too big for a moment", SOON * 3, || {
                let link = |mtu| format!("link set {UNDERLAY} mtu {mtu}\n");
                bench.daemon.ns().ip_batch(&(link(600) + &link(1500)));
                let before = std::mem::replace(&mut heard, said());
                moments += usize::from(heard > before);
                let believed = || {
                    let all = bench.daemon.metrics();
                    all.sum("isatapd_path_mtus", &[("said_by", "link")])
                };
                wait::holds("nothing to be believed of the link", SOON, || believed() == 0);
                moments == MOMENTS
            });
            drop(stops);
        });
        wait::until("whole packets over the wide link", SOON, || {
            let seen = bench.send(&[packet(1480, 1)]);
            match seen[0].pieces.len() {
                1 => Ok(()),
                count => Err(format!("{count} pieces")),
            }
        });
    });
}

/// M4, M10, FAULTS 28: the table of RFC 4213 3.2.2 for a link of our own: the sender is told, or DF is clear.
#[test]
fn dynamic_mode_tells_the_sender() {
    Bench::each("dynamic", |bench| {
        let seen = bench.send(&[packet(1480, 1), packet(48, 2)]);
        assert!(seen.iter().all(|datagram| datagram.dont_fragment), "{seen:?}");
        for (mtu, report, largest, df) in [
            (1400, 1380, 1380, true),
            (1300, 1280, 1280, true),
            (600, 1280, 1280, false),
        ] {
            bench.set_link(mtu);
            // At once, what every path takes; when the link's MTU is known, what fits.
            let first = bench.told(&packet(1480, 1));
            assert!([report, 1280].contains(&first), "link MTU {mtu}: {first}");
            wait::until("the link's MTU to be known", SOON, || {
                let told = bench.told(&packet(1480, 1));
                if told == report { Ok(()) } else { Err(told) }
            });
            assert_eq!(
                bench.told(&packet(usize::try_from(report).expect("small") + 1, 3)),
                report
            );
            let seen = bench.send(&[packet(largest, 4), packet(48, 5)]);
            for datagram in seen {
                assert_eq!(datagram.dont_fragment, df, "link MTU {mtu}: {datagram:?}");
                assert!(datagram.pieces.iter().all(|len| *len <= usize::from(mtu)));
            }
        }
    });
}

/// M4, FAULTS 28: before the link's MTU is known, too, what every IPv6 link takes is not lost.
#[test]
fn dynamic_mode_loses_no_small_packet() {
    Bench::each("dynamic", |bench| {
        for mtu in [1290, 1500, 600] {
            bench.set_link(mtu);
            let packets: Vec<_> = (1..5).map(|n| packet(1280, n)).collect();
            let seen = bench.send(&packets);
            let payloads: Vec<_> = seen.into_iter().map(|datagram| datagram.payload).collect();
            assert!(payloads == packets, "link MTU {mtu}");
        }
    });
}
