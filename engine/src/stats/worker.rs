//! The counters of one worker, and of all of them.

use std::sync::Arc;

use super::counter::Counter;
use super::events::{ERRNO_SLOTS, IoOperation, LoopEvent};
use super::snapshot::WorkerSnapshot;
use crate::reason::DropReason;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the TUN interface to the IPv4 network.
    Encap,
    /// From the IPv4 network to the TUN interface.
    Decap,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Encap, Direction::Decap];

    /// The label on metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Encap => "encap",
            Direction::Decap => "decap",
        }
    }
}

/// Upper bounds of the batch-size histogram, in packets; one more bucket holds what is larger.
pub const BATCH_BUCKETS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// One direction of one worker. One read from or written to the kernel is one packet: a superpacket counts once.
#[derive(Debug)]
pub struct DirectionStats {
    /// Packets read from the kernel.
    pub received: Counter,
    /// Packets the kernel took on the other side.
    pub delivered: Counter,
    /// Packets given to control.
    pub punted: Counter,
    /// Inner bytes of delivered packets.
    pub bytes: Counter,
    /// Delivered packets that stand for several on the wire.
    pub superpackets: Counter,
    /// Segments of delivered superpackets.
    pub segments: Counter,
    /// Batches by size; the last bucket is larger than every bound.
    pub batches: [Counter; BATCH_BUCKETS.len() + 1],
    drops: [Counter; DropReason::COUNT],
}

/// Everything one worker counts. Aligned so that no two workers write to one cache line (nor to its prefetched twin).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    encap: DirectionStats,
    decap: DirectionStats,
    /// System calls made.
    pub syscalls: Counter,
    /// Turns of the loop: what does not change although the worker was woken is stuck.
    pub turns: Counter,
    events: EventCounters,
    errors: ErrorCounters,
}

#[derive(Debug)]
struct EventCounters([Counter; LoopEvent::COUNT]);

#[derive(Debug)]
struct ErrorCounters(Box<[[Counter; ERRNO_SLOTS]; IoOperation::COUNT]>);

impl Default for DirectionStats {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            delivered: Counter::default(),
            punted: Counter::default(),
            bytes: Counter::default(),
            superpackets: Counter::default(),
            segments: Counter::default(),
            batches: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Default for EventCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Default for ErrorCounters {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| {
            std::array::from_fn(|_| Counter::default())
        })))
    }
}

impl DirectionStats {
    /// The counter of one drop reason.
    #[inline]
    pub fn drops(&self, reason: DropReason) -> &Counter {
        &self.drops[reason as usize]
    }

    /// Counts one batch of `packets`.
    #[inline]
    pub fn batch(&self, packets: usize) {
        let packets = packets as u64;
        let bucket = BATCH_BUCKETS
            .iter()
            .position(|bound| packets <= *bound)
            .unwrap_or(BATCH_BUCKETS.len());
        self.batches[bucket].bump();
    }
}

impl WorkerStats {
    /// One direction.
    #[inline]
    pub fn direction(&self, direction: Direction) -> &DirectionStats {
        match direction {
            Direction::Encap => &self.encap,
            Direction::Decap => &self.decap,
        }
    }

    /// The counter of one loop event.
    #[inline]
    pub fn event(&self, event: LoopEvent) -> &Counter {
        &self.events.0[event as usize]
    }

    /// The counter of one errno of one operation; values Linux does not define share slot 0.
    pub fn error(&self, operation: IoOperation, errno: i32) -> &Counter {
        let slot = usize::try_from(errno)
            .ok()
            .filter(|slot| *slot < ERRNO_SLOTS)
            .unwrap_or(0);
        &self.errors.0[operation as usize][slot]
    }

    /// Plain numbers, read one by one: sums may differ by what happens meanwhile, never at rest.
    pub fn snapshot(&self) -> WorkerSnapshot {
        WorkerSnapshot::read(self)
    }
}

/// The counters of all workers.
#[derive(Clone, Debug)]
pub struct EngineStats {
    workers: Arc<[WorkerStats]>,
}

impl EngineStats {
    /// Counters for `workers` workers, all zero.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| WorkerStats::default()).collect(),
        }
    }

    /// The counters of one worker, if there is one of that number.
    pub fn worker(&self, index: usize) -> Option<&WorkerStats> {
        self.workers.get(index)
    }

    /// Packets of one direction that the kernel took, of all workers together.
    pub fn delivered(&self, direction: Direction) -> u64 {
        let delivered = |worker: &WorkerStats| worker.direction(direction).delivered.get();
        self.workers.iter().map(delivered).sum()
    }

    /// One snapshot per worker, in their order.
    pub fn snapshot(&self) -> Vec<WorkerSnapshot> {
        self.workers.iter().map(WorkerStats::snapshot).collect()
    }
}
