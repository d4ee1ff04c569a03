//! The workers' end: filter, limit, copy, count.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;

use super::fate::Fate;
use super::filter::Filter;
use super::ring::{Head, Writer};
use super::state::TapState;
use crate::path::limit::TokenBucket;
use crate::stats::Direction;
use crate::sync::{Arc, AtomicU64, Ordering};

/// One capture's hand in one worker.
#[derive(Debug)]
pub(super) struct Tap {
    state: Arc<TapState>,
    writer: Writer,
    filter: Filter,
    limit: TokenBucket,
    snaplen: usize,
    /// Nanoseconds since 1970 at the worker's time 0.
    epoch: u64,
    /// Missed since the last copy.
    missed: u16,
}

impl Tap {
    pub(super) fn new(
        state: Arc<TapState>,
        writer: Writer,
        filter: Filter,
        limit: TokenBucket,
        snaplen: usize,
    ) -> Self {
        Self {
            state,
            writer,
            filter,
            limit,
            snaplen,
            epoch: 0,
            missed: 0,
        }
    }

    fn offer(&mut self, direction: Direction, fate: &Fate, packet: &[u8], len: usize, now: u64) {
        let counters = &self.state.counters[direction as usize];
        counters.seen.bump();
        if !self.filter.wants(direction, fate, packet) {
            return;
        }
        counters.matched.bump();
        if !self.limit.take(now) {
            counters.over_rate.bump();
            self.missed = self.missed.saturating_add(1);
            return;
        }
        let bytes = &packet[..packet.len().min(self.snaplen)];
        let [word, extra] = fate.encode();
        let head: Head = [
            bytes.len() as u64 | (len as u64) << 32,
            self.epoch.wrapping_add(now),
            word | u64::from(self.missed) << 48,
            extra | (direction as u64) << 63,
        ];
        if self.writer.push(&head, bytes) {
            self.missed = 0;
        } else {
            counters.no_room.bump();
            self.missed = self.missed.saturating_add(1);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.state.release();
    }
}

/// All taps of one worker; mostly none.
#[derive(Debug)]
pub struct Taps {
    /// Counts starts and ends of captures.
    changes: Arc<AtomicU64>,
    seen: u64,
    arrivals: Receiver<Tap>,
    taps: Vec<Tap>,
}

impl Default for Taps {
    /// Nobody will ever capture here.
    fn default() -> Self {
        Self::new(Arc::default(), crossbeam_channel::never(), 0)
    }
}

impl Taps {
    pub(super) fn new(changes: Arc<AtomicU64>, arrivals: Receiver<Tap>, most: usize) -> Self {
        Self {
            changes,
            seen: 0,
            arrivals,
            taps: Vec::with_capacity(most),
        }
    }

    /// Looks whether a capture began or ended: one comparison if not. `began` is the worker's time 0.
    #[inline]
    pub fn refresh(&mut self, began: Instant) -> bool {
        let changes = self.changes.load(Ordering::Acquire);
        if changes == self.seen {
            return false;
        }
        self.seen = changes;
        self.change(began);
        true
    }

    #[cold]
    fn change(&mut self, began: Instant) {
        self.taps.retain(|tap| !tap.state.has_ended());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = since_1970.saturating_sub(began.elapsed());
        for mut tap in self.arrivals.try_iter() {
            // One that ended before it began here is dropped here.
            if !tap.state.has_ended() {
                tap.epoch = u64::try_from(epoch.as_nanos()).unwrap_or(u64::MAX);
                self.taps.push(tap);
            }
        }
    }

    /// Whether nobody captures.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// Shows a packet to every capture: `packet` begins with the outer or the inner header and was `len` bytes long. `now` is
    /// in nanoseconds since the worker's time 0.
    pub fn offer(&mut self, direction: Direction, fate: &Fate, packet: &[u8], len: usize, now: u64) {
        for tap in &mut self.taps {
            tap.offer(direction, fate, packet, len, now);
        }
    }
}
