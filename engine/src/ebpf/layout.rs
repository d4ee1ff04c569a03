//! What the maps hold, byte by byte, as `ebpf/maps.h` has it.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::cause::Cause;
use super::numbers::{DIRECTIONS, MAX_LOCATORS, MAX_ROUTE_LEVELS, MAX_V4_LEVELS};
use crate::reason::DropReason;

/// Which generation of the rules counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Generation {
    /// The one that packets are decided by; 0 before the first.
    pub active: u32,
    /// The one that was written last, or is being written.
    pub writing: u32,
}

/// The fixed part of one generation of the rules. See `ebpf/maps.h` for what each field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "documented where the programs read them")]
pub struct Config {
    pub flags: u32,
    pub link_len: u32,
    pub mtu: u32,
    pub ttl: u32,
    pub dscp: u32,
    pub peers: u32,
    pub other_paths: u32,
    pub default_kind: u32,
    pub default_hop: u32,
    pub locator_count: u32,
    pub route_levels: u32,
    pub site_levels: u32,
    pub peer_levels: u32,
    pub egress_levels: u32,
    pub base: u32,
    pub mask: u32,
    pub key: u64,
    pub mark: [u64; 2],
    pub locators: [u32; MAX_LOCATORS as usize],
    pub locator_devices: [u32; MAX_LOCATORS as usize],
    pub route_lens: [u8; MAX_ROUTE_LEVELS as usize],
    pub site_lens: [u8; MAX_V4_LEVELS as usize],
    pub peer_lens: [u8; MAX_V4_LEVELS as usize],
    pub egress_lens: [u8; MAX_V4_LEVELS as usize],
}

impl Config {
    /// All zero: nothing is carried.
    pub const EMPTY: Self = Self {
        flags: 0,
        link_len: 0,
        mtu: 0,
        ttl: 0,
        dscp: 0,
        peers: 0,
        other_paths: 0,
        default_kind: 0,
        default_hop: 0,
        locator_count: 0,
        route_levels: 0,
        site_levels: 0,
        peer_levels: 0,
        egress_levels: 0,
        base: 0,
        mask: 0,
        key: 0,
        mark: [0; 2],
        locators: [0; MAX_LOCATORS as usize],
        locator_devices: [0; MAX_LOCATORS as usize],
        route_lens: [0; MAX_ROUTE_LEVELS as usize],
        site_lens: [0; MAX_V4_LEVELS as usize],
        peer_lens: [0; MAX_V4_LEVELS as usize],
        egress_lens: [0; MAX_V4_LEVELS as usize],
    };
}

/// One entry of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Slot {
    /// First half of the key.
    pub high: u64,
    /// Second half of the key.
    pub low: u64,
    /// Which set or table the entry belongs to; 0: the slot is empty.
    pub tag: u32,
    /// What is found.
    pub value: u32,
    /// What is found besides.
    pub extra: u32,
    /// Fills up.
    pub unused: u32,
}

/// Where each counter of a CPU lies, in 64-bit words from the start of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets carried.
    Packets,
    /// Their inner bytes.
    Bytes,
    /// Those of them that stood for several.
    Superpackets,
    /// Segments of the superpackets.
    Segments,
    /// Packets left to a worker.
    Passed(Cause),
    /// Packets dropped.
    Dropped(DropReason),
}

impl Counter {
    /// Words of a row in use; the row itself is rounded up to whole cache lines.
    pub const WORDS: usize = DIRECTIONS as usize * (4 + Cause::COUNT + DropReason::COUNT);
    /// Words of a row.
    pub const ROW: usize = Self::WORDS.next_multiple_of(8);

    /// The word of this counter for a direction: 0 or 1, as the numbers say.
    pub fn at(self, direction: usize) -> usize {
        let both = DIRECTIONS as usize;
        match self {
            Counter::Packets => direction,
            Counter::Bytes => both + direction,
            Counter::Superpackets => 2 * both + direction,
            Counter::Segments => 3 * both + direction,
            Counter::Passed(cause) => 4 * both + direction * Cause::COUNT + cause as usize,
            Counter::Dropped(reason) => {
                both * (4 + Cause::COUNT) + direction * DropReason::COUNT + reason as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_counter_has_a_word_of_its_own() {
        let mut words = BTreeSet::new();
        for direction in 0..2 {
            for counter in [
                Counter::Packets,
                Counter::Bytes,
                Counter::Superpackets,
                Counter::Segments,
            ] {
                assert!(words.insert(counter.at(direction)));
            }
            for cause in Cause::ALL {
                assert!(words.insert(Counter::Passed(*cause).at(direction)));
            }
            for reason in DropReason::ALL {
                assert!(words.insert(Counter::Dropped(*reason).at(direction)));
            }
        }
        assert!(words.iter().copied().eq(0..Counter::WORDS));
        const { assert!(Counter::ROW >= Counter::WORDS && Counter::ROW.is_multiple_of(8)) }
    }
}
