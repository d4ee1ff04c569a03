//! When a dead engine is followed by the next one: at once after a steady life, later and later in a crash loop. Pure.

use std::time::Duration;

/// A life as long as this, counted from readiness, was a good one: what ended it is no loop.
pub const STEADY: Duration = Duration::from_secs(1);

/// Pauses after one, two, three ... short lives in a row; the last one goes on.
pub const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
];

/// The memory of short lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    short_lives: usize,
}

impl Policy {
    /// An engine has died that served for `lived`, or never did; says how long to wait before the next.
    pub fn died(&mut self, lived: Option<Duration>) -> Duration {
        if lived.is_some_and(|lived| lived >= STEADY) {
            self.short_lives = 0;
        }
        let at = self.short_lives.min(PAUSES.len() - 1);
        self.short_lives += 1;
        PAUSES[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_life_is_followed_at_once() {
        let mut policy = Policy::default();
        for _ in 0..1000 {
            assert_eq!(policy.died(Some(STEADY)), Duration::ZERO);
        }
    }

    #[test]
    fn a_loop_becomes_slow_and_stays_so() {
        let mut policy = Policy::default();
        for pause in PAUSES {
            assert_eq!(policy.died(Some(Duration::from_millis(10))), pause);
        }
        for _ in 0..100 {
            assert_eq!(policy.died(None), PAUSES[PAUSES.len() - 1]);
        }
        // One that lived long enough ends the loop.
        assert_eq!(policy.died(Some(STEADY)), Duration::ZERO);
        assert_eq!(policy.died(None), PAUSES[1]);
    }
}
