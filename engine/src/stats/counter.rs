//! One counter: one writer, any number of readers.

use crate::sync::{AtomicU64, Ordering};

/// A number that only its worker changes.
///
/// There is deliberately no `fetch_add`: with one writer a plain load and store are enough, and cost what an ordinary
/// addition costs. A second writer would lose counts, so a counter is never shared between workers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. For the owning worker only.
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`. For the owning worker only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value now; may lag the writer by a moment.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
