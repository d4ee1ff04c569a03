//! The tables of the programs, written, and their counters, read, from outside of the kernel and without privilege.
//!
//! ```text
//!   isatap_gen      active 7, writing 7
//!   isatap_config   [ generation 6 (old) | generation 7 ]
//!   isatap_slots    [ generation 6 (old) | generation 7 ]
//! ```
//!
//! The next generation goes where the one before the last was: `writing` becomes 8 first, then come the entries, then
//! `active` becomes 8. A packet reads `active` once and decides by that half; it looks at `writing` afterwards, and when its half
//! is being written anew leaves itself to a worker. No packet sees a mixture, and nobody waits.
//!
//! Neighbours have a generation of their own, for they come and go all the time: a packet that reads one while
//! `neighbours_writing` is ahead of `neighbours` does without, and what CPUs remember of neighbours counts in one generation of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use zerocopy::IntoBytes;

use super::neighbours::{Generations, Neighbour, Neighbours};
use crate::ebpf::layout::{Config, Counter, Generation, Slot, stay_nanos};
use crate::ebpf::numbers::{FLAG_CARRY_IN, FLAG_CARRY_OUT, STAYS, TAG_EGRESS, TAG_ROUTE};
use crate::ebpf::{Cause, Image};
use crate::io::mapping::Mapping;
use crate::reason::DropReason;
use crate::stats::{Direction, DirectionSnapshot, Latencies};

/// Where among the tables of prefixes that of the devices is.
const EGRESS_TABLE: usize = (TAG_EGRESS - TAG_ROUTE) as usize;

/// The maps, as they are handed from the process that loaded the programs to the one that writes the rules.
#[derive(Debug)]
pub struct MapFds {
    /// Which generation counts.
    pub generation: OwnedFd,
    /// Two configurations.
    pub config: OwnedFd,
    /// Two tables.
    pub slots: OwnedFd,
    /// A row of counters per CPU.
    pub counters: OwnedFd,
    /// Neighbours of the Ethernet devices.
    pub neighbours: OwnedFd,
    /// Slots of one of the tables.
    pub slots_per_table: usize,
    /// CPUs the kernel may ever have.
    pub cpus: usize,
}

/// The maps in our memory.
#[derive(Debug)]
pub struct Shared {
    generation: Generations,
    config: Mapping,
    slots: Mapping,
    counters: Mapping,
    neighbours: Neighbours,
    slots_per_table: usize,
}

const CONFIG_WORDS: usize = size_of::<Config>() / 8;
const SLOT_WORDS: usize = size_of::<Slot>() / 8;
const _: () = assert!(size_of::<Config>().is_multiple_of(8) && size_of::<Slot>().is_multiple_of(8));

