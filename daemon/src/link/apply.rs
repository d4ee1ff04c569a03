//! From what autoconfiguration wants to what the kernel has: the difference as a list of operations. Pure.
//!
//! Three things are compared: what is wanted, what this daemon has set ([`Installed`]), and what the mirror shows. What
//! it has set and nobody wants any more goes; what somebody took away comes back; what it has not set is never touched,
//! not even if it looks the same.
//!
//! The kernel merges routes of one prefix and metric into one with several next hops, and then shows and keeps one
//! preference for all of them. So the preference of RFC 4191 is part of the metric: a preferred router's route has one
//! less, the other's one more. What is left in one route are equals (RFC 4311).

mod kernel;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use isatap_engine::fib::Ipv6Prefix;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RoutePreference, RouteProtocol, RouteType,
};

use super::MirrorState;
use super::change::message::OWN;
use crate::slaac::{
    KnownAddress, KnownRoute, Lifetime, ON_LINK_METRIC, Origin, Wanted, WantedAddress, WantedRoute,
};

pub use kernel::{Failure, apply};

/// The kernel counts seconds: a lifetime that moved less is the same, unless little is left of it.
const LIFETIME_TOLERANCE: Duration = Duration::from_millis(1500);
/// What a lifetime may move at most, in parts of what is left: of short ones each bit counts.
const TOLERATED_PART: u32 = 16;

/// What tells one route from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    /// Where to.
    pub prefix: Ipv6Prefix,
    /// As the kernel has it: the wanted one less the preference.
    pub metric: u32,
    /// The router; `None` for a prefix on the link.
    pub via: Option<Ipv6Addr>,
    /// -1, 0 or 1.
    pub preference: i8,
    /// Who said so: the kernel shows it as the route's protocol.
    pub origin: Origin,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Add an address, or give the one that is there new lifetimes.
    SetAddress(WantedAddress),
    /// Remove an address of this prefix length.
    RemoveAddress(Ipv6Addr, u8),
    /// Add a route, or make the one that is there end at another time.
    SetRoute(RouteId, Lifetime),
    /// Remove a route.
    RemoveRoute(RouteId),
    /// Give the interface this MTU in bytes.
    SetMtu(u16),
    /// Give packets of this host this hop limit; the interface's own of before when no router says any.
    SetHopLimit(Option<u8>),
}

/// What this daemon has set and not taken back.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    addresses: BTreeMap<Ipv6Addr, WantedAddress>,
    routes: BTreeMap<RouteId, Lifetime>,
    mtu: Option<u16>,
    hop_limit: Option<u8>,
}

impl RouteId {
    fn of(route: &WantedRoute) -> Self {
        let metric = i64::from(route.metric) - i64::from(route.preference);
        Self {
            prefix: route.prefix,
            // Zero means the default of 1024 to the kernel.
            metric: u32::try_from(metric.max(1)).unwrap_or(u32::MAX),
            via: route.via,
            preference: route.preference,
            origin: route.origin,
        }
    }
}

impl Installed {
    /// Remembers that `op` was done.
    pub fn done(&mut self, op: &Op) {
        match *op {
            Op::SetAddress(address) => drop(self.addresses.insert(address.addr, address)),
            Op::RemoveAddress(addr, _) => drop(self.addresses.remove(&addr)),
            Op::SetRoute(id, lifetime) => drop(self.routes.insert(id, lifetime)),
            Op::RemoveRoute(id) => drop(self.routes.remove(&id)),
            Op::SetMtu(mtu) => self.mtu = Some(mtu),
            Op::SetHopLimit(hop_limit) => self.hop_limit = hop_limit,
        }
    }

    /// The MTU was set by somebody else in this daemon: at the start, or by a reload.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = Some(mtu);
    }

    /// The MTU that the interface was given last.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// Takes what [`known`] found in a dump for this daemon's own work of before a restart.
    pub fn adopt(&mut self, known: &Known) {
        let addresses = known.addresses.iter().map(|address| (address.addr, *address));
        self.addresses.extend(addresses);
        self.routes.extend(known.routes.iter().copied());
    }

    /// Addresses and routes that are set now.
    pub fn counts(&self) -> (usize, usize) {
        (self.addresses.len(), self.routes.len())
    }
}

