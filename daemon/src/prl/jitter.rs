//! Random factors for timers, so that hosts that started together do not solicit together (RFC 7559 2, RFC 8415 15).

use std::time::Duration;

/// A small generator (xorshift64*). Good enough to spread timers, and not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator with its own sequence; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero for ever.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A generator seeded by this process and this moment.
    pub fn from_environment() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library keys each RandomState from the kernel's random numbers.
        Self::new(RandomState::new().hash_one(std::process::id()))
    }

    /// The next number in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        f64::from(u32::try_from(bits).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }

    /// `base` changed by up to `share` of itself, either way.
    pub fn around(&mut self, base: Duration, share: f64) -> Duration {
        base.mul_f64(1.0 - share + 2.0 * share * self.fraction())
    }

    /// A duration in `low..high`, proportionally.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low).mul_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_stay_inside_and_spread() {
        let mut jitter = Jitter::new(0);
        let base = Duration::from_secs(100);
        let values: Vec<_> = (0..1000).map(|_| jitter.around(base, 0.1)).collect();
        assert!(
            values
                .iter()
                .all(|v| (Duration::from_secs(90)..=Duration::from_secs(110)).contains(v))
        );
        assert!(values.iter().any(|v| *v < Duration::from_secs(93)));
        assert!(values.iter().any(|v| *v > Duration::from_secs(107)));
    }

    #[test]
    fn two_generators_differ() {
        assert_ne!(
            Jitter::new(1).fraction().to_bits(),
            Jitter::new(2).fraction().to_bits()
        );
    }
}
