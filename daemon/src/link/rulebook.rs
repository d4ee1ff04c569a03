//! From the mirror, the configuration and the routers' health to what the engine needs to know. Pure.

use std::net::Ipv4Addr;

use isatap_engine::fib::{Ipv4Prefix, Locator, NextHop, PeerPolicy, Role, RulebookBuilder};
use isatap_engine::isatap::mark::Mark;

use super::MirrorState;
use super::next_hops::{Choices, Hop};
use crate::config::resolved::{Settings, SiteNetworks};
use crate::prl::{Health, RouterView};

/// What `SiteNetwork private` stands for, besides the connected networks: RFC 1918, RFC 6598, RFC 3927.
const PRIVATE: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
];

/// The loopback device has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// Everything the engine is to know now. `locators` are the addresses in force, the preferred one first; without one on
/// the machine the Rulebook has no locator and nothing is carried.
pub fn compile(
    state: &MirrorState,
    settings: &Settings,
    locators: &[Ipv4Addr],
    routers: &[RouterView],
) -> RulebookBuilder {
    let preferred = locators.first().copied();
    let mut choices = state.routes(preferred.unwrap_or(Ipv4Addr::UNSPECIFIED), is_reachable(routers));
    let default_hop = default_hop(settings, routers, &mut choices);
    let locators = locators.iter().filter_map(|addr| {
        Some(Locator {
            addr: *addr,
            if_index: arrival(state.device_of(*addr)?),
        })
    });
    RulebookBuilder {
        role: settings.role,
        locators: locators.collect(),
        own6: state.own6().map(|own| own.addr).collect(),
        prl: by_preference(routers),
        peer_routers: if settings.role == Role::Router {
            settings.peer_routers.clone()
        } else {
            Vec::new()
        },
        routes: choices.routes,
        groups: choices.groups,
        default_hop,
        advertises: settings.role == Role::Router && settings.advertise.on,
        connected: state.v4().map(|v4| v4.connected).collect(),
        site: site(state, &settings.site),
        any_site: settings.site.any,
        broadcasts: state.v4().filter_map(|v4| v4.broadcast).collect(),
        mtu: settings.mtu,
        ttl: settings.ttl,
        dscp: settings.dscp,
        peers: PeerPolicy {
            path_mtu: settings.path_mtu.everywhere,
            ecn: settings.ecn.everywhere,
        },
        peer_networks: peer_networks(settings),
        // What is learned about paths is added by control.
        paths: Vec::new(),
        link_mtu: preferred.map_or(u16::MAX, |addr| state.mtu_towards(addr)),
        mark: Mark::default(),
        strict_ingress: settings.strict_ingress,
        nested: settings.nested,
        loop_checks: settings.loop_checks,
        own_6to4: state.own_6to4().collect(),
    }
}

/// Whether other routers have this address, too: it is one of the loopback device, where anycast routers keep theirs.
pub fn is_shared(state: &MirrorState, addr: Ipv4Addr) -> bool {
    state.device_of(addr) == Some(LOOPBACK)
}

/// The device packets for an address must arrive on (RFC 5214 7.3): the one that has it; any for an address of the
/// loopback device, where anycast routers keep theirs.
fn arrival(device: u32) -> u32 {
    if device == LOOPBACK { 0 } else { device }
}

/// Which gateways get packets: those that answer, and those nothing is known of.
pub fn is_reachable(routers: &[RouterView]) -> impl Fn(Ipv4Addr) -> bool + '_ {
    |gateway| {
        let known = routers.iter().find(|router| router.addr == gateway);
        known.is_none_or(RouterView::is_reachable)
    }
}

/// How promising a router is as a default router: the smaller the better.
fn rank(router: &RouterView) -> u8 {
    match router.health {
        Health::Usable => 0,
        Health::Probing => 1,
        Health::Unknown => 2,
        Health::Unreachable => 3,
    }
}

/// The PRL with the routers that can carry packets first; the order of the configuration decides among equals.
fn by_preference(routers: &[RouterView]) -> Vec<Ipv4Addr> {
    let mut order: Vec<&RouterView> = routers.iter().collect();
    order.sort_by_key(|router| rank(router));
    order.into_iter().map(|router| router.addr).collect()
}

/// Where a host sends what no route covers: the most promising routers of the PRL, equals together (DESIGN D7, P15).
fn default_hop(settings: &Settings, routers: &[RouterView], choices: &mut Choices) -> Option<NextHop> {
    if settings.role == Role::Router {
        return None;
    }
    let best = routers.iter().map(rank).min()?;
    let hops: Vec<Hop> = routers
        .iter()
        .filter(|router| rank(router) == best)
        .map(|router| Hop {
            gateway: None,
            next: NextHop::Via(router.addr),
            preference: router.preference,
            weight: 1,
        })
        .collect();
    Some(choices.choose(&[&hops], &|_| true))
}

