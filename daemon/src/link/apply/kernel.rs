//! Does what was planned, over netlink: addresses and routes that end by themselves should this daemon not.

use std::net::IpAddr;
use std::time::Instant;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
    CacheInfo,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RoutePreference, RouteProtocol, RouteScope,
    RouteType,
};

use super::{Installed, Op, RouteId};
use crate::link::setup::Interface;
use crate::link::sysctl::Sysctls;
use crate::link::{Netlink, NetlinkError};
use crate::slaac::{Lifetime, Origin, WantedAddress};

/// The protocol of routes that a router owns, as `ip route` shows it: the number that IPv4 has for IPv6 inside, which no
/// routing daemon uses (RTPROT_*, rtnetlink(7)).
const OWN_ROUTE: RouteProtocol = RouteProtocol::Other(41);

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What.
    pub op: Op,
    /// Why.
    pub error: NetlinkError,
}

/// Does all of `ops`, and remembers in `installed` what succeeded; one that fails keeps none of the others from being
/// done, and is planned again next time.
pub async fn apply(
    installed: &mut Installed,
    netlink: &Netlink,
    interface: &Interface,
    sysctls: &Sysctls,
    ops: &[Op],
    now: Instant,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    for op in ops {
        match one(netlink, interface, sysctls, op, now).await {
            Ok(()) => installed.done(op),
            Err(error) => failures.push(Failure { op: *op, error }),
        }
    }
    failures
}

async fn one(
    netlink: &Netlink,
    interface: &Interface,
    sysctls: &Sysctls,
    op: &Op,
    now: Instant,
) -> Result<(), NetlinkError> {
    let name = &interface.name;
    match op {
        Op::SetAddress(wanted) => {
            let operation = format!("set {}/{} on {name}", wanted.addr, wanted.prefix_len);
            netlink
                .add_address(&operation, address(interface.if_index, wanted, now))
                .await
        }
        Op::RemoveAddress(addr, prefix_len) => interface.remove_address(netlink, *addr, *prefix_len).await,
        Op::SetRoute(id, lifetime) => {
            let mut message = route(interface.if_index, id);
            if let Lifetime::Until(_) = lifetime {
                // Zero would be a route without end.
                let seconds = lifetime.seconds(now).max(1);
                message.attributes.push(RouteAttribute::Expires(seconds));
            }
            netlink
                .add_route(&format!("set the route {} on {name}", shown(id)), message)
                .await
        }
        Op::RemoveRoute(id) => {
            let operation = format!("remove the route {} from {name}", shown(id));
            netlink
                .delete_route(&operation, route(interface.if_index, id))
                .await
        }
        Op::SetMtu(mtu) => interface.set_mtu(netlink, *mtu).await,
        Op::SetHopLimit(hop_limit) => {
            sysctls.apply_hop_limit(*hop_limit);
            Ok(())
        }
    }
}

fn shown(id: &RouteId) -> String {
    match id.via {
        Some(via) => format!("{} via {via}", id.prefix),
        None => id.prefix.to_string(),
    }
}

fn address(if_index: u32, wanted: &WantedAddress, now: Instant) -> AddressMessage {
    // No prefix route: whether the prefix is on-link is another question (V8). No duplicate detection: the identifier
    // needs none and the link has no multicast (RFC 5214 6.1).
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = wanted.valid.seconds(now).max(1);
    lifetimes.ifa_preferred = wanted.preferred.seconds(now).min(lifetimes.ifa_valid);
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.index = if_index;
    message.header.prefix_len = wanted.prefix_len;
    message.header.scope = AddressScope::Universe;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::V6(wanted.addr)),
        AddressAttribute::Local(IpAddr::V6(wanted.addr)),
        AddressAttribute::Flags(flags),
        AddressAttribute::CacheInfo(lifetimes),
    ];
    if wanted.origin == Origin::Advertised {
        let protocol = AddressProtocol::RouterAnnouncement;
        message.attributes.push(AddressAttribute::Protocol(protocol));
    }
    message
}

fn route(if_index: u32, id: &RouteId) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = id.prefix.len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = match id.origin {
        Origin::Advertised => RouteProtocol::Ra,
        Origin::Own => OWN_ROUTE,
    };
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(id.prefix.addr())),
        RouteAttribute::Oif(if_index),
        RouteAttribute::Priority(id.metric),
        RouteAttribute::Preference(to_kernel(id.preference)),
    ];
    message.attributes.extend(
        id.via
            .map(|via| RouteAttribute::Gateway(RouteAddress::Inet6(via))),
    );
    message
}

fn to_kernel(preference: i8) -> RoutePreference {
    match preference.signum() {
        -1 => RoutePreference::Low,
        1 => RoutePreference::High,
        _ => RoutePreference::Medium,
    }
}

pub(super) fn from_kernel(preference: RoutePreference) -> i8 {
    match preference {
        RoutePreference::Low => -1,
        RoutePreference::High => 1,
        _ => 0,
    }
}
