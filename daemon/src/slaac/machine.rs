//! The machine: advertisements, locators and time go in; [`Wanted`] comes out.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::fib::Ipv6Prefix;
use isatap_engine::isatap::iid;

use super::prefixes::{Autonomous, ON_LINK_METRIC, Prefix, Prefixes};
use super::router::{Hop, ROUTE_METRIC, Router};
use super::wanted::{MAX_NAME_SERVERS, MAX_SEARCH_DOMAINS};
use super::{Advert, Lifetime, Origin, Wanted, WantedAddress, WantedRoute};

/// Routers kept: as many as a PRL has.
pub const MAX_ROUTERS: usize = 64;

/// How the host is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlaacConfig {
    /// Whether default routes are wanted, and with which metric.
    pub default_route: Option<u32>,
    /// The largest MTU the interface may be given, in bytes.
    pub mtu_ceiling: u16,
}

/// What found no room, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Prefixes.
    pub prefixes: u64,
    /// Routes.
    pub routes: u64,
    /// Name servers and search domains.
    pub dns: u64,
    /// Whole routers.
    pub routers: u64,
    /// MTUs above what the interface may be given.
    pub mtus: u64,
}

impl Refused {
    /// How many of each cause there are more than at `before`, with the names of [`Ignored`] on metrics.
    ///
    /// [`Ignored`]: super::Ignored
    pub fn since(&self, before: &Self) -> [(&'static str, u64); 2] {
        let beyond = |counts: &Self| counts.prefixes + counts.routes + counts.dns + counts.routers;
        [
            ("mtu", self.mtus - before.mtus),
            ("excess", beyond(self) - beyond(before)),
        ]
    }
}

/// An address that the kernel has from before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownAddress {
    /// The address.
    pub addr: Ipv6Addr,
    /// Its valid lifetime.
    pub valid: Lifetime,
    /// Its preferred lifetime.
    pub preferred: Lifetime,
}

/// A route that the kernel has from before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRoute {
    /// Where to.
    pub prefix: Ipv6Prefix,
    /// The router; `None` for an on-link prefix.
    pub via: Option<Ipv6Addr>,
    /// -1, 0 or 1.
    pub preference: i8,
    /// Until when.
    pub lifetime: Lifetime,
}

/// What is known of a router, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterFacts {
    /// The link-local address it speaks from.
    pub source: Ipv6Addr,
    /// Its lifetime as a default router; `None` when it is none.
    pub lifetime: Option<Lifetime>,
    /// Its preference as a default router.
    pub preference: i8,
    /// The MTU it advertised.
    pub mtu: Option<u16>,
    /// The hop limit it advertised.
    pub hop_limit: Option<u8>,
    /// Reachable time it advertised.
    pub reachable: Option<Duration>,
    /// Retransmission timer it advertised.
    pub retrans: Option<Duration>,
    /// Prefixes that it was the last to advertise.
    pub prefixes: usize,
    /// Routes through it, the default one aside.
    pub routes: usize,
}

/// The state of autoconfiguration.
#[derive(Clone, Debug)]
pub struct Slaac {
    config: SlaacConfig,
    locators: Vec<Ipv4Addr>,
    routers: BTreeMap<Ipv4Addr, Router>,
    prefixes: Prefixes,
    hop_limit: Option<u8>,
    refused: Refused,
}

impl Slaac {
    /// Nothing known, nothing wanted.
    pub fn new(config: SlaacConfig) -> Self {
        Self {
            config,
            locators: Vec::new(),
            routers: BTreeMap::new(),
            prefixes: Prefixes::default(),
            hop_limit: None,
            refused: Refused::default(),
        }
    }

    /// New knobs, in force at once.
    pub fn set_config(&mut self, config: SlaacConfig) {
        self.config = config;
    }

    /// The addresses that carry the tunnel: there is an IPv6 address for each of them and each prefix (A6). Without any
    /// nothing can be carried, so no routes are wanted that would keep packets from another way out.
    pub fn set_locators(&mut self, locators: &[Ipv4Addr]) {
        self.locators.clear();
        for locator in locators {
            if !self.locators.contains(locator) {
                self.locators.push(*locator);
            }
        }
    }

