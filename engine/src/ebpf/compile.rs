//! From a Rulebook to what the maps hold: a pure function, so that a lane never knows another rule than the workers.
//!
//! What the Rulebook does not say and a program must know comes as [`Surroundings`]: a worker has the kernel's IPv4 find the
//! way of an outer packet, a program names the device itself.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::layout::{Config, Levels, Slot};
use super::numbers::{
    DSCP_INHERIT, FLAG_ALONE, FLAG_ANY_SEGMENTER, FLAG_ANY_SITE, FLAG_CARRY_IN, FLAG_CARRY_OUT,
    FLAG_LOOP_CHECKS, FLAG_NESTED, FLAG_OWNS_FOREIGN, FLAG_SEGMENTERS, FLAG_STRICT, GROUP_SLOTS, HOP_GROUP,
    HOP_NONE, HOP_ON_LINK, HOP_UNREACHABLE, HOP_VIA, MAX_LEVELS, MAX_LOCATORS, PEER_COMPAT, PEER_DYNAMIC,
    PREFIX_TABLES, TAG_BROADCAST, TAG_EGRESS, TAG_GROUP, TAG_GROUP_SLOT, TAG_MEMBER, TAG_OWN, TAG_OWN_6TO4,
    TAG_OWN_PREFIX, TAG_OWN_V4, TAG_PATH, TAG_PEER, TAG_ROUTE, TAG_ROUTER, TAG_SEGMENTER, TAG_SITE,
};
use super::table::Table;
use crate::fib::group::SLOTS;
use crate::fib::{HopGroup, Ipv4Prefix, MAX_LOCATORS as RULEBOOK_LOCATORS, NextHop, PeerPolicy, Rulebook};
use crate::isatap::SiteKnowledge;
use crate::isatap::ecn::EcnMode;
use crate::isatap::mtu::{PathMtu, PathMtuMode};
use crate::isatap::tos::{DscpPolicy, TtlPolicy};

/// Tables are named by their tags, in this order.
const _: () = assert!(TAG_ROUTE == 1 && TAG_SITE == 2 && TAG_PEER == 3 && TAG_EGRESS == PREFIX_TABLES);
const _: () = assert!(SLOTS == GROUP_SLOTS as usize && RULEBOOK_LOCATORS == MAX_LOCATORS as usize);

/// A network of next hops, and the Ethernet device that the kernel's IPv4 reaches it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The network; the longest that contains a next hop counts.
    pub network: Ipv4Prefix,
    /// The interface index; 0 for a network that is left to workers.
    pub device: u32,
    /// What the device takes, in bytes of IPv4 packet.
    pub mtu: u16,
    /// The gateway, which is the neighbour then; 0.0.0.0 where next hops are neighbours themselves, 255.255.255.255 where the
    /// kernel alone knows the neighbour.
    pub via: Ipv4Addr,
}

/// What a program must know besides the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Bytes of link header that packets from the TUN interface have: 0, and 14 where packets are tried out.
    pub link_len: u8,
    /// The programs carry packets from the IPv4 network: the TUN interface is up, and nobody captures.
    pub carry_in: bool,
    /// The programs carry packets from the TUN interface.
    pub carry_out: bool,
    /// Nobody else on this machine listens to protocol 41, so that what is refused may be dropped at once.
    pub alone: bool,
    /// IPv4 addresses of this machine, locators or not: nobody else sends from one, and the kernel's IPv4 sees to that before a worker
    /// reads a packet.
    pub own_v4: Vec<Ipv4Addr>,
    /// The ways to next hops.
    pub egress: Vec<Egress>,
    /// Devices that superpackets out of the tunnel must not be forwarded to as they are.
    pub segmenters: Segmenters,
}

/// Devices that cut superpackets of IPv4 tunnels themselves (`tx-ipxip4-segmentation`), by interface index. What GRO has merged
/// stays marked as tunnelled when its header is taken off, and such a device looks for the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segmenters {
    /// These.
    Known(Vec<u32>),
    /// Any may be one.
    Unknown,
}

impl Default for Segmenters {
    fn default() -> Self {
        Self::Known(Vec::new())
    }
}

