//! At most so many lines a second, and a count of the rest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Lines of one kind written in any second.
pub const LINES_PER_SECOND: usize = 10;

const WINDOW: Duration = Duration::from_secs(1);

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it, and say that this many before it were not written.
    Write {
        /// How many since the last written one.
        suppressed: u64,
    },
    /// Do not write it; it is counted.
    Suppress,
}

/// Remembers when the last lines of one kind were written: never more than [`LINES_PER_SECOND`] instants.
#[derive(Clone, Debug, Default)]
pub struct RateLimit {
    written: VecDeque<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// Decides about a line at `now`.
    pub fn admit(&mut self, now: Instant) -> Verdict {
        if !self.has_room(now) {
            self.suppressed += 1;
            return Verdict::Suppress;
        }
        self.written.push_back(now);
        Verdict::Write {
            suppressed: std::mem::take(&mut self.suppressed),
        }
    }

    /// The lines that were not written, if there is room to say so; counts as a line.
    pub fn take_suppressed(&mut self, now: Instant) -> Option<u64> {
        if self.suppressed == 0 || !self.has_room(now) {
            return None;
        }
        self.written.push_back(now);
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Whether lines were suppressed that nobody has been told of.
    pub fn owes(&self) -> bool {
        self.suppressed > 0
    }

    fn has_room(&mut self, now: Instant) -> bool {
        while self
            .written
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(*oldest) >= WINDOW)
        {
            self.written.pop_front();
        }
        self.written.len() < LINES_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// FAULTS 70.
    #[test]
    fn no_second_has_more_than_ten_and_none_is_lost() {
        let start = Instant::now();
        let mut limit = RateLimit::default();
        let mut written = Vec::new();
        let mut counted = 0;
        for millisecond in 0..5000 {
            let now = start + millisecond * MILLISECOND;
            if let Verdict::Write { suppressed } = limit.admit(now) {
                written.push(now);
                counted += suppressed;
            }
        }
        for window in written.windows(LINES_PER_SECOND + 1) {
            assert!(window[LINES_PER_SECOND] - window[0] >= WINDOW);
        }
        assert_eq!(written.len(), 50);
        assert!(limit.owes());
        let rest = limit.take_suppressed(start + 7000 * MILLISECOND).unwrap();
        assert_eq!(counted + rest + 50, 5000);
        assert_eq!(limit.take_suppressed(start + 9000 * MILLISECOND), None);
        assert!(!limit.owes());
    }

    #[test]
    fn quiet_kinds_are_written_at_once() {
        let start = Instant::now();
        let mut limit = RateLimit::default();
        for second in 0..100 {
            assert_eq!(
                limit.admit(start + second * WINDOW),
                Verdict::Write { suppressed: 0 }
            );
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_is_no_reason_to_flood() {
        let now = Instant::now() + WINDOW;
        let mut limit = RateLimit::default();
        let written = (0..100).filter(|_| limit.admit(now) != Verdict::Suppress).count();
        assert_eq!(written, LINES_PER_SECOND);
        assert_eq!(limit.admit(now - MILLISECOND), Verdict::Suppress);
    }
}
