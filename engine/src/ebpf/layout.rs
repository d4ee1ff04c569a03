//! What the maps hold, byte by byte, as `ebpf/maps.h` has it.

use std::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::cause::Cause;
use super::numbers::{
    DIRECTIONS, MAX_LEVELS, MAX_LOCATORS, NEIGHBOURS, PREFIX_TABLES, STAY_OCTAVES, STAY_STEPS, STAYS,
};
use crate::fib::group::mix;
use crate::reason::DropReason;

/// Which generation of the rules counts, and which of the neighbours; and what else packets ask first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Generation {
    /// The rules that packets are decided by; 0 before the first.
    pub active: u32,
    /// The neighbours that packets go to; read together with `active`.
    pub neighbours: u32,
    /// The rules that were written last, or are being written.
    pub writing: u32,
    /// The neighbours that were written last, or are being written.
    pub neighbours_writing: u32,
    /// Bytes of link header that packets of the TUN interface have.
    pub link_len: u32,
    /// 1: packets of one CPU may interrupt each other's.
    pub preemptible: u32,
    /// Of the hash by which CPUs remember flows.
    pub key: u64,
}

/// A neighbour of an Ethernet device, in the one place of the table that it can have. All zero: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct NeighbourPlace {
    /// Its IPv4 address.
    pub addr: u32,
    /// The interface index.
    pub device: u32,
    /// What frames to it begin with (IEEE 802.3): destination, source, and the type for IPv4.
    pub link: [u8; 14],
    /// 1: the kernel asks it once it has a packet for it, and not before.
    pub doubted: u8,
    /// Fills up.
    pub unused: [u8; 9],
}

impl NeighbourPlace {
    /// The place of an address behind a device, as `ebpf/egress.h` looks for it.
    pub fn of(addr: Ipv4Addr, device: u32) -> usize {
        let hash = mix(u64::from(addr.to_bits()) << 32 | u64::from(device));
        usize::try_from(hash & u64::from(NEIGHBOURS - 1)).unwrap_or(0)
    }
}

/// An IPv4 address of ours, and the device where packets for it arrive; 0: anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct LocatorPlace {
    /// The address.
    pub addr: u32,
    /// The interface index.
    pub device: u32,
}

/// Prefix lengths in use in one table of prefixes, longest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Levels {
    /// How many of `lens` count.
    pub count: u32,
    /// The lengths, in bits.
    pub lens: [u8; MAX_LEVELS as usize],
}

impl Levels {
    /// An empty table.
    pub const NONE: Self = Self {
        count: 0,
        lens: [0; MAX_LEVELS as usize],
    };
}

/// The fixed part of one generation of the rules. See `ebpf/maps.h` for what each field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "documented where the programs read them")]
pub struct Config {
    pub flags: u32,
    pub mtu: u32,
    pub ttl: u32,
    pub dscp: u32,
    pub locator_count: u32,
    /// Puts the key where a number of its size may be.
    pub padding: u32,
    pub key: u64,
    pub locators: [LocatorPlace; MAX_LOCATORS as usize],
    pub mark: [u64; 2],
    pub peers: u32,
    pub other_paths: u32,
    pub default_kind: u32,
    pub default_hop: u32,
    pub base: u32,
    pub mask: u32,
    pub levels: [Levels; PREFIX_TABLES as usize],
    /// Fills the last of its lines of memory.
    pub unused: [u8; 40],
}

const _: () = assert!(size_of::<Config>().is_multiple_of(64));

