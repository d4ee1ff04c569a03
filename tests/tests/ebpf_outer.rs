//! The outer header that the programs of the `ebpf` lane write, where chance seldom leads: each checksum, and identifications (E3, M9).

use std::net::Ipv4Addr;

use isatap_engine::fib::{Locator, NextHop, RulebookBuilder};
use isatap_engine::isatap::mark::Mark;
use isatap_engine::isatap::mtu::PathMtuMode;
use isatap_engine::isatap::tos::{DscpPolicy, TtlPolicy};
use isatap_tests::packet::{Inner, checksum};
use isatap_tests::scene::on_link;
use isatap_tests::tried::Trial;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

fn rules(mode: PathMtuMode) -> RulebookBuilder {
    let mut rules = RulebookBuilder {
        locators: vec![Locator { addr: A, if_index: 0 }],
        routes: vec![("2001:db8:1::/64".parse().expect("a prefix"), NextHop::OnLink)],
        any_site: true,
        ttl: TtlPolicy::Inherit,
        dscp: DscpPolicy::Inherit,
        ..RulebookBuilder::default()
    };
    rules.peers.path_mtu = mode;
    rules
}

fn id_to(trial: &mut Trial, dst: Ipv4Addr) -> u16 {
    let sent = trial.send(&Inner::new(on_link(A), on_link(dst)).udp(1, 9, b"which one?"));
    let header = sent.expect("a packet that is carried");
    u16::from_be_bytes([header[4], header[5]])
}

/// Traffic class and hop limit give one half of the sum of the header nearly every value that it can have. The other half is one that most
/// is carried over from, then: what is carried over makes for something to carry once more.
#[test]
fn each_checksum_is_right() {
    const LEN: usize = 0xff - 20;
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 191, 255);
    let mut trial = Trial::new(1024);
    // Not so large that it is the identification which is carried over from.
    let mut marks = (0..).map(|n| Mark::new([n, 4711]));
    let mark = marks.find(|mark| {
        mark.identification(A, FAR)
            .to_ne_bytes()
            .into_iter()
            .all(|byte| byte < 0x80)
    });
    let rules = RulebookBuilder {
        mark: mark.expect("a mark"),
        ..rules(PathMtuMode::Dynamic)
    };
    trial.publish(&trial.compile(rules, 1));
    for (dst, len) in [(B, 41), (FAR, LEN)] {
        let mut inner = Inner::new(on_link(A), on_link(dst));
        for traffic_class in 0..=u8::MAX {
            for hop_limit in 1..=u8::MAX {
                (inner.traffic_class, inner.hop_limit) = (traffic_class, hop_limit);
                let sent = trial.send(&inner.wrap(59, &vec![0; len - 40]));
                let sent = sent.expect("a packet that is carried");
                assert_eq!((sent[1], sent[8]), (traffic_class, hop_limit));
                assert_eq!(checksum(&[&sent[..20]]), 0, "{:02x?}", &sent[..20]);
            }
        }
    }
}

/// Where no packet is fragmented all have the same, and never 0: the kernel would put another one there.
#[test]
fn an_identification_is_never_zero() {
    let mut trial = Trial::new(1024);
    // Each second one of these is 1 because it would be 0.
    let marks = (0..).map(|n| Mark::new([n, 4711]));
    for mark in marks.filter(|mark| mark.identification(A, B) == 1).take(8) {
        let rules = RulebookBuilder {
            mark,
            ..rules(PathMtuMode::Dynamic)
        };
        trial.publish(&trial.compile(rules, 1));
        assert_eq!(id_to(&mut trial, B), 1);
    }
}

/// Where packets may be fragmented those between two addresses are counted, by themselves, and from where nobody can guess.
#[test]
fn identifications_are_counted_apart() {
    let firsts = [1, 2].map(|seed| {
        let mut trial = Trial::new(1024);
        trial.publish(&trial.compile(rules(PathMtuMode::Static), seed));
        let [to_b, to_c] = [B, C].map(|dst| id_to(&mut trial, dst));
        assert_ne!(to_b, to_c);
        for n in 1..100 {
            assert_eq!(id_to(&mut trial, B), to_b.wrapping_add(n));
            assert_eq!(id_to(&mut trial, C), to_c.wrapping_add(n));
        }
        to_b
    });
    assert_ne!(firsts[0], firsts[1], "another key, another begin");
}
