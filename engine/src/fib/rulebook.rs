//! The Rulebook: everything the packet path may ask, as plain immutable data.
//!
//! Nothing here is per host: a router for a million hosts holds what one for ten holds (DESIGN D13).

mod facts;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::flat::{FlatMap, halves};
use super::{HopGroup, Ipv6Prefix, Locator, NextHop, PeerPolicy, PrefixTable, Role, RulebookBuilder};
use crate::isatap::mark::Mark;
use crate::isatap::mtu::{MtuPolicy, PathMtu};
use crate::isatap::tos::{DscpPolicy, TtlPolicy};
use crate::isatap::{SiteKnowledge, iid};

/// How the tunnel treats every packet.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// Size and Don't Fragment.
    pub mtu: MtuPolicy,
    /// Identifies our packets with DF when somebody quotes them.
    pub mark: Mark,
    /// Outer TTL.
    pub ttl: TtlPolicy,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// An ISATAP source must be under an on-link prefix.
    pub strict_ingress: bool,
    /// Inner tunnel packets are carried.
    pub nested: bool,
    /// Packets that would go round between tunnels are dropped (RFC 6324).
    pub loop_checks: bool,
}

/// One immutable snapshot of what is known.
#[derive(Debug)]
pub struct Rulebook {
    role: Role,
    locators: Vec<Locator>,
    own6: FlatMap<u128, ()>,
    /// One of them embeds an address that is no locator.
    owns_foreign: bool,
    /// The last 24 bits of each of them, which name its solicited-node group.
    own_groups: FlatMap<u32, ()>,
    /// Their prefixes, of those in ISATAP's format.
    own_prefixes: FlatMap<u64, ()>,
    reply_global: Option<Ipv6Addr>,
    prl: Vec<Ipv4Addr>,
    routers: FlatMap<u32, ()>,
    own_6to4: Vec<Ipv4Addr>,
    prl_members: FlatMap<u32, ()>,
    routes: PrefixTable<NextHop>,
    groups: Vec<HopGroup>,
    default_hop: Option<NextHop>,
    large: bool,
    advertises: bool,
    connected: PrefixTable<()>,
    site: PrefixTable<()>,
    any_site: bool,
    broadcasts: Vec<Ipv4Addr>,
    peers: PeerPolicy,
    peer_networks: PrefixTable<PeerPolicy>,
    /// Paths that something is known about, and what holds for all others.
    paths: FlatMap<u32, PathMtu>,
    other_paths: PathMtu,
    tunnel: Tunnel,
}

