//! How long an engine may be silent, and whether a silent one is wedged or only waits for a core that others have
//! (FAULTS 34, 68). Pure.
//!
//! One that is wedged sleeps, or has run for longer than anything that it has to do takes. One that would run and gets no core
//! is neither; ending it would give the next one no more time, and all of the work to be done again. Nor is one that the kernel holds in
//! a call: it cannot be ended before it is let go, and the next one would wait in its place.

use std::time::{Duration, Instant};

use super::progress::{Progress, State};

/// Without a word for so long one is looked at ...
pub const SILENCE: Duration = Duration::from_millis(1500);
/// ... and found asleep so many times it counts as wedged. The monitor must have been awake each time: a machine that was
/// asleep wedges nobody.
const MAX_ASLEEP: u32 = 3;
/// One that had a core for so long meanwhile runs in circles.
const MAX_RUN: Duration = Duration::from_secs(3);
/// A thread that ran for less than this share of a time (one in so many) and would have liked to has waited for a core.
const HARDLY: u32 = 20;

/// Whether a thread waited for a core between two looks at it, `elapsed` apart.
fn starved(now: &Progress, earlier: &Progress, elapsed: Duration) -> bool {
    now.state == State::Runnable && now.ran_since(earlier) < elapsed / HARDLY
}

/// What a silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing, so far.
    Nothing,
    /// It waits for a core; said once each time.
    Starved,
    /// The kernel holds it; said once each time.
    Held,
    /// It is stuck.
    Wedged,
}

/// Since when nothing was heard.
#[derive(Debug)]
pub struct Silence {
    since: Instant,
    asleep: u32,
    ran: Duration,
    progress: Option<Progress>,
    /// That it waits has been said.
    told: bool,
}

impl Silence {
    /// Heard now.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            asleep: 0,
            ran: Duration::ZERO,
            progress: None,
            told: false,
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
            (self.asleep, self.ran) = (0, Duration::ZERO);
            return Meaning::Nothing;
        }
        let looks = progress.zip(earlier);
        if let Some((now, earlier)) = looks {
            self.ran += now.ran_since(&earlier);
        }
        let state = progress.map_or(State::Asleep, |progress| progress.state);
        if state == State::Asleep {
            self.asleep += 1;
        }
        if self.asleep >= MAX_ASLEEP || self.ran >= MAX_RUN {
            (self.asleep, self.ran) = (0, Duration::ZERO);
            return Meaning::Wedged;
        }
        let meaning = match looks {
            Some((now, earlier)) if starved(&now, &earlier, elapsed) => Meaning::Starved,
            _ if state == State::Held => Meaning::Held,
            _ => return Meaning::Nothing,
        };
        if std::mem::replace(&mut self.told, true) {
            return Meaning::Nothing;
        }
        meaning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With ticks of a hundredth of a second.
    fn at(state: &str, ticks: u64) -> Progress {
        Progress {
            state: match state {
                "R" => State::Runnable,
                "D" => State::Held,
                _ => State::Asleep,
            },
            ran: Duration::from_millis(10 * ticks),
        }
    }

    #[test]
    fn who_would_run_and_does_not_waits_for_a_core() {
        let before = at("S", 100);
        let elapsed = Duration::from_secs(2);
        for (after, starved) in [
            (at("R", 100), true),
            (at("R", 109), true),
            // On a machine whose cores it shares with nine others.
            (at("R", 120), false),
            (at("S", 100), false),
            (at("D", 100), false),
        ] {
            assert_eq!(super::starved(&after, &before, elapsed), starved, "{after:?}");
        }
    }

    /// FAULTS 34: three silences, asleep or in circles.
    #[test]
    fn a_silent_engine_is_wedged() {
        for (state, per_look) in [("S", 0), ("R", 150), ("S", 30)] {
            let mut now = Instant::now();
            let mut silence = Silence::new(now);
            let mut heard = Vec::new();
            for look in 1..=3 {
                now += SILENCE;
                heard.push(silence.lasts(now, || Some(at(state, look * per_look))));
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

    /// FAULTS 34, 68: one that gets a fifth of a core is given the time for its work, and not for more than that; asleep now and
    /// then, it has no more times for that than another one.
    #[test]
    fn a_slow_engine_has_the_time_it_takes() {
        let looks = |states: &[&str]| {
            let mut now = Instant::now();
            let mut silence = Silence::new(now);
            let mut looks = (1..).zip(states.iter().cycle());
            let last = looks.find(|(look, state)| {
                now += SILENCE;
                silence.lasts(now, || Some(at(state, look * 30))) == Meaning::Wedged
            });
            last.map(|(look, _)| look)
        };
        // Before the first look nothing is known of what it did.
        assert_eq!(looks(&["R"]), Some(11));
        assert_eq!(looks(&["R", "S"]), Some(6));
    }

    /// FAULTS 68: one that gets no core is not, and it is said once; a word ends that.
    #[test]
    fn a_starved_engine_is_not() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        let mut told = 0;
        for _ in 0..100 {
            now += SILENCE;
            match silence.lasts(now, || Some(at("R", 10))) {
                Meaning::Nothing => {}
                Meaning::Starved => told += 1,
                Meaning::Held | Meaning::Wedged => panic!("it waits for a core"),
            }
        }
        assert_eq!(told, 1);
        silence.broken(now);
        now += SILENCE;
        assert_eq!(silence.lasts(now, || Some(at("R", 10))), Meaning::Nothing);
        now += SILENCE;
        assert_eq!(silence.lasts(now, || Some(at("R", 10))), Meaning::Starved);
    }

    /// FAULTS 68: one that the kernel holds is not wedged either, however long; then it has three looks again, no more and no less.
    #[test]
    fn an_engine_that_the_kernel_holds_is_not() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        let mut look = |state| {
            now += SILENCE;
            silence.lasts(now, || Some(at(state, 10)))
        };
        assert_eq!(look("S"), Meaning::Nothing);
        assert_eq!(look("D"), Meaning::Held);
        for _ in 0..100 {
            assert_eq!(look("D"), Meaning::Nothing, "it was said");
        }
        assert_eq!(look("S"), Meaning::Nothing);
        assert_eq!(look("S"), Meaning::Wedged);
    }

    /// FAULTS 69: a machine that was asleep finds nobody wedged.
    #[test]
    fn who_overslept_judges_nobody() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        for _ in 0..10 {
            now += 4 * SILENCE;
            assert_eq!(silence.lasts(now, || Some(at("S", 0))), Meaning::Nothing);
        }
        assert_eq!(
            silence.lasts(now + SILENCE / 2, || panic!("not remarkable")),
            Meaning::Nothing
        );
    }
}
