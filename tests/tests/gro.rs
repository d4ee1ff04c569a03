//! TCP through the tunnel when the receiving NIC merges outer packets (GRO), as every real one does, and when it
//! does not: the content arrives either way, and merging costs nothing (DESIGN D3, P2).
//!
//! ```text
//!   a 10.0.0.1  eth0 (tso off) ======== eth0 (gro on | off)  b 10.0.0.2       is0 on both: 2001:db8:1::/64
//! ```

use std::net::{Ipv4Addr, SocketAddrV6};

use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::ping::ping_until;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{SOON, on_link, set_address};
use isatap_tests::topology::{Gro, connect, set_gro};
use isatap_tests::traffic::{TcpReport, tcp_transfer};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEVICE: &str = "eth0";
/// Of one transfer: long against the start of a connection.
const BYTES: u64 = 48_000_000;
/// How often each setting is measured, one after the other: A B A B ...
const ROUNDS: usize = 5;
/// Outer packets longer than this were merged: the underlay's MTU is 1500.
const ONE_PACKET: usize = 1500;

struct Pair {
    a: Netns,
    b: Netns,
}

impl Pair {
    fn new() -> Self {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        connect(&a, DEVICE, &b, DEVICE);
        a.ip(&format!("addr add {A}/24 brd + dev {DEVICE}"));
        b.ip(&format!("addr add {B}/24 brd + dev {DEVICE}"));
        Self { a, b }
    }

    fn start(&self, lane: Lane) -> (Daemon<'_>, Daemon<'_>) {
        let start = |ns, v4| {
            let daemon = Daemon::router(ns, v4)
                .config("Mtu 1480")
                .lane(lane)
                .workers(1)
                .start();
            set_address(ns, v4);
            daemon
        };
        let daemons = (start(&self.a, A), start(&self.b, B));
        ping_until(&self.a, &on_link(B).to_string(), SOON);
        daemons
    }

    fn transfer(&self, bytes: u64) -> TcpReport {
        let to = SocketAddrV6::new(on_link(B), 5001, 0, 0);
        tcp_transfer(&self.a, &self.b, to, bytes, SOON).unwrap_or_else(|e| panic!("{e}"))
    }

    fn set(&self, gro: Gro) {
        set_gro(&self.a, DEVICE, &self.b, DEVICE, gro);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn merging_costs_nothing(lane: Lane) {
    let pair = Pair::new();
    let (a, b) = pair.start(lane);

    // That it merges, or not, is looked at outside of the measurement.
    for (gro, merges) in [(Gro::Off, false), (Gro::On, true)] {
        pair.set(gro);
        let sniffer = Sniffer::start(&pair.b, DEVICE);
        let before = b.counters(Direction::Decap);
        pair.transfer(8_000_000);
        let merged = sniffer.count(|c| !c.outgoing && c.packet.len() > ONE_PACKET);
        assert_eq!(
            merged > 0,
            merges,
            "{gro:?}: {merged} merged outer packets arrived"
        );
        if merges {
            let since = b.counters(Direction::Decap).since(&before);
            assert!(since.superpackets > 0, "merged packets are not counted: {since}");
            assert!(!since.drops.contains_key("merged"), "{since}");
        }
    }

    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (gro, results) in [(Gro::Off, &mut off), (Gro::On, &mut on)] {
            pair.set(gro);
            results.push(pair.transfer(BYTES).bits_per_second() / 1e6);
        }
    }
    eprintln!("{lane:?}, Mbit/s with GRO off: {off:.0?}; on: {on:.0?}");
    let (off, on) = (median(off), median(on));
    // What the ratio is, isatap-perf measures. A daemon that passes merged packets on as they are gets less than a
    // hundredth; everything else is the machine's business at this moment.
    assert!(
        on >= off / 4.0,
        "{lane:?}: median with GRO on {on:.0} Mbit/s, off {off:.0} Mbit/s"
    );
    a.conservation();
    b.conservation();
}

#[test]
fn merging_costs_nothing_uring() {
    merging_costs_nothing(Lane::Uring);
}

#[test]
fn merging_costs_nothing_syscall() {
    merging_costs_nothing(Lane::Syscall);
}

#[test]
fn merged_packets_arrive_with_several_workers() {
    let pair = Pair::new();
    pair.set(Gro::On);
    for lane in Lane::ALL {
        let start = |ns, v4| {
            let daemon = Daemon::router(ns, v4).lane(lane).workers(4).start();
            set_address(ns, v4);
            daemon
        };
        let (a, b) = (start(&pair.a, A), start(&pair.b, B));
        ping_until(&pair.a, &on_link(B).to_string(), SOON);
        for _ in 0..4 {
            pair.transfer(6_000_000);
        }
        a.conservation();
        b.conservation();
        assert!(b.counters(Direction::Decap).superpackets > 0);
    }
}
