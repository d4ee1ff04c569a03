//! When each router of the PRL is solicited, and how healthy it is (RFC 5214 8.3.4, RFC 7559 2, RFC 4861 6.3.7).
//!
//! ```text
//!              3 unanswered                       answered, lifetime > 0
//!   unknown ----------------> unreachable ----------------------------------.
//!      |                        ^      ^                                     v
//!      |   answered             |      | lifetime 0, or lifetime ran out   usable
//!      `------------------------|------|----------------------------------> |
//!                               |      `------------------------------------+
//!                  3 unanswered |                                           | refresh unanswered,
//!                            probing <--------------------------------------'  or a hint of trouble
//! ```
//!
//! Unanswered solicitations go out after about 4, 8, 16, ... seconds, at most an hour apart, for ever (RFC 7559). An
//! answered router is solicited again before anything it advertised runs out, but never sooner than
//! `MinRouterSolicitInterval` (P5, P6, P9). While nobody is willing to be the default router, those that said that they are
//! none are asked as silent ones are: RFC 7559 2 ends with an answer whose lifetime is above zero, not with any.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::Jitter;

/// Initial retransmission time of RFC 7559 2 (RTR_SOLICITATION_INTERVAL of RFC 4861 10).
const IRT: Duration = Duration::from_secs(4);
/// Maximum retransmission time of RFC 7559 2; also the longest pause between refreshes.
const MRT: Duration = Duration::from_secs(3600);
/// Unanswered solicitations after which a router counts as unreachable (RFC 4861 10).
pub const MAX_RTR_SOLICITATIONS: u32 = 3;
/// Least time between two solicitations to one router, whatever asks for them: an interface that flaps asks often.
const MIN_GAP: Duration = Duration::from_millis(250);
/// Share by which RFC 8415 15 (RFC 3315 14) randomises each interval.
const RAND: f64 = 0.1;
/// A refresh falls between these shares of the shortest lifetime, so that three attempts fit before its end (P5).
const REFRESH_SHARE: (f64, f64) = (0.70, 0.80);

/// A router that promises nothing at all, such as one that is taken out of service, is asked again after about so long, while
/// there are others: it may be back without being able to say so.
const NO_PROMISE: Duration = Duration::from_secs(400);

/// Knobs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SolicitConfig {
    /// `MinRouterSolicitInterval`; `None` for infinite: an answered router is never solicited again (P10).
    pub min_interval: Option<Duration>,
}

impl SolicitConfig {
    /// From the configured seconds, where the largest value means infinite (RFC 5214 8.3.1).
    pub fn from_secs(seconds: u32) -> Self {
        let finite = seconds != u32::MAX;
        Self {
            min_interval: finite.then(|| Duration::from_secs(u64::from(seconds))),
        }
    }
}

/// What is known of a router's ability to carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Advertised itself as a default router, and that has not run out.
    Usable,
    /// Was usable, and does not answer right now.
    Probing,
    /// Does not answer, or says it is no default router.
    Unreachable,
    /// Not heard of yet.
    Unknown,
}

impl Health {
    /// Every state, in the order of metrics and tables.
    pub const ALL: [Health; 4] = [
        Health::Usable,
        Health::Probing,
        Health::Unreachable,
        Health::Unknown,
    ];

    /// The label on metrics and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Health::Usable => "usable",
            Health::Probing => "probing",
            Health::Unreachable => "unreachable",
            Health::Unknown => "unknown",
        }
    }
}

/// What matters here of a router advertisement that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advertisement {
    /// Router lifetime; zero means "no default router".
    pub router_lifetime: Duration,
    /// The shortest of all lifetimes in it that are neither zero nor infinite: something ends then.
    pub shortest_lifetime: Option<Duration>,
}

/// An advertisement from an address that is not in the PRL (P4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not in the potential router list")]
pub struct UnknownRouter(pub Ipv4Addr);

