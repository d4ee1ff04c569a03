//! What a tap shares with the capture it belongs to: counters, and how both let go.
//!
//! ```text
//!  control   ended -----------------------> is_released? counters are final, records can be read to the last
//!  worker          has_ended? lets go: released
//! ```

use crate::stats::{Counter, Direction};
use crate::sync::{AtomicBool, Ordering};

/// What one tap counts, per direction. Written by its worker alone.
#[derive(Debug, Default)]
pub(super) struct TapCounters {
    pub(super) seen: Counter,
    pub(super) matched: Counter,
    pub(super) over_rate: Counter,
    pub(super) no_room: Counter,
}

/// What a tap shares with the capture it belongs to.
#[derive(Debug, Default)]
pub(super) struct TapState {
    pub(super) counters: [TapCounters; Direction::ALL.len()],
    ended: AtomicBool,
    released: AtomicBool,
}

impl TapState {
    /// The capture is over: the worker is to let go.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the worker is to let go.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The worker lets go: what it counted and wrote is all there will be.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Whether the worker has let go; what it counted and wrote is seen by whoever sees that.
    pub(super) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}
