//! The site that packets are decided for: a router's Rulebook and a host's.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use isatap_engine::fib::{
    HopGroup, Ipv4Prefix, Ipv6Prefix, Locator, NextHop, Role, Rulebook, RulebookBuilder,
};
use isatap_engine::isatap::iid;
use isatap_engine::isatap::mtu::{PathMtu, PathMtuMode};

/// This machine.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// A router of the PRL.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);
/// A host that routes a network.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
/// The on-link prefix.
pub(crate) const ON_LINK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);

pub(crate) static RULES: LazyLock<[Rulebook; 2]> = LazyLock::new(|| [router(), host()]);

fn router() -> Rulebook {
    let mut parts = common(Role::Router);
    parts.advertises = true;
    parts.peers.path_mtu = PathMtuMode::Dynamic;
    parts.paths = vec![(Ipv4Addr::new(10, 0, 0, 2), PathMtu::of_path(1300))];
    parts.build().expect("a site that can be")
}

fn host() -> Rulebook {
    let mut parts = common(Role::Host);
    parts.default_hop = Some(NextHop::Via(ROUTER));
    parts.nested = true;
    parts.build().expect("a site that can be")
}

fn common(role: Role) -> RulebookBuilder {
    let prefix = |addr, len| Ipv6Prefix::containing(addr, len).expect("a length that can be");
    let behind = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 0);
    let shared = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0);
    RulebookBuilder {
        role,
        locators: vec![Locator {
            addr: OWN,
            if_index: 0,
        }],
        own6: vec![iid::link_local(OWN), iid::address(&ON_LINK, OWN)],
        prl: vec![ROUTER],
        routes: vec![
            (prefix(ON_LINK, 64), NextHop::OnLink),
            (prefix(behind, 48), NextHop::Via(GATEWAY)),
            (prefix(shared, 48), NextHop::Group(0)),
        ],
        groups: vec![HopGroup::new(OWN, &[(ROUTER, 1), (GATEWAY, 1)], &[]).expect("two members")],
        site: vec![Ipv4Prefix::containing(Ipv4Addr::new(10, 0, 0, 0), 8).expect("a length that can be")],
        broadcasts: vec![Ipv4Addr::new(10, 255, 255, 255)],
        ..RulebookBuilder::default()
    }
}
