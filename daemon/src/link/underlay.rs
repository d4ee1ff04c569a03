//! Which device the kernel's IPv4 takes to each network: for programs that have to name the device of an outer packet
//! themselves (`isatap_engine::ebpf::Egress`). Pure, from one dump.
//!
//! Whatever is not plain (several gateways, tunnels below the tunnel, devices other than Ethernet, routes by TOS) gets no
//! device: packets for it are left to the workers, for which the kernel finds the way as always. What would take the kernel's
//! own rules to get right makes the whole dump unusable, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use isatap_engine::ebpf::Egress;
use isatap_engine::fib::Ipv4Prefix;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

/// Networks that are worth a place in the programs' tables; a machine with more has a routing table to be asked.
pub const MAX_NETWORKS: usize = 4096;

/// Tables of the three rules that every machine has (linux/rtnetlink.h), with the preferences of the rules.
const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;
const USUAL_RULES: [(u32, u32); 3] = [(0, LOCAL), (32_766, MAIN), (32_767, DEFAULT)];

/// Why no way can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusual {
    /// There are other rules than the usual ones.
    #[error("IPv4 routing goes by other rules than the usual three (ip rule)")]
    Rules,
    /// A table is in use that nobody uses.
    #[error("there are IPv4 routes in the table default")]
    Tables,
    /// There are too many routes.
    #[error("{0} IPv4 networks: the ebpf lane takes {MAX_NETWORKS}")]
    Networks(usize),
}

/// What a route says, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    metric: u32,
    /// 0: not for programs.
    device: u32,
    mtu: u16,
    /// As [`Egress::via`].
    via: Ipv4Addr,
}

/// The ways by a dump of links, IPv4 rules and IPv4 routes. `tunnel` is the ISATAP interface: nothing of ours goes there.
///
/// # Errors
/// [`Unusual`] says what makes the routes of this machine another matter than its main table.
pub fn ways(dump: &[RouteNetlinkMessage], tunnel: u32) -> Result<Vec<Egress>, Unusual> {
    let rules = dump.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRule(rule) if rule.header.family == AddressFamily::Inet => Some(rule),
        _ => None,
    });
    if !are_usual(rules) {
        return Err(Unusual::Rules);
    }
    let devices = devices(dump, tunnel);
    let mut local = Vec::new();
    let mut main: BTreeMap<Ipv4Prefix, Way> = BTreeMap::new();
    let mut by_tos = BTreeSet::new();
    for message in dump {
        let RouteNetlinkMessage::NewRoute(route) = message else {
            continue;
        };
        let Some(network) = network(route) else { continue };
        match table(route) {
            DEFAULT => return Err(Unusual::Tables),
            LOCAL => local.push(network),
            MAIN => {
                if route.header.tos != 0 {
                    by_tos.insert(network);
                }
                let way = way(route, &devices);
                main.entry(network)
                    .and_modify(|before| *before = preferred(*before, way))
                    .or_insert(way);
            }
            // No rule leads there.
            _ => {}
        }
    }
    // The table local is asked first, whatever the lengths: what is in it is ourselves, or for everybody.
    main.retain(|network, _| {
        let covers = |own: &Ipv4Prefix| own.len() <= network.len() && own.contains(network.addr());
        !local.iter().any(covers)
    });
    let nowhere = local.into_iter().map(|network| Egress {
        network,
        device: 0,
        mtu: u16::MAX,
        via: Ipv4Addr::UNSPECIFIED,
    });
    // A route for one TOS goes before all others of its network, for the packets that have it.
    let ways = main.into_iter().map(|(network, way)| {
        let device = if by_tos.contains(&network) { 0 } else { way.device };
        let Way { mtu, via, .. } = way;
        Egress {
            network,
            device,
            mtu,
            via,
        }
    });
    let all: Vec<_> = ways.chain(nowhere).collect();
    if all.len() > MAX_NETWORKS {
        return Err(Unusual::Networks(all.len()));
    }
    Ok(all)
}

/// Whether there are the usual rules, each unconditional, and no others.
fn are_usual<'a>(rules: impl Iterator<Item = &'a RuleMessage>) -> bool {
    let mut found: Vec<_> = rules.map(unconditional).collect();
    found.sort_unstable();
    found == USUAL_RULES.map(Some)
}

/// Preference and table of a rule that holds for every packet.
fn unconditional(rule: &RuleMessage) -> Option<(u32, u32)> {
    let header = &rule.header;
    if header.action != RuleAction::ToTable || (header.dst_len, header.src_len, header.tos) != (0, 0, 0) {
        return None;
    }
    let (mut preference, mut table) = (0, u32::from(header.table));
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => preference = *number,
            RuleAttribute::Table(number) => table = *number,
            // All ones: nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Protocol(_) => {}
            _ => return None,
        }
    }
    Some((preference, table))
}

