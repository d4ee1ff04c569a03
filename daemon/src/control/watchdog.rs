//! Signs of life: control's own to the monitor, and those of the workers to control (FAULTS 34, 68).
//!
//! A worker that was woken and has not made one turn since may be stuck, and with it everything whose flow is its share; or
//! it waits for a core that others have. From here the two look alike: the monitor is told of it at each look, sees for itself
//! ([`crate::monitor::suspicion`]) and exchanges the whole engine if need be.

use std::time::{Duration, Instant};

use super::daemon::Daemon;
use crate::monitor::progress::monotonic;
use crate::monitor::wire::{Say, Suspect};

/// How often the workers are woken and looked at. A stuck one is told of at the second look after its last turn, at the
/// latest, and judged two looks later: within a second.
const INTERVAL: Duration = Duration::from_millis(200);
/// Every so many looks the monitor is told that control turns.
const LOOKS_PER_SIGN: u32 = 5;

/// What is known of the workers' turns. Pure.
#[derive(Clone, Debug)]
pub(super) struct Watchdog {
    due: Instant,
    looks: u32,
    turns: Vec<u64>,
    /// The sign of life; another word where a test wishes.
    pub(super) sign: Say,
}

impl Watchdog {
    /// For so many workers; the first look is due at once.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            due: Instant::now(),
            looks: 0,
            // Nobody was woken before the first look.
            turns: vec![u64::MAX; workers],
            sign: Say::Alive,
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Takes the turns that each worker has made; says which ones have made none since the last look, and are at which turn.
    fn look(&mut self, now: Instant, turns: impl Iterator<Item = u64>) -> Vec<(usize, u64)> {
        self.due = now + INTERVAL;
        self.looks = self.looks.wrapping_add(1);
        let seen = self.turns.iter_mut().zip(turns).enumerate();
        seen.filter_map(|(worker, (seen, turns))| {
            let still = std::mem::replace(seen, turns) == turns;
            still.then_some((worker, turns))
        })
        .collect()
    }

    fn sign_is_due(&self) -> bool {
        self.looks % LOOKS_PER_SIGN == 1
    }
}

impl Daemon {
    /// Looks at the workers, and gives the monitor a sign of life, when it is time.
    pub(super) fn watch_workers(&mut self, now: Instant) {
        if self.watchdog.due() > now {
            return;
        }
        // Before the turns are read: whoever looks at a thread before this time saw it at that turn.
        let looked_at = u64::try_from(monotonic().as_nanos()).unwrap_or(0);
        let stats = self.engine.stats();
        let turns =
            (0..self.settings.workers).map(|worker| stats.worker(worker).map_or(0, |it| it.turns.get()));
        for (worker, turns) in self.watchdog.look(now, turns) {
            let number = u16::try_from(worker).ok();
            if let Some((number, thread)) = number.zip(self.engine.thread_id(worker)) {
                self.link.hint(&Say::Suspect(Suspect {
                    worker: number,
                    thread,
                    turns,
                    looked_at,
                }));
            }
        }
        self.engine.nudge();
        if self.watchdog.sign_is_due() {
            self.link.report(&self.watchdog.sign);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FAULTS 34: one of several that makes no turn is told of at once and as long as that lasts, nobody else is.
    #[test]
    fn a_worker_that_makes_no_turn_is_told_of() {
        let mut dog = Watchdog::new(2);
        let mut look = |turns: [u64; 2]| {
            let now = dog.due();
            let still = dog.look(now, turns.into_iter());
            assert_eq!(dog.due(), now + INTERVAL);
            still
        };
        assert_eq!(look([1, 1]), [], "nobody was woken before");
        assert_eq!(look([2, 2]), []);
        for turn in 3..6 {
            assert_eq!(look([turn, 2]), [(1, 2)]);
        }
        assert_eq!(look([6, 3]), []);
        assert_eq!(look([6, 3]), [(0, 6), (1, 3)]);
    }

    #[test]
    fn the_monitor_is_told_once_a_second_that_control_turns() {
        let mut dog = Watchdog::new(0);
        let signs = (0..50).filter(|_| {
            dog.look(Instant::now(), std::iter::empty());
            dog.sign_is_due()
        });
        assert_eq!(signs.count(), 10);
    }
}
