//! The prefixes of the link: on-link lifetimes (RFC 4861 6.3.4), lifetimes of addresses (RFC 4862 5.5.3).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::fib::Ipv6Prefix;

use super::{AdvertPrefix, Lifetime};

/// Prefixes kept, and those of one router, so that a router that went mad leaves room for others (FAULTS 49).
pub const MAX_PREFIXES: usize = 64;
/// See [`MAX_PREFIXES`].
pub const MAX_PREFIXES_PER_ROUTER: usize = 32;

/// The metric of on-link routes: what the kernel gives its own.
pub const ON_LINK_METRIC: u32 = 256;

/// The least that an advertisement can shorten the life of an address to (RFC 4862 5.5.3 e).
const TWO_HOURS: Duration = Duration::from_secs(7200);

/// Lifetimes of the addresses formed from a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Autonomous {
    pub(super) valid: Lifetime,
    pub(super) preferred: Lifetime,
}

/// One prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) prefix: Ipv6Prefix,
    /// Who advertised it last.
    pub(super) from: Ipv4Addr,
    pub(super) on_link: Option<Lifetime>,
    pub(super) autonomous: Option<Autonomous>,
}

/// All of them, in the order they became known.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes(Vec<Prefix>);

impl Autonomous {
    /// The two-hour rule: nobody who can send one forged advertisement can end all connections with it. The preferred
    /// lifetime follows the advertisement in any case (V6).
    fn update(&mut self, now: Instant, valid: Lifetime, preferred: Lifetime) {
        let two_hours = Lifetime::Until(now + TWO_HOURS);
        if valid > two_hours || valid > self.valid {
            self.valid = valid;
        } else if self.valid > two_hours {
            self.valid = two_hours;
        }
        self.preferred = preferred;
    }
}

impl Prefixes {
    /// Takes one prefix of an advertisement; `false` when there is no room for it.
    pub(super) fn take(&mut self, now: Instant, from: Ipv4Addr, advert: &AdvertPrefix) -> bool {
        let found = self.0.iter().position(|known| known.prefix == advert.prefix);
        let at = match found {
            Some(at) => at,
            // What is over already makes nothing new (V5).
            None if advert.valid == 0 => return true,
            None if !self.has_room(from) => return false,
            None => {
                self.0.push(Prefix {
                    prefix: advert.prefix,
                    from,
                    on_link: None,
                    autonomous: None,
                });
                self.0.len() - 1
            }
        };
        let known = &mut self.0[at];
        known.from = from;
        let valid = Lifetime::from_secs(now, advert.valid);
        let preferred = Lifetime::from_secs(now, advert.preferred);
        // A flag that is not set says nothing (V8).
        if advert.on_link {
            known.on_link = Some(valid);
        }
        if advert.autonomous {
            match &mut known.autonomous {
                Some(autonomous) => autonomous.update(now, valid, preferred),
                None if advert.valid == 0 => {}
                none => *none = Some(Autonomous { valid, preferred }),
            }
        }
        self.expire(now);
        true
    }

    /// Takes over what the kernel still has of an earlier life; what is known is known better. Of several addresses all but that of
    /// the preferred locator were deprecated from the beginning: the longest life is the prefix's.
    pub(super) fn adopt(&mut self, prefix: Prefix) {
        if let Some(known) = self.0.iter_mut().find(|known| known.prefix == prefix.prefix) {
            known.on_link = known.on_link.or(prefix.on_link);
            let of_before = known.from.is_unspecified().then_some(prefix.autonomous).flatten();
            let longer =
                of_before.filter(|new| known.autonomous.is_some_and(|old| old.preferred < new.preferred));
            known.autonomous = longer.or(known.autonomous).or(prefix.autonomous);
        } else if self.has_room(prefix.from) {
            self.0.push(prefix);
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for known in &mut self.0 {
            known.on_link = known.on_link.filter(|end| !end.is_over(now));
            known.autonomous = known.autonomous.filter(|auto| !auto.valid.is_over(now));
        }
        self.0
            .retain(|known| known.on_link.is_some() || known.autonomous.is_some());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Prefix> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When something ends. The end of a preferred lifetime changes nothing that is wanted: the kernel counts it.
    pub(super) fn ends(&self) -> impl Iterator<Item = Instant> {
        self.0
            .iter()
            .flat_map(|known| [known.on_link, known.autonomous.map(|auto| auto.valid)])
            .flatten()
            .filter_map(Lifetime::end)
    }

    fn has_room(&self, from: Ipv4Addr) -> bool {
        let theirs = self.0.iter().filter(|known| known.from == from).count();
        self.0.len() < MAX_PREFIXES && theirs < MAX_PREFIXES_PER_ROUTER
    }
}
