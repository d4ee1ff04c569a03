//! The loop of one worker: wait, load the Rulebook, carry the burst, again; and the orderly end.
//!
//! One batch is bounded by the slots of the two pools, both directions are served in every turn, and a sleeping worker
//! holds no snapshot.

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
use crate::stats::{Direction, WorkerStats};

/// How long a stopping worker waits for what the kernel still holds.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long one wait may take while draining.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// What a worker needs besides its lane.
pub(super) struct Duty {
    pub(super) rules: Reader,
    pub(super) punts: PuntSender,
    pub(super) stop: Arc<AtomicBool>,
}

/// Runs until told to stop, then drains.
///
/// # Errors
/// [`LaneFault`] when the lane cannot go on. Every packet taken is accounted for in any case.
pub(super) fn run<L: Lane>(mut lane: L, duty: &Duty, stats: &WorkerStats) -> Result<(), LaneFault> {
    let began = Instant::now();
    let mut inbox = Inbox::new();
    let mut replies = TokenBucket::new(REPLY_BURST, REPLIES_PER_SECOND);
    let mut gatherer = Gatherer::new();
    let mut stopping_since: Option<Instant> = None;
    let outcome = loop {
        if duty.stop.load(Ordering::Acquire) && stopping_since.is_none() {
            lane.quiesce();
            stopping_since = Some(Instant::now());
        }
        if let Some(since) = stopping_since
            && (lane.is_quiet() || since.elapsed() > DRAIN_LIMIT)
        {
            break Ok(());
        }
        if let Err(fault) = lane.turn(&mut inbox, stopping_since.map(|_| DRAIN_STEP), stats) {
            break Err(fault);
        }
        if !inbox.is_empty() {
            carry_burst(
                &mut lane,
                &mut inbox,
                duty,
                &mut replies,
                &mut gatherer,
                began,
                stats,
            );
        }
    };
    forfeit(&mut inbox, stats);
    lane.abandon(stats);
    outcome
}

fn carry_burst<L: Lane>(
    lane: &mut L,
    inbox: &mut Inbox,
    duty: &Duty,
    replies: &mut TokenBucket,
    gatherer: &mut Gatherer,
    began: Instant,
    stats: &WorkerStats,
) {
    let rules = duty.rules.load();
    let now = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    for (direction, count) in [
        (Direction::Encap, inbox.tun.len()),
        (Direction::Decap, inbox.raw.len()),
    ] {
        if count > 0 {
            stats.direction(direction).batch(count);
        }
    }
    let mut carrier = Carrier {
        lane,
        rules: &rules,
        stats,
        punts: &duty.punts,
        replies,
        gatherer,
        now,
    };
    for packet in inbox.tun.drain(..) {
        carrier.encap(packet);
    }
    for packet in inbox.raw.drain(..) {
        carrier.decap(packet);
    }
    carrier.finish();
}

/// Accounts for packets that were taken and can no longer be carried.
fn forfeit(inbox: &mut Inbox, stats: &WorkerStats) {
    for (direction, packets) in [
        (Direction::Encap, &mut inbox.tun),
        (Direction::Decap, &mut inbox.raw),
    ] {
        let stats = stats.direction(direction);
        stats.received.add(packets.len() as u64);
        stats.drops(DropReason::Shutdown).add(packets.len() as u64);
        packets.clear();
    }
}
