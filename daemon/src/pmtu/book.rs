//! Sizes by peer: lowered when somebody says so, raised by likely steps when nobody has for a while, bounded.
//!
//! ```text
//!   lower            10 min             2 min              2 min
//!     |  600   ------------>  1006  ------------>  1300  ----------->  1492 ...   enough: forgotten
//! ```
//!
//! A size is raised ten minutes after it was last heard of, and a step further each two minutes from then on (RFC 1191 6.3; the
//! least it allows is five and one). There is no probe but the next large packet: if it is too big, it is heard of again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::isatap::plateau;

/// Peers that are remembered at most.
pub const MAX_PEERS: usize = 4096;
/// How long a size holds after it was heard of (RFC 1191 6.3, RFC 8201 4).
pub const RAISE_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long a size holds that was raised and not heard of since.
pub const RAISE_AGAIN: Duration = Duration::from_secs(2 * 60);

/// What is known about one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The largest IPv4 packet in bytes.
    pub mtu: u16,
    /// When it was last said.
    pub heard_at: Instant,
    /// When a larger one is tried.
    pub raise_at: Instant,
}

/// What became of something heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A size is in force that was not before.
    Lowered,
    /// The same, and another peer was forgotten for it.
    LoweredFull,
    /// It was known, or more is known already.
    Unchanged,
}

/// Sizes by peer.
#[derive(Debug, Default)]
pub struct Book {
    peers: BTreeMap<Ipv4Addr, Entry>,
    /// No entry is due earlier.
    next: Option<Instant>,
}

impl Book {
    /// `peer` takes no more than `mtu` bytes. Never less than every IPv4 link takes, and never more than is known already: what
    /// says so was under way when the smaller size was heard of.
    pub fn lower(&mut self, now: Instant, peer: Ipv4Addr, mtu: u16) -> Outcome {
        let mtu = mtu.max(plateau::MIN);
        let old = self.peers.get(&peer).map(|entry| entry.mtu);
        if old.is_some_and(|old| old < mtu) {
            return Outcome::Unchanged;
        }
        let full = old.is_none() && self.peers.len() >= MAX_PEERS;
        if full {
            self.make_room();
        }
        let raise_at = now + RAISE_AFTER;
        let entry = Entry {
            mtu,
            heard_at: now,
            raise_at,
        };
        self.peers.insert(peer, entry);
        self.next = Some(self.next.map_or(raise_at, |next| next.min(raise_at)));
        match old {
            Some(old) if old == mtu => Outcome::Unchanged,
            _ if full => Outcome::LoweredFull,
            _ => Outcome::Lowered,
        }
    }

