//! The one hash table of a generation: every set and every prefix table of the Rulebook, told apart by a tag.
//!
//! Built once and then only asked, like `fib::flat`, with one difference: the programs read a fixed number of entries at
//! most, for the kernel wants to know that they come to an end. The builder places entries so that this is enough, with
//! another key if it must. So nobody who chooses addresses makes a look-up longer, either.

use super::layout::Slot;
use super::numbers::MAX_PROBES;
use crate::fib::group::mix;

/// A quarter full at most: rows of neighbours stay short.
const SPARE: usize = 4;
/// Keys that are tried for one length; each fails by chance alone.
const TRIES: u64 = 32;

/// Entries by tag and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    slots: Vec<Slot>,
    key: u64,
}

impl Table {
    /// A table of `entries`, of `capacity` slots at most; of two with the same tag and key the later one counts. `seed` is a
    /// random number that nobody outside knows. `None` when they do not fit.
    pub fn new(entries: &[Slot], capacity: usize, seed: u64) -> Option<Self> {
        let mut len = (entries.len().max(1) * SPARE).next_power_of_two();
        while len <= capacity {
            let keys = (0..TRIES).map(|number| mix(seed ^ number));
            if let Some(table) = keys.into_iter().find_map(|key| Self::place(entries, len, key)) {
                return Some(table);
            }
            len *= 2;
        }
        None
    }

    fn place(entries: &[Slot], len: usize, key: u64) -> Option<Self> {
        let mut table = Self {
            slots: vec![Slot::default(); len],
            key,
        };
        for entry in entries {
            let place = table
                .probes(entry.tag, entry.high, entry.low)
                .find(|place| table.slots[*place].tag == 0 || is_same(&table.slots[*place], entry))?;
            table.slots[place] = *entry;
        }
        Some(table)
    }

    /// Where an entry may be, as `ebpf/tables.h` looks for it.
    fn probes(&self, tag: u32, high: u64, low: u64) -> impl Iterator<Item = usize> + use<> {
        let home = mix(mix(self.key ^ u64::from(tag) ^ high) ^ low);
        let mask = self.slots.len() as u64 - 1;
        (0..u64::from(MAX_PROBES))
            .map(move |probe| usize::try_from(home.wrapping_add(probe) & mask).unwrap_or(0))
    }

    /// The entry of this tag and key.
    pub fn get(&self, tag: u32, high: u64, low: u64) -> Option<&Slot> {
        let slots = self.probes(tag, high, low).map(|place| &self.slots[place]);
        slots
            .take_while(|slot| slot.tag != 0)
            .find(|slot| (slot.tag, slot.high, slot.low) == (tag, high, low))
    }

    /// The slots, a power of two of them.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The key of the hash.
    pub fn key(&self) -> u64 {
        self.key
    }
}

fn is_same(a: &Slot, b: &Slot) -> bool {
    (a.tag, a.high, a.low) == (b.tag, b.high, b.low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u32, high: u64, low: u64, value: u32) -> Slot {
        Slot {
            high,
            low,
            tag,
            value,
            ..Slot::default()
        }
    }

    /// FAULTS 20: keys that differ in a few bits, high or low, all find a place, and are found there and nowhere else.
    #[test]
    fn every_entry_is_found() {
        for count in [0, 1, 2, 5, 100, 4000, 16_000, 65_000] {
            let entries: Vec<_> = (0..count)
                .map(|n: u64| match n % 3 {
                    0 => entry(7, n, 0, 1),
                    1 => entry(5, 1 << 63 | n << 16, n, 2),
                    _ => entry(1 | 64 << 8, n << 40, 0, 3),
                })
                .collect();
            let table = Table::new(&entries, 1 << 18, 4711).unwrap();
            for entry in &entries {
                assert_eq!(table.get(entry.tag, entry.high, entry.low), Some(entry));
                assert_eq!(table.get(entry.tag + 1, entry.high, entry.low), None);
                assert_eq!(table.get(entry.tag, entry.high, entry.low + 1), None);
            }
        }
    }

    #[test]
    fn the_later_of_two_counts() {
        let table = Table::new(&[entry(1, 2, 3, 4), entry(1, 2, 3, 5)], 64, 1).unwrap();
        assert_eq!(table.get(1, 2, 3).map(|slot| slot.value), Some(5));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let entries: Vec<_> = (0..17).map(|n| entry(1, n, 0, 0)).collect();
        assert_eq!(Table::new(&entries, 64, 1), None);
        assert!(Table::new(&entries, 128, 1).is_some());
    }
}
