//! Tables of the `ebpf` lane's programs at their limits: as many locators and prefix lengths as there may be, entries as far from where
//! they belong as the builder lets them be.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::ebpf::Image;
use isatap_engine::ebpf::numbers::{MAX_LEVELS, MAX_PROBES, TAG_ROUTE};
use isatap_engine::fib::{Ipv6Prefix, Locator, MAX_LOCATORS, NextHop, RulebookBuilder};
use isatap_tests::packet::{Inner, Outer, SeenOuter};
use isatap_tests::scene::on_link;
use isatap_tests::tried::Trial;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Where packets come from that go through this machine.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);

fn rules() -> RulebookBuilder {
    RulebookBuilder {
        locators: vec![Locator { addr: A, if_index: 0 }],
        any_site: true,
        ..RulebookBuilder::default()
    }
}

/// Where a packet goes, from which address, if it is carried.
fn way(trial: &mut Trial, src: Ipv6Addr, dst: Ipv6Addr) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let sent = trial.send(&Inner::new(src, dst).udp(1, 9, b"where to?"))?;
    let outer = SeenOuter::read(&sent).expect("an IPv4 packet");
    Some((outer.src(), outer.dst()))
}

fn hop(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + number)
}

#[test]
fn each_locator_counts() {
    let mut trial = Trial::new(1024);
    let all: Vec<_> = (1..=MAX_LOCATORS)
        .map(|last| Ipv4Addr::new(10, 0, 1, u8::try_from(last).expect("few")))
        .collect();
    let rules = RulebookBuilder {
        locators: all
            .iter()
            .map(|addr| Locator {
                addr: *addr,
                if_index: 0,
            })
            .collect(),
        routes: vec![("2001:db8:1::/64".parse().expect("a prefix"), NextHop::OnLink)],
        ..rules()
    };
    trial.publish(&trial.compile(rules, 1));
    for addr in all {
        assert_eq!(way(&mut trial, on_link(addr), on_link(B)), Some((addr, B)));
        let inner = Inner::new(on_link(B), on_link(addr)).udp(1, 9, b"for us");
        assert_eq!(
            trial.receive(&Outer::new(B, addr).wrap(&inner)),
            Some(inner),
            "{addr}"
        );
    }
}

/// As many lengths as a table may have: of all prefixes that cover an address the longest counts.
#[test]
fn each_prefix_length_counts() {
    /// The length of a prefix that is in every table.
    const LINK_LOCAL: u32 = 64;
    const ADDRESS: u128 = 0x2aaa_aaaa_aaaa_aaaa_5555_5555_5555_5555;
    for lens in [
        LINK_LOCAL..=LINK_LOCAL + MAX_LEVELS - 1,
        LINK_LOCAL - MAX_LEVELS + 1..=LINK_LOCAL,
    ] {
        let mut trial = Trial::new(1024);
        let prefix = |len: u32| {
            let addr = Ipv6Addr::from_bits(ADDRESS);
            Ipv6Prefix::containing(addr, u8::try_from(len).expect("a length")).expect("a length that can be")
        };
        let routes = lens.clone().map(|len| (prefix(len), NextHop::Via(hop(len))));
        let rules = RulebookBuilder {
            routes: routes.collect(),
            ..rules()
        };
        trial.publish(&trial.compile(rules, 1));
        // What differs in the first bit behind a prefix is covered by that one and the shorter ones.
        let beyond = |len: u32| Ipv6Addr::from_bits(ADDRESS ^ 1 << (127 - len));
        for len in lens.clone() {
            assert_eq!(way(&mut trial, FAR, beyond(len)), Some((A, hop(len))), "{len}");
        }
        assert_eq!(way(&mut trial, FAR, beyond(lens.start() - 1)), None);
    }
}

/// A bijection of 64 bits, the finaliser of MurmurHash3.
fn mix(mut bits: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        bits = (bits ^ bits >> 33).wrapping_mul(factor);
    }
    bits ^ bits >> 33
}

/// The place in `image` that the route of a network should have, were nothing else there.
fn home(image: &Image, network: u64) -> usize {
    let tag = u64::from(TAG_ROUTE | 64 << 8);
    let hash = mix(mix(image.table.key() ^ tag ^ network));
    usize::try_from(hash % image.table.slots().len() as u64).expect("a place")
}

/// As many networks as a look-up reads entries, all with the same place, which is one of the last: most of them are farther behind it than
/// the table is long, and one as far as may be. The programs find each.
#[test]
fn each_entry_is_found_wherever_it_is() {
    let count = usize::try_from(MAX_PROBES).expect("a few");
    let mut trial = Trial::new(1024);
    let rules = |networks: &[u64]| {
        let routes = networks.iter().zip(1..).map(|(network, number)| {
            let addr = Ipv6Addr::from_bits(u128::from(*network) << 64);
            let prefix = Ipv6Prefix::containing(addr, 64).expect("a length");
            (prefix, NextHop::Via(hop(number)))
        });
        RulebookBuilder {
            routes: routes.collect(),
            ..rules()
        }
    };
    let networks = || 0x2001_0db9_0000_0000..=0x2001_0db9_ffff_ffff;
    let some: Vec<_> = networks().take(count).collect();
    // Where something else is in the way there is another key.
    let met = (0..100).find_map(|seed| {
        let first = trial.compile(rules(&some), seed);
        let place = first.table.slots().len() - 4;
        let same = networks().filter(|network| home(&first, *network) == place);
        let same: Vec<_> = same.take(count).collect();
        let image = trial.compile(rules(&same), seed);
        let is_met =
            image.table.key() == first.table.key() && image.table.slots().len() == first.table.slots().len();
        is_met.then_some((image, same))
    });
    let (image, networks) = met.expect("a key for which nothing else is there");
    // In either half of the programs' tables.
    for _ in 0..2 {
        trial.publish(&image);
        for (network, number) in networks.iter().zip(1..) {
            let dst = Ipv6Addr::from_bits(u128::from(*network) << 64 | 1);
            assert_eq!(way(&mut trial, FAR, dst), Some((A, hop(number))), "{dst}");
        }
    }
}
