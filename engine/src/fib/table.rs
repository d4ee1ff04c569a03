//! Longest-prefix match: one keyed hash table per prefix length in use, longest first.
//!
//! A lookup costs one probe per distinct length, whatever the number of entries: a site has a handful of lengths. The
//! hash is keyed at random, so that nobody can choose addresses that collide (FAULTS 20).

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Ipv4Prefix, Ipv6Prefix};

#[derive(Debug)]
struct Level<V> {
    len: u8,
    mask: u128,
    entries: HashMap<u128, V, ahash::RandomState>,
}

/// Values by prefix, looked up by the longest prefix that contains an address.
#[derive(Debug)]
pub struct PrefixTable<V> {
    levels: Vec<Level<V>>,
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<V> PrefixTable<V> {
    /// Adds an IPv6 prefix; the value that was there before is returned.
    pub fn insert_v6(&mut self, prefix: Ipv6Prefix, value: V) -> Option<V> {
        self.insert(prefix.addr().to_bits(), prefix.len(), value)
    }

    /// Adds an IPv4 prefix; the value that was there before is returned.
    pub fn insert_v4(&mut self, prefix: Ipv4Prefix, value: V) -> Option<V> {
        self.insert(v4_key(prefix.addr()), prefix.len(), value)
    }

    /// The value of the longest prefix that contains `addr`.
    #[inline]
    pub fn lookup_v6(&self, addr: &Ipv6Addr) -> Option<&V> {
        self.lookup(addr.to_bits())
    }

    /// The value of the longest prefix that contains `addr`.
    #[inline]
    pub fn lookup_v4(&self, addr: Ipv4Addr) -> Option<&V> {
        self.lookup(v4_key(addr))
    }

    /// How many prefixes are held.
    pub fn len(&self) -> usize {
        self.levels.iter().map(|level| level.entries.len()).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    #[inline]
    fn lookup(&self, key: u128) -> Option<&V> {
        self.levels
            .iter()
            .find_map(|level| level.entries.get(&(key & level.mask)))
    }

    fn insert(&mut self, key: u128, len: u8, value: V) -> Option<V> {
        let at = match self.levels.binary_search_by(|level| len.cmp(&level.len)) {
            Ok(at) => at,
            Err(at) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                self.levels.insert(
                    at,
                    Level {
                        len,
                        mask,
                        entries: HashMap::default(),
                    },
                );
                at
            }
        };
        self.levels[at].entries.insert(key, value)
    }
}

/// IPv4 prefixes use the leading 32 bits, so that lengths mean the same in both families.
#[inline]
fn v4_key(addr: Ipv4Addr) -> u128 {
    u128::from(addr.to_bits()) << 96
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut table = PrefixTable::default();
        for (text, value) in [
            ("::/0", 0),
            ("2001:db8::/32", 32),
            ("2001:db8:1::/48", 48),
            ("2001:db8:1::1/128", 128),
        ] {
            assert_eq!(table.insert_v6(text.parse().unwrap(), value), None);
        }
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
            let mut table = PrefixTable::default();
            let mut model: Vec<(Ipv4Prefix, usize)> = Vec::new();
            for (i, (addr, len)) in prefixes.iter().enumerate() {
                let prefix = Ipv4Prefix::containing(Ipv4Addr::from_bits(*addr), *len).unwrap();
                table.insert_v4(prefix, i);
                model.retain(|(p, _)| *p != prefix);
                model.push((prefix, i));
            }
            let starts = prefixes.iter().map(|(addr, _)| *addr);
            for probe in probes.iter().copied().chain(starts) {
                let addr = Ipv4Addr::from_bits(probe);
                let expected =
                    model.iter().filter(|(p, _)| p.contains(addr)).max_by_key(|(p, _)| p.len()).map(|(_, v)| v);
                prop_assert_eq!(table.lookup_v4(addr), expected);
            }
        }
    }
}
