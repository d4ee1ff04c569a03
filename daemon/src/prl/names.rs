//! The members of the PRL: configured addresses, and what host names lead to now (RFC 5214 8.3.2, 9).
//!
//! ```text
//!  due ----> resolver ----> answered --+-- addresses: taken at once; asked again at min(PrlRefreshInterval, TTL)
//!   ^                                  |              (TTL 0: before the next solicitation)
//!   |                                  +-- no answer: nothing changes
//!   |                                  `-- "there is no such name": believed when it stayed so for one whole
//!   '--- again after 5, 10, ... 60 s ------ PrlRefreshInterval; until then nothing changes
//! ```
//!
//! Pure: looking up is `resolver`'s business, telling the operator is control's ([`NameBook::take_notes`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::isatap::classify;

use super::Jitter;
use crate::config::resolved::MAX_SERVERS;

mod entry;
mod note;
#[cfg(test)]
mod tests;

use entry::Entry;
pub use note::{Ignored, Note};

/// Names that are looked up; more cannot be configured.
pub const MAX_NAMES: usize = MAX_SERVERS;
/// Least time between two lookups of a name that has answered, whatever its TTL.
pub const MIN_REFRESH: Duration = Duration::from_secs(1);
/// Time to the next attempt after a failed lookup: doubled each time, up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(5);
/// Longest time between attempts.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long a solicitation waits for a name whose answers may not be kept (TTL 0).
pub const SOLICIT_WAIT: Duration = Duration::from_secs(2);

/// Where an address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Written in the configuration or on the command line.
    Configured,
    /// An answer for this name.
    Name(String),
}

/// One router of the PRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `V4ADDR(i)`.
    pub addr: Ipv4Addr,
    /// Who says so.
    pub origin: Origin,
    /// In the list since then.
    pub since: Instant,
    /// End of the answer's TTL; `None` when nothing limits it. The member stays until there is a better answer.
    pub expires: Option<Instant>,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As answered: unfiltered, in the answer's order.
    pub addrs: Vec<Ipv4Addr>,
    /// The least TTL of the records that led there.
    pub ttl: Duration,
    /// From the hosts file, which knows no TTL.
    pub from_hosts_file: bool,
}

/// Why a lookup gave no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// A name server says so.
    #[error("there is no such name")]
    NoSuchName,
    /// The name exists; or none of its addresses is one a router can have.
    #[error("it has no usable IPv4 address")]
    NoAddress,
    /// Nobody knows now.
    #[error("{0}")]
    Temporary(String),
}

/// A name as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameView {
    /// As configured.
    pub name: String,
    /// Addresses in the PRL because of it, own and repeated ones included.
    pub addrs: Vec<Ipv4Addr>,
    /// When it was answered with addresses.
    pub answered_at: Option<Instant>,
    /// End of that answer's TTL.
    pub expires: Option<Instant>,
    /// When it is looked up next; `None` for never, or while it is being looked up.
    pub next_at: Option<Instant>,
    /// What went wrong since.
    pub last_error: Option<LookupError>,
    /// Failed lookups.
    pub failures: u64,
}

/// The PRL with its names.
#[derive(Clone, Debug)]
pub struct NameBook {
    refresh: Option<Duration>,
    jitter: Jitter,
    fixed: Vec<Ipv4Addr>,
    own: Vec<Ipv4Addr>,
    names: Vec<Entry>,
    members: Vec<Member>,
    failures: u64,
    /// A solicitation waits for a lookup until then.
    held_until: Option<Instant>,
    notes: Vec<Note>,
}

impl NameBook {
    /// An empty list. `refresh` is `PrlRefreshInterval`; with `None` (infinite) only TTLs make names be looked up
    /// again.
    pub fn new(refresh: Option<Duration>, jitter: Jitter) -> Self {
        Self {
            refresh,
            jitter,
            fixed: Vec::new(),
            own: Vec::new(),
            names: Vec::new(),
            members: Vec::new(),
            failures: 0,
            held_until: None,
            notes: Vec::new(),
        }
    }

    /// `PrlRefreshInterval` from the configured seconds, where the largest value means infinite (RFC 5214 8.3.1).
    pub fn refresh_from_secs(seconds: u32) -> Option<Duration> {
        (seconds != u32::MAX).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// A new `PrlRefreshInterval`: answers in hand are looked up again in time for it.
    pub fn set_refresh(&mut self, refresh: Option<Duration>) {
        self.refresh = refresh;
        for entry in &mut self.names {
            entry.refresh_within(refresh);
        }
    }

    /// Makes the list `fixed` and whatever `names` lead to, in this order. Names that stay keep their answers and
    /// schedule; new ones are due at once. Returns whether [`NameBook::members`] changed.
    pub fn set_servers(&mut self, now: Instant, fixed: &[Ipv4Addr], names: &[String]) -> bool {
        self.fixed = fixed.to_vec();
        let mut old = std::mem::take(&mut self.names);
        for name in names.iter().take(MAX_NAMES) {
            if self.names.iter().any(|entry| entry.name == *name) {
                continue;
            }
            self.names
                .push(match old.iter().position(|entry| entry.name == *name) {
                    Some(at) => old.swap_remove(at),
                    None => Entry::new(name.clone(), now),
                });
        }
        self.rebuild(now)
    }

    /// Takes over what an engine before this one was answered: it holds until there is a better answer, and is asked for now.
    pub fn recall(&mut self, now: Instant, answers: &BTreeMap<String, Vec<Ipv4Addr>>) {
        for entry in &mut self.names {
            if let Some(addrs) = answers.get(&entry.name) {
                entry.recall(now, addrs.clone());
            }
        }
        self.rebuild(now);
    }

    /// The last good answer for each name that has one.
    pub fn answers(&self) -> BTreeMap<String, Vec<Ipv4Addr>> {
        let answered = self.names.iter().filter(|entry| entry.addrs().next().is_some());
        answered
            .map(|entry| (entry.name.clone(), entry.addrs().collect()))
            .collect()
    }

    /// Our own addresses: they never become members. Returns whether [`NameBook::members`] changed.
    pub fn set_own(&mut self, now: Instant, own: &[Ipv4Addr]) -> bool {
        if self.own == own {
            return false;
        }
        self.own = own.to_vec();
        self.rebuild(now)
    }

    /// Names to be looked up now. Each is asked once at a time, and must be [`NameBook::answered`]; one whose answer
    /// got lost is asked again in the end.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.names.iter_mut().filter(|entry| entry.is_due(now));
        due.map(|entry| {
            entry.asked(now);
            entry.name.clone()
        })
        .collect()
    }

