//! One name of the PRL: its last good answer, and when it is looked up next.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::isatap::classify;

use super::{Answer, Ignored, LookupError, MIN_REFRESH, NameView, Note, RETRY_MAX, RETRY_MIN};
use crate::config::resolve::DEFAULT_PRL_REFRESH_INTERVAL;
use crate::config::resolved::MAX_SERVERS;
use crate::prl::Jitter;

/// A lookup that has not ended by then never will: its task is gone.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Retries are spread by this share of themselves (RFC 8415 15), either way.
const RETRY_SPREAD: f64 = 0.1;
/// Lookups at the end of an interval are spread over this share of it: hosts that hold the same answer, or started
/// together, do not ask together.
const REFRESH_SPREAD: f64 = 0.05;

/// A good answer.
#[derive(Clone, Debug)]
struct Good {
    addrs: Vec<Ipv4Addr>,
    at: Instant,
    /// `None` from the hosts file.
    ttl: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    good: Option<Good>,
    asked_at: Option<Instant>,
    /// The lookup under way began before somebody asked for a fresh one.
    again: bool,
    next_at: Option<Instant>,
    /// Time waited before the attempt that `next_at` is for; `None` while lookups succeed.
    retry: Option<Duration>,
    /// Since when every answer denied the name or its addresses.
    denied_since: Option<Instant>,
    last_error: Option<LookupError>,
    failures: u64,
    ignored: Ignored,
    /// Answered since the last solicitation: good for one, if the TTL is 0.
    fresh: bool,
}

impl Entry {
    pub(super) fn new(name: String, now: Instant) -> Self {
        Self {
            name,
            good: None,
            asked_at: None,
            again: false,
            next_at: Some(now),
            retry: None,
            denied_since: None,
            last_error: None,
            failures: 0,
            ignored: Ignored::default(),
            fresh: false,
        }
    }

    /// A good answer of before; nobody knows for how much longer.
    pub(super) fn recall(&mut self, now: Instant, addrs: Vec<Ipv4Addr>) {
        let answer = Answer {
            addrs,
            ttl: Duration::ZERO,
            from_hosts_file: false,
        };
        if let Ok((answer, _)) = self.filtered(answer) {
            self.good = Some(Good {
                addrs: answer.addrs,
                at: now,
                ttl: Some(answer.ttl),
            });
        }
    }

