//! Signs of life: control's own to the monitor, and those of the workers to control (FAULTS 34, 68).
//!
//! A worker that was woken and has not made one turn since is stuck, and with it everything whose flow is its share; the
//! whole engine is then exchanged. Who looks too late himself judges nobody: on a machine without time for either of
//! them, both are late.

use std::time::{Duration, Instant};

use tracing::error;

use super::daemon::Daemon;
use crate::exit::ExitError;
use crate::monitor::wire::{Cause, Say};

/// How often the workers are woken and looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// Looks in a row at the same turn after which a worker counts as stuck: within one second of its last.
const MAX_STILL: u32 = 4;
/// A look that comes later than this was late.
const LATE: Duration = Duration::from_millis(300);
/// Every so many looks the monitor is told that control turns.
const LOOKS_PER_SIGN: u32 = 5;

/// What is known of the workers' turns. Pure.
#[derive(Clone, Debug)]
pub(super) struct Watchdog {
    due: Instant,
    looks: u32,
    workers: Vec<Seen>,
    stuck: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    turns: u64,
    still: u32,
}

impl Watchdog {
    /// For so many workers; the first look is due at once.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            due: Instant::now(),
            looks: 0,
            // Nobody was woken before the first look.
            workers: vec![
                Seen {
                    turns: u64::MAX,
                    still: 0
                };
                workers
            ],
            stuck: None,
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// What an end of control now is due to.
    pub(super) fn cause(&self) -> Cause {
        match self.stuck {
            Some(_) => Cause::WedgedWorker,
            None => Cause::Fault,
        }
    }

    /// Takes the turns that each worker has made; says which one is stuck, if one is.
    fn look(&mut self, now: Instant, turns: impl Iterator<Item = u64>) -> Option<usize> {
        let late = now.saturating_duration_since(self.due) > LATE - INTERVAL;
        self.due = now + INTERVAL;
        self.looks = self.looks.wrapping_add(1);
        for (seen, turns) in self.workers.iter_mut().zip(turns) {
            let moved = std::mem::replace(&mut seen.turns, turns) != turns;
            seen.still = if moved || late { 0 } else { seen.still + 1 };
        }
        self.stuck = self.workers.iter().position(|seen| seen.still >= MAX_STILL);
        self.stuck
    }

    fn sign_is_due(&self) -> bool {
        self.looks % LOOKS_PER_SIGN == 1
    }
}

impl Daemon {
    /// Looks at the workers, and gives the monitor a sign of life, when it is time.
    ///
    /// # Errors
    /// A worker is stuck: the engine has to be exchanged.
    pub(super) fn watch_workers(&mut self, now: Instant) -> Result<(), ExitError> {
        if self.watchdog.due() > now {
            return Ok(());
        }
        let stats = self.engine.stats();
        let turns =
            (0..self.settings.workers).map(|worker| stats.worker(worker).map_or(0, |it| it.turns.get()));
        if let Some(worker) = self.watchdog.look(now, turns) {
            let text = format!(
                "worker {worker} is stuck: it was woken and made no turn for {:?}",
                INTERVAL * MAX_STILL
            );
            error!("{text}");
            // It would not stop in order either.
            let words = Say::Failed(Cause::WedgedWorker, crate::exit::ExitStatus::Other.code(), text);
            self.link.report(&words);
            std::process::abort();
        }
        self.engine.nudge();
        if self.watchdog.sign_is_due() {
            self.link.report(&Say::Alive);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(dog: &mut Watchdog, now: &mut Instant, after: Duration, turns: [u64; 2]) -> Option<usize> {
        *now += after;
        dog.look(*now, turns.into_iter())
    }

    /// FAULTS 34: one of several that makes no turn is found within a second.
    #[test]
    fn a_worker_that_makes_no_turn_is_found() {
        let mut dog = Watchdog::new(2);
        let mut now = dog.due();
        assert_eq!(looked(&mut dog, &mut now, Duration::ZERO, [1, 1]), None);
        let mut waited = Duration::ZERO;
        for turn in 2.. {
            waited += INTERVAL;
            match looked(&mut dog, &mut now, INTERVAL, [turn, 1]) {
                None => assert!(waited < Duration::from_secs(1)),
                found => {
                    assert_eq!(found, Some(1));
                    break;
                }
            }
        }
        assert_eq!(dog.cause(), Cause::WedgedWorker);
    }

    #[test]
    fn one_turn_is_enough() {
        let mut dog = Watchdog::new(2);
        let mut now = dog.due();
        for round in 0..100 {
            // It moves once in three looks.
            assert_eq!(looked(&mut dog, &mut now, INTERVAL, [round, round / 3]), None);
        }
        assert_eq!(dog.cause(), Cause::Fault);
    }

    /// FAULTS 68: whoever looks late, for want of a CPU, blames nobody.
    #[test]
    fn a_starved_machine_wedges_nobody() {
        let mut dog = Watchdog::new(2);
        let mut now = dog.due();
        for _ in 0..100 {
            assert_eq!(
                looked(&mut dog, &mut now, LATE + Duration::from_millis(50), [1, 1]),
                None
            );
        }
    }
}
