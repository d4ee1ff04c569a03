//! A hash table that is built once and then only asked: keys beside their values in one array.
//!
//! A look-up is one multiplication and, nearly always, one cache line: there is no second array to look at first. The hash is keyed at random, so that nobody can choose addresses
//! that collide (FAULTS 20).

/// Up to so many entries are compared one by one, which is done before a hash would be.
const FEW_ENTRIES: usize = 4;
/// Tables of up to so many entries are made a quarter full, so that a branch nearly always goes the same way; larger ones
/// three quarters full, for then it is the cache that decides.
const ROOMY_ENTRIES: usize = 1 << 16;

/// How many keys are read ahead at once.
pub const READ_AHEAD: usize = 64;

/// What a table is asked by.
pub(super) trait Key: Copy + Eq {
    /// A hash of all bits that nobody can foresee without the secret.
    fn hash(self, secret: &Secret) -> u64;
}

/// Numbers that make the hash of each table its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secret([u64; 3]);

impl Secret {
    fn random() -> Self {
        let source = ahash::RandomState::new();
        // An even multiplier would lose bits.
        Self([
            source.hash_one(0u8),
            source.hash_one(1u8) | 1,
            source.hash_one(2u8) | 1,
        ])
    }
}

impl Key for u32 {
    #[inline]
    fn hash(self, secret: &Secret) -> u64 {
        u64::from(self).hash(secret)
    }
}

impl Key for u64 {
    #[inline]
    fn hash(self, secret: &Secret) -> u64 {
        // One product spreads numbers in a row no better than its factor happens to.
        fold(fold(self ^ secret.0[0], secret.0[1]), secret.0[2])
    }
}

impl Key for u128 {
    #[inline]
    fn hash(self, secret: &Secret) -> u64 {
        let (high, low) = halves(self);
        (fold(high ^ secret.0[0], secret.0[2]) ^ low).hash(secret)
    }
}

/// The halves of a 128-bit number, the high one first.
#[inline]
pub(super) fn halves(bits: u128) -> (u64, u64) {
    let high = u64::try_from(bits >> 64).unwrap_or(u64::MAX);
    let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    (high, low)
}

/// Both halves of the product, so that each bit of the result depends on each bit of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let (high, low) = halves(u128::from(a) * u128::from(b));
    high ^ low
}

/// Values by key.
#[derive(Debug)]
pub(super) struct FlatMap<K, V> {
    secret: Secret,
    /// At least one is empty: a search ends there.
    slots: Box<[Option<(K, V)>]>,
    count: usize,
}

impl<K: Key, V: Copy> FlatMap<K, V> {
    /// A table of `entries`; of two with the same key the later one counts.
    pub(super) fn new(entries: &[(K, V)]) -> Self {
        let spare = match entries.len() {
            0..=FEW_ENTRIES => 0,
            count @ ..=ROOMY_ENTRIES => 3 * count,
            count => count / 3,
        };
        let mut map = Self {
            secret: Secret::random(),
            slots: vec![None; entries.len() + spare + 1].into(),
            count: 0,
        };
        for &(key, value) in entries {
            let at = map.find(key);
            map.count += usize::from(map.slots[at].is_none());
            map.slots[at] = Some((key, value));
        }
        map
    }