/// One router's schedule as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// `V4ADDR(i)`.
    pub addr: Ipv4Addr,
    /// Its health.
    pub health: Health,
    /// When its default route ends.
    pub usable_until: Option<Instant>,
    /// Solicitations in a row without an answer.
    pub unanswered: u32,
    /// When it is solicited next; `None` for never.
    pub next_solicitation_at: Option<Instant>,
    /// When it last advertised.
    pub advertised_at: Option<Instant>,
    /// Solicitations sent to it.
    pub solicitations: u64,
    /// Advertisements taken from it.
    pub advertisements: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    addr: Ipv4Addr,
    health: Health,
    usable_until: Option<Instant>,
    /// It said that it is no default router, and nothing else since.
    declined: bool,
    advertised_at: Option<Instant>,
    solicited_at: Option<Instant>,
    next_at: Option<Instant>,
    /// Retransmission time in force: `RT` of RFC 8415 15; `None` while nothing is outstanding.
    retransmit: Option<Duration>,
    unanswered: u32,
    solicitations: u64,
    advertisements: u64,
}

/// The schedule of all routers.
#[derive(Clone, Debug)]
pub(super) struct Solicitor {
    config: SolicitConfig,
    routers: Vec<Entry>,
    jitter: Jitter,
}

impl Entry {
    /// A router nobody has asked yet: the first solicitation goes at once. The random delay of RFC 4861 6.3.7 keeps
    /// many hosts on one multicast link apart; here every packet is unicast to one router, and hosts boot apart.
    fn new(addr: Ipv4Addr, now: Instant) -> Self {
        Self {
            addr,
            health: Health::Unknown,
            usable_until: None,
            declined: false,
            advertised_at: None,
            solicited_at: None,
            next_at: Some(now),
            retransmit: None,
            unanswered: 0,
            solicitations: 0,
            advertisements: 0,
        }
    }

    fn solicit(&mut self, now: Instant, jitter: &mut Jitter) {
        if self.unanswered >= MAX_RTR_SOLICITATIONS {
            self.health = Health::Unreachable;
        } else if self.unanswered > 0 && self.health == Health::Usable {
            self.health = Health::Probing;
        }
        let wait = match self.retransmit {
            None => jitter.around(IRT, RAND),
            Some(last) if last * 2 > MRT => jitter.around(MRT, RAND),
            Some(last) => last + jitter.around(last, RAND),
        };
        self.retransmit = Some(wait);
        self.unanswered = self.unanswered.saturating_add(1);
        self.solicitations += 1;
        self.solicited_at = Some(now);
        self.next_at = Some(now + wait);
    }

    fn expire(&mut self, now: Instant) {
        if self.usable_until.is_some_and(|end| end <= now) {
            self.usable_until = None;
            self.health = Health::Unreachable;
        }
    }

    fn ask_again(&mut self, now: Instant) {
        self.retransmit = None;
        self.unanswered = 0;
        let earliest = self.solicited_at.map_or(now, |at| at + MIN_GAP);
        self.next_at = Some(now.max(earliest));
    }
}

impl Solicitor {
    /// A machine without routers.
    pub(super) fn new(config: SolicitConfig, jitter: Jitter) -> Self {
        Self {
            config,
            routers: Vec::new(),
            jitter,
        }
    }

    /// Makes the list `routers`, in this order: new ones are solicited at once, the others keep their state.
    pub(super) fn set_routers(&mut self, now: Instant, routers: &[Ipv4Addr]) {
        let mut old = std::mem::take(&mut self.routers);
        for addr in routers {
            let entry = match old.iter().position(|entry| entry.addr == *addr) {
                Some(at) => old.swap_remove(at),
                None => Entry::new(*addr, now),
            };
            self.routers.push(entry);
        }
    }

    /// New knobs: they hold from the next advertisement on.
    pub(super) fn set_config(&mut self, config: SolicitConfig) {
        self.config = config;
    }

