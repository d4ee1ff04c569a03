//! The loop of one worker: wait, load the Rulebook, carry the burst, again; and the orderly end.
//!
//! One batch is bounded by the slots of the two pools, both directions are served in every turn, and a sleeping worker
//! holds no snapshot. The clock is read once per turn: when a batch arrives, which is also when the one before it has been
//! handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::carry::Carrier;
use super::gather::Gatherer;
use super::punt::PuntSender;
use crate::fib::Reader;
use crate::io::lane::{Inbox, Lane, LaneFault};
use crate::path::limit::{REPLIES_PER_SECOND, REPLY_BURST, TokenBucket};
use crate::reason::DropReason;
use crate::stats::{Direction, LatencyRecorder, WorkerStats};

/// How long a stopping worker waits for what the kernel still holds.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long one wait may take while draining.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// What a worker is given besides its lane.
pub(super) struct Duty {
    pub(super) rules: Reader,
    pub(super) punts: PuntSender,
    pub(super) latency: LatencyRecorder,
    pub(super) stop: Arc<AtomicBool>,
}

/// A worker at work.
struct Worker<'a, L> {
    lane: L,
    duty: Duty,
    stats: &'a WorkerStats,
    inbox: Inbox,
    gatherer: Gatherer,
    replies: TokenBucket,
    began: Instant,
    /// The batch in the kernel's hands: when it arrived, and its packets per direction.
    carried: Option<(Instant, [usize; 2])>,
    stopping_since: Option<Instant>,
}

/// Runs until told to stop, then drains.
///
/// # Errors
/// [`LaneFault`] when the lane cannot go on. Every packet taken is accounted for in any case.
pub(super) fn run<L: Lane>(lane: L, duty: Duty, stats: &WorkerStats) -> Result<(), LaneFault> {
    let mut worker = Worker {
        lane,
        duty,
        stats,
        inbox: Inbox::new(),
        gatherer: Gatherer::new(),
        replies: TokenBucket::new(REPLY_BURST, REPLIES_PER_SECOND),
        began: Instant::now(),
        carried: None,
        stopping_since: None,
    };
    let outcome = worker.serve();
    worker.forfeit();
    worker.lane.abandon(stats);
    outcome
}

impl<L: Lane> Worker<'_, L> {
    fn serve(&mut self) -> Result<(), LaneFault> {
        loop {
            if self.duty.stop.load(Ordering::Acquire) && self.stopping_since.is_none() {
                self.lane.quiesce();
                self.stopping_since = Some(Instant::now());
            }
            if self
                .stopping_since
                .is_some_and(|since| self.lane.is_quiet() || since.elapsed() > DRAIN_LIMIT)
            {
                return Ok(());
            }
            let patience = self.stopping_since.map(|_| DRAIN_STEP);
            self.lane.turn(&mut self.inbox, patience, self.stats)?;
            let now = Instant::now();
            self.record(now);
            if !self.inbox.is_empty() {
                self.carry_burst(now);
            }
            self.duty.latency.answer();
        }
    }

    fn carry_burst(&mut self, now: Instant) {
        let rules = self.duty.rules.load();
        let counts = [self.inbox.tun.len(), self.inbox.raw.len()];
        for (direction, count) in Direction::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.stats.direction(direction).batch(count);
            }
        }
        let mut carrier = Carrier {
            lane: &mut self.lane,
            rules: &rules,
            stats: self.stats,
            punts: &self.duty.punts,
            replies: &mut self.replies,
            gatherer: &mut self.gatherer,
            now: u64::try_from((now - self.began).as_nanos()).unwrap_or(u64::MAX),
        };
        for packet in self.inbox.tun.drain(..) {
            carrier.encap(packet);
        }
        for packet in self.inbox.raw.drain(..) {
            carrier.decap(packet);
        }
        carrier.finish();
        self.carried = Some((now, counts));
    }

    /// The batch before has been handed over by now.
    fn record(&mut self, now: Instant) {
        let Some((arrived, counts)) = self.carried.take() else {
            return;
        };
        for (direction, count) in Direction::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.duty
                    .latency
                    .current()
                    .record(direction, now - arrived, count);
            }
        }
    }

    /// Accounts for packets that were taken and can no longer be carried.
    fn forfeit(&mut self) {
        for (direction, packets) in [
            (Direction::Encap, &mut self.inbox.tun),
            (Direction::Decap, &mut self.inbox.raw),
        ] {
            let stats = self.stats.direction(direction);
            stats.received.add(packets.len() as u64);
            stats.drops(DropReason::Shutdown).add(packets.len() as u64);
            packets.clear();
        }
    }
}
