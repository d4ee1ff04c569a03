//! What a message about an IPv6 route says: which one it is, and where it leads. Pure.

use std::net::Ipv6Addr;

use isatap_engine::fib::Ipv6Prefix;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RoutePreference, RouteType,
};

use super::next_hops::{Hop, next_hop};

/// A route's identity in the kernel; the order puts the one that wins first within each prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteKey {
    pub(super) prefix: Ipv6Prefix,
    pub(super) not_main: bool,
    pub(super) table: u32,
    pub(super) metric: u32,
}

impl RouteKey {
    /// Of the route that a message is about, of whatever type. `None` for one of a source: no other takes its place.
    pub(super) fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let is_told_by_it = header.address_family == AddressFamily::Inet6
            && header.source_prefix_length == 0
            && !header.flags.contains(RouteFlags::Cloned);
        if !is_told_by_it {
            return None;
        }
        let mut destination = Ipv6Addr::UNSPECIFIED;
        let mut table = u32::from(header.table);
        let mut metric = 0;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = *addr,
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        let prefix = Ipv6Prefix::containing(destination, header.destination_prefix_length).ok()?;
        Some(Self {
            prefix,
            not_main: table != u32::from(RouteHeader::RT_TABLE_MAIN),
            table,
            metric,
        })
    }
}

/// The next hops of a route that lead over the interface with this index; none when it carries no packets.
pub(super) fn hops(message: &RouteMessage, if_index: u32) -> Vec<Hop> {
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let preference = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Preference(RoutePreference::High) => Some(1),
        RouteAttribute::Preference(RoutePreference::Low) => Some(-1),
        _ => None,
    });
    let hop = |attributes: &[RouteAttribute], weight| {
        let gateway = gateway(attributes);
        Hop {
            gateway,
            next: next_hop(gateway),
            preference: preference.unwrap_or(0),
            weight,
        }
    };
    let mut hops = Vec::new();
    let mut device = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::MultiPath(paths) => {
                let ours = paths.iter().filter(|path| path.interface_index == if_index);
                hops.extend(ours.map(|path| hop(&path.attributes, u16::from(path.hops) + 1)));
            }
            _ => {}
        }
    }
    if device == Some(if_index) && hops.is_empty() {
        hops.push(hop(&message.attributes, 1));
    }
    hops
}

fn gateway(attributes: &[RouteAttribute]) -> Option<Ipv6Addr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => Some(*gateway),
        _ => None,
    })
}
