//! What one router of the PRL promised: itself as a default router, routes, MTU, name servers. It goes with the router.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use isatap_engine::fib::Ipv6Prefix;

use super::machine::Refused;
use super::{Advert, Lifetime};

/// Routes kept of one router; a router should advertise 17 at most (RFC 4191 4).
pub const MAX_ROUTES_PER_ROUTER: usize = 32;
/// Name servers kept of one router.
pub const MAX_SERVERS_PER_ROUTER: usize = 8;
/// Search domains kept of one router.
pub const MAX_SEARCH_PER_ROUTER: usize = 8;

/// The metric of advertised routes other than the default one: what the kernel gives its own.
pub const ROUTE_METRIC: u32 = 1024;

/// A route through the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) preference: i8,
    pub(super) lifetime: Lifetime,
}

/// One router.
#[derive(Clone, Debug)]
pub(super) struct Router {
    pub(super) source: Ipv6Addr,
    pub(super) default: Option<Hop>,
    pub(super) routes: Vec<(Ipv6Prefix, Hop)>,
    pub(super) mtu: Option<u16>,
    pub(super) hop_limit: Option<u8>,
    pub(super) reachable: Option<Duration>,
    pub(super) retrans: Option<Duration>,
    pub(super) servers: Vec<(Ipv6Addr, Lifetime)>,
    pub(super) search: Vec<(String, Lifetime)>,
}

impl Router {
    pub(super) fn new(source: Ipv6Addr) -> Self {
        Self {
            source,
            default: None,
            routes: Vec::new(),
            mtu: None,
            hop_limit: None,
            reachable: None,
            retrans: None,
            servers: Vec::new(),
            search: Vec::new(),
        }
    }

    /// Takes all of an advertisement but its prefixes. What it does not specify stays (V2).
    pub(super) fn take(&mut self, now: Instant, advert: &Advert, refused: &mut Refused) {
        self.source = advert.source;
        self.hop_limit = Some(advert.hop_limit)
            .filter(|limit| *limit != 0)
            .or(self.hop_limit);
        self.reachable = advert.reachable.or(self.reachable);
        self.retrans = advert.retrans.or(self.retrans);
        self.default = (!advert.router_lifetime.is_zero()).then(|| Hop {
            preference: advert.preference,
            lifetime: Lifetime::Until(now + advert.router_lifetime),
        });
        for route in &advert.routes {
            let lifetime = Lifetime::from_secs(now, route.lifetime);
            let hop = (route.lifetime != 0).then_some(Hop {
                preference: route.preference,
                lifetime,
            });
            // After the header: the option is the last word on the default route (RFC 4191 3.1).
            if route.prefix.len() == 0 {
                self.default = hop;
            } else if !self.set_route(route.prefix, hop) {
                refused.routes += 1;
            }
        }
        for (server, seconds) in &advert.dns {
            let lifetime = (*seconds != 0).then(|| Lifetime::from_secs(now, *seconds));
            refused.dns += u64::from(!set(&mut self.servers, server, lifetime, MAX_SERVERS_PER_ROUTER));
        }
        for (name, seconds) in &advert.search {
            let lifetime = (*seconds != 0).then(|| Lifetime::from_secs(now, *seconds));
            refused.dns += u64::from(!set(&mut self.search, name, lifetime, MAX_SEARCH_PER_ROUTER));
        }
    }

    /// Sets or, without a hop, removes a route; `false` when there is no room.
    pub(super) fn set_route(&mut self, prefix: Ipv6Prefix, hop: Option<Hop>) -> bool {
        let at = self.routes.iter().position(|(known, _)| *known == prefix);
        match (at, hop) {
            (Some(at), Some(hop)) => self.routes[at].1 = hop,
            (Some(at), None) => drop(self.routes.remove(at)),
            (None, Some(_)) if self.routes.len() >= MAX_ROUTES_PER_ROUTER => return false,
            (None, Some(hop)) => self.routes.push((prefix, hop)),
            (None, None) => {}
        }
        true
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.default = self.default.filter(|hop| !hop.lifetime.is_over(now));
        self.routes.retain(|(_, hop)| !hop.lifetime.is_over(now));
        self.servers.retain(|(_, lifetime)| !lifetime.is_over(now));
        self.search.retain(|(_, lifetime)| !lifetime.is_over(now));
    }

    /// When something ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = Instant> {
        let hops = self.default.iter().chain(self.routes.iter().map(|(_, hop)| hop));
        hops.map(|hop| hop.lifetime)
            .chain(self.servers.iter().map(|(_, lifetime)| *lifetime))
            .chain(self.search.iter().map(|(_, lifetime)| *lifetime))
            .filter_map(Lifetime::end)
    }
}

/// Sets or, without a lifetime, removes an entry of a DNS list. In a full one it takes the place of the entry that would
/// end first, if that ends before it (RFC 8106 6.2 d); `false` says that an entry was lost.
fn set<T: Clone + PartialEq>(
    list: &mut Vec<(T, Lifetime)>,
    key: &T,
    lifetime: Option<Lifetime>,
    most: usize,
) -> bool {
    let at = list.iter().position(|(known, _)| known == key);
    let Some(lifetime) = lifetime else {
        if let Some(at) = at {
            list.remove(at);
        }
        return true;
    };
    if let Some(at) = at {
        list[at].1 = lifetime;
        return true;
    }
    if list.len() < most {
        list.push((key.clone(), lifetime));
        return true;
    }
    if let Some(first) = list.iter_mut().min_by_key(|(_, end)| *end)
        && first.1 < lifetime
    {
        *first = (key.clone(), lifetime);
    }
    false
}
