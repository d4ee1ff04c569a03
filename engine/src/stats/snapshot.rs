//! Counters read out as plain numbers, for metrics, status and tests.

use super::events::{ERRNO_SLOTS, IoOperation, LoopEvent};
use super::worker::{BATCH_BUCKETS, Direction, DirectionStats, WorkerStats};
use crate::reason::DropReason;

/// One direction of one worker, or a sum of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectionSnapshot {
    /// Packets read from the kernel.
    pub received: u64,
    /// Packets the kernel took on the other side.
    pub delivered: u64,
    /// Packets given to control.
    pub punted: u64,
    /// Inner bytes of delivered packets.
    pub bytes: u64,
    /// Delivered packets that stand for several on the wire.
    pub superpackets: u64,
    /// Segments of delivered superpackets.
    pub segments: u64,
    /// Batches per bucket of [`BATCH_BUCKETS`], the last one for larger ones.
    pub batches: Vec<u64>,
    /// Drops per reason, in the order of [`DropReason::ALL`].
    pub drops: Vec<u64>,
}

/// How often one operation failed with one errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoErrorCount {
    /// What failed.
    pub operation: IoOperation,
    /// Why; 0 stands for values Linux does not define.
    pub errno: i32,
    /// How often.
    pub count: u64,
}

/// Everything one worker counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// TUN to IPv4.
    pub encap: DirectionSnapshot,
    /// IPv4 to TUN.
    pub decap: DirectionSnapshot,
    /// System calls made.
    pub syscalls: u64,
    /// Loop events, in the order of [`LoopEvent::ALL`].
    pub events: Vec<u64>,
    /// Errors that happened at least once.
    pub errors: Vec<IoErrorCount>,
}

impl DirectionSnapshot {
    fn read(stats: &DirectionStats) -> Self {
        Self {
            received: stats.received.get(),
            delivered: stats.delivered.get(),
            punted: stats.punted.get(),
            bytes: stats.bytes.get(),
            superpackets: stats.superpackets.get(),
            segments: stats.segments.get(),
            batches: stats.batches.iter().map(super::Counter::get).collect(),
            drops: DropReason::ALL
                .iter()
                .map(|reason| stats.drops(*reason).get())
                .collect(),
        }
    }

    /// Drops for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// Drops for all reasons.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Packets read and not yet accounted for: in the worker's hands. 0 at rest; anything else then is a bug.
    pub fn in_flight(&self) -> i128 {
        i128::from(self.received)
            - i128::from(self.delivered)
            - i128::from(self.punted)
            - i128::from(self.dropped_total())
    }

    /// Adds another worker's numbers.
    pub fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.delivered += other.delivered;
        self.punted += other.punted;
        self.bytes += other.bytes;
        self.superpackets += other.superpackets;
        self.segments += other.segments;
        merge_rows(&mut self.batches, &other.batches);
        merge_rows(&mut self.drops, &other.drops);
    }

    /// Upper bounds and counts of the batch-size histogram; `None` stands for infinity.
    pub fn batch_buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = BATCH_BUCKETS.iter().copied().map(Some).chain([None]);
        bounds.zip(self.batches.iter().copied())
    }
}

impl WorkerSnapshot {
    pub(super) fn read(stats: &WorkerStats) -> Self {
        let mut errors = Vec::new();
        for operation in IoOperation::ALL {
            for errno in (0i32..).take(ERRNO_SLOTS) {
                let count = stats.error(*operation, errno).get();
                if count > 0 {
                    errors.push(IoErrorCount {
                        operation: *operation,
                        errno,
                        count,
                    });
                }
            }
        }
        Self {
            encap: DirectionSnapshot::read(stats.direction(Direction::Encap)),
            decap: DirectionSnapshot::read(stats.direction(Direction::Decap)),
            syscalls: stats.syscalls.get(),
            events: LoopEvent::ALL
                .iter()
                .map(|event| stats.event(*event).get())
                .collect(),
            errors,
        }
    }

    /// One direction.
    pub fn direction(&self, direction: Direction) -> &DirectionSnapshot {
        match direction {
            Direction::Encap => &self.encap,
            Direction::Decap => &self.decap,
        }
    }

    /// How often one loop event happened.
    pub fn event(&self, event: LoopEvent) -> u64 {
        self.events.get(event as usize).copied().unwrap_or(0)
    }
}

fn merge_rows(into: &mut Vec<u64>, other: &[u64]) {
    into.resize(into.len().max(other.len()), 0);
    for (sum, value) in into.iter_mut().zip(other) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_out_as_they_went_in() {
        let stats = WorkerStats::default();
        let encap = stats.direction(Direction::Encap);
        encap.received.add(3);
        encap.delivered.bump();
        encap.drops(DropReason::NoRoute).bump();
        encap.batch(3);
        encap.batch(1000);
        stats.error(IoOperation::RawSend, 105).bump();
        stats.error(IoOperation::RawSend, -1).bump();
        stats.event(LoopEvent::Rearmed).bump();
        let mut seen = stats.snapshot();
        assert_eq!(seen.encap.in_flight(), 1);
        assert_eq!(seen.encap.dropped(DropReason::NoRoute), 1);
        assert_eq!(
            seen.encap
                .batch_buckets()
                .filter(|(_, n)| *n > 0)
                .collect::<Vec<_>>(),
            [(Some(4), 1), (None, 1)]
        );
        assert_eq!(
            seen.errors.iter().map(|e| (e.errno, e.count)).collect::<Vec<_>>(),
            [(0, 1), (105, 1)]
        );
        assert_eq!(seen.event(LoopEvent::Rearmed), 1);
        let again = seen.encap.clone();
        seen.encap.merge(&again);
        assert_eq!(seen.encap.received, 6);
    }
}
