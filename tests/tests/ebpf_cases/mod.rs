//! Rulebooks and packets drawn at random from a small world, so that what a packet names is often what a rule names.
//!
//! | module | answers the question |
//! |---|---|
//! | [`rulebooks`] | which rules are there? |
//! | [`packets`] | which packets come? |

pub(crate) mod packets;
pub(crate) mod rulebooks;

use std::net::{Ipv4Addr, Ipv6Addr};

/// Numbers of a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() >> 33).expect("31 bits") % bound
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.bits().to_be_bytes()[0]
    }

    /// One of `choices`.
    pub(crate) fn one<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Up to `most` values.
    pub(crate) fn some<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| draw(self)).collect()
    }

    /// An IPv4 address of the world.
    pub(crate) fn v4(&mut self) -> Ipv4Addr {
        // Addresses of no host less often than others.
        let few = if self.once_in(8) { V4.len() } else { HOSTS };
        self.one(&V4[..few])
    }

    /// An IPv4 address that a host can have.
    pub(crate) fn host(&mut self) -> Ipv4Addr {
        self.one(&V4[..HOSTS])
    }

    /// An IPv6 address of the world.
    pub(crate) fn v6(&mut self) -> Ipv6Addr {
        let prefix = self
            .one(&PREFIXES)
            .parse::<Ipv6Addr>()
            .expect("an address")
            .to_bits();
        let end = u128::from(self.v4().to_bits());
        let identifier = match self.below(12) {
            0 => u128::from(self.below(3) as u64),
            1 => u128::from(self.bits()),
            2 => 0x0100_5efe << 32 | end,
            3 => end,
            4 => 0xffff << 32 | end,
            5..=7 => 0x0200_5efe << 32 | end,
            _ => 0x5efe << 32 | end,
        };
        Ipv6Addr::from_bits(prefix | identifier)
    }
}

/// Addresses of hosts come first.
pub(crate) const V4: [Ipv4Addr; 17] = [
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(10, 0, 0, 6),
    Ipv4Addr::new(192, 168, 0, 1),
    Ipv4Addr::new(10, 0, 0, 7),
    Ipv4Addr::new(10, 0, 0, 8),
    Ipv4Addr::new(10, 0, 0, 9),
    Ipv4Addr::new(10, 0, 0, 30),
    Ipv4Addr::new(172, 16, 5, 5),
    Ipv4Addr::new(198, 51, 100, 9),
    Ipv4Addr::new(10, 0, 0, 255),
    Ipv4Addr::new(0, 0, 0, 1),
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::new(255, 255, 255, 255),
    Ipv4Addr::new(169, 254, 3, 4),
    Ipv4Addr::new(223, 255, 255, 255),
];
/// How many of them hosts can have, whatever the Rulebook.
const HOSTS: usize = 10;
/// How many may be our own.
pub(crate) const OWN: usize = 3;

const PREFIXES: [&str; 16] = [
    "fe80::",
    "fe80::",
    "2001:db8:1::",
    "2001:db8:1::",
    "2001:db8:1::",
    "2001:db8:7::",
    "2001:db8:7::",
    "2001:db8:77::",
    "fd00:1::",
    "fec0::",
    "fe80:0:0:1::",
    "2002:a00:1::",
    "2002:a00:9::",
    "2002:a00:6::",
    "::",
    "ff02::",
];
