//! A token bucket for the ICMPv6 errors of one worker (RFC 4443 2.4 (f)).

/// ICMPv6 errors one worker may send at once.
pub const REPLY_BURST: u32 = 64;
/// ICMPv6 errors one worker may send per second in the long run.
pub const REPLIES_PER_SECOND: u32 = 128;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Tokens, counted in nanoseconds of credit so that nothing is rounded away.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    nanos_per_token: u64,
    capacity: u64,
    credit: u64,
    filled_at: u64,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gains `per_second` (at least one) a second.
    pub const fn new(burst: u32, per_second: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        let nanos_per_token = NANOS_PER_SECOND / per_second as u64;
        let capacity = nanos_per_token * burst as u64;
        Self {
            nanos_per_token,
            capacity,
            credit: capacity,
            filled_at: 0,
        }
    }

    /// Takes a token at `now` (nanoseconds of a clock that never steps back); `false` when there is none.
    pub fn take(&mut self, now: u64) -> bool {
        self.credit = self
            .capacity
            .min(self.credit.saturating_add(now.saturating_sub(self.filled_at)));
        self.filled_at = self.filled_at.max(now);
        if self.credit < self.nanos_per_token {
            return false;
        }
        self.credit -= self.nanos_per_token;
        true
    }

    /// Whether nothing is missing at `now`: forgetting such a bucket changes nothing.
    pub fn is_full(&self, now: u64) -> bool {
        self.credit.saturating_add(now.saturating_sub(self.filled_at)) >= self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N7.
    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 10);
        let taken = |bucket: &mut TokenBucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, 5), 10);
        assert_eq!(taken(&mut bucket, 5 + NANOS_PER_SECOND / 2), 5);
        assert_eq!(taken(&mut bucket, 1), 0, "a clock that steps back gives nothing");
        assert!(!bucket.is_full(NANOS_PER_SECOND) && bucket.is_full(2 * NANOS_PER_SECOND));
        assert_eq!(
            taken(&mut bucket, 1000 * NANOS_PER_SECOND),
            10,
            "no more than a burst after a long rest"
        );
    }
}
