//! What routers said of paths, left by one engine to the next: after a crash or an upgrade each path would have to lose a packet again
//! to be known. Pure.
//!
//! What our own kernel says of links is not left: it says so again at the first packet, and links may be others by then.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::isatap::plateau;
use serde::{Deserialize, Serialize};

use super::book::{Book, Entry, RAISE_AFTER};

/// Least time between two that are left: somebody who makes up sizes is heard of as often as packets come.
const KEEP_INTERVAL: Duration = Duration::from_secs(5);

/// One path. Times are milliseconds after a moment that all engines agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPath {
    /// The far end.
    pub peer: Ipv4Addr,
    /// The largest IPv4 packet in bytes.
    pub mtu: u16,
    /// When it was last said.
    pub heard_at: u64,
    /// When a larger one is tried.
    pub raise_at: u64,
}

impl Book {
    /// Everything in it, for an engine that follows.
    pub fn known(&self, epoch: Instant) -> Vec<KnownPath> {
        let millis =
            |at: Instant| u64::try_from(at.saturating_duration_since(epoch).as_millis()).unwrap_or(u64::MAX);
        self.iter()
            .map(|(peer, entry)| KnownPath {
                peer,
                mtu: entry.mtu,
                heard_at: millis(entry.heard_at),
                raise_at: millis(entry.raise_at),
            })
            .collect()
    }

    /// Goes on from what an engine before knew. Nothing was heard later than now, and nothing holds for longer than if it were
    /// heard now.
    pub fn recall_all(&mut self, now: Instant, epoch: Instant, known: &[KnownPath]) {
        let moment = |millis| epoch.checked_add(Duration::from_millis(millis));
        for path in known {
            let latest = now + RAISE_AFTER;
            let entry = Entry {
                mtu: path.mtu.max(plateau::MIN),
                heard_at: moment(path.heard_at).map_or(now, |at| at.min(now)),
                raise_at: moment(path.raise_at).map_or(latest, |at| at.min(latest)),
            };
            self.recall(path.peer, entry);
        }
    }
}

/// When to leave what is known: at once after a change, and not too often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keeping {
    kept_at: Option<Instant>,
    due: Option<Instant>,
}

impl Keeping {
    /// Something has changed.
    pub fn changed(&mut self, now: Instant) {
        let at = self.kept_at.map_or(now, |at| now.max(at + KEEP_INTERVAL));
        self.due.get_or_insert(at);
    }

    /// When it is time; `None` while nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time now; then it is done.
    pub fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|at| at <= now);
        if is_due {
            (self.kept_at, self.due) = (Some(now), None);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmtu::MAX_PEERS;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const SECOND: Duration = Duration::from_secs(1);

    /// M6: a size goes on where it was, with the time that it has left.
    #[test]
    fn m6_the_next_book_goes_on() {
        let epoch = Instant::now();
        let mut before = Book::default();
        before.lower(epoch + SECOND, PEER, 1300);
        let known = before.known(epoch);
        let mut next = Book::default();
        let now = epoch + SECOND * 100;
        next.recall_all(now, epoch, &known);
        assert_eq!(next.iter().collect::<Vec<_>>(), before.iter().collect::<Vec<_>>());
        assert_eq!(next.next_deadline(), Some(epoch + SECOND + RAISE_AFTER));
        // What it has heard itself is newer.
        next.lower(now, PEER, 600);
        next.recall_all(now, epoch, &known);
        assert_eq!(next.iter().next().map(|(_, entry)| entry.mtu), Some(600));
    }

    /// M6, FAULTS 25, 52: whatever an engine that was taken over leaves holds no longer than what is heard now, and takes no more room.
    #[test]
    fn what_makes_no_sense_does_no_harm() {
        let epoch = Instant::now();
        let now = epoch + SECOND;
        let path = |n: u32, at| KnownPath {
            peer: Ipv4Addr::from_bits(n),
            mtu: 0,
            heard_at: at,
            raise_at: at,
        };
        let mut known: Vec<_> = (0..8000).map(|n| path(n, u64::MAX)).collect();
        known[0] = path(0, 0);
        let mut book = Book::default();
        book.recall_all(now, epoch, &known);
        assert_eq!(book.len(), MAX_PEERS);
        let (_, first) = book.iter().next().unwrap();
        assert_eq!((first.mtu, first.raise_at), (plateau::MIN, epoch));
        let latest = book
            .iter()
            .map(|(_, entry)| (entry.heard_at, entry.raise_at))
            .max();
        assert_eq!(latest, Some((now, now + RAISE_AFTER)));
    }

    #[test]
    fn it_is_kept_at_once_and_not_too_often() {
        let now = Instant::now();
        let mut keeping = Keeping::default();
        assert!(keeping.due().is_none() && !keeping.take(now));
        keeping.changed(now);
        assert!(keeping.take(now) && !keeping.take(now));
        for millis in 1..100 {
            keeping.changed(now + Duration::from_millis(millis));
        }
        assert_eq!(keeping.due(), Some(now + KEEP_INTERVAL));
        assert!(!keeping.take(now + KEEP_INTERVAL - SECOND) && keeping.take(now + KEEP_INTERVAL));
        assert_eq!(keeping.due(), None);
    }
}
