//! From the mirror, the configuration and the routers' health to what the engine needs to know. Pure.

use std::net::Ipv4Addr;

use isatap_engine::fib::{Ipv4Prefix, Locator, Role, RulebookBuilder};

use super::MirrorState;
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

/// Everything the engine is to know now. `locator` is the bind address in force; without it on the machine the
/// Rulebook has no locator and nothing is carried.
pub fn compile(
    state: &MirrorState,
    settings: &Settings,
    locator: Ipv4Addr,
    routers: &[RouterView],
) -> RulebookBuilder {
    let usable = |gateway: Ipv4Addr| {
        !routers
            .iter()
            .any(|router| router.addr == gateway && router.health == Health::Unreachable)
    };
    let locators = state.device_of(locator).map(|device| Locator {
        addr: locator,
        if_index: arrival(device),
    });
    RulebookBuilder {
        role: settings.role,
        locators: locators.into_iter().collect(),
        own6: state.own6().map(|own| own.addr).collect(),
        prl: by_preference(routers),
        peer_routers: if settings.role == Role::Router {
            settings.peer_routers.clone()
        } else {
            Vec::new()
        },
        routes: state.routes(usable),
        site: site(state, &settings.site),
        any_site: settings.site.any,
        broadcasts: state.v4().filter_map(|v4| v4.broadcast).collect(),
        mtu: settings.mtu,
        ttl: settings.ttl,
        dscp: settings.dscp,
        ecn: settings.ecn,
        strict_ingress: settings.strict_ingress,
        nested: settings.nested,
    }
}

/// The device packets for an address must arrive on (RFC 5214 7.3): the one that has it; any for an address of the
/// loopback device, where anycast routers keep theirs.
fn arrival(device: u32) -> u32 {
    if device == LOOPBACK { 0 } else { device }
}

/// The PRL with the routers that can carry packets first; the order of the configuration decides among equals.
fn by_preference(routers: &[RouterView]) -> Vec<Ipv4Addr> {
    let rank = |health| match health {
        Health::Usable => 0,
        Health::Probing => 1,
        Health::Unknown => 2,
        Health::Unreachable => 3,
    };
    let mut order: Vec<&RouterView> = routers.iter().collect();
    order.sort_by_key(|router| rank(router.health));
    order.into_iter().map(|router| router.addr).collect()
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