    /// The value of `key`.
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.slots[self.find(key)].as_ref().map(|(_, value)| value)
    }

    /// Whether there is a value of `key`.
    #[inline]
    pub(super) fn contains(&self, key: K) -> bool {
        self.slots[self.find(key)].is_some()
    }

    /// Reads where each of `keys` would be, and depends on nothing it finds: the next look-ups of them need not wait for memory.
    /// The places are worked out first, so that the reads lie close together and the processor has as many under way as it
    /// can. Returns a number for the caller to consume, lest the compiler leave the reading out; keys beyond
    /// [`READ_AHEAD`] are not read.
    #[inline]
    pub(super) fn touch(&self, keys: impl Iterator<Item = K>) -> usize {
        let mut homes = [0; READ_AHEAD];
        let mut count = 0;
        for (home, key) in homes.iter_mut().zip(keys) {
            *home = self.home(key);
            count += 1;
        }
        let read = |home: &usize| usize::from(self.slots[*home].is_some());
        homes[..count].iter().map(read).sum()
    }

    /// Whether the table is too large to lie in a core's own caches.
    pub(super) fn is_large(&self) -> bool {
        self.slots.len() > ROOMY_ENTRIES
    }

    /// All keys with their values, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.slots.iter().flatten().copied()
    }

    /// Whether there is no key.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Where the search for `key` begins. The high half of a product with the length is below the length, and every slot is
    /// as likely as any other.
    #[inline]
    fn home(&self, key: K) -> usize {
        let (home, _) = halves(u128::from(key.hash(&self.secret)) * self.slots.len() as u128);
        usize::try_from(home).unwrap_or(0)
    }

    /// Where `key` is, or where it would be.
    #[inline]
    fn find(&self, key: K) -> usize {
        let len = self.slots.len();
        if len <= FEW_ENTRIES + 1 {
            // They lie at the front, in the order in which they came.
            let here = |slot: &Option<(K, V)>| slot.is_none_or(|(found, _)| found == key);
            return self.slots.iter().position(here).unwrap_or(0);
        }
        let mut at = self.home(key);
        while let Some((found, _)) = &self.slots[at] {
            if *found == key {
                break;
            }
            at += 1;
            if at == len {
                at = 0;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miri::cases;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn nothing_is_found_in_nothing() {
        let map = FlatMap::<u64, ()>::new(&[]);
        assert!(!map.contains(0) && map.get(u64::MAX).is_none());
        assert_eq!(map.len(), 0);
    }

    /// Nobody without the secret can make keys that share a place.
    /// FAULTS 20.
    #[test]
    fn two_tables_hash_differently() {
        let (a, b) = (Secret::random(), Secret::random());
        assert!((0..64u64).any(|key| key.hash(&a) != key.hash(&b)));
        assert!((0..64u128).any(|key| key.hash(&a) != key.hash(&b)));
    }

    /// Addresses differ in a few bits, high or low; the hash must spread them all the same.
    /// FAULTS 20: the longest row to look along stays short.
    #[test]
    fn keys_of_any_pattern_are_spread() {
        const ROUNDS: usize = cases(20, 1);
        const KEYS: u32 = cases(10_000, 100);
        fn longest_row<K: Key>(keys: impl Iterator<Item = K>) -> usize {
            let map = FlatMap::new(&keys.map(|key| (key, ())).collect::<Vec<_>>());
            let rows = map.slots.split(Option::is_none).map(<[_]>::len);
            rows.max().unwrap_or(0)
        }
        for round in 0..ROUNDS {
            for shift in [0, 7, 16, 32, 48, 64, 80, 112] {
                // About 15 of 10 000 entries lie in a row by chance in a table that is a quarter full.
                let longest = longest_row((0..KEYS).map(|key| u128::from(key) << shift));
                assert!(longest < 60, "{longest} in a row at shift {shift}, round {round}");
            }
            for shift in [0, 7, 16, 32, 48] {
                let longest = longest_row((0..KEYS).map(|key| u64::from(key) << shift));
                assert!(longest < 60, "{longest} in a row at shift {shift}, round {round}");
            }
        }
    }

    proptest! {
        /// The model is the library's table.
        #[test]
        fn agrees_with_a_hash_map(
            entries in prop::collection::vec((0u128..40, any::<u8>()), 0..60),
            shift in 0u32..120,
        ) {
            let entries: Vec<_> = entries.into_iter().map(|(key, value)| (key << shift, value)).collect();
            let model: HashMap<_, _> = entries.iter().copied().collect();
            let map = FlatMap::new(&entries);
            prop_assert_eq!(map.len(), model.len());
            for key in 0..50u128 {
                prop_assert_eq!(map.get(key << shift), model.get(&(key << shift)));
                prop_assert_eq!(map.contains(key << shift), model.contains_key(&(key << shift)));
            }
        }
    }
}