/// Each network that `PathMtu` or `Ecn` names, with what both say of it.
fn peer_networks(settings: &Settings) -> Vec<(Ipv4Prefix, PeerPolicy)> {
    let path_mtu = settings.path_mtu.networks.iter().map(|(network, _)| *network);
    let ecn = settings.ecn.networks.iter().map(|(network, _)| *network);
    let policy = |network| PeerPolicy {
        path_mtu: settings.path_mtu.within(network),
        ecn: settings.ecn.within(network),
    };
    path_mtu
        .chain(ecn)
        .map(|network| (network, policy(network)))
        .collect()
}

fn site(state: &MirrorState, site: &SiteNetworks) -> Vec<Ipv4Prefix> {
    let mut prefixes = site.list.clone();
    if site.private {
        prefixes.extend(
            PRIVATE
                .iter()
                .filter_map(|(addr, len)| Ipv4Prefix::containing(*addr, *len).ok()),
        );
        prefixes.extend(state.v4().map(|v4| v4.connected));
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loader;
    use crate::config::Overrides;
    use isatap_engine::isatap::SiteKnowledge as _;
    use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
    use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
    use std::time::Instant;

    use crate::prl::{Heard, Jitter, Routers, SolicitConfig};

    const US: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);
    const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];

    fn settings(lines: &str) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("isatapd.conf");
        std::fs::write(&file, format!("BindAddress {US}\n{lines}")).unwrap();
        Loader::open(Some(file), Overrides::default())
            .unwrap()
            .load()
            .unwrap()
            .settings
    }

    fn machine(device: u32) -> MirrorState {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = device;
        message.header.prefix_len = 24;
        message.attributes.push(AddressAttribute::Local(US.into()));
        MirrorState::from_dump(7, &[RouteNetlinkMessage::NewAddress(message)])
    }

    /// D2: packets must arrive on the device that has the address; an address of the loopback device has none.
    #[test]
    fn d2_the_locator_is_there_when_the_machine_has_it() {
        let settings = settings("");
        let locators = |state: &MirrorState| compile(state, &settings, &[US], &[]).locators;
        assert_eq!(
            locators(&machine(3)),
            [Locator {
                addr: US,
                if_index: 3
            }]
        );
        assert_eq!(
            locators(&machine(LOOPBACK)),
            [Locator {
                addr: US,
                if_index: 0
            }]
        );
        assert_eq!(locators(&MirrorState::new(7)), []);
    }

    #[test]
    fn private_means_private_and_connected() {
        let private = compile(&machine(3), &settings(""), &[US], &[]).build().unwrap();
        for inside in [
            "10.9.9.9",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.3.3",
            "198.51.100.77",
        ] {
            assert!(private.is_site_host(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["172.32.0.1", "100.128.0.1", "198.51.101.1", "8.8.8.8"] {
            assert!(!private.is_site_host(outside.parse().unwrap()), "{outside}");
        }
        let listed = compile(&machine(3), &settings("SiteNetwork 8.8.8.0/24\n"), &[US], &[])
            .build()
            .unwrap();
        assert!(listed.is_site_host("8.8.8.8".parse().unwrap()));
        assert!(!listed.is_site_host("10.9.9.9".parse().unwrap()));
        assert!(listed.is_broadcast("198.51.100.255".parse().unwrap()));
    }

    #[test]
    fn usable_routers_come_first() {
        let now = Instant::now();
        let mut routers = Routers::new(SolicitConfig::from_secs(120), [Jitter::new(1), Jitter::new(2)]);
        routers.set_routers(now, &ROUTERS);
        let host = settings("ServerAddress 203.0.113.1 203.0.113.2\n");
        let rules = |routers: &Routers| compile(&machine(3), &host, &[US], &routers.views());
        let unknown = rules(&routers);
        assert_eq!(unknown.prl, ROUTERS);
        assert_eq!(unknown.default_hop, Some(NextHop::Group(0)));
        assert_eq!(
            unknown.groups[0].active(),
            ROUTERS,
            "nothing tells them apart yet"
        );
        let heard = |router: usize, preference| Heard {
            source: isatap_engine::isatap::iid::link_local(ROUTERS[router]),
            router_lifetime: std::time::Duration::from_secs(1800),
            shortest_lifetime: None,
            preference,
            reachable_time: None,
            retrans_timer: None,
        };
        routers.advertised(now, ROUTERS[1], &heard(1, 0)).unwrap();
        let second = rules(&routers);
        assert_eq!(second.prl, [ROUTERS[1], ROUTERS[0]]);
        assert_eq!(second.default_hop, Some(NextHop::Via(ROUTERS[1])));
        routers.advertised(now, ROUTERS[0], &heard(0, 1)).unwrap();
        assert_eq!(
            rules(&routers).groups[0].active(),
            [ROUTERS[0]],
            "P13: the preferred one"
        );
    }
}