impl Config {
    /// All zero: nothing is carried.
    pub const EMPTY: Self = Self {
        flags: 0,
        mtu: 0,
        ttl: 0,
        dscp: 0,
        peers: 0,
        other_paths: 0,
        default_kind: 0,
        default_hop: 0,
        locator_count: 0,
        padding: 0,
        base: 0,
        mask: 0,
        key: 0,
        mark: [0; 2],
        locators: [LocatorPlace { addr: 0, device: 0 }; MAX_LOCATORS as usize],
        levels: [Levels::NONE; PREFIX_TABLES as usize],
        unused: [0; 40],
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
    /// What is found besides that.
    pub more: u32,
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
    /// Packets whose time was taken, carried or not.
    Sampled,
    /// Packets left to a worker.
    Passed(Cause),
    /// Packets dropped.
    Dropped(DropReason),
    /// Packets carried that took so long: [`stay_nanos`] of the number of the place.
    Stay(usize),
}

const _: () = assert!(NEIGHBOURS.is_power_of_two() && MAX_LOCATORS.is_power_of_two());
const _: () = assert!(STAYS == (STAY_OCTAVES + 2) * STAY_STEPS);
/// Counters that have one word for each direction.
const SINGLE: usize = 5;

/// What a place among the stays stands for: the middle of its times, in nanoseconds.
pub fn stay_nanos(place: usize) -> u64 {
    let (place, steps) = (place as u64, u64::from(STAY_STEPS));
    let octave = (place / steps).saturating_sub(1);
    let nanos = place - octave * steps;
    (nanos << octave) + (1 << octave) / 2
}

impl Counter {
    /// Words of a row in use; the row itself is rounded up to whole cache lines.
    pub const WORDS: usize =
        DIRECTIONS as usize * (SINGLE + Cause::COUNT + DropReason::COUNT + STAYS as usize);
    /// Words of a row.
    pub const ROW: usize = Self::WORDS.next_multiple_of(8);

    /// The word of this counter for a direction: 0 or 1, as the numbers say.
    pub fn at(self, direction: usize) -> usize {
        let both = DIRECTIONS as usize;
        let causes = both * SINGLE;
        let drops = causes + both * Cause::COUNT;
        let stays = drops + both * DropReason::COUNT;
        match self {
            Counter::Packets => direction,
            Counter::Bytes => both + direction,
            Counter::Sampled => 2 * both + direction,
            Counter::Superpackets => 3 * both + direction,
            Counter::Segments => 4 * both + direction,
            Counter::Passed(cause) => causes + direction * Cause::COUNT + cause as usize,
            Counter::Dropped(reason) => drops + direction * DropReason::COUNT + reason as usize,
            Counter::Stay(place) => stays + direction * STAYS as usize + place,
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
                Counter::Sampled,
            ] {
                assert!(words.insert(counter.at(direction)));
            }
            for cause in Cause::ALL {
                assert!(words.insert(Counter::Passed(*cause).at(direction)));
            }
            for reason in DropReason::ALL {
                assert!(words.insert(Counter::Dropped(*reason).at(direction)));
            }
            for place in 0..STAYS as usize {
                assert!(words.insert(Counter::Stay(place).at(direction)));
            }
        }
        assert!(words.iter().copied().eq(0..Counter::WORDS));
        const { assert!(Counter::ROW >= Counter::WORDS && Counter::ROW.is_multiple_of(8)) }
    }

    /// As `ebpf/count.h` does it.
    fn place_of(mut nanos: u64) -> usize {
        let steps = u64::from(STAY_STEPS);
        for octave in 0..=u64::from(STAY_OCTAVES) {
            if nanos < 2 * steps {
                return usize::try_from(octave * steps + nanos).unwrap();
            }
            nanos >>= 1;
        }
        STAYS as usize - 1
    }

    #[test]
    fn a_place_stands_for_its_times() {
        for place in 0..STAYS as usize {
            assert_eq!(place_of(stay_nanos(place)), place);
        }
        for nanos in [0, 1, 31, 32, 33, 777, 1_000, 65_535, 1_000_000, 33_000_000] {
            let shown = stay_nanos(place_of(nanos));
            assert!(
                shown.abs_diff(nanos) * 31 <= nanos,
                "{nanos} ns are shown as {shown}"
            );
        }
        assert_eq!(place_of(u64::MAX), STAYS as usize - 1);
    }
}