    /// Whether anybody is to be solicited now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut times = self.routers.iter().filter_map(|entry| entry.next_at);
        times.any(|at| at <= now)
    }

    /// Who is to be solicited now. The caller sends exactly one solicitation to each.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        let mut due = Vec::new();
        for entry in &mut self.routers {
            entry.expire(now);
            if entry.next_at.is_some_and(|at| at <= now) {
                entry.solicit(now, &mut self.jitter);
                due.push(entry.addr);
            }
        }
        due
    }

    /// When to call [`Solicitor::due`] next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.routers
            .iter()
            .flat_map(|entry| [entry.next_at, entry.usable_until])
            .flatten()
            .min()
    }

    /// Takes an advertisement that passed every check, from the outer source `from`.
    ///
    /// # Errors
    /// [`UnknownRouter`] when `from` is not in the PRL.
    pub(super) fn advertised(
        &mut self,
        now: Instant,
        from: Ipv4Addr,
        advertisement: Advertisement,
    ) -> Result<(), UnknownRouter> {
        let entry = self
            .routers
            .iter_mut()
            .find(|entry| entry.addr == from)
            .ok_or(UnknownRouter(from))?;
        entry.advertisements += 1;
        entry.advertised_at = Some(now);
        entry.unanswered = 0;
        let default_router = !advertisement.router_lifetime.is_zero();
        entry.declined = !default_router;
        if default_router {
            entry.retransmit = None;
        }
        entry.health = if default_router {
            Health::Usable
        } else {
            Health::Unreachable
        };
        entry.usable_until = default_router.then(|| now + advertisement.router_lifetime);
        entry.next_at = self.config.min_interval.map(|least| {
            let lifetimes = [
                advertisement.shortest_lifetime,
                default_router.then_some(advertisement.router_lifetime),
            ];
            let end = lifetimes.into_iter().flatten().min().unwrap_or(NO_PROMISE);
            let (low, high) = REFRESH_SHARE;
            let refresh = self.jitter.between(end.mul_f64(low), end.mul_f64(high));
            now + refresh.min(MRT).max(least)
        });
        Ok(())
    }

    /// Nobody is willing to be the default router, or somebody is. While nobody is, who declined is asked after 4 to 8 seconds and
    /// ever more slowly from then on (RFC 7559 2): a router that is started anew does not know who waits for it, and says
    /// nothing until it is asked. All its hosts heard its end in the same moment, so that the first pauses differ.
    /// May be called at any time: what is due sooner stays.
    pub(super) fn seek(&mut self, now: Instant, is_needed: bool) {
        if self.config.min_interval.is_none() {
            return;
        }
        for entry in self.routers.iter_mut().filter(|entry| entry.declined) {
            if is_needed {
                let wait = entry
                    .retransmit
                    .unwrap_or_else(|| self.jitter.between(IRT, IRT * 2));
                if entry.next_at.is_none_or(|at| at > now + wait) {
                    entry.retransmit = Some(wait);
                    entry.next_at = Some(now + wait);
                }
            } else if entry.unanswered == 0 {
                entry.retransmit = None;
            }
        }
    }

    /// Solicits every router now: an operator asks, or the interface came up and lost its addresses.
    pub(super) fn solicit_all(&mut self, now: Instant) {
        for entry in &mut self.routers {
            entry.ask_again(now);
        }
    }

    /// An ICMPv4 error or a failed send says that the router may be gone: a hint, never a proof (N5). Asks it, once
    /// until it answers.
    pub(super) fn suspect(&mut self, now: Instant, router: Ipv4Addr) {
        let found = self.routers.iter_mut().find(|entry| entry.addr == router);
        if let Some(entry) = found.filter(|entry| entry.health == Health::Usable) {
            entry.health = Health::Probing;
            entry.ask_again(now);
        }
    }

    /// Every router, in the order of the list.
    pub(super) fn routers(&self) -> impl Iterator<Item = Schedule> + '_ {
        self.routers.iter().map(|entry| Schedule {
            addr: entry.addr,
            health: entry.health,
            usable_until: entry.usable_until,
            unanswered: entry.unanswered,
            next_solicitation_at: entry.next_at,
            advertised_at: entry.advertised_at,
            solicitations: entry.solicitations,
            advertisements: entry.advertisements,
        })
    }
}
