//! The Rulebook: everything the packet path may ask, as plain immutable data.
//!
//! Nothing here is per host: a router for a million hosts holds what one for ten holds (DESIGN D13).

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Ipv6Prefix, Locator, NextHop, PrefixTable, Role, RulebookBuilder};
use crate::isatap::ecn::EcnMode;
use crate::isatap::mtu::MtuPolicy;
use crate::isatap::tos::{DscpPolicy, TtlPolicy};
use crate::isatap::{SiteKnowledge, iid};

/// How the tunnel treats every packet.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// Size and Don't Fragment.
    pub mtu: MtuPolicy,
    /// Outer TTL.
    pub ttl: TtlPolicy,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// ECN towards the outer header.
    pub ecn: EcnMode,
    /// An ISATAP source must be under an on-link prefix.
    pub strict_ingress: bool,
    /// Inner tunnel packets are carried.
    pub nested: bool,
}

/// One immutable snapshot of what is known.
#[derive(Debug)]
pub struct Rulebook {
    role: Role,
    locators: Vec<Locator>,
    own6: HashSet<Ipv6Addr, ahash::RandomState>,
    reply_global: Option<Ipv6Addr>,
    prl: Vec<Ipv4Addr>,
    routers: HashSet<Ipv4Addr, ahash::RandomState>,
    prl_members: HashSet<Ipv4Addr, ahash::RandomState>,
    routes: PrefixTable<NextHop>,
    site: PrefixTable<()>,
    any_site: bool,
    broadcasts: Vec<Ipv4Addr>,
    tunnel: Tunnel,
}

impl Rulebook {
    pub(super) fn assemble(parts: RulebookBuilder) -> Self {
        let mut routes = PrefixTable::default();
        for (prefix, hop) in parts.routes {
            routes.insert_v6(prefix, hop);
        }
        if let Ok(link_local) = Ipv6Prefix::containing(iid::link_local(Ipv4Addr::UNSPECIFIED), 64) {
            routes.insert_v6(link_local, NextHop::OnLink);
        }
        let mut site = PrefixTable::default();
        for prefix in parts.site {
            site.insert_v4(prefix, ());
        }
        let reply_global = parts
            .own6
            .iter()
            .copied()
            .find(|addr| !addr.is_unicast_link_local());
        Self {
            role: parts.role,
            locators: parts.locators,
            own6: parts.own6.into_iter().collect(),
            reply_global,
            routers: parts.prl.iter().chain(&parts.peer_routers).copied().collect(),
            prl_members: parts.prl.iter().copied().collect(),
            prl: parts.prl,
            routes,
            site,
            any_site: parts.any_site,
            broadcasts: parts.broadcasts,
            tunnel: Tunnel {
                mtu: MtuPolicy::fixed(parts.mtu),
                ttl: parts.ttl,
                dscp: parts.dscp,
                ecn: parts.ecn,
                strict_ingress: parts.strict_ingress,
                nested: parts.nested,
            },
        }
    }

    /// Host or router.
    #[inline]
    pub fn role(&self) -> Role {
        self.role
    }

    /// How the tunnel treats every packet.
    #[inline]
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Our locators, the preferred one first.
    #[inline]
    pub fn locators(&self) -> &[Locator] {
        &self.locators
    }

    /// The source of what we send (RFC 4213 3.5): the preferred locator, if there is one.
    #[inline]
    pub fn source(&self) -> Option<Ipv4Addr> {
        self.locators.first().map(|locator| locator.addr)
    }

    /// The potential router list in order of preference.
    pub fn prl(&self) -> &[Ipv4Addr] {
        &self.prl
    }

    /// Where a packet for `dst` goes: the longest route, then on a host the first router of the PRL.
    #[inline]
    pub fn route(&self, dst: &Ipv6Addr) -> Option<NextHop> {
        match self.routes.lookup_v6(dst) {
            Some(hop) => Some(*hop),
            None if self.role == Role::Host => self.prl.first().map(|router| NextHop::Via(*router)),
            None => None,
        }
    }

    /// The address our ICMPv6 errors come from: link-local answers link-local, else a global one if we have any, since
    /// a link-local source is not forwarded (RFC 4007 9).
    pub fn reply_source(&self, towards: &Ipv6Addr) -> Option<Ipv6Addr> {
        let link_local = self.source().map(iid::link_local);
        if towards.is_unicast_link_local() {
            link_local
        } else {
            self.reply_global.or(link_local)
        }
    }
}

impl SiteKnowledge for Rulebook {
    #[inline]
    fn is_locator(&self, addr: Ipv4Addr) -> bool {
        self.locators.iter().any(|locator| locator.addr == addr)
    }

    #[inline]
    fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        self.broadcasts.contains(&addr)
    }

    #[inline]
    fn is_router(&self, addr: Ipv4Addr) -> bool {
        !self.routers.is_empty() && self.routers.contains(&addr)
    }

    #[inline]
    fn is_prl_member(&self, addr: Ipv4Addr) -> bool {
        self.prl_members.contains(&addr)
    }

    #[inline]
    fn is_site_host(&self, addr: Ipv4Addr) -> bool {
        self.any_site || self.site.lookup_v4(addr).is_some()
    }

    #[inline]
    fn is_own(&self, addr: &Ipv6Addr) -> bool {
        self.own6.contains(addr)
    }

    #[inline]
    fn is_on_link(&self, addr: &Ipv6Addr) -> bool {
        matches!(self.routes.lookup_v6(addr), Some(NextHop::OnLink))
    }

    #[inline]
    fn is_routed_via(&self, addr: &Ipv6Addr, gateway: Ipv4Addr) -> bool {
        matches!(self.routes.lookup_v6(addr), Some(NextHop::Via(via)) if *via == gateway)
    }
}
