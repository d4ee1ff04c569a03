//! Control's end: starts captures, reads their records in order of time, and knows what was missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Sender, bounded};

use super::fate::Fate;
use super::filter::Filter;
use super::ring::{self, Reader};
use super::state::TapState;
use super::tap::{Tap, Taps};
use crate::io::wake::Bell;
use crate::path::limit::TokenBucket;
use crate::stats::Direction;

/// Captures at the same time.
pub const MAX_CAPTURES: usize = 4;

/// Memory of all rings of one capture, in bytes, divided among the workers within the bounds below.
const MEMORY: usize = 8 << 20;
/// A worker's ring at most: what passes in the tens of milliseconds that its reader may be late.
const MOST_PER_WORKER: usize = 2 << 20;
/// A worker's ring at least: some superpackets.
const LEAST_PER_WORKER: usize = 256 << 10;
/// A burst within the rate, at least.
const BURST: u32 = 64;

/// What is captured, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct CaptureConfig {
    /// Which packets.
    pub filter: Filter,
    /// Bytes of each, at most.
    pub snaplen: usize,
    /// Packets a second and worker in the long run, at most.
    pub rate: u32,
}

/// Why a capture cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureRefused {
    /// There are [`MAX_CAPTURES`] already.
    #[error("{MAX_CAPTURES} captures run already: end one first")]
    TooMany,
    /// A worker has not taken earlier captures up yet.
    #[error("worker {0} does not answer")]
    Silent(usize),
}

/// Where captures are plugged in.
#[derive(Debug)]
pub struct Switchboard {
    changes: Arc<AtomicU64>,
    lines: Vec<Sender<Tap>>,
    running: Arc<AtomicUsize>,
}

/// A switchboard for so many workers, and the ends of these.
pub fn switchboard(workers: usize) -> (Switchboard, Vec<Taps>) {
    let changes = Arc::new(AtomicU64::new(0));
    let (lines, taps) = (0..workers)
        .map(|_| {
            // Twice, since a worker may be slow to notice that one ended and another began.
            let (line, arrivals) = bounded(2 * MAX_CAPTURES);
            (line, Taps::new(Arc::clone(&changes), arrivals, 2 * MAX_CAPTURES))
        })
        .unzip();
    let board = Switchboard {
        changes,
        lines,
        running: Arc::default(),
    };
    (board, taps)
}

impl Switchboard {
    /// Starts a capture in every worker; `bells` wake them.
    ///
    /// # Errors
    /// [`CaptureRefused`].
    pub fn start(&self, config: &CaptureConfig, bells: &[Bell]) -> Result<Capture, CaptureRefused> {
        if self.running.load(Ordering::Acquire) >= MAX_CAPTURES {
            return Err(CaptureRefused::TooMany);
        }
        self.running.fetch_add(1, Ordering::AcqRel);
        let mut capture = Capture {
            lines: Vec::with_capacity(self.lines.len()),
            changes: Arc::clone(&self.changes),
            bells: bells.to_vec(),
            running: Arc::clone(&self.running),
        };
        let share = MEMORY / self.lines.len().max(1);
        let burst = (config.rate / 10).max(BURST).min(config.rate);
        for (worker, line) in self.lines.iter().enumerate() {
            let (writer, reader) = ring::ring(share.clamp(LEAST_PER_WORKER, MOST_PER_WORKER));
            let state = Arc::new(TapState::default());
            let tap = Tap::new(
                Arc::clone(&state),
                writer,
                config.filter,
                TokenBucket::new(burst, config.rate),
                config.snaplen,
            );
            // Dropping the capture takes the others back.
            line.try_send(tap).map_err(|_| CaptureRefused::Silent(worker))?;
            capture.lines.push(Line { state, reader });
        }
        capture.tell();
        Ok(capture)
    }

    /// Captures that run now.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Line {
    state: Arc<TapState>,
    reader: Reader,
}

/// One captured packet, besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which worker.
    pub worker: usize,
    /// Which way.
    pub direction: Direction,
    /// Nanoseconds since 1970: when its batch arrived, or was handed over.
    pub at: u64,
    /// Bytes it had.
    pub len: u32,
    /// Packets this worker missed since the record before.
    pub missed_before: u16,
    /// What became of it.
    pub fate: Fate,
}

/// What a capture did, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets looked at.
    pub seen: u64,
    /// Packets that the filter wanted.
    pub matched: u64,
    /// Of these, missed because of the rate.
    pub over_rate: u64,
    /// Of these, missed because the reader was slow.
    pub no_room: u64,
}

impl Counts {
    /// Packets that were wanted and are not among the records.
    pub fn missed(&self) -> u64 {
        self.over_rate + self.no_room
    }
}

/// A running capture; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    lines: Vec<Line>,
    changes: Arc<AtomicU64>,
    bells: Vec<Bell>,
    running: Arc<AtomicUsize>,
}