impl Rulebook {
    pub(super) fn assemble(parts: RulebookBuilder) -> Self {
        let link_local = Ipv6Prefix::containing(iid::link_local(Ipv4Addr::UNSPECIFIED), 64);
        let link_local = link_local.ok().map(|prefix| (prefix, NextHop::OnLink));
        let reply_global = parts
            .own6
            .iter()
            .copied()
            .find(|addr| !addr.is_unicast_link_local());
        // That of a locator's link-local address is ours as soon as the locator is, whoever knows of it already.
        let link_locals = parts.locators.iter().map(|locator| iid::link_local(locator.addr));
        let own_groups: Vec<_> = link_locals
            .chain(parts.own6.iter().copied())
            .map(|addr| (group_bits(&addr), ()))
            .collect();
        let isatap = parts.own6.iter().filter(|addr| iid::embedded(addr).is_some());
        let own_prefixes: Vec<_> = isatap.map(|addr| (prefix_bits(addr), ())).collect();
        let foreign = |end: Ipv4Addr| parts.locators.iter().all(|locator| locator.addr != end);
        let owns_foreign = parts.own6.iter().filter_map(iid::embedded).any(foreign);
        let routes = PrefixTable::v6(parts.routes.into_iter().chain(link_local));
        let mtu = MtuPolicy::fixed(parts.mtu);
        let known = |path: PathMtu| mtu.relevant(path.and(PathMtu::of_link(parts.link_mtu)));
        let paths = parts
            .paths
            .iter()
            .map(|(peer, path)| (peer.to_bits(), known(*path)));
        Self {
            role: parts.role,
            locators: parts.locators,
            own6: FlatMap::new(
                &parts
                    .own6
                    .iter()
                    .map(|addr| (addr.to_bits(), ()))
                    .collect::<Vec<_>>(),
            ),
            owns_foreign,
            own_groups: FlatMap::new(&own_groups),
            own_prefixes: FlatMap::new(&own_prefixes),
            reply_global,
            routers: addresses(parts.prl.iter().chain(&parts.peer_routers)),
            own_6to4: parts.own_6to4,
            prl_members: addresses(&parts.prl),
            prl: parts.prl,
            large: routes.is_large(),
            routes,
            groups: parts.groups,
            default_hop: parts.default_hop,
            advertises: parts.advertises,
            connected: PrefixTable::v4(parts.connected.into_iter().map(|prefix| (prefix, ()))),
            site: PrefixTable::v4(parts.site.into_iter().map(|prefix| (prefix, ()))),
            any_site: parts.any_site,
            broadcasts: parts.broadcasts,
            peers: parts.peers,
            peer_networks: PrefixTable::v4(parts.peer_networks),
            paths: FlatMap::new(&paths.collect::<Vec<_>>()),
            other_paths: known(PathMtu::UNKNOWN),
            tunnel: Tunnel {
                mtu,
                mark: parts.mark,
                ttl: parts.ttl,
                dscp: parts.dscp,
                strict_ingress: parts.strict_ingress,
                nested: parts.nested,
                loop_checks: parts.loop_checks,
            },
        }
    }

    /// Host or router.
    #[inline]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether control answers router solicitations.
    #[inline]
    pub fn advertises(&self) -> bool {
        self.advertises
    }

    /// Whether this machine is connected to the network of an IPv4 host.
    pub fn is_connected(&self, addr: Ipv4Addr) -> bool {
        self.connected.lookup_v4(addr).is_some()
    }

    /// How the tunnel treats every packet.
    #[inline]
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// How packets to `peer` are treated.
    #[inline]
    pub fn peer_policy(&self, peer: Ipv4Addr) -> PeerPolicy {
        if self.peer_networks.is_empty() {
            return self.peers;
        }
        self.peer_networks.lookup_v4(peer).copied().unwrap_or(self.peers)
    }

    /// What is known about the path to `peer`.
    #[inline]
    pub fn path(&self, peer: Ipv4Addr) -> PathMtu {
        if self.paths.is_empty() {
            return self.other_paths;
        }
        self.paths
            .get(peer.to_bits())
            .copied()
            .unwrap_or(self.other_paths)
    }

    /// Our locators, the preferred one first.
    #[inline]
    pub fn locators(&self) -> &[Locator] {
        &self.locators
    }

    /// The preferred locator, if there is one.
    #[inline]
    pub fn source(&self) -> Option<Ipv4Addr> {
        self.locators.first().map(|locator| locator.addr)
    }

    /// The outer source of a packet from `inner` (RFC 4213 3.5): the locator it embeds, or the receiver's source check
    /// refuses it (RFC 5214 7.3); for any other source the preferred locator.
    #[inline]
    pub fn source_for(&self, inner: &Ipv6Addr) -> Option<Ipv4Addr> {
        match self.locators.as_slice() {
            [] => None,
            [only] => Some(only.addr),
            [preferred, ..] => match iid::embedded(inner) {
                Some(embedded) if self.is_locator(embedded) => Some(embedded),
                _ => Some(preferred.addr),
            },
        }
    }

    /// The potential router list in order of preference.
    pub fn prl(&self) -> &[Ipv4Addr] {
        &self.prl
    }

    /// Where a packet for `dst` goes: the longest route, then on a host its default routers.
    #[inline]
    pub fn route(&self, dst: &Ipv6Addr) -> Option<NextHop> {
        self.routes.lookup_v6(dst).copied().or(self.default_hop)
    }

