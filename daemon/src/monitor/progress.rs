//! What the kernel tells of a thread: whether it would run, and for how long it has run.
//!
//! The monitor reads this of threads of the engine's process, and of no other: the process is part of the path. With
//! `ProtectProc=invisible` it may, since it is in the group that mount of /proc belongs to, root.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, or would if it had a core.
    Runnable,
    /// The kernel holds it in a call that nothing interrupts, not even the end of its process: until others have let go of routing's
    /// lock, for example.
    Held,
    /// It waits for something, or is stopped.
    Asleep,
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub(super) state: State,
    /// For how long it has run; the kernel tells it in ticks, of a hundredth of a second as a rule.
    pub(super) ran: Duration,
}

impl Progress {
    /// Of one thread of a process; `None` when the kernel does not tell.
    pub fn of(process: u32, thread: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).ok()?;
        let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
        Self::parse(&text, u32::try_from(ticks).ok()?)
    }

    /// From a line of proc_pid_stat(5), with so many ticks a second.
    fn parse(line: &str, ticks_per_second: u32) -> Option<Self> {
        // The name may have blanks and parentheses; what follows it has none.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number)?.parse::<u32>().ok();
        let (user, system) = (ticks(11)?, ticks(12)?);
        let tick = Duration::from_secs(1).checked_div(ticks_per_second)?;
        Some(Self {
            state: match *fields.first()? {
                "R" => State::Runnable,
                "D" => State::Held,
                _ => State::Asleep,
            },
            ran: tick.saturating_mul(user.saturating_add(system)),
        })
    }

    /// How much longer it has run than `earlier`.
    pub(super) fn ran_since(&self, earlier: &Self) -> Duration {
        self.ran.saturating_sub(earlier.ran)
    }
}

/// What was seen of a thread, and when.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What the kernel told, if it did.
    pub progress: Option<Progress>,
    /// By when, on the clock of [`monotonic`].
    pub at: Duration,
}

impl Sample {
    /// Of one thread of a process.
    pub fn of(process: u32, thread: u32) -> Self {
        let progress = Progress::of(process, thread);
        // Not before: what was seen was so at this time at the latest.
        Self {
            progress,
            at: monotonic(),
        }
    }
}

/// The time since some moment that is the same for every process of this machine.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: &str, user: u32, system: u32) -> String {
        format!(
            "4711 (isatapd ) R 9) {state} 1 1 1 0 -1 4194304 20 0 0 0 {user} {system} 0 0 20 0 3 0 99 1 2"
        )
    }

    #[test]
    fn a_line_is_read_behind_any_name() {
        for (letter, state) in [
            ("R", State::Runnable),
            ("S", State::Asleep),
            ("D", State::Held),
            ("t", State::Asleep),
        ] {
            let expected = Progress {
                state,
                ran: Duration::from_millis(750),
            };
            assert_eq!(Progress::parse(&line(letter, 50, 25), 100), Some(expected));
        }
    }

    #[test]
    fn what_is_no_such_line_is_nothing() {
        for text in ["", "1 (x)", "1 (x) R", "1 (x) R 1 1 1 0 -1 4194304 20 0 0 0 a b"] {
            assert_eq!(Progress::parse(text, 100), None, "{text}");
        }
        assert_eq!(Progress::parse(&line("R", 1, 1), 0), None);
    }

    /// Of its own threads a process can be told, of threads as if they were its own not.
    #[test]
    fn a_thread_is_looked_for_in_its_process() {
        let id = std::process::id();
        let before = monotonic();
        let sample = Sample::of(id, nix::unistd::gettid().as_raw().cast_unsigned());
        assert!(
            sample
                .progress
                .is_some_and(|progress| progress.state == State::Runnable)
        );
        assert!(sample.at >= before && sample.at <= monotonic());
        assert_eq!(Progress::of(id, 1), None, "init is no thread of ours");
        assert_eq!(Progress::of(id, u32::MAX), None);
        assert_eq!(Progress::of(u32::MAX, u32::MAX), None);
    }
}