    /// Takes an advertisement of a router that may speak; says whether [`Slaac::wanted`] is another one now.
    pub fn advertised(&mut self, now: Instant, advert: &Advert) -> bool {
        let before = self.wanted(now);
        if !self.routers.contains_key(&advert.from) && self.routers.len() >= MAX_ROUTERS {
            self.refused.routers += 1;
            return false;
        }
        let router = self
            .routers
            .entry(advert.from)
            .or_insert_with(|| Router::new(advert.source));
        router.take(now, advert, &mut self.refused);
        // An MTU above the interface's is as if it were not there (V4).
        match advert.mtu {
            Some(mtu) if mtu > self.config.mtu_ceiling => self.refused.mtus += 1,
            mtu => router.mtu = mtu.or(router.mtu),
        }
        if advert.hop_limit != 0 {
            self.hop_limit = Some(advert.hop_limit);
        }
        for prefix in &advert.prefixes {
            let taken = self.prefixes.take(now, advert.from, prefix);
            self.refused.prefixes += u64::from(!taken);
        }
        self.forget_what_is_over(now);
        self.wanted(now) != before
    }

    /// A router left the PRL: what it promised for itself goes at once. Its prefixes run out by their lifetimes, since
    /// the link has them, not the router (FAULTS 48). Says whether [`Slaac::wanted`] is another one now.
    pub fn forget_router(&mut self, now: Instant, router: Ipv4Addr) -> bool {
        let before = self.wanted(now);
        self.routers.remove(&router);
        if self.routers.is_empty() {
            self.hop_limit = None;
        }
        self.wanted(now) != before
    }

    /// Forgets what is over; says whether something was.
    pub fn expire(&mut self, now: Instant) -> bool {
        let due = self.next_deadline().is_some_and(|at| at <= now);
        self.forget_what_is_over(now);
        due
    }