    /// Takes the result of a lookup. Returns whether [`NameBook::members`] changed.
    pub fn answered(&mut self, now: Instant, name: &str, result: Result<Answer, LookupError>) -> bool {
        // Whoever is no longer configured is no longer interesting.
        let Some(entry) = self.names.iter_mut().find(|entry| entry.name == name) else {
            return false;
        };
        let before = entry.addrs().collect::<Vec<_>>();
        let result = result.and_then(|answer| entry.filtered(answer));
        if result.is_err() {
            self.failures += 1;
        }
        self.notes
            .extend(entry.take(now, result, self.refresh, &mut self.jitter));
        let after = entry.addrs().collect::<Vec<_>>();
        if before != after {
            self.notes.push(Note::Changed {
                name: name.to_owned(),
                addrs: after,
            });
        }
        self.rebuild(now)
    }

    /// Every name is due now, answers of lookups that are under way do not count (HUP, `isatapctl rs`).
    pub fn refresh_all(&mut self, now: Instant) {
        for entry in &mut self.names {
            entry.refresh(now);
        }
    }

    /// Every name is due in a moment, however often this is called: the machine may have come to another network, and whoever gave
    /// it an address there says which name servers there are, before or after it.
    pub fn refresh_soon(&mut self, now: Instant) {
        for entry in &mut self.names {
            entry.refresh_by(now + MIN_REFRESH);
        }
    }

    /// To be called when a solicitation is due: whether it has to wait, since a name whose answers may not be kept
    /// (TTL 0) must be looked up first (P3). Then the name is due now; the solicitation may go after its answer, whatever
    /// it is, or at [`NameBook::held_until`]. A name that fails already makes nothing wait.
    pub fn ask_before_solicitation(&mut self, now: Instant) -> bool {
        let in_time = self.held_until.is_none_or(|until| now < until);
        let asked = self
            .names
            .iter_mut()
            .map(|entry| in_time && entry.ask_before_solicitation(now));
        if asked.fold(false, |any, one| any | one) {
            self.held_until.get_or_insert(now + SOLICIT_WAIT);
            return true;
        }
        self.names.iter_mut().for_each(Entry::use_up);
        self.held_until = None;
        false
    }

    /// When a solicitation that has to wait may go without the answer.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// When to call [`NameBook::due`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.names.iter().filter_map(Entry::next_deadline).min()
    }

    /// The PRL: no duplicates, no own or impossible addresses, at most [`MAX_SERVERS`]; members keep their places.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The addresses of [`NameBook::members`].
    pub fn addrs(&self) -> Vec<Ipv4Addr> {
        self.members.iter().map(|member| member.addr).collect()
    }

    /// Lookups that gave no usable address.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Every name, in the order of the configuration.
    pub fn name_views(&self) -> impl Iterator<Item = NameView> + '_ {
        self.names.iter().map(Entry::view)
    }

    /// What an operator should hear, once; at most a few for each event.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Makes the members anew; whether their addresses changed.
    fn rebuild(&mut self, now: Instant) -> bool {
        let old = std::mem::take(&mut self.members);
        let mut members: Vec<Member> = Vec::new();
        let mut beyond = 0;
        let since = |addr| {
            let known = old.iter().find(|member| member.addr == addr);
            known.map_or(now, |member| member.since)
        };
        let mut add = |addr: Ipv4Addr, origin: Origin, expires| {
            if self.own.contains(&addr) || members.iter().any(|member| member.addr == addr) {
            } else if members.len() >= MAX_SERVERS {
                beyond += 1;
            } else {
                let since = since(addr);
                members.push(Member {
                    addr,
                    origin,
                    since,
                    expires,
                });
            }
        };
        for addr in &self.fixed {
            if !classify::invalid_next_hop(*addr) {
                add(*addr, Origin::Configured, None);
            }
        }
        for entry in &self.names {
            for addr in entry.addrs() {
                add(addr, Origin::Name(entry.name.clone()), entry.expires());
            }
        }
        let changed = !members
            .iter()
            .map(|member| member.addr)
            .eq(old.iter().map(|member| member.addr));
        if changed && beyond > 0 {
            self.notes.push(Note::Full { beyond });
        }
        self.members = members;
        changed
    }
}
