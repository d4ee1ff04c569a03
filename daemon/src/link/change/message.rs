//! A change as the kernel wants to hear it: the rtnetlink message, its flags, and the answers that mean success. Pure.

use std::net::{IpAddr, Ipv6Addr};

use isatap_engine::isatap::iid;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
    CacheInfo,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RoutePreference, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{AddressChange, Change, LINK_LOCAL_PREFIX_LEN};
use crate::link::apply::RouteId;
use crate::slaac::Origin;

/// Packets the TUN interface queues towards us; the kernel's default of 500 is less than one burst (FAULTS 30).
pub const TX_QUEUE_LEN: u32 = 10_000;

/// The protocol of addresses and routes that a router owns, as `ip` shows it: the number that IPv4 has for IPv6 inside,
/// which no routing daemon uses (RTPROT_*, rtnetlink(7); IFAPROT_* of linux/if_addr.h ends at 3).
pub const OWN: u8 = 41;

/// What to send, and which answers are as good as "done".
#[derive(Clone, Debug)]
pub struct Order {
    /// The message.
    pub message: RouteNetlinkMessage,
    /// Its flags.
    pub flags: u16,
    /// Errors that say that it was so already.
    pub tolerated: &'static [i32],
}

/// The order for `change` on the interface of this index; `None` for what is no matter of rtnetlink.
pub fn order(if_index: u32, change: &Change) -> Option<Order> {
    let plain = NLM_F_REQUEST | NLM_F_ACK;
    let link = |message| Order {
        message: RouteNetlinkMessage::SetLink(message),
        flags: plain,
        tolerated: &[],
    };
    let new_address = |message| Order {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: plain | NLM_F_CREATE | NLM_F_REPLACE,
        tolerated: &[],
    };
    Some(match change {
        Change::Shape(mtu) => link(shape(if_index, *mtu)),
        Change::Mtu(mtu) => {
            let mut message = of_link(if_index);
            message.attributes.push(LinkAttribute::Mtu(u32::from(*mtu)));
            link(message)
        }
        Change::Up | Change::Down => {
            let mut message = of_link(if_index);
            message.header.change_mask = LinkFlags::Up;
            if *change == Change::Up {
                message.header.flags = LinkFlags::Up;
            }
            link(message)
        }
        Change::LinkLocal(locator) => new_address(link_local(if_index, iid::link_local(*locator))),
        Change::Address(change) => new_address(address(if_index, change)),
        Change::RemoveAddress(addr, prefix_len) => {
            let mut message = link_local(if_index, *addr);
            message.header.prefix_len = *prefix_len;
            Order {
                message: RouteNetlinkMessage::DelAddress(message),
                flags: plain,
                tolerated: &[nix::libc::EADDRNOTAVAIL],
            }
        }
        Change::Route(id, expires) => {
            let mut message = route(if_index, id);
            message.attributes.extend(expires.map(RouteAttribute::Expires));
            Order {
                message: RouteNetlinkMessage::NewRoute(message),
                // Never NLM_F_REPLACE: it replaces all routes of the same prefix and metric, through whatever router.
                flags: plain | NLM_F_CREATE | NLM_F_APPEND,
                // A kernel that has exactly this one says so after having taken over the new end.
                tolerated: &[nix::libc::EEXIST],
            }
        }
        Change::RemoveRoute(id) => Order {
            message: RouteNetlinkMessage::DelRoute(route(if_index, id)),
            flags: plain,
            tolerated: &[nix::libc::ESRCH, nix::libc::ENODEV],
        },
        Change::Sysctls(_) | Change::HopLimit(_) | Change::Programs(_) => return None,
    })
}

/// The order that deletes the interface, whoever still holds one of its queues: a ring lets go of its files some time
/// after its process has ended, and until then the name would be taken.
pub fn deletion(if_index: u32) -> Order {
    Order {
        message: RouteNetlinkMessage::DelLink(of_link(if_index)),
        flags: NLM_F_REQUEST | NLM_F_ACK,
        tolerated: &[nix::libc::ENODEV],
    }
}

fn of_link(if_index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = if_index;
    message
}

fn shape(if_index: u32, mtu: u16) -> LinkMessage {
    let mut message = of_link(if_index);
    message.attributes.extend([
        LinkAttribute::Mtu(u32::from(mtu)),
        LinkAttribute::TxQueueLen(TX_QUEUE_LEN),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]),
    ]);
    message
}

fn link_local(if_index: u32, addr: Ipv6Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.index = if_index;
    message.header.prefix_len = LINK_LOCAL_PREFIX_LEN;
    message.header.scope = AddressScope::Link;
    message.header.flags = AddressHeaderFlags::Nodad | AddressHeaderFlags::Permanent;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::V6(addr)),
        AddressAttribute::Local(IpAddr::V6(addr)),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent),
    ];
    message
}

fn address(if_index: u32, change: &AddressChange) -> AddressMessage {
    // No prefix route: whether the prefix is on-link is another question (V8). No duplicate detection: the identifier
    // needs none and the link has no multicast (RFC 5214 6.1).
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = change.valid.max(1);
    lifetimes.ifa_preferred = change.preferred.min(lifetimes.ifa_valid);
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.index = if_index;
    message.header.prefix_len = change.prefix_len;
    message.header.scope = AddressScope::Universe;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::V6(change.addr)),
        AddressAttribute::Local(IpAddr::V6(change.addr)),
        AddressAttribute::Flags(flags),
        AddressAttribute::CacheInfo(lifetimes),
        AddressAttribute::Protocol(match change.origin {
            Origin::Advertised => AddressProtocol::RouterAnnouncement,
            Origin::Own => AddressProtocol::Other(OWN),
        }),
    ];
    message
}

fn route(if_index: u32, id: &RouteId) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = id.prefix.len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = match id.origin {
        Origin::Advertised => RouteProtocol::Ra,
        Origin::Own => RouteProtocol::Other(OWN),
    };
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(id.prefix.addr())),
        RouteAttribute::Oif(if_index),
        RouteAttribute::Priority(id.metric),
        RouteAttribute::Preference(preference(id.preference)),
    ];
    message.attributes.extend(
        id.via
            .map(|via| RouteAttribute::Gateway(RouteAddress::Inet6(via))),
    );
    message
}

fn preference(preference: i8) -> RoutePreference {
    match preference.signum() {
        -1 => RoutePreference::Low,
        1 => RoutePreference::High,
        _ => RoutePreference::Medium,
    }
}
