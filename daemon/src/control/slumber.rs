//! A machine that was suspended: whoever wakes up may be in another network, and its routers may have said everything anew meanwhile.
//!
//! Every timer here stands still while the machine sleeps, as those of the kernel's addresses do, so that nothing would be asked
//! before a lifetime of hours has run out awake. RFC 4861 6.3.7 has a host solicit when its interface is back.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tracing::info;

use super::daemon::Daemon;
use crate::config::resolved::Role;

/// Two readings of two clocks are not of one moment, and what is shorter changes nothing.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long this machine has slept since it was started, as far as is known. Pure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slumber {
    slept: Duration,
}

impl Slumber {
    /// What was slept before now does not count.
    pub(super) fn new() -> Self {
        Self { slept: read() }
    }

    /// Takes how long the machine has slept in all; says how long since the last time, when that is worth anything.
    fn woke(&mut self, slept: Duration) -> Option<Duration> {
        let lately = slept.saturating_sub(self.slept);
        if lately < SHORTEST {
            return None;
        }
        self.slept = slept;
        Some(lately)
    }
}

impl Daemon {
    /// A host asks all its routers, and soon who they are, when the machine has slept since the last look.
    pub(super) fn look_for_slumber(&mut self) {
        let slept = self.slumber.woke(read());
        if let Some(slept) = slept.filter(|_| self.settings.role == Role::Host) {
            info!(
                "this machine slept for {:.0} s: the routers are asked anew",
                slept.as_secs_f64()
            );
            self.solicit_anew();
            self.mark_changed();
        }
    }
}

/// `CLOCK_BOOTTIME` goes on in a suspended machine, `CLOCK_MONOTONIC` does not.
fn read() -> Duration {
    let clock = |id| clock_gettime(id).map_or(Duration::ZERO, Duration::from);
    // In this order a pause between the two makes it less, and not more; hardly ever three times.
    let once = || {
        let with_sleep = clock(ClockId::CLOCK_BOOTTIME);
        with_sleep.saturating_sub(clock(ClockId::CLOCK_MONOTONIC))
    };
    once().max(once()).max(once())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_is_told_once_and_a_blink_never() {
        let seconds = Duration::from_secs;
        let mut slumber = Slumber { slept: seconds(50) };
        assert_eq!(slumber.woke(seconds(50)), None);
        assert_eq!(
            slumber.woke(seconds(50) + SHORTEST - Duration::from_nanos(1)),
            None
        );
        assert_eq!(slumber.woke(seconds(28_850)), Some(seconds(28_800)));
        assert_eq!(slumber.woke(seconds(28_850)), None);
        assert_eq!(slumber.woke(seconds(28_849)), None, "clocks read a moment apart");
        assert_eq!(slumber.woke(seconds(28_852)), Some(seconds(2)));
    }

    #[test]
    fn a_machine_that_is_awake_has_not_slept() {
        let mut slumber = Slumber::new();
        assert!((0..1000).all(|_| slumber.woke(read()).is_none()));
    }
}