/// A device that programs can be attached to and send by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Its name.
    pub name: String,
    /// Its link address, where programs may hand it whole frames. A device that is a tunnel itself asks a packet for its route,
    /// and it would be that of the inner packet.
    pub link: Option<[u8; 6]>,
}

/// The devices that programs can be attached to and send by: Ethernet, and up. By interface index.
pub fn ethernet(dump: &[RouteNetlinkMessage], tunnel: u32) -> BTreeMap<u32, Ethernet> {
    let links = ethernet_links(dump, tunnel);
    let ethernet = |link| Ethernet {
        name: name_of(link),
        link: takes_frames(link).then(|| address_of(link)).flatten(),
    };
    links.map(|link| (link.header.index, ethernet(link))).collect()
}

/// Whether a device is of a kind that does nothing but pass frames on; those without a kind are hardware.
fn takes_frames(link: &LinkMessage) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let mut kinds = infos.flatten().filter_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    kinds.all(|kind| {
        use InfoKind::{Bond, Bridge, MacVlan, Team, Veth, Vlan};
        matches!(kind, Bond | Bridge | MacVlan | Team | Veth | Vlan)
    })
}

fn address_of(link: &LinkMessage) -> Option<[u8; 6]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

/// MTUs of the devices that programs can send by, by index.
fn devices(dump: &[RouteNetlinkMessage], tunnel: u32) -> BTreeMap<u32, u16> {
    let links = ethernet_links(dump, tunnel);
    links.map(|link| (link.header.index, mtu_of(link))).collect()
}

fn ethernet_links(dump: &[RouteNetlinkMessage], tunnel: u32) -> impl Iterator<Item = &LinkMessage> {
    let links = dump.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    links.filter(move |link| {
        link.header.link_layer_type == LinkLayerType::Ether
            && link.header.flags.contains(LinkFlags::Up)
            && link.header.index != tunnel
    })
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_else(|| link.header.index.to_string())
}

fn mtu_of(link: &LinkMessage) -> u16 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    // A device that does not say takes what every IPv4 link takes.
    u16::try_from(mtu.unwrap_or(68)).unwrap_or(u16::MAX)
}

fn network(route: &RouteMessage) -> Option<Ipv4Prefix> {
    if route.header.address_family != AddressFamily::Inet {
        return None;
    }
    let addr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(*addr),
        _ => None,
    });
    let len = route.header.destination_prefix_length;
    Ipv4Prefix::containing(addr.unwrap_or(Ipv4Addr::UNSPECIFIED), len).ok()
}

fn table(route: &RouteMessage) -> u32 {
    let number = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    number.unwrap_or_else(|| u32::from(route.header.table))
}

fn way(route: &RouteMessage, devices: &BTreeMap<u32, u16>) -> Way {
    let (mut metric, mut device, mut mtu, mut via) = (0, None, u16::MAX, Ipv4Addr::UNSPECIFIED);
    let bad = RouteFlags::Dead | RouteFlags::Linkdown;
    let mut is_plain = route.header.kind == RouteType::Unicast
        && (route.header.tos, route.header.source_prefix_length) == (0, 0)
        && !route.header.flags.intersects(bad);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    if let RouteMetric::Mtu(route_mtu) = metric {
                        mtu = mtu.min(u16::try_from(*route_mtu).unwrap_or(u16::MAX));
                    }
                }
            }
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = *gateway,
            // A gateway of IPv6 (RFC 5549), for one.
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => via = Ipv4Addr::BROADCAST,
            RouteAttribute::MultiPath(_) | RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
                is_plain = false;
            }
            _ => {}
        }
    }
    let known = device.and_then(|index| Some((index, *devices.get(&index)?)));
    match known {
        Some((device, device_mtu)) if is_plain => Way {
            metric,
            device,
            mtu: mtu.min(device_mtu),
            via,
        },
        _ => Way {
            metric,
            device: 0,
            mtu,
            via,
        },
    }
}

/// Of two routes to the same network the one with the lower metric; what the kernel decides otherwise is left to it.
fn preferred(one: Way, other: Way) -> Way {
    match one.metric.cmp(&other.metric) {
        std::cmp::Ordering::Less => one,
        std::cmp::Ordering::Greater => other,
        std::cmp::Ordering::Equal => Way { device: 0, ..one },
    }
}
