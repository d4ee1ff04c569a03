//! How many router solicitations one worker lets in: a flood from invented sources must neither keep control busy nor
//! push the solicitation of an honest host aside (FAULTS 51, 52; REQUIREMENTS T4).
//!
//! ```text
//!   host (4 a second) -> its /24 (1024 a second) -> connected networks: a share of their own
//!                                                  other networks: a share, and a reserve for those long silent
//! ```
//!
//! A /24 has 256 addresses: its limit is above what all its hosts may ask together, so that a flood from invented
//! neighbours, held down host by host, leaves room for the real ones. Sources of a connected network can be invented only
//! there, if the site's routers check sources at all, so that floods from further away do not touch their share. What
//! comes from a network that has been silent is no part of a flood.
//!
//! Nothing is kept per source: hosts and networks share fixed tables by keyed hashes. Each has two places and goes by the
//! one less used, so that a flood must hit both to be mistaken for it; in return it may get twice its rate.

use std::net::Ipv4Addr;

use super::limit::TokenBucket;
use crate::fib::group::mix;

const SECOND: u64 = 1_000_000_000;

/// Places for hosts, in a table of 128 KiB.
const HOST_PLACES: usize = 1 << 14;
/// Places for networks of 256 addresses, in a table of 32 KiB.
const NETWORK_PLACES: usize = 1 << 12;

/// Two solicitations a second and eight at once, for each of a host's two places: whoever asks again as soon as it is
/// answered, half a second later at most, is no flood.
const HOST: Rate = Rate {
    interval: SECOND / 2,
    burst: 8,
};
/// As many as 256 hosts may ask.
const NETWORK: Rate = Rate {
    interval: SECOND / 1024,
    burst: 256,
};
/// Of connected networks: four whole /24 at their limits.
const CONNECTED_PER_SECOND: u32 = 4096;
/// Of all other networks.
const OTHER_PER_SECOND: u32 = 1024;
/// Of networks that were silent, when the others have used up their share.
const RESERVE_PER_SECOND: u32 = 256;
/// At once; all three together find room in the queue to control.
const CONNECTED_BURST: u32 = 128;
const OTHER_BURST: u32 = 64;
const RESERVE_BURST: u32 = 32;
/// Hosts try again after four seconds, and some more; whoever was silent for longer floods nobody.
const SILENCE: u64 = 5 * SECOND;

/// The limits of one worker.
#[derive(Debug)]
pub struct SolicitationLimit {
    key: u64,
    hosts: [u64; HOST_PLACES],
    networks: [u64; NETWORK_PLACES],
    connected: TokenBucket,
    other: TokenBucket,
    reserve: TokenBucket,
}

/// So many at once, then one per interval of nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval: u64,
    burst: u64,
}

impl Rate {
    /// A place holds the instant at which it will have rested completely (the generic cell rate algorithm). Whether one
    /// more conforms.
    fn allows(self, rested_at: u64, now: u64) -> bool {
        rested_at.saturating_sub(now) <= (self.burst - 1) * self.interval
    }

    /// Counts one more, or leaves the place alone when that is too much.
    fn take(self, rested_at: &mut u64, now: u64) -> bool {
        let allowed = self.allows(*rested_at, now);
        if allowed {
            *rested_at = (*rested_at).max(now) + self.interval;
        }
        allowed
    }
}

impl SolicitationLimit {
    /// Full limits. `key` is a random number that nobody outside knows.
    pub const fn new(key: u64) -> Self {
        Self {
            key,
            hosts: [0; HOST_PLACES],
            networks: [0; NETWORK_PLACES],
            connected: TokenBucket::new(CONNECTED_BURST, CONNECTED_PER_SECOND),
            other: TokenBucket::new(OTHER_BURST, OTHER_PER_SECOND),
            reserve: TokenBucket::new(RESERVE_BURST, RESERVE_PER_SECOND),
        }
    }

    /// Whether a solicitation from `src` may go on at `now` (nanoseconds of a clock that never steps back); `connected`
    /// says whether this machine is connected to its network.
    pub fn take(&mut self, src: Ipv4Addr, connected: bool, now: u64) -> bool {
        // A place that was never used has rested since before the clock began.
        let now = now.saturating_add(SILENCE);
        let bits = src.to_bits();
        let host = less_used(&mut self.hosts, mix(self.key ^ u64::from(bits)));
        if !HOST.allows(*host, now) {
            return false;
        }
        let network_hash = mix(!self.key ^ u64::from(bits >> 8));
        let network = less_used(&mut self.networks, network_hash);
        let was_silent = now.saturating_sub(*network) >= SILENCE;
        if !NETWORK.take(network, now) {
            // Its hosts are as good as served: each of them must come to its own limit for the others to be heard.
            HOST.take(host, now);
            return false;
        }
        let admitted = if connected {
            self.connected.take(now)
        } else {
            self.other.take(now) || (was_silent && self.reserve.take(now))
        };
        // A flood from everywhere would wear out the places of all hosts if the refused counted.
        admitted && HOST.take(host, now)
    }
}

