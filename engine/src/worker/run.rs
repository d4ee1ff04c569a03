//! The loop of one worker: wait, load the Rulebook, carry the burst, again; and the orderly end.
//!
//! One batch is bounded by the slots of the two pools, both directions are served in every turn, and a sleeping worker
//! holds no snapshot. The clock is read when a batch has been handed over, and once more when the worker slept before the
//! next one; never per packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::carry::Carriage;
use super::punt::PuntSender;
use super::rest::Leisure;
use crate::capture::Taps;
use crate::fib::Reader;
use crate::io::gso_sizes::GsoSizes;
use crate::io::lane::{Inbox, Lane, LaneFault, Turn};
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
    pub(super) taps: Taps,
    pub(super) gso_sizes: GsoSizes,
    /// The kernel takes datagrams merged.
    pub(super) udp_offload: bool,
    pub(super) stop: Arc<AtomicBool>,
    /// What a test wants to go wrong; see [`super::fault`].
    #[cfg(debug_assertions)]
    pub(super) fault: super::fault::Wish,
}

/// A worker at work.
struct Worker<'a, L> {
    lane: L,
    rules: Reader,
    latency: LatencyRecorder,
    stop: Arc<AtomicBool>,
    stats: &'a WorkerStats,
    inbox: Inbox,
    carriage: Carriage,
    began: Instant,
    /// When the last batch had been handed over.
    handed_over_at: Instant,
    leisure: Leisure,
    stopping_since: Option<Instant>,
    #[cfg(debug_assertions)]
    fault: super::fault::Wish,
}

/// Runs until told to stop, then drains.
///
/// # Errors
/// [`LaneFault`] when the lane cannot go on. Every packet taken is accounted for in any case.
pub(super) fn run<L: Lane>(lane: L, duty: Duty, stats: &WorkerStats) -> Result<(), LaneFault> {
    let Duty {
        rules,
        punts,
        latency,
        taps,
        gso_sizes,
        udp_offload,
        stop,
        #[cfg(debug_assertions)]
        fault,
    } = duty;
    let mut worker = Worker {
        lane,
        carriage: Carriage::with(punts, taps, gso_sizes, udp_offload),
        rules,
        latency,
        stop,
        stats,
        inbox: Inbox::new(),
        began: Instant::now(),
        handed_over_at: Instant::now(),
        leisure: Leisure::default(),
        stopping_since: None,
        #[cfg(debug_assertions)]
        fault,
    };
    let outcome = worker.serve();
    worker.forfeit();
    worker.lane.abandon(stats);
    outcome
}

impl<L: Lane> Worker<'_, L> {
    fn serve(&mut self) -> Result<(), LaneFault> {
        loop {
            if self.stop.load(Ordering::Acquire) && self.stopping_since.is_none() {
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
            let turn = self.lane.turn(&mut self.inbox, patience, self.stats)?;
            if self.carriage.taps.refresh(self.began) {
                self.lane.keep_refused(!self.carriage.taps.is_empty());
            }
            #[cfg(debug_assertions)]
            self.fault.come_true();
            self.stats.turns.bump();
            if self.inbox.is_empty() {
                if self.leisure.is_due() && self.lane.rest() {
                    self.leisure.rested();
                }
            } else {
                let arrived_at = match turn {
                    Turn::AtOnce => self.handed_over_at,
                    Turn::Waited => Instant::now(),
                };
                let counts = self.carry_burst(arrived_at);
                self.leisure.carried(counts[0] + counts[1]);
                self.lane.hand_over(self.stats)?;
                self.record(arrived_at, counts);
            }
            self.answer_bounced();
            if !self.carriage.taps.is_empty() {
                let now = self.nanos(self.handed_over_at);
                self.carriage.show_refused(&mut self.lane, now);
            }
            self.latency.answer();
        }
    }

    /// Carries what the inbox holds; says how many packets that were, per direction.
    fn carry_burst(&mut self, now: Instant) -> [usize; 2] {
        let rules = self.rules.load();
        let counts = [self.inbox.tun.len(), self.inbox.raw.len()];
        for (direction, count) in Direction::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.stats.direction(direction).batch(count);
            }
        }
        let now = self.nanos(now);
        self.carriage
            .carry(&mut self.lane, &mut self.inbox, &rules, now, self.stats);
        counts
    }

    /// Packets that the link refused go back to their senders.
    fn answer_bounced(&mut self) {
        if !self.lane.has_bounced() {
            return;
        }
        let (rules, now) = (self.rules.load(), self.nanos(Instant::now()));
        self.carriage
            .answer_bounced(&mut self.lane, &rules, now, self.stats);
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from((now - self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The batch has been handed over by now.
    fn record(&mut self, arrived_at: Instant, counts: [usize; 2]) {
        self.handed_over_at = Instant::now();
        let stay = self.handed_over_at - arrived_at;
        for (direction, count) in Direction::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.latency.current().record(direction, stay, count);
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
