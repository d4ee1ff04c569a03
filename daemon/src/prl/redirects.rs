//! What routers redirected: better first hops for single destinations (RFC 4861 8.3). Pure.
//!
//! The packet path has checked who redirects what to where; here it is remembered, for a while and up to a bound. A
//! redirect ends with its time, when its target is said to be unreachable, and when the router that gave it is no longer
//! the first hop: a route of this machine, or another router, has taken its place.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Redirected destinations at most; past that the oldest makes room.
pub const MAX_REDIRECTS: usize = 256;

/// How long a redirect holds: RFC 4861 leaves it open. The router is asked again, by the next packet, after it.
pub const REDIRECT_LIFETIME: Duration = Duration::from_secs(600);

/// A better first hop for one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The destination.
    pub destination: Ipv6Addr,
    /// Who said so.
    pub router: Ipv4Addr,
    /// Where its packets go.
    pub target: Ipv4Addr,
    /// When it ends.
    pub until: Instant,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Redirects(BTreeMap<Ipv6Addr, Redirect>);

impl Redirects {
    /// `router` says that `target` is the better first hop for `destination`.
    pub fn learn(&mut self, now: Instant, router: Ipv4Addr, destination: Ipv6Addr, target: Ipv4Addr) {
        if self.0.len() >= MAX_REDIRECTS && !self.0.contains_key(&destination) {
            let oldest = self.0.values().min_by_key(|redirect| redirect.until);
            if let Some(oldest) = oldest.map(|redirect| redirect.destination) {
                self.0.remove(&oldest);
            }
        }
        let redirect = Redirect {
            destination,
            router,
            target,
            until: now + REDIRECT_LIFETIME,
        };
        self.0.insert(destination, redirect);
    }

    /// Ends those whose time is over; whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.retain(|redirect| redirect.until > now)
    }

    /// Ends those to `target`, which does not get its packets; whether there were any.
    pub fn target_failed(&mut self, target: Ipv4Addr) -> bool {
        self.retain(|redirect| redirect.target != target)
    }

    /// Ends all that `holds` does not hold for; whether there were any.
    pub fn retain(&mut self, holds: impl Fn(&Redirect) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, redirect| holds(redirect));
        self.0.len() != before
    }

    /// When the next one ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(|redirect| redirect.until).min()
    }

    /// Those in force, in order of their destinations.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Redirect> {
        self.0.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const TARGETS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 8)];

    fn destination(number: usize) -> Ipv6Addr {
        let number = u16::try_from(number).unwrap();
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)
    }

    fn targets(redirects: &Redirects) -> Vec<Ipv4Addr> {
        redirects.iter().map(|redirect| redirect.target).collect()
    }

    /// N10: a redirect ends with its time; hearing it again makes it longer, another target replaces it.
    #[test]
    fn n10_redirects_end() {
        let start = Instant::now();
        let mut redirects = Redirects::default();
        redirects.learn(start, ROUTER, destination(1), TARGETS[0]);
        let half = start + REDIRECT_LIFETIME / 2;
        redirects.learn(half, ROUTER, destination(2), TARGETS[0]);
        redirects.learn(half, ROUTER, destination(2), TARGETS[1]);
        assert_eq!(targets(&redirects), TARGETS);
        assert_eq!(redirects.next_deadline(), Some(start + REDIRECT_LIFETIME));
        assert!(!redirects.expire(half));
        assert!(redirects.expire(start + REDIRECT_LIFETIME));
        assert_eq!(targets(&redirects), [TARGETS[1]]);
        assert!(redirects.expire(half + REDIRECT_LIFETIME));
        assert!(redirects.is_empty() && redirects.next_deadline().is_none());
    }

    #[test]
    fn a_failed_target_or_another_first_hop_ends_them() {
        let start = Instant::now();
        let mut redirects = Redirects::default();
        for number in 0..4 {
            redirects.learn(start, ROUTER, destination(number), TARGETS[number % 2]);
        }
        assert!(redirects.target_failed(TARGETS[0]));
        assert!(!redirects.target_failed(TARGETS[0]));
        assert_eq!(targets(&redirects), [TARGETS[1]; 2]);
        assert!(redirects.retain(|redirect| redirect.destination != destination(1)));
        assert_eq!(redirects.iter().len(), 1);
    }

    /// A router that redirects everything costs a bounded table: the oldest makes room.
    #[test]
    fn the_table_is_bounded() {
        let start = Instant::now();
        let mut redirects = Redirects::default();
        for number in 0..MAX_REDIRECTS + 10 {
            let now = start + Duration::from_millis(number as u64);
            redirects.learn(now, ROUTER, destination(number), TARGETS[0]);
        }
        assert_eq!(redirects.iter().len(), MAX_REDIRECTS);
        assert!(
            redirects
                .iter()
                .all(|redirect| redirect.destination >= destination(10))
        );
        let later = start + Duration::from_secs(1);
        redirects.learn(later, ROUTER, destination(20), TARGETS[1]);
        assert_eq!(redirects.iter().len(), MAX_REDIRECTS, "it was there before");
    }
}
