//! Longest-prefix match: one frozen hash table per prefix length in use, longest first.
//!
//! A lookup costs one probe per distinct length, whatever the number of entries: a site has a handful of lengths.
//! Prefixes of up to 64 bits, which is nearly all there are, are kept by the high half of the address alone.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::BitAnd;

use super::flat::{FlatMap, Key, halves};
use super::{Ipv4Prefix, Ipv6Prefix};

/// Values by prefix, looked up by the longest prefix that contains an address.
#[derive(Debug)]
pub struct PrefixTable<V> {
    /// Lengths 65..=128, longest first.
    long: Vec<Level<u128, V>>,
    /// Lengths 0..=64, longest first.
    short: Vec<Level<u64, V>>,
}

#[derive(Debug)]
struct Level<K, V> {
    mask: K,
    entries: FlatMap<K, V>,
}

impl<V: Copy> PrefixTable<V> {
    /// A table of IPv6 prefixes; of two values of the same prefix the later one counts.
    pub fn v6(prefixes: impl IntoIterator<Item = (Ipv6Prefix, V)>) -> Self {
        let prefixes = prefixes.into_iter();
        Self::build(prefixes.map(|(prefix, value)| (prefix.len(), prefix.addr().to_bits(), value)))
    }

    /// A table of IPv4 prefixes; of two values of the same prefix the later one counts.
    pub fn v4(prefixes: impl IntoIterator<Item = (Ipv4Prefix, V)>) -> Self {
        let prefixes = prefixes.into_iter();
        Self::build(
            prefixes.map(|(prefix, value)| (prefix.len(), u128::from(v4_key(prefix.addr())) << 64, value)),
        )
    }

    /// The value of the longest prefix that contains `addr`.
    #[inline]
    pub fn lookup_v6(&self, addr: &Ipv6Addr) -> Option<&V> {
        let key = addr.to_bits();
        longest(&self.long, key).or_else(|| longest(&self.short, halves(key).0))
    }

    /// The value of the longest prefix that contains `addr`.
    #[inline]
    pub fn lookup_v4(&self, addr: Ipv4Addr) -> Option<&V> {
        longest(&self.short, v4_key(addr))
    }

    /// Reads ahead for later calls of [`PrefixTable::lookup_v6`] with `addrs`, in the levels too large for a core's own caches;
    /// the first [`READ_AHEAD`](super::READ_AHEAD) of them. The number means nothing; consume it, or the reading is left out.
    #[inline]
    pub fn touch_v6(&self, addrs: &[Ipv6Addr]) -> usize {
        let long = touch(&self.long, addrs, |addr| addr.to_bits());
        long + touch(&self.short, addrs, |addr| halves(addr.to_bits()).0)
    }

    /// Whether reading ahead is worth it.
    pub fn is_large(&self) -> bool {
        self.long.iter().any(|level| level.entries.is_large())
            || self.short.iter().any(|level| level.entries.is_large())
    }

    /// All prefixes with their values, of a table of IPv6 prefixes; in no order.
    pub fn iter_v6(&self) -> impl Iterator<Item = (Ipv6Prefix, V)> {
        let long = self.long.iter().flat_map(|level| {
            let len = level.mask.leading_ones();
            level.entries.iter().map(move |(bits, value)| (bits, len, value))
        });
        let short = self.short.iter().flat_map(|level| {
            let len = level.mask.leading_ones();
            level
                .entries
                .iter()
                .map(move |(bits, value)| (u128::from(bits) << 64, len, value))
        });
        long.chain(short).filter_map(|(bits, len, value)| {
            let prefix = Ipv6Prefix::containing(Ipv6Addr::from_bits(bits), u8::try_from(len).ok()?);
            Some((prefix.ok()?, value))
        })
    }

    /// All prefixes with their values, of a table of IPv4 prefixes; in no order.
    pub fn iter_v4(&self) -> impl Iterator<Item = (Ipv4Prefix, V)> {
        self.short.iter().flat_map(|level| {
            let len = u8::try_from(level.mask.leading_ones()).unwrap_or(0);
            level.entries.iter().filter_map(move |(bits, value)| {
                let addr = Ipv4Addr::from_bits(u32::try_from(bits >> 32).ok()?);
                Some((Ipv4Prefix::containing(addr, len).ok()?, value))
            })
        })
    }