/// What is to be done now, in this order: new ways before old ones go. `base_mtu` holds when no router says otherwise.
/// An interface that is down takes no routes; once it is up, everything comes back.
pub fn plan(
    installed: &Installed,
    mirror: &MirrorState,
    wanted: &Wanted,
    base_mtu: u16,
    now: Instant,
) -> Vec<Op> {
    let mut ops = Vec::new();
    if !mirror.is_up() {
        return ops;
    }
    let mtu = wanted.mtu.unwrap_or(base_mtu);
    if installed.mtu != Some(mtu) {
        ops.push(Op::SetMtu(mtu));
    }
    if installed.hop_limit != wanted.hop_limit {
        ops.push(Op::SetHopLimit(wanted.hop_limit));
    }
    plan_addresses(installed, mirror, wanted, now, &mut ops);
    plan_routes(installed, mirror, wanted, now, &mut ops);
    ops
}

fn plan_addresses(
    installed: &Installed,
    mirror: &MirrorState,
    wanted: &Wanted,
    now: Instant,
    ops: &mut Vec<Op>,
) {
    for address in &wanted.addresses {
        let old = installed.addresses.get(&address.addr);
        match (mirror.own6_entry(address.addr), old) {
            // Somebody else's: theirs serves as well.
            (Some(_), None) => continue,
            (Some(own), Some(_)) if own.prefix_len != address.prefix_len => continue,
            (Some(_), Some(old)) if is_current(old, address, now) => continue,
            _ => ops.push(Op::SetAddress(*address)),
        }
    }
    for old in installed.addresses.values() {
        if !wanted.addresses.iter().any(|address| address.addr == old.addr) {
            ops.push(Op::RemoveAddress(old.addr, old.prefix_len));
        }
    }
}

fn is_current(old: &WantedAddress, new: &WantedAddress, now: Instant) -> bool {
    // Both over is the same, whenever that was.
    let deprecated = old.preferred.is_over(now) && new.preferred.is_over(now);
    is_same(old.valid, new.valid, now) && (deprecated || is_same(old.preferred, new.preferred, now))
}

/// Whether the kernel need not be told.
fn is_same(old: Lifetime, new: Lifetime, now: Instant) -> bool {
    let left = new.end().map(|end| end.saturating_duration_since(now));
    let part = left.map_or(LIFETIME_TOLERANCE, |left| left / TOLERATED_PART);
    old.is_near(new, part.min(LIFETIME_TOLERANCE))
}

fn plan_routes(
    installed: &Installed,
    mirror: &MirrorState,
    wanted: &Wanted,
    now: Instant,
    ops: &mut Vec<Op>,
) {
    let ids: Vec<RouteId> = wanted.routes.iter().map(RouteId::of).collect();
    for (id, route) in ids.iter().zip(&wanted.routes) {
        let there = mirror.has_route(id.prefix, id.metric, id.via);
        match installed.routes.get(id) {
            Some(old) if there && is_same(*old, route.lifetime, now) => continue,
            // A route without end keeps having none when one is added to it.
            Some(Lifetime::Forever) if there => ops.push(Op::RemoveRoute(*id)),
            // Somebody else's, with the same next hop: it serves as well.
            None if there => continue,
            _ => {}
        }
        ops.push(Op::SetRoute(*id, route.lifetime));
    }
    let unwanted = installed.routes.keys().filter(|id| !ids.contains(id));
    ops.extend(unwanted.map(|id| Op::RemoveRoute(*id)));
}

/// What a dump shows of an earlier life of this daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Addresses with their lifetimes.
    pub addresses: Vec<WantedAddress>,
    /// Routes with theirs.
    pub routes: Vec<(RouteId, Lifetime)>,
}

