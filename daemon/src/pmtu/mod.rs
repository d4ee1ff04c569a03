//! What the paths to peers take: learned from ICMPv4 errors and from our own kernel, forgotten step by step (RFC 4213
//! 3.2.2, RFC 1191, REQUIREMENTS M4, M6). Pure: what was heard and `now` come in.
//!
//! ```text
//!   "fragmentation needed" --> claim (is it about a packet of ours, and possible?) --> book of paths
//!   EMSGSIZE on a socket   --> former (is it about a link as it is now?) --------------> book of links
//!   both books             --> the Rulebook: DF, sizes that are reported, where fragments are made
//!   book of paths          --> known --> the engine that follows
//! ```

mod book;
mod claim;
mod former;
mod known;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use isatap_engine::isatap::mtu::PathMtu;

pub use known::{Keeping, KnownPath};

pub use book::{Book, Entry, MAX_PEERS, Outcome, RAISE_AFTER, RAISE_AGAIN};
pub use claim::{Claim, Refusal, read};
pub use former::{FormerMtus, UNDER_WAY};

/// Both books.
#[derive(Debug, Default)]
pub struct Paths {
    /// What routers on the way say.
    pub routers: Book,
    /// What our own kernel says of the links that packets leave by.
    pub links: Book,
    /// What these took before.
    pub former_mtus: FormerMtus,
    /// When what routers say is left to the engine that follows.
    pub keeping: Keeping,
}

impl Paths {
    /// For the Rulebook: what is known of each peer, of which anything is.
    pub fn known(&self) -> Vec<(Ipv4Addr, PathMtu)> {
        let routers = self
            .routers
            .iter()
            .map(|(peer, entry)| (peer, PathMtu::of_path(entry.mtu)));
        let links = self
            .links
            .iter()
            .map(|(peer, entry)| (peer, PathMtu::of_link(entry.mtu)));
        let mut known: BTreeMap<Ipv4Addr, PathMtu> = BTreeMap::new();
        for (peer, path) in routers.chain(links) {
            let all = known.entry(peer).or_insert(PathMtu::UNKNOWN);
            *all = all.and(path);
        }
        known.into_iter().collect()
    }

    /// Tries larger sizes where it is time; what takes `enough` bytes is forgotten. How many entries changed.
    pub fn raise(&mut self, now: Instant, enough: u16) -> usize {
        self.routers.raise(now, enough) + self.links.raise(now, enough)
    }

    /// When [`Paths::raise`] has something to do, or [`Paths::keeping`].
    pub fn next_deadline(&self) -> Option<Instant> {
        let raised = [self.routers.next_deadline(), self.links.next_deadline()];
        [raised[0], raised[1], self.keeping.due()]
            .into_iter()
            .flatten()
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smaller one counts, and a link of our own bounds its paths.
    #[test]
    fn both_books_make_one_answer() {
        let peer = |n| Ipv4Addr::new(10, 0, 0, n);
        let now = Instant::now();
        let mut paths = Paths::default();
        paths.routers.lower(now, peer(1), 1400);
        paths.routers.lower(now, peer(2), 600);
        paths.links.lower(now, peer(2), 1300);
        paths.links.lower(now, peer(3), 1300);
        let known: Vec<_> = paths
            .known()
            .into_iter()
            .map(|(peer, path)| (peer, path.path(), path.link()))
            .collect();
        assert_eq!(
            known,
            [
                (peer(1), 1400, u16::MAX),
                (peer(2), 600, 1300),
                (peer(3), 1300, 1300)
            ]
        );
        assert_eq!(paths.next_deadline(), Some(now + RAISE_AFTER));
        assert_eq!(paths.raise(now + RAISE_AFTER, 1500), 4);
    }
}
