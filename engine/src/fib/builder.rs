//! Collects what control knows and builds a Rulebook from it, refusing what would send packets astray.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{HopGroup, Ipv4Prefix, Ipv6Prefix, Rulebook};
use crate::isatap::classify;
use crate::isatap::ecn::EcnMode;
use crate::isatap::mark::Mark;
use crate::isatap::mtu::{self, PathMtu, PathMtuMode};
use crate::isatap::tos::{DscpPolicy, TtlPolicy};

/// How many locators one interface may have: they are compared one by one for every packet.
pub const MAX_LOCATORS: usize = 16;

/// What this node is on its ISATAP interface (RFC 5214 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes advertisements from the routers of the PRL.
    Host,
    /// Advertising ISATAP interface: accepts solicitations, never advertisements.
    #[default]
    Router,
}

/// An IPv4 address of this node that carries the tunnel (RFC 5214 3, "locator").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Locator {
    /// The address.
    pub addr: Ipv4Addr,
    /// The device it is configured on: packets for it must arrive there (RFC 5214 7.3). 0 accepts any device.
    pub if_index: u32,
}

/// Where packets of a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// On-link: to the IPv4 address in the destination's interface identifier.
    OnLink,
    /// To this IPv4 address, whatever the destination.
    Via(Ipv4Addr),
    /// To a member of this group of [`RulebookBuilder::groups`], by the hash of the flow.
    Group(u16),
    /// The route's gateway is no ISATAP address, or the route is a prohibition.
    Unreachable,
}

/// What may differ from one IPv4 network of peers to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    /// Whether paths are explored (RFC 4213 3.2).
    pub path_mtu: PathMtuMode,
    /// ECN towards the outer header (RFC 6040 4.1).
    pub ecn: EcnMode,
}

/// What a Rulebook is built from. Every field is public: control fills in what it knows.
#[derive(Clone, Debug)]
pub struct RulebookBuilder {
    /// Host or router.
    pub role: Role,
    /// Our locators, the preferred one first; empty while the machine has none.
    pub locators: Vec<Locator>,
    /// Every IPv6 address of the ISATAP interface.
    pub own6: Vec<Ipv6Addr>,
    /// The potential router list, in order of preference.
    pub prl: Vec<Ipv4Addr>,
    /// Other routers of the site (router role): accepted like PRL members, never used as a default.
    pub peer_routers: Vec<Ipv4Addr>,
    /// Routes of the interface; `fe80::/64` is on-link without being listed.
    pub routes: Vec<(Ipv6Prefix, NextHop)>,
    /// Equal next hops, by the number in [`NextHop::Group`].
    pub groups: Vec<HopGroup>,
    /// Where a host sends what no route covers (DESIGN D7): its default routers.
    pub default_hop: Option<NextHop>,
    /// Router role: control answers solicitations, and the kernel does not hear them.
    pub advertises: bool,
    /// The networks this machine is itself connected to.
    pub connected: Vec<Ipv4Prefix>,
    /// IPv4 prefixes whose hosts may use the tunnel.
    pub site: Vec<Ipv4Prefix>,
    /// Every IPv4 host may use the tunnel.
    pub any_site: bool,
    /// Directed broadcast addresses of the connected networks.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Tunnel MTU in bytes of inner packet, 1280..=65515.
    pub mtu: u16,
    /// Outer TTL.
    pub ttl: TtlPolicy,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// How peers are treated that are in no network of `peer_networks`.
    pub peers: PeerPolicy,
    /// How the peers in some networks are treated; the longest network that holds a peer decides.
    pub peer_networks: Vec<(Ipv4Prefix, PeerPolicy)>,
    /// What is known about the paths to some peers.
    pub paths: Vec<(Ipv4Addr, PathMtu)>,
    /// The MTU of the link that our packets leave by, in bytes of IPv4 packet; `u16::MAX` when it is not known.
    pub link_mtu: u16,
    /// Identifies our packets with DF when somebody quotes them.
    pub mark: Mark,
    /// An ISATAP source must be under an on-link prefix.
    pub strict_ingress: bool,
    /// Inner tunnel packets are carried.
    pub nested: bool,
    /// Packets that would go round between tunnels are dropped (RFC 6324).
    pub loop_checks: bool,
    /// IPv4 addresses whose 6to4 prefix this machine uses.
    pub own_6to4: Vec<Ipv4Addr>,
}

impl Default for RulebookBuilder {
    fn default() -> Self {
        Self {
            role: Role::Router,
            locators: Vec::new(),
            own6: Vec::new(),
            prl: Vec::new(),
            peer_routers: Vec::new(),
            routes: Vec::new(),
            groups: Vec::new(),
            default_hop: None,
            advertises: false,
            connected: Vec::new(),
            site: Vec::new(),
            any_site: false,
            broadcasts: Vec::new(),
            mtu: mtu::TUNNEL_MTU_DEFAULT,
            ttl: TtlPolicy::Fixed(64),
            dscp: DscpPolicy::Fixed(0),
            peers: PeerPolicy::default(),
            peer_networks: Vec::new(),
            paths: Vec::new(),
            link_mtu: u16::MAX,
            mark: Mark::default(),
            strict_ingress: true,
            nested: false,
            loop_checks: true,
            own_6to4: Vec::new(),
        }
    }
}

/// Why no Rulebook can be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Too many locators.
    #[error("{0} IPv4 addresses for one ISATAP interface: at most {MAX_LOCATORS} can be used")]
    TooManyLocators(usize),
    /// A locator, router or peer that no packet may be sent to.
    #[error("{role} {addr} cannot be used: no host can have this address")]
    Address {
        /// Which list it is in.
        role: &'static str,
        /// The address.
        addr: Ipv4Addr,
    },
    /// A route names a group that is not there.
    #[error("a route leads to next-hop group {0}, and there is none of that number")]
    Group(u16),
    /// The MTU is out of range.
    #[error("tunnel MTU {0} is outside {min}..={max}", min = mtu::TUNNEL_MTU_MIN, max = mtu::TUNNEL_MTU_MAX)]
    Mtu(u16),
}

impl RulebookBuilder {
    /// Builds the snapshot.
    ///
    /// # Errors
    /// [`BuildError`] names the value that cannot be used; nothing of the running Rulebook is touched.
    pub fn build(self) -> Result<Rulebook, BuildError> {
        if self.locators.len() > MAX_LOCATORS {
            return Err(BuildError::TooManyLocators(self.locators.len()));
        }
        let lists = [(
            "locator",
            self.locators.iter().map(|l| l.addr).collect::<Vec<_>>(),
        )]
        .into_iter()
        .chain([
            ("router", self.prl.clone()),
            ("peer router", self.peer_routers.clone()),
        ]);
        for (role, list) in lists {
            if let Some(addr) = list.into_iter().find(|addr| classify::invalid_next_hop(*addr)) {
                return Err(BuildError::Address { role, addr });
            }
        }
        let hops = self.routes.iter().map(|(_, hop)| hop).chain(&self.default_hop);
        for hop in hops {
            if let NextHop::Group(number) = hop
                && usize::from(*number) >= self.groups.len()
            {
                return Err(BuildError::Group(*number));
            }
        }
        if !(mtu::TUNNEL_MTU_MIN..=mtu::TUNNEL_MTU_MAX).contains(&self.mtu) {
            return Err(BuildError::Mtu(self.mtu));
        }
        Ok(Rulebook::assemble(self))
    }
}