impl Known {
    /// What routers had advertised, as autoconfiguration takes it over.
    pub fn advertised(&self) -> (Vec<KnownAddress>, Vec<KnownRoute>) {
        let advertised = |origin| origin == Origin::Advertised;
        let addresses = self.addresses.iter().filter(|known| advertised(known.origin));
        let routes = self.routes.iter().filter(|(id, _)| advertised(id.origin));
        (
            addresses
                .map(|known| KnownAddress {
                    addr: known.addr,
                    valid: known.valid,
                    preferred: known.preferred,
                })
                .collect(),
            routes
                .map(|(id, lifetime)| KnownRoute {
                    prefix: id.prefix,
                    via: id.via,
                    preference: id.preference,
                    lifetime: *lifetime,
                })
                .collect(),
        )
    }
}

/// What a dump shows of an earlier life of this daemon, by the protocol it gave its addresses and routes.
pub fn known(if_index: u32, dump: &[RouteNetlinkMessage], now: Instant) -> Known {
    let mut known = Known::default();
    for message in dump {
        match message {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == if_index => {
                known.addresses.extend(known_address(address, now));
            }
            RouteNetlinkMessage::NewRoute(route) => known_routes(if_index, route, now, &mut known.routes),
            _ => {}
        }
    }
    known
}

fn known_address(message: &AddressMessage, now: Instant) -> Option<WantedAddress> {
    let (mut addr, mut lifetimes, mut origin) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(std::net::IpAddr::V6(own)) => addr = Some(*own),
            AddressAttribute::CacheInfo(info) => lifetimes = Some((info.ifa_valid, info.ifa_preferred)),
            AddressAttribute::Protocol(AddressProtocol::RouterAnnouncement) => {
                origin = Some(Origin::Advertised);
            }
            AddressAttribute::Protocol(AddressProtocol::Other(OWN)) => origin = Some(Origin::Own),
            _ => {}
        }
    }
    let (valid, preferred) = lifetimes.filter(|_| message.header.prefix_len == 128)?;
    Some(WantedAddress {
        addr: addr?,
        prefix_len: message.header.prefix_len,
        valid: Lifetime::from_secs(now, valid),
        preferred: Lifetime::from_secs(now, preferred),
        origin: origin?,
    })
}

fn known_routes(if_index: u32, message: &RouteMessage, now: Instant, list: &mut Vec<(RouteId, Lifetime)>) {
    let header = &message.header;
    let origin = match header.protocol {
        RouteProtocol::Ra => Origin::Advertised,
        RouteProtocol::Other(OWN) => Origin::Own,
        _ => return,
    };
    if header.kind != RouteType::Unicast {
        return;
    }
    let (mut dst, mut metric, mut gateway, mut device) = (Ipv6Addr::UNSPECIFIED, 0, None, None);
    let (mut preference, mut lifetime, mut gateways) = (0, Lifetime::Forever, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet6(addr)) => dst = *addr,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Gateway(RouteAddress::Inet6(addr)) => gateway = Some(*addr),
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Preference(value) => preference = from_kernel(*value),
            RouteAttribute::CacheInfo(info) if info.expires != 0 => {
                // In hundredths of a second, whatever the kernel's own clock (USER_HZ).
                lifetime = Lifetime::from_secs(now, info.expires / 100);
            }
            RouteAttribute::MultiPath(paths) => {
                let ours = paths.iter().filter(|path| path.interface_index == if_index);
                gateways.extend(ours.flat_map(|path| &path.attributes).filter_map(
                    |attribute| match attribute {
                        RouteAttribute::Gateway(RouteAddress::Inet6(addr)) => Some(Some(*addr)),
                        _ => None,
                    },
                ));
            }
            _ => {}
        }
    }
    let Ok(prefix) = Ipv6Prefix::containing(dst, header.destination_prefix_length) else {
        return;
    };
    if device == Some(if_index) {
        gateways.push(gateway);
    }
    list.extend(gateways.into_iter().map(|via| {
        let preference = if metric == ON_LINK_METRIC { 0 } else { preference };
        let id = RouteId {
            prefix,
            metric,
            via,
            preference,
            origin,
        };
        (id, lifetime)
    }));
}

fn from_kernel(preference: RoutePreference) -> i8 {
    match preference {
        RoutePreference::Low => -1,
        RoutePreference::High => 1,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