    /// Whether packets for `dst` go to `router` now (RFC 4861 8.1), each of them or the share of some flows.
    pub fn is_first_hop(&self, dst: &Ipv6Addr, router: Ipv4Addr) -> bool {
        match self.route(dst) {
            Some(NextHop::Via(via)) => via == router,
            Some(NextHop::Group(number)) => self
                .group(number)
                .is_some_and(|group| group.active().contains(&router)),
            Some(NextHop::OnLink | NextHop::Unreachable) | None => false,
        }
    }

    /// The group of this number in [`NextHop::Group`].
    #[inline]
    pub fn group(&self, number: u16) -> Option<&HopGroup> {
        self.groups.get(usize::from(number))
    }

    /// Whether reading ahead with [`Rulebook::touch`] is worth it: the routes do not fit a core's own caches.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// Reads ahead for the decisions about packets to, or from, the first [`READ_AHEAD`](super::READ_AHEAD) of `addrs`. The
    /// number means nothing; consume it.
    #[inline]
    pub fn touch(&self, addrs: &[Ipv6Addr]) -> usize {
        self.routes.touch_v6(addrs)
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

/// The first half of an address.
fn prefix_bits(addr: &Ipv6Addr) -> u64 {
    halves(addr.to_bits()).0
}

/// What tells the solicited-node group of an address from others (RFC 4291 2.7.1).
fn group_bits(addr: &Ipv6Addr) -> u32 {
    let [.., a, b, c] = addr.octets();
    u32::from_be_bytes([0, a, b, c])
}

fn addresses<'a>(list: impl IntoIterator<Item = &'a Ipv4Addr>) -> FlatMap<u32, ()> {
    let entries = list.into_iter().map(|addr| (addr.to_bits(), ()));
    FlatMap::new(&entries.collect::<Vec<_>>())
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
        self.routers.contains(addr.to_bits())
    }

    #[inline]
    fn is_prl_member(&self, addr: Ipv4Addr) -> bool {
        self.prl_members.contains(addr.to_bits())
    }

    #[inline]
    fn is_site_host(&self, addr: Ipv4Addr) -> bool {
        self.any_site || self.site.lookup_v4(addr).is_some()
    }

    #[inline]
    fn is_own(&self, addr: &Ipv6Addr) -> bool {
        self.own6.contains(addr.to_bits())
    }

    #[inline]
    fn owns_foreign(&self) -> bool {
        self.owns_foreign
    }

    fn is_own_group(&self, group: &Ipv6Addr) -> bool {
        self.own_groups.contains(group_bits(group))
    }

    fn is_router_here(&self) -> bool {
        self.role == Role::Router
    }

    #[inline]
    fn is_on_link(&self, addr: &Ipv6Addr) -> bool {
        matches!(self.routes.lookup_v6(addr), Some(NextHop::OnLink))
    }

    fn shares_prefix(&self, addr: &Ipv6Addr) -> bool {
        self.own_prefixes.contains(prefix_bits(addr))
    }

    #[inline]
    fn is_routed_via(&self, addr: &Ipv6Addr, gateway: Ipv4Addr) -> bool {
        match self.routes.lookup_v6(addr) {
            Some(NextHop::Via(via)) => *via == gateway,
            Some(NextHop::Group(number)) => self.group(*number).is_some_and(|group| group.contains(gateway)),
            _ => false,
        }
    }

    #[inline]
    fn is_own_6to4(&self, addr: Ipv4Addr) -> bool {
        self.own_6to4.contains(&addr)
    }

    #[inline]
    fn leads_back(&self, addr: &Ipv6Addr, sender: Ipv4Addr) -> bool {
        let back = |hop: Ipv4Addr| hop == sender || self.is_router(hop) && self.is_router(sender);
        match self.routes.lookup_v6(addr) {
            Some(NextHop::OnLink) => iid::embedded(addr).is_some_and(back),
            Some(NextHop::Via(via)) => back(*via),
            // Each member is a way to the destination, the active ones are taken now.
            Some(NextHop::Group(number)) => self.group(*number).is_some_and(|group| {
                group.contains(sender) || group.active().iter().any(|member| back(*member))
            }),
            Some(NextHop::Unreachable) | None => false,
        }
    }
}
