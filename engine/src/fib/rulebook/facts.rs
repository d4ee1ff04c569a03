//! All that a Rulebook says, one by one: for whoever keeps the same in another form.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Rulebook;
use crate::fib::{HopGroup, Ipv4Prefix, Ipv6Prefix, NextHop, PeerPolicy};
use crate::isatap::mtu::PathMtu;

impl Rulebook {
    /// The routes, `fe80::/64` among them, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (Ipv6Prefix, NextHop)> {
        self.routes.iter_v6()
    }

    /// Where a host sends what no route covers.
    pub fn default_hop(&self) -> Option<NextHop> {
        self.default_hop
    }

    /// The groups of equal next hops, by their number.
    pub fn groups(&self) -> &[HopGroup] {
        &self.groups
    }

    /// Every IPv6 address of the interface.
    pub fn own_addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.own6.iter().map(|(bits, ())| Ipv6Addr::from_bits(bits))
    }

    /// First halves of those of them that are in ISATAP's format.
    pub fn own_prefixes(&self) -> impl Iterator<Item = u64> {
        self.own_prefixes.iter().map(|(bits, ())| bits)
    }

    /// Routers of the PRL, and peer routers.
    pub fn all_routers(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.routers.iter().map(|(bits, ())| Ipv4Addr::from_bits(bits))
    }

    /// Networks whose hosts may use the tunnel; `None`: all may.
    pub fn site(&self) -> Option<impl Iterator<Item = Ipv4Prefix>> {
        (!self.any_site).then(|| self.site.iter_v4().map(|(prefix, ())| prefix))
    }

    /// Directed broadcast addresses of the connected networks.
    pub fn broadcasts(&self) -> &[Ipv4Addr] {
        &self.broadcasts
    }

    /// IPv4 addresses whose 6to4 prefix this machine uses.
    pub fn own_6to4(&self) -> &[Ipv4Addr] {
        &self.own_6to4
    }

    /// How peers in some networks are treated, and those in no such network.
    pub fn peer_policies(&self) -> (impl Iterator<Item = (Ipv4Prefix, PeerPolicy)>, PeerPolicy) {
        (self.peer_networks.iter_v4(), self.peers)
    }

    /// What is known of the paths to some peers, and to all others.
    pub fn paths(&self) -> (impl Iterator<Item = (Ipv4Addr, PathMtu)>, PathMtu) {
        let known = self
            .paths
            .iter()
            .map(|(bits, path)| (Ipv4Addr::from_bits(bits), path));
        (known, self.other_paths)
    }
}