impl Surroundings {
    /// The way to a next hop: that of the longest network that contains it, of two the later one. `None` when a worker
    /// has to find it.
    pub fn way_to(&self, hop: Ipv4Addr) -> Option<&Egress> {
        let ways = self.egress.iter();
        ways.filter(|way| way.network.contains(hop))
            .max_by_key(|way| way.network.len())
            .filter(|way| way.device != 0)
    }
}

/// One generation, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The fixed part; where its half of the table begins is the writer's to fill in.
    pub config: Config,
    /// The table.
    pub table: Table,
    /// Bytes of link header that packets of the TUN interface have.
    pub link_len: u8,
}

/// Why a Rulebook is not for the programs. Packets are left to the workers then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too many different prefix lengths.
    #[error("{count} prefix lengths among the {what}: the ebpf lane takes {most}")]
    Levels {
        /// Which table.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// Too many entries.
    #[error("{entries} routes, routers, networks and paths do not fit the {slots} places of the ebpf lane")]
    Entries {
        /// How many there are.
        entries: usize,
        /// How many slots there are; a quarter may be used.
        slots: usize,
    },
}

/// Compiles a Rulebook for tables of `slots` entries per generation. `seed` is a random number that nobody outside knows.
///
/// # Errors
/// [`Unfit`] names what is too much; [`leave_all`] is the answer.
pub fn compile(
    rules: &Rulebook,
    surroundings: &Surroundings,
    slots: usize,
    seed: u64,
) -> Result<Image, Unfit> {
    let mut entries = Entries::default();
    let mut config = fixed(rules, surroundings);

    let routes = rules.routes().map(|(prefix, hop)| {
        let (kind, value) = hop_numbers(Some(hop));
        let bits = halves(prefix.addr().to_bits());
        (prefix.len(), bits, [value, kind, 0])
    });
    let routes = entries.prefixes(TAG_ROUTE, routes, "routes")?;
    let v4 = |network: Ipv4Prefix, values| {
        let bits = (u64::from(network.addr().to_bits()) << 32, 0);
        (network.len(), bits, values)
    };
    let site = rules
        .site()
        .into_iter()
        .flatten()
        .map(|network| v4(network, [0; 3]));
    let site = entries.prefixes(TAG_SITE, site, "site networks")?;
    let (policies, _) = rules.peer_policies();
    let policies = policies.map(|(network, policy)| v4(network, [peer_flags(policy), 0, 0]));
    let policies = entries.prefixes(TAG_PEER, policies, "networks with a policy")?;
    let ways = surroundings
        .egress
        .iter()
        .map(|way| v4(way.network, [way.device, u32::from(way.mtu), way.via.to_bits()]));
    let ways = entries.prefixes(TAG_EGRESS, ways, "IPv4 routes")?;
    config.levels = [routes, site, policies, ways];

    entries.sets(rules);
    for addr in &surroundings.own_v4 {
        entries.add_v4(TAG_OWN_V4, *addr, 0);
    }
    if let Segmenters::Known(devices) = &surroundings.segmenters {
        for device in devices {
            entries.add(TAG_SEGMENTER, (u64::from(*device), 0), [0; 3]);
        }
    }
    for (number, group) in (0u32..).zip(rules.groups()) {
        entries.group(rules, number, group);
    }
    let table = Table::new(&entries.0, slots, seed).ok_or(Unfit::Entries {
        entries: entries.0.len(),
        slots,
    })?;
    Ok(image(config, table, surroundings.link_len))
}

/// The generation in which every packet is left to the workers.
pub fn leave_all() -> Image {
    // A table without entries fits anywhere.
    let table = Table::new(&[], usize::MAX, 0).unwrap_or_else(|| unreachable!("an empty table"));
    image(Config::EMPTY, table, 0)
}

fn image(mut config: Config, table: Table, link_len: u8) -> Image {
    config.key = table.key();
    config.mask = u32::try_from(table.slots().len() - 1).unwrap_or(0);
    Image {
        config,
        table,
        link_len,
    }
}