impl Capture {
    /// Takes the oldest record that waits; its bytes go to `bytes`.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Option<Record> {
        let waiting = self.lines.iter().enumerate();
        let times = waiting.filter_map(|(worker, line)| Some((line.reader.peek()?[1], worker)));
        let (_, worker) = times.min()?;
        let [lens, at, word, extra] = self.lines.get_mut(worker)?.reader.pop(bytes)?;
        let direction = if extra >> 63 == 0 {
            Direction::Encap
        } else {
            Direction::Decap
        };
        #[allow(clippy::cast_possible_truncation, reason = "upper parts of a word")]
        let (len, missed_before) = ((lens >> 32) as u32, (word >> 48) as u16);
        Some(Record {
            worker,
            direction,
            at,
            len,
            missed_before,
            fate: Fate::decode([word & !(0xffff << 48), extra & !(1 << 63)])?,
        })
    }

    /// Ends it: workers let go at the end of their turn. Records that wait can still be taken.
    pub fn end(&self) {
        for line in &self.lines {
            line.state.end();
        }
        self.tell();
    }

    /// Whether every worker has let go: no record comes any more, and the counts are final.
    pub fn is_released(&self) -> bool {
        self.lines.iter().all(|line| line.state.is_released())
    }

    /// What happened in one direction, all workers together.
    pub fn counts(&self, direction: Direction) -> Counts {
        let mut sum = Counts::default();
        for line in &self.lines {
            let counters = &line.state.counters[direction as usize];
            sum.seen += counters.seen.get();
            sum.matched += counters.matched.get();
            sum.over_rate += counters.over_rate.get();
            sum.no_room += counters.no_room.get();
        }
        sum
    }

    fn tell(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.bells.iter().for_each(Bell::ring);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::DropReason;
    use std::time::Instant;

    const DROPPED: Fate = Fate::Dropped {
        reason: DropReason::Ecn,
        told: None,
    };
    const DELIVERED: Fate = Fate::Delivered {
        segments: 3,
        gso_size: 1220,
    };

    fn config(rate: u32) -> CaptureConfig {
        CaptureConfig {
            filter: Filter::default(),
            snaplen: 100,
            rate,
        }
    }

    #[test]
    fn records_of_all_workers_come_in_order_of_time_and_nothing_is_left_uncounted() {
        let (board, mut workers) = switchboard(2);
        let began = Instant::now();
        assert!(!workers[0].refresh(began) && workers[0].is_empty());
        let mut capture = board.start(&config(1000), &[]).unwrap();
        assert!(
            workers
                .iter_mut()
                .all(|taps| taps.refresh(began) && !taps.is_empty())
        );
        workers[0].offer(Direction::Encap, &DROPPED, &[1; 300], 300, 30_000_000);
        workers[1].offer(Direction::Decap, &DELIVERED, &[2; 60], 70, 20_000_000);
        let mut bytes = Vec::new();
        let first = capture.next(&mut bytes).unwrap();
        assert_eq!(
            (first.worker, first.direction, first.len),
            (1, Direction::Decap, 70)
        );
        assert_eq!((first.fate, first.missed_before, bytes.len()), (DELIVERED, 0, 60));
        let second = capture.next(&mut bytes).unwrap();
        assert_eq!(
            (second.worker, second.direction, second.len),
            (0, Direction::Encap, 300)
        );
        assert_eq!((second.fate, bytes.len()), (DROPPED, 100), "cut to the snaplen");
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        assert!(since_1970.as_nanos().abs_diff(second.at.into()) < 5_000_000_000);
        assert_eq!(capture.next(&mut bytes), None);
        capture.end();
        assert!(!capture.is_released());
        workers[0].refresh(began);
        workers.pop();
        assert!(capture.is_released(), "a worker that ends lets go as well");
        assert_eq!(capture.counts(Direction::Encap).matched, 1);
        assert_eq!(board.running(), 1);
        drop(capture);
        assert_eq!(board.running(), 0);
    }

    #[test]
    fn what_is_missed_is_counted_by_cause_and_told_with_the_next_record() {
        let (board, mut workers) = switchboard(1);
        let began = Instant::now();
        let taps = &mut workers[0];
        let mut capture = board.start(&config(10), &[]).unwrap();
        taps.refresh(began);
        for _ in 0..25 {
            taps.offer(Direction::Decap, &DROPPED, &[0; 40], 40, 1);
        }
        taps.offer(Direction::Decap, &DROPPED, &[0; 40], 40, 200_000_000);
        let mut bytes = Vec::new();
        let missed: Vec<_> = std::iter::from_fn(|| capture.next(&mut bytes))
            .map(|record| record.missed_before)
            .collect();
        assert_eq!(missed, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15]);
        let counts = capture.counts(Direction::Decap);
        assert_eq!(
            (counts.seen, counts.matched, counts.over_rate, counts.no_room),
            (26, 26, 15, 0)
        );
        let slow = board
            .start(
                &CaptureConfig {
                    snaplen: 65_536,
                    ..config(1_000_000)
                },
                &[],
            )
            .unwrap();
        taps.refresh(began);
        for _ in 0..100 {
            taps.offer(Direction::Encap, &DROPPED, &[0; 60_000], 60_000, 300_000_000);
        }
        let counts = slow.counts(Direction::Encap);
        assert_eq!((counts.matched, counts.over_rate), (100, 0));
        assert_eq!(counts.no_room, 100 - (MOST_PER_WORKER / 60_032) as u64);
    }

    #[test]
    fn captures_are_bounded_and_a_worker_that_sleeps_loses_none() {
        let (board, mut workers) = switchboard(1);
        let began = Instant::now();
        let captures: Vec<_> = (0..MAX_CAPTURES)
            .map(|_| board.start(&config(1), &[]).unwrap())
            .collect();
        assert_eq!(board.start(&config(1), &[]).unwrap_err(), CaptureRefused::TooMany);
        drop(captures);
        // The worker has noticed nothing so far.
        let again: Vec<_> = (0..MAX_CAPTURES)
            .map(|_| board.start(&config(1), &[]).unwrap())
            .collect();
        drop(again);
        assert_eq!(
            board.start(&config(1), &[]).unwrap_err(),
            CaptureRefused::Silent(0)
        );
        workers[0].refresh(began);
        assert!(workers[0].is_empty(), "all of them have ended");
        let capture = board.start(&config(1), &[]).unwrap();
        workers[0].refresh(began);
        assert!(!workers[0].is_empty());
        drop(capture);
        workers[0].refresh(began);
        assert!(workers[0].is_empty());
    }
}
