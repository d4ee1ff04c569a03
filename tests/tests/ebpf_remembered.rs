//! What a CPU remembers of the packets it has carried counts for packets like them, and for no others: each packet is decided as if it
//! were the first.
//!
//! Places are found by a hash, so two packets that differ in one thing do not often meet in one. Here so many pairs are tried that
//! some of them do.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::numbers::FLOWS;
use isatap_engine::fib::{Locator, NextHop, RulebookBuilder};
use isatap_engine::isatap::iid;
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::scene::on_link;
use isatap_tests::tried::{LOOPBACK, Trial};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SLOTS: u32 = 1024;
/// One pair in [`FLOWS`] meets in one place.
const PAIRS: u64 = 8 * FLOWS as u64;

/// The programs of `A`, which know one way for all: by `B`.
fn trial() -> Trial {
    let trial = Trial::new(SLOTS);
    let everywhere = "::/0".parse().expect("a prefix");
    let rules = RulebookBuilder {
        locators: vec![Locator { addr: A, if_index: 0 }],
        own6: vec![iid::link_local(A), on_link(A)],
        routes: vec![(everywhere, NextHop::Via(B))],
        any_site: true,
        // What comes from B may go back there.
        loop_checks: false,
        ..RulebookBuilder::default()
    };
    trial.publish(&trial.compile(rules, 7));
    trial
}

fn address(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
}

fn is_carried(trial: &mut Trial, direction: Direction, inner: &[u8]) -> bool {
    match direction {
        Direction::Encap => trial.send(inner).is_some(),
        Direction::Decap => trial.receive(&Outer::new(B, A).wrap(inner)).is_some(),
    }
}

/// A source or a destination of which one half alone is another one, 0: that makes an address of it that nobody may have.
#[test]
fn another_address_is_another_flow() {
    const PREFIX: u64 = 0x2001_0db8_0000_0001;
    let mut trial = trial();
    let first_half: fn(u64) -> [Ipv6Addr; 2] = |n| [address(PREFIX, n), address(0, n)];
    let second_half: fn(u64) -> [Ipv6Addr; 2] = |_| [address(0, 1 << 32), address(0, 0)];
    for direction in Direction::ALL {
        for halves in [first_half, second_half] {
            for is_source in [true, false] {
                for n in 1..=PAIRS {
                    let other = address(0x2001_0db8 << 32, n);
                    let [right, wrong] = halves(n).map(|addr| {
                        let ends = if is_source { (addr, other) } else { (other, addr) };
                        Inner::new(ends.0, ends.1).udp(1, 9, b"whose?")
                    });
                    assert!(
                        is_carried(&mut trial, direction, &right),
                        "{direction:?} {n}: {right:02x?}"
                    );
                    let is_confused = is_carried(&mut trial, direction, &wrong);
                    assert!(!is_confused, "{direction:?}, source {is_source}: {wrong:02x?}");
                }
            }
        }
    }
}

/// What goes out to another host does not come in from there: its source is this machine's. Everything else that is remembered of the one
/// is true of the other as well, with ports that look like a device.
#[test]
fn what_goes_out_is_no_flow_that_comes_in() {
    let mut trial = trial();
    let port = u16::try_from(LOOPBACK).expect("a small number");
    let inner = Inner::new(on_link(A), on_link(B)).udp(0, port, b"which way?");
    assert!(is_carried(&mut trial, Direction::Encap, &inner));
    assert!(!is_carried(&mut trial, Direction::Decap, &inner));
    let forbidden = Counter::Dropped(DropReason::SrcForbidden);
    assert_eq!(trial.count(Direction::Decap, forbidden), 1);
}

/// The same inner packet between other hosts, and between none.
#[test]
fn a_flow_has_two_ends() {
    const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    let mut trial = trial();
    let inner = Inner::new(on_link(B), on_link(A)).udp(1, 9, b"from whom?");
    let mut receive = |src, dst| trial.receive(&Outer::new(src, dst).wrap(&inner)).is_some();
    for (src, dst) in [(NOBODY, A), (Ipv4Addr::new(10, 0, 0, 3), A), (B, NOBODY), (B, B)] {
        assert!(receive(B, A));
        assert!(!receive(src, dst), "from {src} to {dst}");
    }
}