    /// Goes on from what another book knew of `peer`, if nothing is known of it here and there is room.
    pub fn recall(&mut self, peer: Ipv4Addr, entry: Entry) {
        if self.peers.len() < MAX_PEERS && !self.peers.contains_key(&peer) {
            self.peers.insert(peer, entry);
            let at = entry.raise_at;
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// Raises what is due at `now`; what takes `enough` bytes then is forgotten. How many entries changed.
    pub fn raise(&mut self, now: Instant, enough: u16) -> usize {
        if self.next.is_none_or(|next| next > now) {
            return 0;
        }
        let mut changed = 0;
        self.peers.retain(|_, entry| {
            if entry.raise_at > now {
                return true;
            }
            changed += 1;
            entry.raise_at = now + RAISE_AGAIN;
            entry.mtu = plateau::above(entry.mtu).unwrap_or(u16::MAX);
            entry.mtu < enough
        });
        self.next = self.peers.values().map(|entry| entry.raise_at).min();
        changed
    }

    /// When [`Book::raise`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Everything known, in order of address.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Ipv4Addr, Entry)> + '_ {
        self.peers.iter().map(|(peer, entry)| (*peer, *entry))
    }

    /// How many peers something is known of.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Forgets everything; whether there was something.
    pub fn clear(&mut self) -> bool {
        self.next = None;
        let was = !self.peers.is_empty();
        self.peers.clear();
        was
    }

    /// Forgets the entry that was not heard of for longest in the /24 that has most: who makes up many peers makes them up in
    /// few networks, and pushes out their own.
    fn make_room(&mut self) {
        let network = |peer: &Ipv4Addr| peer.to_bits() >> 8;
        let peers: Vec<_> = self.peers.iter().collect();
        let networks = peers.chunk_by(|(a, _), (b, _)| network(a) == network(b));
        let oldest = networks
            .max_by_key(|network| network.len())
            .and_then(|network| network.iter().min_by_key(|(_, entry)| entry.heard_at));
        if let Some(peer) = oldest.map(|(peer, _)| **peer) {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const SECOND: Duration = Duration::from_secs(1);

    fn mtu(book: &Book) -> Option<u16> {
        book.iter()
            .find(|(peer, _)| *peer == PEER)
            .map(|(_, entry)| entry.mtu)
    }

    /// M6: not below 68, and nothing heard raises a size.
    #[test]
    fn m6_sizes_only_go_down() {
        let now = Instant::now();
        let mut book = Book::default();
        for (heard, outcome, known) in [
            (1400, Outcome::Lowered, 1400),
            (1400, Outcome::Unchanged, 1400),
            (1492, Outcome::Unchanged, 1400),
            (600, Outcome::Lowered, 600),
            (1300, Outcome::Unchanged, 600),
            (0, Outcome::Lowered, 68),
            (68, Outcome::Unchanged, 68),
        ] {
            assert_eq!(book.lower(now, PEER, heard), outcome, "{heard}");
            assert_eq!(mtu(&book), Some(known), "{heard}");
        }
    }

    /// M6: ten minutes after it was last heard of a size goes up a step, then a step each two minutes, until it is enough.
    #[test]
    fn m6_sizes_are_raised_and_forgotten() {
        let start = Instant::now();
        let mut book = Book::default();
        book.lower(start, PEER, 600);
        let mut now = start + Duration::from_secs(5 * 60);
        book.lower(now, PEER, 600);
        now += RAISE_AFTER - SECOND;
        assert_eq!(
            (book.raise(now, 1500), mtu(&book)),
            (0, Some(600)),
            "not before its time"
        );
        now += SECOND;
        for step in [1006, 1300, 1492] {
            assert!(book.next_deadline() <= Some(now));
            assert_eq!((book.raise(now, 1500), mtu(&book)), (1, Some(step)));
            assert_eq!(book.raise(now + RAISE_AGAIN - SECOND, 1500), 0);
            now += RAISE_AGAIN;
        }
        assert_eq!((book.raise(now, 1500), mtu(&book)), (1, None));
        assert_eq!((book.next_deadline(), book.is_empty()), (None, true));
    }

    /// M6: a step that was too large is heard of, and holds for ten minutes again.
    #[test]
    fn m6_a_step_too_far_is_taken_back() {
        let start = Instant::now();
        let mut book = Book::default();
        book.lower(start, PEER, 1300);
        let now = start + RAISE_AFTER;
        book.raise(now, 1500);
        assert_eq!(mtu(&book), Some(1492));
        assert_eq!(book.lower(now + SECOND, PEER, 1300), Outcome::Lowered);
        assert_eq!(book.raise(now + RAISE_AGAIN + SECOND, 1500), 0);
        assert_eq!(book.raise(now + SECOND + RAISE_AFTER, 1500), 1);
    }

    /// M6, FAULTS 25, 52: bounded, and a crowd from a few networks pushes out its own.
    #[test]
    fn a_crowd_pushes_out_its_own() {
        let now = Instant::now();
        let mut book = Book::default();
        let honest = |n: u32| Ipv4Addr::from_bits(0x0a00_0002 + n * 256);
        for n in 0..100 {
            book.lower(now, honest(n), 1400);
        }
        let mut evicted = 0;
        for n in 0..20_000u32 {
            let liar = Ipv4Addr::from_bits(0x0b00_0000 + n);
            let outcome = book.lower(now + SECOND * n, liar, 68);
            evicted += u32::from(outcome == Outcome::LoweredFull);
        }
        assert_eq!((book.len(), evicted), (MAX_PEERS, 100 + 20_000 - 4096));
        let kept = (0..100).filter(|n| book.iter().any(|(peer, _)| peer == honest(*n)));
        assert_eq!(kept.count(), 100);
    }
}