impl Shared {
    /// Maps them; the descriptors are not needed any longer.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(maps: &MapFds) -> io::Result<Self> {
        Ok(Self {
            generation: Generations::new(maps.generation.as_fd())?,
            config: Mapping::new(maps.config.as_fd(), 2 * CONFIG_WORDS)?,
            slots: Mapping::new(maps.slots.as_fd(), 2 * maps.slots_per_table * SLOT_WORDS)?,
            counters: Mapping::new(maps.counters.as_fd(), maps.cpus * Counter::ROW)?,
            neighbours: Neighbours::new(maps.neighbours.as_fd())?,
            slots_per_table: maps.slots_per_table,
        })
    }

    /// How many slots an image may have.
    pub fn slots_per_table(&self) -> usize {
        self.slots_per_table
    }

    /// Which generation packets are decided by; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation.read().active
    }

    /// Which generation packets read neighbours by. Each ends what CPUs remember of them.
    pub fn neighbour_generation(&self) -> u32 {
        self.generation.read().neighbours
    }

    /// Makes `image` the rules. Only one process, and one thread of it, may do so at a time.
    ///
    /// # Errors
    /// `InvalidInput` when the table is longer than there is room for.
    pub fn publish(&self, image: &Image) -> io::Result<()> {
        let slots = image.table.slots();
        if slots.len() > self.slots_per_table {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let Generation { active, writing, .. } = self.generation.read();
        // One that was tried out is not counted again: a CPU may remember something of it.
        let last = if active == 0 { writing } else { active };
        // 0 means that there are no rules; the half goes on alternating.
        let next = match last.wrapping_add(1) {
            0 => 2,
            next => next,
        };
        self.generation.announce(|writing| writing.writing = next);
        self.generation
            .surround(u32::from(image.link_len), image.config.key);
        // Whoever sees one of the words below sees `writing` as well.
        fence(Ordering::SeqCst);

        let half = usize::from(next % 2 == 1);
        let base = half * self.slots_per_table;
        let config = Config {
            base: u32::try_from(base).map_err(|_| io::ErrorKind::InvalidInput)?,
            ..image.config
        };
        write(&self.slots.words()[base * SLOT_WORDS..], slots.as_bytes());
        write(&self.config.words()[half * CONFIG_WORDS..], config.as_bytes());
        fence(Ordering::SeqCst);
        self.generation.begin(|now| now.active = next);
        Ok(())
    }

    /// What has come to be known of neighbours: the frame header to each, or that there is none any longer.
    pub fn set_neighbours(&self, news: &[Neighbour]) {
        self.neighbours.set(&self.generation, news);
    }

    /// Whether [`Shared::set_neighbours`] of this may come a moment later: nothing is known that is wrong then.
    pub fn may_wait(&self, news: &Neighbour) -> bool {
        self.neighbours.may_wait(news)
    }

    /// No neighbour is known.
    pub fn forget_neighbours(&self) {
        self.neighbours.forget(&self.generation);
    }

    /// How many neighbours the programs send frames to themselves.
    pub fn neighbours(&self) -> usize {
        self.neighbours.count()
    }

    /// As they were when the programs were loaded, for the programs and for whoever writes the rules; but for the number of the next
    /// generation.
    pub(super) fn clear(&self) {
        self.generation.clear();
        for word in self.counters.words() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// What has been counted for a direction (0 or 1, as in [`crate::ebpf::numbers`]), on all CPUs.
    pub fn count(&self, counter: Counter, direction: usize) -> u64 {
        let at = counter.at(direction);
        let rows = self.counters.words().chunks(Counter::ROW);
        rows.map(|row| row[at].load(Ordering::Relaxed)).sum()
    }

    /// What has been carried and dropped in a direction, on all CPUs. What was left is not in it: a worker counts that.
    pub fn snapshot(&self, direction: Direction) -> DirectionSnapshot {
        let count = |counter| self.count(counter, direction as usize);
        let drops: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| count(Counter::Dropped(*reason)))
            .collect();
        let delivered = count(Counter::Packets);
        DirectionSnapshot {
            received: delivered + drops.iter().sum::<u64>(),
            delivered,
            bytes: count(Counter::Bytes),
            superpackets: count(Counter::Superpackets),
            segments: count(Counter::Segments),
            drops,
            ..DirectionSnapshot::default()
        }
    }

    /// Packets that were left to workers, by cause in the order of [`Cause::ALL`], on all CPUs.
    pub fn left(&self, direction: Direction) -> Vec<u64> {
        let causes = Cause::ALL.iter();
        causes
            .map(|cause| self.count(Counter::Passed(*cause), direction as usize))
            .collect()
    }

    /// How long packets that were carried took, of one in [`SAMPLE`](crate::ebpf::numbers::SAMPLE), on all CPUs: from when the
    /// program knew that it may carry the packet to when it redirected it.
    pub fn latencies(&self) -> Latencies {
        let mut latencies = Latencies::default();
        for direction in Direction::ALL {
            for place in 0..STAYS as usize {
                let count = self.count(Counter::Stay(place), direction as usize);
                if count > 0 {
                    let stay = Duration::from_nanos(stay_nanos(place));
                    latencies.record(direction, stay, usize::try_from(count).unwrap_or(usize::MAX));
                }
            }
        }
        latencies
    }

    /// Whether the rules in force have packets of a direction carried, wherever programs are attached.
    pub fn carries(&self, direction: Direction) -> bool {
        let active = self.generation();
        let half = usize::from(active % 2 == 1);
        let mut config = Config::EMPTY;
        let words = &self.config.words()[half * CONFIG_WORDS..];
        for (bytes, word) in config.as_mut_bytes().as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        active != 0
            && match direction {
                // Where no device leads anywhere, nothing leaves.
                Direction::Encap => {
                    config.flags & FLAG_CARRY_OUT != 0 && config.levels[EGRESS_TABLE].count > 0
                }
                Direction::Decap => config.flags & FLAG_CARRY_IN != 0,
            }
    }
}

pub(super) fn write(to: &[AtomicU64], bytes: &[u8]) {
    for (word, bytes) in to.iter().zip(bytes.as_chunks::<8>().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}
