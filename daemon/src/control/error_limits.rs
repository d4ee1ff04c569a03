//! How many ICMPv6 errors follow from ICMPv4 errors (RFC 4443 2.4 (f), FAULTS 26): so many for each peer, so that one that
//! is gone does not use up what another is due, and so many altogether. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isatap_engine::path::limit::TokenBucket;

/// Errors about packets to one peer, per second and at once: what RFC 4443 gives as an example.
const ERRORS_PER_PEER: u32 = 10;
/// Errors about packets to all peers together, per second and at once.
const ERRORS_ALTOGETHER: u32 = 1000;
/// Peers with a limit of their own; further ones share one.
const MAX_PEERS: usize = 256;

/// The limits.
#[derive(Debug)]
pub(super) struct ErrorLimits {
    peers: BTreeMap<Ipv4Addr, TokenBucket>,
    others: TokenBucket,
    altogether: TokenBucket,
}

impl Default for ErrorLimits {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            others: TokenBucket::new(ERRORS_PER_PEER, ERRORS_PER_PEER),
            altogether: TokenBucket::new(ERRORS_ALTOGETHER, ERRORS_ALTOGETHER),
        }
    }
}

impl ErrorLimits {
    /// Whether an error about a packet to `peer` may be sent at `now`, in nanoseconds of a clock that never steps back.
    pub(super) fn take(&mut self, peer: Ipv4Addr, now: u64) -> bool {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, bucket| !bucket.is_full(now));
        }
        let has_room = self.peers.len() < MAX_PEERS || self.peers.contains_key(&peer);
        let bucket = if has_room {
            let full = || TokenBucket::new(ERRORS_PER_PEER, ERRORS_PER_PEER);
            self.peers.entry(peer).or_insert_with(full)
        } else {
            &mut self.others
        };
        bucket.take(now) && self.altogether.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn peer(n: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 | u32::try_from(n).unwrap())
    }

    /// N7, FAULTS 26.
    #[test]
    fn n7_a_storm_about_one_peer_leaves_the_others_theirs() {
        let mut limits = ErrorLimits::default();
        let mut taken = |n, now, tries| (0..tries).filter(|_| limits.take(peer(n), now)).count();
        assert_eq!(taken(1, 0, 10_000), 10);
        assert_eq!(taken(2, 0, 1), 1);
        assert_eq!(taken(1, SECOND / 2, 10_000), 5);
        assert_eq!(taken(2, SECOND / 2, 100), 10);
    }

    #[test]
    fn the_table_and_the_sum_are_bounded() {
        let mut limits = ErrorLimits::default();
        for n in 0..MAX_PEERS {
            assert!(limits.take(peer(n), 0));
        }
        // No room: the rest share what one has.
        let sent = (MAX_PEERS..2000).filter(|n| limits.take(peer(*n), 0)).count();
        assert_eq!((sent, limits.peers.len()), (10, MAX_PEERS));
        // Those that were quiet make room.
        assert!(limits.take(peer(5000), SECOND));
        assert_eq!(limits.peers.len(), 1);
        let mut limits = ErrorLimits::default();
        let sent = (0..2000).filter(|n| limits.take(peer(n % 200), 0)).count();
        assert_eq!(sent, usize::try_from(ERRORS_ALTOGETHER).unwrap());
    }
}
