//! Packets that are none of the `ebpf` lane's business: its programs leave them as they are, and do not even count them.

use std::net::Ipv4Addr;

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::fib::{Locator, NextHop, RulebookBuilder};
use isatap_engine::io::ebpf::Action;
use isatap_engine::stats::Direction;
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::scene::on_link;
use isatap_tests::tried::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Trial};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The Ethernet address of the loopback device.
const US: [u8; 6] = [0; 6];

fn trial() -> Trial {
    let trial = Trial::new(1024);
    let rules = RulebookBuilder {
        locators: vec![Locator { addr: A, if_index: 0 }],
        routes: vec![("2001:db8:1::/64".parse().expect("a prefix"), NextHop::OnLink)],
        any_site: true,
        ..RulebookBuilder::default()
    };
    trial.publish(&trial.compile(rules, 1));
    trial
}

fn outer() -> Vec<u8> {
    Outer::new(B, A).wrap(&inner(B, A))
}

fn inner(src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    Inner::new(on_link(src), on_link(dst)).udp(1, 9, b"for whom?")
}

/// On their way to another machine, or to several, whether or not the programs know the flow; and of another protocol, whatever their
/// bytes look like.
#[test]
fn what_is_for_others_is_left_to_them() {
    for is_known in [false, true] {
        let mut trial = trial();
        if is_known {
            assert!(trial.receive(&outer()).is_some());
        }
        let before = trial.counted(Direction::Decap);
        for (to, ether_type) in [
            ([2, 0, 0, 0, 0, 9], ETHERTYPE_IPV4),
            ([1, 0, 0x5e, 0, 0, 1], ETHERTYPE_IPV4),
            ([0xff; 6], ETHERTYPE_IPV4),
            (US, ETHERTYPE_IPV6),
            (US, [0x88, 0xb5]),
        ] {
            let tried = trial.try_frame(Direction::Decap, to, ether_type, &outer());
            assert_eq!(tried.action, Action::Left, "{to:?} {ether_type:?}");
        }
        assert_eq!(trial.counted(Direction::Decap), before);
    }
}

/// The TUN interface takes IPv6 alone; what it is told to be something else is not carried as if it were.
#[test]
fn what_is_said_to_be_something_else_is_not_carried() {
    let mut trial = trial();
    for is_known in [false, true] {
        if is_known {
            assert!(trial.send(&inner(A, B)).is_some());
        }
        for ether_type in [ETHERTYPE_IPV4, [0x88, 0xb5]] {
            let tried = trial.try_frame(Direction::Encap, US, ether_type, &inner(A, B));
            assert_eq!(tried.action, Action::Left, "{ether_type:?}");
        }
    }
    assert_eq!(trial.count(Direction::Encap, Counter::Packets), 1);
}

/// Before there are rules there is nothing to count, not even of packets without addresses, as those are that nobody remembers.
#[test]
fn without_rules_nothing_is_counted() {
    let mut trial = Trial::new(1024);
    let nobody = Inner::new(
        "::".parse().expect("an address"),
        "::".parse().expect("an address"),
    );
    for inner in [inner(A, B), nobody.udp(0, 0, b"")] {
        assert_eq!(trial.send(&inner), None);
        for (src, dst) in [(B, A), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)] {
            assert_eq!(trial.receive(&Outer::new(src, dst).wrap(&inner)), None);
        }
    }
    assert_eq!(Direction::ALL.map(|direction| trial.counted(direction)), [0, 0]);
}