    pub(super) fn addrs(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.good.iter().flat_map(|good| good.addrs.iter().copied())
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        let good = self.good.as_ref()?;
        Some(good.at + good.ttl?)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.asked_at {
            Some(at) => at + LOST_AFTER <= now,
            None => self.next_at.is_some_and(|at| at <= now),
        }
    }

    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.again = false;
    }

    pub(super) fn refresh(&mut self, now: Instant) {
        self.again = self.asked_at.is_some();
        self.next_at = Some(now);
        self.retry = None;
    }

    /// To be looked up by then at the latest.
    pub(super) fn refresh_by(&mut self, at: Instant) {
        self.again = self.asked_at.is_some();
        self.next_at = Some(self.next_at.map_or(at, |next| next.min(at)));
        self.retry = None;
    }

    /// The answer without what no router can have and what is there already, the addresses in use first and in their
    /// places: name servers rotate their answers, and a router must not lose its place or its room for that.
    pub(super) fn filtered(&mut self, answer: Answer) -> Result<(Answer, Ignored), LookupError> {
        let mut wanted: Vec<Ipv4Addr> = Vec::new();
        let mut ignored = Ignored::default();
        for addr in answer.addrs {
            if classify::invalid_next_hop(addr) {
                ignored.forbidden += 1;
            } else if !wanted.contains(&addr) {
                wanted.push(addr);
            }
        }
        let mut addrs: Vec<Ipv4Addr> = self.addrs().filter(|addr| wanted.contains(addr)).collect();
        wanted.retain(|addr| !addrs.contains(addr));
        addrs.extend(wanted);
        ignored.beyond = addrs.len().saturating_sub(MAX_SERVERS);
        addrs.truncate(MAX_SERVERS);
        if addrs.is_empty() {
            return Err(LookupError::NoAddress);
        }
        Ok((Answer { addrs, ..answer }, ignored))
    }

    /// Takes what [`Entry::filtered`] left of a lookup.
    pub(super) fn take(
        &mut self,
        now: Instant,
        result: Result<(Answer, Ignored), LookupError>,
        refresh: Option<Duration>,
        jitter: &mut Jitter,
    ) -> Vec<Note> {
        self.asked_at = None;
        self.fresh = true;
        let notes = match result {
            Ok((answer, ignored)) => self.succeeded(now, answer, ignored, refresh, jitter),
            Err(error) => self.failed(now, error, refresh, jitter),
        };
        if std::mem::take(&mut self.again) {
            self.next_at = Some(now);
        }
        notes
    }

    fn succeeded(
        &mut self,
        now: Instant,
        answer: Answer,
        ignored: Ignored,
        refresh: Option<Duration>,
        jitter: &mut Jitter,
    ) -> Vec<Note> {
        let ttl = (!answer.from_hosts_file).then_some(answer.ttl);
        self.next_at = next_refresh(ttl, refresh, jitter).map(|wait| now + wait);
        self.good = Some(Good {
            addrs: answer.addrs,
            at: now,
            ttl,
        });
        self.retry = None;
        self.denied_since = None;
        let mut notes = Vec::new();
        if self.last_error.take().is_some() {
            notes.push(Note::Recovered {
                name: self.name.clone(),
            });
        }
        if ignored != std::mem::replace(&mut self.ignored, ignored) && ignored != Ignored::default() {
            notes.push(Note::Ignored {
                name: self.name.clone(),
                ignored,
            });
        }
        notes
    }

    fn failed(
        &mut self,
        now: Instant,
        error: LookupError,
        refresh: Option<Duration>,
        jitter: &mut Jitter,
    ) -> Vec<Note> {
        self.failures += 1;
        let wait = self
            .retry
            .map_or(RETRY_MIN, |last| last.saturating_mul(2).min(RETRY_MAX));
        self.retry = Some(wait);
        self.next_at = Some(now + jitter.around(wait, RETRY_SPREAD));
        if matches!(error, LookupError::Temporary(_)) {
            // Nobody confirms the denial: it may have been part of the outage.
            self.denied_since = None;
        } else {
            let since = *self.denied_since.get_or_insert(now);
            let default = Duration::from_secs(u64::from(DEFAULT_PRL_REFRESH_INTERVAL));
            if now.saturating_duration_since(since) >= refresh.unwrap_or(default) {
                self.good = None;
            }
        }
        let kept = self.addrs().count();
        let is_news = self.last_error.as_ref() != Some(&error);
        self.last_error = Some(error.clone());
        if is_news {
            vec![Note::Failed {
                name: self.name.clone(),
                error,
                kept,
            }]
        } else {
            Vec::new()
        }
    }

    /// The interval between lookups became `refresh`.
    pub(super) fn refresh_within(&mut self, refresh: Option<Duration>) {
        let Some(good) = self.good.as_ref().filter(|_| self.retry.is_none()) else {
            return;
        };
        let latest = interval(good.ttl, refresh).map(|interval| good.at + interval);
        self.next_at = match (self.next_at, latest) {
            (Some(next), Some(latest)) => Some(next.min(latest)),
            (next, latest) => next.or(latest),
        };
    }

    /// Whether a solicitation has to wait for this name; then it is due, or being looked up.
    pub(super) fn ask_before_solicitation(&mut self, now: Instant) -> bool {
        let ttl = self.good.as_ref().and_then(|good| good.ttl);
        let wait = ttl == Some(Duration::ZERO) && !self.fresh && self.retry.is_none();
        if wait && self.asked_at.is_none() {
            self.next_at = Some(now);
        }
        wait
    }

    /// A solicitation goes: the answer was good for this one only.
    pub(super) fn use_up(&mut self) {
        self.fresh = false;
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.asked_at {
            None => self.next_at,
            Some(at) => Some(at + LOST_AFTER),
        }
    }

    pub(super) fn view(&self) -> NameView {
        NameView {
            name: self.name.clone(),
            addrs: self.addrs().collect(),
            answered_at: self.good.as_ref().map(|good| good.at),
            expires: self.expires(),
            next_at: self.next_at.filter(|_| self.asked_at.is_none()),
            last_error: self.last_error.clone(),
            failures: self.failures,
        }
    }
}

/// Longest time between two lookups of a name that answers with this TTL. TTL 0 sets none: such a name is looked up
/// before each solicitation.
fn interval(ttl: Option<Duration>, refresh: Option<Duration>) -> Option<Duration> {
    let ttl = ttl.filter(|ttl| !ttl.is_zero());
    let interval = [ttl, refresh].into_iter().flatten().min()?;
    Some(interval.max(MIN_REFRESH))
}

/// Never later than `PrlRefreshInterval`; a little after the TTL, when the cache that answered asks again too.
fn next_refresh(ttl: Option<Duration>, refresh: Option<Duration>, jitter: &mut Jitter) -> Option<Duration> {
    let interval = interval(ttl, refresh)?;
    let spread = interval.mul_f64(REFRESH_SPREAD);
    if refresh.is_some_and(|refresh| interval + spread > refresh) {
        Some(
            jitter
                .between(interval.saturating_sub(spread), interval)
                .max(MIN_REFRESH),
        )
    } else {
        Some(jitter.between(interval, interval + spread))
    }
}