    /// When to call [`Slaac::expire`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let of_routers = self.routers.values().flat_map(Router::ends);
        of_routers.chain(self.prefixes.ends()).min()
    }

    /// Takes over what the kernel has from before a restart with the same interface: addresses and routes that this
    /// daemon set, by their protocol. They run out as they would have, or are confirmed by the next advertisement.
    pub fn adopt(&mut self, now: Instant, addresses: &[KnownAddress], routes: &[KnownRoute]) {
        for known in addresses {
            let Ok(prefix) = Ipv6Prefix::containing(known.addr, 64) else {
                continue;
            };
            if iid::embedded(&known.addr).is_none() || iid::is_link_local_64(&known.addr) {
                continue;
            }
            self.prefixes.adopt(Prefix {
                prefix,
                from: Ipv4Addr::UNSPECIFIED,
                on_link: None,
                autonomous: Some(Autonomous {
                    valid: known.valid,
                    preferred: known.preferred.min(known.valid),
                }),
            });
        }
        for known in routes {
            let hop = Hop {
                preference: known.preference,
                lifetime: known.lifetime,
            };
            match known.via {
                None => self.prefixes.adopt(Prefix {
                    prefix: known.prefix,
                    from: Ipv4Addr::UNSPECIFIED,
                    on_link: Some(known.lifetime),
                    autonomous: None,
                }),
                Some(via) => self.adopt_hop(via, known.prefix, hop),
            }
        }
        self.forget_what_is_over(now);
    }

    /// What the kernel and the resolver should have now.
    pub fn wanted(&self, now: Instant) -> Wanted {
        let carries = !self.locators.is_empty();
        Wanted {
            addresses: self.addresses(now),
            routes: if carries { self.routes(now) } else { Vec::new() },
            mtu: self.mtu(),
            hop_limit: self.hop_limit,
            dns: self.listed(now, MAX_NAME_SERVERS, |router| &router.servers),
            search: self.listed(now, MAX_SEARCH_DOMAINS, |router| &router.search),
        }
    }

    /// What is known of a router; `None` before its first advertisement.
    pub fn router_view(&self, router: Ipv4Addr) -> Option<RouterFacts> {
        let known = self.routers.get(&router)?;
        Some(RouterFacts {
            source: known.source,
            lifetime: known.default.map(|hop| hop.lifetime),
            preference: known.default.map_or(0, |hop| hop.preference),
            mtu: known.mtu,
            hop_limit: known.hop_limit,
            reachable: known.reachable,
            retrans: known.retrans,
            prefixes: self
                .prefixes
                .iter()
                .filter(|prefix| prefix.from == router)
                .count(),
            routes: known.routes.len(),
        })
    }

    /// What found no room.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// Prefixes known now.
    pub fn prefix_count(&self) -> usize {
        self.prefixes.len()
    }

    fn adopt_hop(&mut self, via: Ipv6Addr, prefix: Ipv6Prefix, hop: Hop) {
        let Some(addr) = iid::embedded(&via) else {
            return;
        };
        if !self.routers.contains_key(&addr) && self.routers.len() >= MAX_ROUTERS {
            return;
        }
        let router = self.routers.entry(addr).or_insert_with(|| Router::new(via));
        if prefix.len() == 0 {
            router.default = router.default.or(Some(hop));
        } else if !router.routes.iter().any(|(known, _)| *known == prefix) {
            router.set_route(prefix, Some(hop));
        }
    }

    fn forget_what_is_over(&mut self, now: Instant) {
        self.prefixes.expire(now);
        self.routers.values_mut().for_each(|router| router.expire(now));
    }

    fn addresses(&self, now: Instant) -> Vec<WantedAddress> {
        let mut addresses = Vec::new();
        for known in self.prefixes.iter() {
            let Some(autonomous) = known.autonomous.filter(|auto| !auto.valid.is_over(now)) else {
                continue;
            };
            // Of addresses that are equal to it the kernel takes the newest as the source of what begins. That is the one of an address
            // that was added last and may go first, such as one that moves between machines of a cluster: connections are
            // to begin at the preferred locator, and so the others are deprecated (RFC 6724 5, rule 3).
            addresses.extend(
                self.locators
                    .iter()
                    .enumerate()
                    .map(|(at, locator)| WantedAddress {
                        addr: iid::address(&known.prefix.addr(), *locator),
                        prefix_len: 128,
                        valid: autonomous.valid,
                        preferred: if at == 0 {
                            autonomous.preferred
                        } else {
                            Lifetime::Until(now)
                        },
                        origin: Origin::Advertised,
                    }),
            );
        }
        addresses
    }

    fn routes(&self, now: Instant) -> Vec<WantedRoute> {
        let mut routes = Vec::new();
        for router in self.routers.values() {
            let through = |prefix, metric, hop: &Hop| WantedRoute {
                prefix,
                via: Some(router.source),
                metric,
                preference: hop.preference,
                lifetime: hop.lifetime,
                origin: Origin::Advertised,
            };
            let everywhere = Ipv6Prefix::containing(Ipv6Addr::UNSPECIFIED, 0).ok();
            if let (Some(hop), Some(metric), Some(prefix)) =
                (router.default, self.config.default_route, everywhere)
            {
                routes.push(through(prefix, metric, &hop));
            }
            let more = router.routes.iter();
            routes.extend(more.map(|(prefix, hop)| through(*prefix, ROUTE_METRIC, hop)));
        }
        routes.extend(self.prefixes.iter().filter_map(|known| {
            Some(WantedRoute {
                prefix: known.prefix,
                via: None,
                metric: ON_LINK_METRIC,
                preference: 0,
                lifetime: known.on_link?,
                origin: Origin::Advertised,
            })
        }));
        routes.retain(|route| !route.lifetime.is_over(now));
        routes
    }

    /// Every router must be able to send back what it is sent: the smallest.
    fn mtu(&self) -> Option<u16> {
        let said = self.routers.values().filter_map(|router| router.mtu);
        said.filter(|mtu| *mtu <= self.config.mtu_ceiling).min()
    }

    /// A DNS list over all routers, without repetition.
    fn listed<'a, T: Clone + PartialEq + 'a>(
        &'a self,
        now: Instant,
        most: usize,
        of: impl Fn(&'a Router) -> &'a Vec<(T, Lifetime)>,
    ) -> Vec<T> {
        let rank = |router: &&Router| {
            let default = router.default.filter(|hop| !hop.lifetime.is_over(now));
            std::cmp::Reverse(default.map(|hop| hop.preference))
        };
        let mut order: Vec<&Router> = self.routers.values().collect();
        order.sort_by_key(rank);
        let mut list: Vec<T> = Vec::new();
        for (value, lifetime) in order.into_iter().flat_map(of) {
            if list.len() < most && !lifetime.is_over(now) && !list.contains(value) {
                list.push(value.clone());
            }
        }
        list
    }
}