fn fixed(rules: &Rulebook, surroundings: &Surroundings) -> Config {
    let tunnel = rules.tunnel();
    let (_, peers) = rules.peer_policies();
    let (_, other_paths) = rules.paths();
    let (default_kind, default_hop) = hop_numbers(rules.default_hop());
    let flags = [
        (FLAG_CARRY_IN, surroundings.carry_in),
        (FLAG_CARRY_OUT, surroundings.carry_out),
        (FLAG_ALONE, surroundings.alone),
        (FLAG_ANY_SITE, rules.site().is_none()),
        (FLAG_OWNS_FOREIGN, rules.owns_foreign()),
        (FLAG_STRICT, tunnel.strict_ingress),
        (FLAG_NESTED, tunnel.nested),
        (FLAG_LOOP_CHECKS, tunnel.loop_checks),
        (FLAG_SEGMENTERS, surroundings.segmenters != Segmenters::default()),
        (FLAG_ANY_SEGMENTER, surroundings.segmenters == Segmenters::Unknown),
    ];
    let mut config = Config {
        flags: flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum(),
        mtu: u32::from(tunnel.mtu.tunnel_mtu()),
        ttl: match tunnel.ttl {
            TtlPolicy::Inherit => 0,
            // A fixed 0 is sent as 1 (`tos::outer_ttl`).
            TtlPolicy::Fixed(ttl) => u32::from(ttl.max(1)),
        },
        dscp: match tunnel.dscp {
            DscpPolicy::Inherit => DSCP_INHERIT,
            DscpPolicy::Fixed(dscp) => u32::from(dscp << 2),
        },
        peers: peer_flags(peers),
        other_paths: path_number(other_paths),
        default_kind,
        default_hop,
        locator_count: u32::try_from(rules.locators().len()).unwrap_or(0),
        mark: tunnel.mark.secret(),
        ..Config::EMPTY
    };
    for (place, locator) in config.locators.iter_mut().zip(rules.locators()) {
        (place.addr, place.device) = (locator.addr.to_bits(), locator.if_index);
    }
    config
}

/// What goes into the table.
#[derive(Debug, Default)]
struct Entries(Vec<Slot>);

impl Entries {
    fn add(&mut self, tag: u32, (high, low): (u64, u64), [value, extra, more]: [u32; 3]) {
        self.0.push(Slot {
            high,
            low,
            tag,
            value,
            extra,
            more,
        });
    }

    fn add_v4(&mut self, tag: u32, addr: Ipv4Addr, value: u32) {
        self.add(tag, (u64::from(addr.to_bits()), 0), [value, 0, 0]);
    }

    /// Adds prefixes as length, bits, and what is found; says which lengths there are.
    ///
    /// # Errors
    /// More different ones than a look-up tries.
    fn prefixes(
        &mut self,
        tag: u32,
        prefixes: impl Iterator<Item = (u8, (u64, u64), [u32; 3])>,
        what: &'static str,
    ) -> Result<Levels, Unfit> {
        let mut lens = BTreeSet::new();
        for (len, bits, values) in prefixes {
            lens.insert(len);
            self.add(tag | u32::from(len) << 8, bits, values);
        }
        let (count, most) = (lens.len(), MAX_LEVELS as usize);
        if count > most {
            return Err(Unfit::Levels { what, count, most });
        }
        let mut levels = Levels::NONE;
        // Longest first.
        for (place, len) in levels.lens.iter_mut().zip(lens.iter().rev()) {
            (*place, levels.count) = (*len, levels.count + 1);
        }
        Ok(levels)
    }

    fn sets(&mut self, rules: &Rulebook) {
        for addr in rules.own_addresses() {
            self.add(TAG_OWN, halves(addr.to_bits()), [0; 3]);
        }
        for bits in rules.own_prefixes() {
            self.add(TAG_OWN_PREFIX, (bits, 0), [0; 3]);
        }
        for addr in rules.all_routers() {
            self.add_v4(TAG_ROUTER, addr, 0);
        }
        for addr in rules.broadcasts() {
            self.add_v4(TAG_BROADCAST, *addr, 0);
        }
        for addr in rules.own_6to4() {
            self.add_v4(TAG_OWN_6TO4, *addr, 0);
        }
        for (addr, path) in rules.paths().0 {
            self.add_v4(TAG_PATH, addr, path_number(path));
        }
    }