/// The less used of the two places that belong to `hash`.
#[allow(clippy::cast_possible_truncation, reason = "halves of the hash, one by one")]
fn less_used<const PLACES: usize>(table: &mut [u64; PLACES], hash: u64) -> &mut u64 {
    let (a, b) = (hash as u32 as usize % PLACES, (hash >> 32) as usize % PLACES);
    let at = if table[a] <= table[b] { a } else { b };
    &mut table[at]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miri::cases;

    const KEY: u64 = 0x1234_5678_9abc_def0;
    /// Solicitations a second.
    const FLOOD: u64 = cases(100_000, 500);

    /// Lets `rate` solicitations a second in for `seconds`, from sources that `source` numbers, and one of `honest` at the
    /// end of each of the last seconds; how many of either were admitted.
    fn flood(
        limit: &mut SolicitationLimit,
        (rate, seconds): (u64, u64),
        source: impl Fn(u64) -> (u32, bool),
        honest: (Ipv4Addr, bool),
    ) -> (u64, u64) {
        let (mut admitted, mut heard) = (0, 0);
        for number in 0..rate * seconds {
            let now = number * SECOND / rate;
            let (src, connected) = source(number);
            admitted += u64::from(limit.take(Ipv4Addr::from_bits(src), connected, now));
            // Hosts ask every four seconds.
            if (number + 1) % (4 * rate) == 0 {
                heard += u64::from(limit.take(honest.0, honest.1, now));
            }
        }
        (admitted, heard)
    }

    /// Spread without pattern.
    fn scatter(number: u64) -> u32 {
        u32::try_from(mix(number) >> 32).unwrap()
    }

    /// T4: a host that asks without end gets four answers a second, after some at once.
    #[test]
    fn one_host_has_a_limit() {
        let mut limit = SolicitationLimit::new(KEY);
        let host = |_| (0x0a00_0005, true);
        let (admitted, heard) = flood(
            &mut limit,
            (cases(1000, 50), 20),
            host,
            (Ipv4Addr::new(10, 0, 0, 6), true),
        );
        assert!((80..=96).contains(&admitted), "{admitted}");
        assert_eq!(heard, 5, "its neighbour is not concerned");
    }

    /// FAULTS 51: a hundred thousand a second from every address of one's own network.
    #[test]
    fn invented_neighbours_leave_room_for_the_real_ones() {
        let mut limit = SolicitationLimit::new(KEY);
        let honest = 7;
        let neighbour = |number| {
            let last = scatter(number) % 254 + 1;
            (0x0a00_0000 | if last == honest { 8 } else { last }, true)
        };
        let (admitted, heard) = flood(
            &mut limit,
            (FLOOD, 20),
            neighbour,
            (Ipv4Addr::new(10, 0, 0, 7), true),
        );
        assert_eq!(heard, 5);
        assert!(admitted < 1024 * 21 + 256, "{admitted}");
    }

    /// FAULTS 51, 52: from all of 10/8, while the honest host is on a connected network.
    #[test]
    fn floods_from_elsewhere_do_not_touch_connected_networks() {
        let mut limit = SolicitationLimit::new(KEY);
        let anywhere = |number| (0x0a00_0000 | scatter(number) >> 8, false);
        let (admitted, heard) = flood(
            &mut limit,
            (FLOOD, 20),
            anywhere,
            (Ipv4Addr::new(192, 168, 0, 7), true),
        );
        assert_eq!(heard, 5);
        let most =
            u64::from(OTHER_PER_SECOND + RESERVE_PER_SECOND) * 20 + u64::from(OTHER_BURST + RESERVE_BURST);
        assert!(admitted <= most, "{admitted}");
    }

    /// FAULTS 51: a flood from one /16 leaves every other network its reserve.
    #[test]
    fn silent_networks_have_a_reserve() {
        let mut limit = SolicitationLimit::new(KEY);
        let one_16 = |number| (0x0a4d_0000 | scatter(number) >> 16, false);
        let (_, heard) = flood(
            &mut limit,
            (FLOOD, 20),
            one_16,
            (Ipv4Addr::new(10, 200, 0, 7), false),
        );
        assert_eq!(heard, 5);
    }

    /// A site that starts together after a power cut: 2000 hosts of eight networks within two seconds.
    #[test]
    fn a_site_that_starts_together_is_served() {
        let mut limit = SolicitationLimit::new(KEY);
        let admitted = (0..2000u64).filter(|number| {
            let bits = u32::try_from(0x0a00_0001 + number % 8 * 256 + number / 8).unwrap();
            limit.take(Ipv4Addr::from_bits(bits), true, number * SECOND / 1000)
        });
        assert_eq!(admitted.count(), 2000);
    }
}
