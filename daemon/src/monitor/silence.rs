//! How long an engine may be silent, and whether a silent one is wedged or only waits for a core that others have
//! (FAULTS 34, 68). Pure, but for one look into /proc.
//!
//! One that waits is runnable and has hardly run; ending it would give the next one no more time. One that is wedged
//! sleeps, or runs in circles.

use std::fs;
use std::time::{Duration, Instant};

/// Without a word for so long one is looked at ...
pub const SILENCE: Duration = Duration::from_millis(1500);
/// ... and after so many times in a row it counts as wedged. The monitor must have been awake each time: a machine that
/// was asleep wedges nobody.
const MAX_STRIKES: u32 = 3;
/// A thread that ran for less than this share of a time (one in so many) and would have liked to has waited for a core.
const HARDLY: u32 = 20;

/// Where the control thread of an engine is, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// It runs, or would if it had a core.
    runnable: bool,
    /// For how long it has run.
    ran: Duration,
}

impl Progress {
    /// Of the first thread of process `id`; `None` when the kernel does not tell.
    pub fn of(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/stat")).ok()?;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
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
            runnable: *fields.first()? == "R",
            ran: tick.saturating_mul(user.saturating_add(system)),
        })
    }

    /// Whether it waited for a core since `earlier`, `elapsed` ago.
    pub fn starved_since(&self, earlier: &Self, elapsed: Duration) -> bool {
        self.runnable && self.ran.saturating_sub(earlier.ran) < elapsed / HARDLY
    }
}

/// What a silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing, so far.
    Nothing,
    /// It waits for a core; said once each time.
    Starved,
    /// It is stuck.
    Wedged,
}

/// Since when nothing was heard.
#[derive(Debug)]
pub struct Silence {
    since: Instant,
    strikes: u32,
    progress: Option<Progress>,
    starved: bool,
}

impl Silence {
    /// Heard now.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            strikes: 0,
            progress: None,
            starved: false,
        }
    }

    /// Something was heard.
    pub fn broken(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Nothing was heard until `now`; `progress` is asked only if that is remarkable.
    pub fn lasts(&mut self, now: Instant, progress: impl FnOnce() -> Option<Progress>) -> Meaning {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < SILENCE {
            return Meaning::Nothing;
        }
        self.since = now;
        let progress = progress();
        let earlier = std::mem::replace(&mut self.progress, progress);
        // Who overslept cannot judge.
        if elapsed > 2 * SILENCE {
            self.strikes = 0;
            return Meaning::Nothing;
        }
        let starved = progress
            .zip(earlier)
            .is_some_and(|(now, earlier)| now.starved_since(&earlier, elapsed));
        if starved {
            let told = std::mem::replace(&mut self.starved, true);
            return if told { Meaning::Nothing } else { Meaning::Starved };
        }
        self.strikes += 1;
        if self.strikes < MAX_STRIKES {
            return Meaning::Nothing;
        }
        self.strikes = 0;
        Meaning::Wedged
    }
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
    fn who_would_run_and_does_not_waits_for_a_core() {
        let at = |state, user, system| Progress::parse(&line(state, user, system), 100).unwrap();
        let before = at("S", 50, 50);
        assert_eq!(before.ran, Duration::from_secs(1));
        let elapsed = Duration::from_secs(2);
        for (after, starved) in [
            (at("R", 50, 50), true),
            (at("R", 55, 54), true),
            // In circles, on a machine whose cores it shares with nine others.
            (at("R", 60, 60), false),
            (at("S", 50, 50), false),
            (at("D", 50, 50), false),
        ] {
            assert_eq!(after.starved_since(&before, elapsed), starved, "{after:?}");
        }
    }

    fn at(state: &str, ticks: u32) -> Option<Progress> {
        Progress::parse(&line(state, ticks, 0), 100)
    }

    /// FAULTS 34: three silences in a row, asleep or in circles.
    #[test]
    fn a_silent_engine_is_wedged() {
        for (state, per_look) in [("S", 0), ("R", 150), ("R", 30)] {
            let mut now = Instant::now();
            let mut silence = Silence::new(now);
            let mut heard = Vec::new();
            for look in 1..=3 {
                now += SILENCE;
                heard.push(silence.lasts(now, || at(state, look * per_look)));
            }
            assert_eq!(
                heard,
                [Meaning::Nothing, Meaning::Nothing, Meaning::Wedged],
                "{state}"
            );
        }
        // The kernel need not tell.
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        let mut last = Meaning::Nothing;
        for _ in 0..3 {
            now += SILENCE;
            last = silence.lasts(now, || None);
        }
        assert_eq!(last, Meaning::Wedged);
    }

    /// FAULTS 68: one that gets no core is not, and it is said once; a word ends that.
    #[test]
    fn a_starved_engine_is_not() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        let mut told = 0;
        for _ in 0..100 {
            now += SILENCE;
            match silence.lasts(now, || at("R", 10)) {
                Meaning::Nothing => {}
                Meaning::Starved => told += 1,
                Meaning::Wedged => panic!("it waits for a core"),
            }
        }
        assert_eq!(told, 1);
        silence.broken(now);
        now += SILENCE;
        assert_eq!(silence.lasts(now, || at("R", 10)), Meaning::Nothing);
        now += SILENCE;
        assert_eq!(silence.lasts(now, || at("R", 10)), Meaning::Starved);
    }

    /// FAULTS 69: a machine that was asleep finds nobody wedged.
    #[test]
    fn who_overslept_judges_nobody() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        for _ in 0..10 {
            now += 4 * SILENCE;
            assert_eq!(silence.lasts(now, || at("S", 0)), Meaning::Nothing);
        }
        assert_eq!(
            silence.lasts(now + SILENCE / 2, || panic!("not remarkable")),
            Meaning::Nothing
        );
    }

    #[test]
    fn what_is_no_such_line_is_nothing() {
        for text in ["", "1 (x)", "1 (x) R", "1 (x) R 1 1 1 0 -1 4194304 20 0 0 0 a b"] {
            assert_eq!(Progress::parse(text, 100), None, "{text}");
        }
        assert_eq!(Progress::parse(&line("R", 1, 1), 0), None);
    }

    #[test]
    fn this_process_makes_progress() {
        let id = std::process::id();
        assert!(Progress::of(id).is_some());
        assert_eq!(Progress::of(u32::MAX), None);
    }
}
