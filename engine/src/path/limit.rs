//! How many ICMPv6 errors a worker sends (RFC 4443 2.4 (f)): token buckets.

use crate::wire::icmpv6::ErrorMessage;

/// ICMPv6 errors one worker may send at once.
const REPLY_BURST: u32 = 64;
/// ICMPv6 errors one worker may send per second in the long run.
const REPLIES_PER_SECOND: u32 = 128;
/// Of those that say what size fits, at once.
const TOO_BIG_BURST: u32 = 256;
/// Of those that say what size fits, per second in the long run.
const TOO_BIG_PER_SECOND: u32 = 1024;

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

/// The limits of one worker. "Packet too big" has its own: without it a path is a black hole for whoever sends large packets, and
/// somebody who scans for hosts that are not there uses up what all others are due. The kernel does not limit it at all
/// (`icmpv6_mask_allow` of net/ipv6/icmp.c).
#[derive(Clone, Copy, Debug)]
pub struct ReplyLimit {
    too_big: TokenBucket,
    others: TokenBucket,
}

impl Default for ReplyLimit {
    fn default() -> Self {
        Self {
            too_big: TokenBucket::new(TOO_BIG_BURST, TOO_BIG_PER_SECOND),
            others: TokenBucket::new(REPLY_BURST, REPLIES_PER_SECOND),
        }
    }
}

impl ReplyLimit {
    /// Whether `message` may be sent at `now` (nanoseconds of a clock that never steps back).
    pub fn take(&mut self, message: ErrorMessage, now: u64) -> bool {
        match message {
            ErrorMessage::PacketTooBig { .. } => self.too_big.take(now),
            _ => self.others.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N7, M4: neither kind of error uses up what the other one is due.
    #[test]
    fn what_fits_is_told_whatever_else_is() {
        let mut limit = ReplyLimit::default();
        let unreachable = ErrorMessage::Unreachable { code: 0 };
        let too_big = ErrorMessage::PacketTooBig { mtu: 1280 };
        let mut taken = |message| (0..10_000).filter(|_| limit.take(message, 0)).count();
        assert_eq!(taken(unreachable), 64);
        assert_eq!(taken(too_big), 256);
        assert_eq!((taken(unreachable), taken(too_big)), (0, 0));
        assert!(limit.take(too_big, NANOS_PER_SECOND / 1000));
        assert!(!limit.take(unreachable, NANOS_PER_SECOND / 1000));
    }

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
