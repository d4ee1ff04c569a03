//! Whether a worker that makes no turn is stuck, or only waits for a core that others have (FAULTS 34, 68). Pure.
//!
//! Control wakes the workers, and tells of one that it finds at the same turn as before ([`Suspect`]); the monitor then looks
//! at the thread. Each may itself have waited for a core meanwhile, and the worker may have got one: what the monitor has seen
//! counts only when control has looked once more, later, and found the worker still at that turn.
//!
//! ```text
//!   control   wakes, looks ----- wakes, looks, tells ----- wakes, looks, tells ----- wakes, looks, tells
//!                                              \                         \                         \
//!   monitor                                     looks                     the last look counts;     the same: judges
//!                                                                         looks
//! ```
//!
//! What counts is then true of a worker that was woken and has made no turn since. Asleep it did not hear; with a core for
//! longer than any turn takes it runs in circles; otherwise it waits, for a core or for the kernel to let it go.

use std::time::Duration;

use super::progress::{Progress, Sample, State};
use super::wire::Suspect;

/// Who has had a core for so long should have made a turn: a batch takes a few milliseconds.
const MAX_TURN: Duration = Duration::from_millis(100);
/// Who sleeps at so many looks in a row that count is stuck.
const MAX_ASLEEP: u32 = 2;
/// When nobody has waited, for a core or in a call, for so long, the next time is told again.
const QUIET: Duration = Duration::from_secs(60);

/// What follows from a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, so far.
    Nothing,
    /// It waits for a core; said once while workers do.
    Starved,
    /// The kernel holds it in a call; said as seldom.
    Held,
    /// It is stuck, and does this meanwhile.
    Stuck(&'static str),
}

/// What is held against each worker.
#[derive(Debug, Default)]
pub struct Suspicions {
    cases: Vec<Option<Case>>,
    waited_at: Option<Duration>,
}

/// One worker at one turn.
#[derive(Debug)]
struct Case {
    thread: u32,
    turns: u64,
    first: Option<Progress>,
    last: Sample,
    asleep: u32,
}

impl Suspicions {
    /// Takes a report, about a worker that there is; `look` looks at its thread.
    pub fn heard(&mut self, suspect: &Suspect, look: impl FnOnce() -> Sample) -> Verdict {
        let worker = usize::from(suspect.worker);
        if self.cases.len() <= worker {
            self.cases.resize_with(worker + 1, || None);
        }
        let slot = &mut self.cases[worker];
        let Some(case) = slot.as_mut().filter(|case| case.is_of(suspect)) else {
            *slot = Some(Case::open(suspect, look()));
            return Verdict::Nothing;
        };
        // Sent before the last look: it says nothing about what was seen then.
        if Duration::from_nanos(suspect.looked_at) <= case.last.at {
            return Verdict::Nothing;
        }
        let verdict = case.judge();
        case.last = look();
        if matches!(verdict, Verdict::Starved | Verdict::Held) {
            let now = case.last.at;
            let before = self.waited_at.replace(now);
            if before.is_some_and(|before| now.saturating_sub(before) < QUIET) {
                return Verdict::Nothing;
            }
        }
        verdict
    }
}

impl Case {
    fn open(suspect: &Suspect, sample: Sample) -> Self {
        Self {
            thread: suspect.thread,
            turns: suspect.turns,
            first: sample.progress,
            last: sample,
            asleep: 0,
        }
    }

    fn is_of(&self, suspect: &Suspect) -> bool {
        self.thread == suspect.thread && self.turns == suspect.turns
    }

    /// It has made no turn since before the last look.
    fn judge(&mut self) -> Verdict {
        let seen = self.last.progress;
        let ran = seen
            .zip(self.first)
            .map_or(Duration::ZERO, |(seen, first)| seen.ran_since(&first));
        if ran >= MAX_TURN {
            return Verdict::Stuck("runs in circles");
        }
        match seen.map_or(State::Asleep, |seen| seen.state) {
            State::Runnable => {
                self.asleep = 0;
                return Verdict::Starved;
            }
            State::Held => return Verdict::Held,
            State::Asleep => self.asleep += 1,
        }
        if self.asleep < MAX_ASLEEP {
            Verdict::Nothing
        } else {
            Verdict::Stuck("sleeps")
        }
    }
}

#[cfg(test)]
#[path = "suspicion_tests.rs"]
mod tests;