    fn group(&mut self, rules: &Rulebook, number: u32, group: &HopGroup) {
        let key = u64::from(number);
        if group.active().iter().any(|member| rules.is_router(*member)) {
            self.add(TAG_GROUP, (key, 0), [0; 3]);
        }
        for (slot, hop) in (0u64..).zip(group.slots()) {
            self.add(TAG_GROUP_SLOT, (key, slot), [hop.to_bits(), 0, 0]);
        }
        for member in group.members() {
            self.add(TAG_MEMBER, (key, u64::from(member.to_bits())), [0; 3]);
        }
    }
}

fn hop_numbers(hop: Option<NextHop>) -> (u32, u32) {
    match hop {
        None => (HOP_NONE, 0),
        Some(NextHop::OnLink) => (HOP_ON_LINK, 0),
        Some(NextHop::Via(gateway)) => (HOP_VIA, gateway.to_bits()),
        Some(NextHop::Group(number)) => (HOP_GROUP, u32::from(number)),
        Some(NextHop::Unreachable) => (HOP_UNREACHABLE, 0),
    }
}

fn peer_flags(policy: PeerPolicy) -> u32 {
    let dynamic = match policy.path_mtu {
        PathMtuMode::Static => 0,
        PathMtuMode::Dynamic => PEER_DYNAMIC,
    };
    let compat = match policy.ecn {
        EcnMode::Normal => 0,
        EcnMode::Compat => PEER_COMPAT,
    };
    dynamic | compat
}

fn path_number(path: PathMtu) -> u32 {
    u32::from(path.path()) << 16 | u32::from(path.link())
}

fn halves(bits: u128) -> (u64, u64) {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    (half(bits >> 64), half(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::{Ipv6Prefix, RulebookBuilder};

    fn network(text: &str) -> Ipv4Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn lengths_go_from_long_to_short() {
        let rules = RulebookBuilder {
            routes: ["::/0", "2001:db8::/32", "2001:db8::1/128"]
                .map(|text| (text.parse().unwrap(), NextHop::Unreachable))
                .into(),
            site: vec![network("10.0.0.0/8"), network("192.168.7.0/24")],
            ..RulebookBuilder::default()
        }
        .build()
        .unwrap();
        let image = compile(&rules, &Surroundings::default(), 1024, 1).unwrap();
        let [routes, site, policies, ways] = image.config.levels;
        assert_eq!((routes.count, &routes.lens[..5]), (4, &[128, 64, 32, 0, 0][..]));
        assert_eq!((site.count, &site.lens[..2]), (2, &[24, 8][..]));
        assert_eq!((policies, ways), (Levels::NONE, Levels::NONE));
        let default = image.table.get(TAG_ROUTE, 0, 0).unwrap();
        assert_eq!(default.extra, HOP_UNREACHABLE);
        let site = image.table.get(TAG_SITE | 8 << 8, 10 << 56, 0);
        assert!(site.is_some());
    }

    #[test]
    fn what_is_too_much_is_named() {
        let routes = (0..100).map(|len| {
            let prefix = Ipv6Prefix::containing("2001:db8::".parse().unwrap(), len).unwrap();
            (prefix, NextHop::OnLink)
        });
        let parts = RulebookBuilder {
            routes: routes.collect(),
            ..RulebookBuilder::default()
        };
        let rules = parts.build().unwrap();
        let refused = compile(&rules, &Surroundings::default(), 1 << 16, 1);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "100 prefix lengths among the routes: the ebpf lane takes 64"
        );
        let own6 = (0..100).map(|n| n.to_string().parse::<u128>().unwrap());
        let parts = RulebookBuilder {
            own6: own6.map(std::net::Ipv6Addr::from_bits).collect(),
            ..RulebookBuilder::default()
        };
        let refused = compile(&parts.build().unwrap(), &Surroundings::default(), 64, 1);
        assert!(matches!(
            refused,
            Err(Unfit::Entries {
                entries: 101,
                slots: 64
            })
        ));
    }

    #[test]
    fn nothing_is_carried_until_somebody_says_so() {
        let rules = RulebookBuilder::default().build().unwrap();
        let image = compile(&rules, &Surroundings::default(), 64, 1).unwrap();
        let carry = FLAG_CARRY_IN | FLAG_CARRY_OUT;
        assert_eq!(image.config.flags & carry, 0);
        assert_eq!(leave_all().config.flags, 0);
    }
}
