//! A lifetime that has begun: until an instant, or without end (RFC 4861 4.6.2).

use std::time::{Duration, Instant};

use isatap_engine::wire::nd::INFINITE_LIFETIME;

/// Until when something holds. The later one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// Over from this instant on.
    Until(Instant),
    /// Never over.
    Forever,
}

impl Lifetime {
    /// `seconds` from `now` on; [`INFINITE_LIFETIME`] is for ever.
    pub fn from_secs(now: Instant, seconds: u32) -> Self {
        if seconds == INFINITE_LIFETIME {
            Self::Forever
        } else {
            Self::Until(now + Duration::from_secs(u64::from(seconds)))
        }
    }

    /// Whether it has ended.
    pub fn is_over(self, now: Instant) -> bool {
        self.end().is_some_and(|end| end <= now)
    }

    /// When it ends, if ever.
    pub fn end(self) -> Option<Instant> {
        match self {
            Self::Until(end) => Some(end),
            Self::Forever => None,
        }
    }

    /// What is left, in the whole seconds that the kernel counts in: the nearest, and not 0 before the end.
    pub fn seconds(self, now: Instant) -> u32 {
        let Self::Until(end) = self else {
            return INFINITE_LIFETIME;
        };
        let left = end.saturating_duration_since(now);
        let nearest = u32::try_from((left + Duration::from_millis(500)).as_secs())
            .unwrap_or(INFINITE_LIFETIME)
            .min(INFINITE_LIFETIME - 1);
        if left.is_zero() { 0 } else { nearest.max(1) }
    }

    /// Whether both end within `tolerance` of each other.
    pub fn is_near(self, other: Self, tolerance: Duration) -> bool {
        match (self, other) {
            (Self::Forever, Self::Forever) => true,
            (Self::Until(a), Self::Until(b)) => a.max(b).duration_since(a.min(b)) <= tolerance,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_the_nearest_and_zero_only_at_the_end() {
        let now = Instant::now();
        let ms = |ms| Lifetime::Until(now + Duration::from_millis(ms)).seconds(now);
        for (left, expected) in [(0, 0), (1, 1), (1499, 1), (1500, 2), (299_990, 300)] {
            assert_eq!(ms(left), expected, "{left} ms");
        }
        assert_eq!(Lifetime::Until(now).seconds(now + Duration::from_secs(9)), 0);
        assert_eq!(Lifetime::Forever.seconds(now), INFINITE_LIFETIME);
        assert_eq!(
            Lifetime::from_secs(now, INFINITE_LIFETIME - 1).seconds(now),
            INFINITE_LIFETIME - 1
        );
        assert_eq!(Lifetime::from_secs(now, INFINITE_LIFETIME), Lifetime::Forever);
        assert!(Lifetime::Forever > Lifetime::from_secs(now, INFINITE_LIFETIME - 1));
    }
}