    /// How many prefixes are held.
    pub fn len(&self) -> usize {
        let long = self.long.iter().map(|level| level.entries.len());
        long.chain(self.short.iter().map(|level| level.entries.len()))
            .sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prefixes as length, leading bits of 128, value.
    fn build(prefixes: impl Iterator<Item = (u8, u128, V)>) -> Self {
        let mut by_len: [Vec<(u128, V)>; 129] = std::array::from_fn(|_| Vec::new());
        for (len, bits, value) in prefixes {
            by_len[usize::from(len).min(128)].push((bits, value));
        }
        let mut table = Self {
            long: Vec::new(),
            short: Vec::new(),
        };
        for (len, entries) in by_len.into_iter().enumerate().rev() {
            if entries.is_empty() {
                continue;
            }
            let host_bits = u32::try_from(128 - len).unwrap_or(0);
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            if len > 64 {
                let entries = FlatMap::new(&entries);
                table.long.push(Level { mask, entries });
            } else {
                let entries: Vec<_> = entries
                    .into_iter()
                    .map(|(bits, value)| (halves(bits).0, value))
                    .collect();
                table.short.push(Level {
                    mask: halves(mask).0,
                    entries: FlatMap::new(&entries),
                });
            }
        }
        table
    }
}

#[inline]
fn longest<K: Key + BitAnd<Output = K>, V: Copy>(levels: &[Level<K, V>], key: K) -> Option<&V> {
    levels
        .iter()
        .find_map(|level| level.entries.get(key & level.mask))
}

#[inline]
fn touch<K: Key + BitAnd<Output = K>, V: Copy>(
    levels: &[Level<K, V>],
    addrs: &[Ipv6Addr],
    key: impl Fn(&Ipv6Addr) -> K,
) -> usize {
    let large = levels.iter().filter(|level| level.entries.is_large());
    large
        .map(|level| {
            level
                .entries
                .touch(addrs.iter().map(|addr| key(addr) & level.mask))
        })
        .sum()
}

/// IPv4 prefixes use the leading 32 bits, so that lengths mean the same in both families.
#[inline]
fn v4_key(addr: Ipv4Addr) -> u64 {
    u64::from(addr.to_bits()) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn the_longest_prefix_wins() {
        let prefixes = [
            ("2001:db8::/32", 32),
            ("::/0", 0),
            ("2001:db8:1::1/128", 128),
            ("2001:db8:1::/48", 4),
            ("2001:db8:1::/48", 48),
        ];
        let table = PrefixTable::v6(prefixes.map(|(text, value)| (text.parse().unwrap(), value)));
        for (text, value) in [
            ("::1", 0),
            ("2001:db8:2::", 32),
            ("2001:db8:1::2", 48),
            ("2001:db8:1::1", 128),
            ("ff02::1", 0),
        ] {
            assert_eq!(table.lookup_v6(&text.parse().unwrap()), Some(&value), "{text}");
        }
        assert_eq!(table.len(), 4);
    }

    proptest! {
        /// The model is a scan over all prefixes.
        #[test]
        fn agrees_with_a_plain_scan(
            prefixes in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            probes in prop::collection::vec(any::<u32>(), 0..40),
        ) {
            let mut all = Vec::new();
            let mut model: Vec<(Ipv4Prefix, usize)> = Vec::new();
            for (i, (addr, len)) in prefixes.iter().enumerate() {
                let prefix = Ipv4Prefix::containing(Ipv4Addr::from_bits(*addr), *len).unwrap();
                all.push((prefix, i));
                model.retain(|(p, _)| *p != prefix);
                model.push((prefix, i));
            }
            let table = PrefixTable::v4(all);
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(BTreeSet::from_iter(table.iter_v4()), BTreeSet::from_iter(model.iter().copied()));
            let starts = prefixes.iter().map(|(addr, _)| *addr);
            for probe in probes.iter().copied().chain(starts) {
                let addr = Ipv4Addr::from_bits(probe);
                let expected =
                    model.iter().filter(|(p, _)| p.contains(addr)).max_by_key(|(p, _)| p.len()).map(|(_, v)| v);
                prop_assert_eq!(table.lookup_v4(addr), expected);
            }
        }

        /// The same for lengths on both sides of 64; addresses differ in a few bits only, so that prefixes nest.
        #[test]
        fn agrees_with_a_plain_scan_of_both_halves(
            prefixes in prop::collection::vec((0u128..16, 56u8..=128), 0..40),
            probes in prop::collection::vec(0u128..16, 0..40),
        ) {
            let spread = |bits: u128| Ipv6Addr::from_bits((bits & 3) << 64 | (bits & 4) << 50 | bits >> 3);
            let all: Vec<_> = prefixes
                .iter()
                .enumerate()
                .map(|(i, (bits, len))| (Ipv6Prefix::containing(spread(*bits), *len).unwrap(), i))
                .collect();
            let table = PrefixTable::v6(all.iter().copied());
            let model: BTreeMap<_, _> = all.iter().copied().collect();
            prop_assert_eq!(BTreeMap::from_iter(table.iter_v6()), model);
            for probe in probes.into_iter().map(spread) {
                let expected =
                    all.iter().filter(|(p, _)| p.contains(probe)).max_by_key(|(p, i)| (p.len(), *i)).map(|(_, v)| v);
                prop_assert_eq!(table.lookup_v6(&probe), expected);
            }
        }
    }
}
