//! What our own links took until a moment ago: what the kernel said of them then is heard after it took to saying something else.
//! Pure.
//!
//! ```text
//!   kernel    refuses a packet: "600 bytes"     link set mtu 1500
//!   control                                     all that links said is forgotten     "600 bytes": outdated, no link takes that now
//! ```
//!
//! Believed, it would hold for ten minutes, of a link that has long taken more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// So long after a change, what was said before it may still come.
pub const UNDER_WAY: Duration = Duration::from_secs(10);

/// MTUs in bytes that links had, until when.
#[derive(Debug, Default)]
pub struct FormerMtus {
    until: BTreeMap<u32, Instant>,
    /// Until then there may be others.
    missed_until: Option<Instant>,
}

impl FormerMtus {
    /// Links had these until now; `missed` when they may have had any.
    pub fn add(&mut self, now: Instant, mtus: BTreeSet<u32>, missed: bool) {
        self.until.retain(|_, at| *at + UNDER_WAY > now);
        self.until.extend(mtus.into_iter().map(|mtu| (mtu, now)));
        if missed {
            self.missed_until = Some(now + UNDER_WAY);
        }
    }

    /// Whether somebody who says that a link takes `mtu` bytes means one as it was; `links` have these MTUs now, by interface index.
    /// Not every size is a link's: IPsec takes some bytes off.
    pub fn is_outdated(&self, now: Instant, mtu: u32, links: &BTreeMap<u32, u32>) -> bool {
        let was_one = self.until.get(&mtu).is_some_and(|at| *at + UNDER_WAY > now)
            || self.missed_until.is_some_and(|at| at > now);
        was_one && !links.values().any(|of_now| *of_now == mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u32; 4] = [68, 600, 1400, 1500];
    const NONE: [u32; 0] = [];

    fn outdated(former: &FormerMtus, now: Instant, links: &[u32]) -> Vec<u32> {
        let links = (2..).zip(links.iter().copied()).collect();
        let mut sizes = SIZES.to_vec();
        sizes.retain(|mtu| former.is_outdated(now, *mtu, &links));
        sizes
    }

    #[test]
    fn what_was_said_of_a_link_before_is_no_news() {
        let now = Instant::now();
        let mut former = FormerMtus::default();
        assert_eq!(outdated(&former, now, &[600, 9000]), NONE);
        former.add(now, [600, 68].into(), false);
        assert_eq!(outdated(&former, now, &[1500, 9000]), [68, 600]);
        assert_eq!(outdated(&former, now, &[1500, 600]), [68], "another one has it");
        former.add(now + UNDER_WAY / 2, [1500].into(), false);
        assert_eq!(outdated(&former, now + UNDER_WAY / 2, &[68]), [600, 1500]);
        assert_eq!(outdated(&former, now + UNDER_WAY, &[9000]), [1500]);
        assert_eq!(
            outdated(&former, now + UNDER_WAY * 2, &[9000]),
            NONE,
            "whoever says so now means it"
        );
    }

    #[test]
    fn what_a_link_was_may_have_been_missed() {
        let now = Instant::now();
        let mut former = FormerMtus::default();
        former.add(now, [600].into(), true);
        assert_eq!(outdated(&former, now, &[1500]), [68, 600, 1400]);
        assert_eq!(outdated(&former, now + UNDER_WAY, &[1500]), NONE);
    }
}
