//! What the kernel knows about the ISATAP interface and the machine's IPv4 addresses, kept message by message.
//!
//! Pure: rtnetlink messages go in, an [`Effect`] comes out. A notification that does not say enough (a replaced
//! route, an interface that went down and took unannounced routes with it) asks for a fresh dump instead of a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{Ipv4Prefix, Ipv6Prefix};
use isatap_engine::isatap::iid;
use rtnetlink::packet_core::NLM_F_REPLACE;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::next_hops::{Choices, Hop};
use super::policy::{self, Sourced};
use super::route::{self, RouteKey};

/// What a message meant for the mirror; the larger one wins when several are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// None of our business, or nothing new.
    Nothing,
    /// The state changed.
    Changed,
    /// The state can only be known again by a dump.
    Resync,
    /// Our interface is gone.
    Gone,
}

/// The ISATAP interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Administratively up.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// One IPv4 address of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4Address {
    /// The address.
    pub addr: Ipv4Addr,
    /// The device that has it.
    pub if_index: u32,
    /// The network behind it; of the peer's address on a point-to-point link.
    pub connected: Ipv4Prefix,
    /// Its directed broadcast address, where there is one.
    pub broadcast: Option<Ipv4Addr>,
}

/// One IPv6 address of the ISATAP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6Address {
    /// The address.
    pub addr: Ipv6Addr,
    /// Length of its prefix.
    pub prefix_len: u8,
    /// Whether it has no end, as one that an operator set.
    pub permanent: bool,
}

/// The mirror itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorState {
    if_index: u32,
    link: Option<LinkState>,
    own6: BTreeMap<Ipv6Addr, V6Address>,
    /// Addresses under 6to4 prefixes (2002::/16), by device.
    sixtofour: BTreeSet<(u32, Ipv6Addr)>,
    routes: BTreeMap<RouteKey, Vec<Hop>>,
    sourced: Sourced,
    v4: BTreeMap<(u32, Ipv4Addr, u8), V4Address>,
    /// Locators of other ISATAP interfaces, by device: their link-local addresses tell.
    others: BTreeSet<(u32, Ipv4Addr)>,
    /// MTUs of the machine's other devices, as far as heard of.
    mtus: BTreeMap<u32, u32>,
    /// What devices are called, ours among them.
    names: BTreeMap<u32, String>,
}

impl MirrorState {
    /// An empty mirror of the interface with this index.
    pub fn new(if_index: u32) -> Self {
        Self {
            if_index,
            link: None,
            own6: BTreeMap::new(),
            sixtofour: BTreeSet::new(),
            routes: BTreeMap::new(),
            sourced: Sourced::default(),
            v4: BTreeMap::new(),
            others: BTreeSet::new(),
            mtus: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// A mirror filled from a dump.
    pub fn from_dump<'a>(if_index: u32, dump: impl IntoIterator<Item = &'a RouteNetlinkMessage>) -> Self {
        let mut state = Self::new(if_index);
        for message in dump {
            state.apply(0, message);
        }
        state
    }

    /// Takes one message with the flags of its netlink header.
    pub fn apply(&mut self, flags: u16, message: &RouteNetlinkMessage) -> Effect {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.new_link(link),
            RouteNetlinkMessage::DelLink(link) => self.del_link(link),
            RouteNetlinkMessage::NewAddress(address) => self.new_address(address),
            RouteNetlinkMessage::DelAddress(address) => self.del_address(address),
            RouteNetlinkMessage::NewRoute(route) => self.new_route(flags, route),
            RouteNetlinkMessage::DelRoute(route) => self.del_route(route),
            _ => Effect::Nothing,
        }
    }

    /// The interface mirrored.
    pub fn if_index(&self) -> u32 {
        self.if_index
    }

    /// The interface's state; `None` before the first message about it.
    pub fn link(&self) -> Option<LinkState> {
        self.link
    }

    /// What the interface is called; `None` before the first message about it.
    pub fn name(&self) -> Option<&str> {
        self.names.get(&self.if_index).map(String::as_str)
    }

    /// Whether the interface is up.
    pub fn is_up(&self) -> bool {
        self.link.is_some_and(|link| link.up)
    }

    /// Every IPv6 address of the interface.
    pub fn own6(&self) -> impl Iterator<Item = V6Address> + '_ {
        self.own6.values().copied()
    }

    /// Whether the interface has this address.
    pub fn has_own6(&self, addr: Ipv6Addr) -> bool {
        self.own6.contains_key(&addr)
    }

    /// IPv4 addresses whose 6to4 prefix is in use on this machine (RFC 3056 2).
    pub fn own_6to4(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.sixtofour.iter().map(|(_, addr)| {
            let [_, _, a, b, c, d, ..] = addr.octets();
            Ipv4Addr::new(a, b, c, d)
        })
    }

    /// Every IPv4 address of the machine, loopback aside.
    pub fn v4(&self) -> impl Iterator<Item = V4Address> + '_ {
        self.v4.values().copied().filter(|v4| !v4.addr.is_loopback())
    }

    /// The device that has this IPv4 address.
    pub fn device_of(&self, addr: Ipv4Addr) -> Option<u32> {
        self.v4.values().find(|v4| v4.addr == addr).map(|v4| v4.if_index)
    }

    /// Other ISATAP interfaces with one of these locators, by name.
    pub fn also_at(&self, locators: &[Ipv4Addr]) -> BTreeSet<&str> {
        let shared = self
            .others
            .iter()
            .filter(|(_, locator)| locators.contains(locator));
        let name = |(device, _): &(u32, Ipv4Addr)| self.names.get(device).map_or("?", String::as_str);
        shared.map(name).collect()
    }

    /// The MTU of each other device in bytes, by interface index.
    pub fn mtus(&self) -> &BTreeMap<u32, u32> {
        &self.mtus
    }

    /// The MTU that another device has until this message, if that ends with it.
    pub fn mtu_ended_by(&self, message: &RouteNetlinkMessage) -> Option<u32> {
        let (RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) = message else {
            return None;
        };
        if link.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let until_now = self.mtus.get(&link.header.index).copied()?;
        let stays = matches!(message, RouteNetlinkMessage::NewLink(_))
            && mtu_of(link).is_none_or(|from_now| from_now == until_now);
        (!stays).then_some(until_now)
    }

    /// The MTU of the device that has this IPv4 address, in bytes; `u16::MAX` when it is not known, or larger.
    pub fn mtu_towards(&self, addr: Ipv4Addr) -> u16 {
        let mtu = self.device_of(addr).and_then(|device| self.mtus.get(&device));
        mtu.and_then(|mtu| u16::try_from(*mtu).ok()).unwrap_or(u16::MAX)
    }

    /// Whether the main table has this route, whoever set it.
    pub fn has_route(&self, prefix: Ipv6Prefix, metric: u32, gateway: Option<Ipv6Addr>) -> bool {
        let key = RouteKey {
            prefix,
            not_main: false,
            table: u32::from(RouteHeader::RT_TABLE_MAIN),
            metric,
        };
        let hops = self.routes.get(&key);
        hops.is_some_and(|hops| hops.iter().any(|hop| hop.gateway == gateway))
    }

    /// The IPv6 address of the interface that is this one.
    pub fn own6_entry(&self, addr: Ipv6Addr) -> Option<V6Address> {
        self.own6.get(&addr).copied()
    }

    /// How many prefixes there are routes for.
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// What somebody may think of the interface's routes and is not so, in words.
    pub fn not_honoured(&self) -> Vec<String> {
        let with_gateway = |hops: &[Hop]| hops.iter().any(|hop| hop.gateway.is_some());
        let tables = self.routes.iter().filter(|(_, hops)| with_gateway(hops));
        policy::not_honoured(&self.sourced, tables.map(|(key, _)| key.table))
    }

    /// One next hop per prefix, given which gateways answer, at the host with this address.
    pub fn routes(&self, host: Ipv4Addr, reachable: impl Fn(Ipv4Addr) -> bool) -> Choices {
        let mut choices = Choices::at(host);
        let mut levels: Vec<&[Hop]> = Vec::new();
        let mut rest = self.routes.iter().peekable();
        while let Some((key, hops)) = rest.next() {
            levels.push(hops);
            if rest.peek().is_none_or(|(next, _)| next.prefix != key.prefix) {
                choices.add(key.prefix, &levels, &reachable);
                levels.clear();
            }
        }
        choices
    }

    fn new_link(&mut self, message: &LinkMessage) -> Effect {
        if message.header.interface_family != AddressFamily::Unspec {
            return Effect::Nothing;
        }
        let mtu = mtu_of(message);
        if message.header.index != self.if_index {
            return self.new_device(message, mtu);
        }
        let has_name = self.learn_name(message);
        let old = self.link.unwrap_or_default();
        let new = LinkState {
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: mtu.unwrap_or(old.mtu),
        };
        match self.link.replace(new) {
            Some(old) if old == new => changed(has_name),
            // The kernel may flush routes and addresses of an interface without a word for each
            // (net.ipv6.route.skip_notify_on_dev_down); IPv6 stops altogether below an MTU of 1280.
            Some(old) if old.up != new.up || (old.mtu < 1280) != (new.mtu < 1280) => Effect::Resync,
            _ => Effect::Changed,
        }
    }

    /// Another device of the machine: of interest for its MTU when it has an IPv4 address, for its name when it is another
    /// ISATAP interface.
    fn new_device(&mut self, message: &LinkMessage, mtu: Option<u32>) -> Effect {
        let device = message.header.index;
        let has_name = self.learn_name(message);
        let has_mtu = mtu.is_some_and(|mtu| self.mtus.insert(device, mtu) != Some(mtu));
        let is_ipv4 = || self.v4.keys().any(|(owner, ..)| *owner == device);
        let is_other = || self.others.iter().any(|(owner, _)| *owner == device);
        changed(has_mtu && is_ipv4() || has_name && is_other())
    }

    /// Whether the device is called otherwise than before.
    fn learn_name(&mut self, message: &LinkMessage) -> bool {
        let device = message.header.index;
        name_of(message).is_some_and(|name| {
            let is_news = self.names.get(&device).is_none_or(|known| known != name);
            if is_news {
                self.names.insert(device, name.to_owned());
            }
            is_news
        })
    }

    fn del_link(&mut self, message: &LinkMessage) -> Effect {
        // A bridge announces a port that left it by a DELLINK of family AF_BRIDGE: the interface lives on.
        let ours = message.header.index == self.if_index;
        if ours && message.header.interface_family == AddressFamily::Unspec {
            Effect::Gone
        } else {
            if message.header.interface_family == AddressFamily::Unspec {
                self.mtus.remove(&message.header.index);
                self.names.remove(&message.header.index);
            }
            Effect::Nothing
        }
    }

    fn new_address(&mut self, message: &AddressMessage) -> Effect {
        match message.header.family {
            AddressFamily::Inet => {
                let Some(address) = v4_address(message) else {
                    return Effect::Nothing;
                };
                let key = (address.if_index, address.addr, message.header.prefix_len);
                changed(self.v4.insert(key, address) != Some(address))
            }
            AddressFamily::Inet6 if message.header.index == self.if_index => {
                let Some(IpAddr::V6(addr)) = local_address(message) else {
                    return Effect::Nothing;
                };
                let flags = address_flags(message);
                if flags.contains(AddressFlags::Dadfailed) {
                    return changed(self.own6.remove(&addr).is_some());
                }
                let address = V6Address {
                    addr,
                    prefix_len: message.header.prefix_len,
                    permanent: flags.contains(AddressFlags::Permanent),
                };
                changed(self.own6.insert(addr, address) != Some(address))
            }
            AddressFamily::Inet6 => {
                let device = message.header.index;
                match (local_address(message), locator_of(message)) {
                    (_, Some(locator)) if !self.others.insert((device, locator)) => Effect::Nothing,
                    // Its name is what people know it by.
                    (_, Some(_)) if !self.names.contains_key(&device) => Effect::Resync,
                    (_, Some(_)) => Effect::Changed,
                    (Some(IpAddr::V6(addr)), _) if is_6to4(addr) => {
                        changed(self.sixtofour.insert((device, addr)))
                    }
                    _ => Effect::Nothing,
                }
            }
            _ => Effect::Nothing,
        }
    }

    fn del_address(&mut self, message: &AddressMessage) -> Effect {
        match (message.header.family, local_address(message)) {
            (AddressFamily::Inet, Some(IpAddr::V4(addr))) => {
                let key = (message.header.index, addr, message.header.prefix_len);
                changed(self.v4.remove(&key).is_some())
            }
            (AddressFamily::Inet6, Some(IpAddr::V6(addr))) if message.header.index == self.if_index => {
                changed(self.own6.remove(&addr).is_some())
            }
            (AddressFamily::Inet6, Some(IpAddr::V6(addr))) => {
                let device = message.header.index;
                changed(match locator_of(message) {
                    Some(locator) => self.others.remove(&(device, locator)),
                    None => self.sixtofour.remove(&(device, addr)),
                })
            }
            _ => Effect::Nothing,
        }
    }

    fn new_route(&mut self, flags: u16, message: &RouteMessage) -> Effect {
        let hops = route::hops(message, self.if_index);
        if !hops.is_empty() && self.sourced.apply(message, true) {
            return Effect::Changed;
        }
        let Some(key) = RouteKey::of(message) else {
            return Effect::Nothing;
        };
        if flags & NLM_F_REPLACE != 0 && (!hops.is_empty() || self.routes.contains_key(&key)) {
            // Which of several routes with this key was replaced, the message does not say; one that refuses packets takes the
            // place of one of ours as well.
            return Effect::Resync;
        }
        if hops.is_empty() {
            return Effect::Nothing;
        }
        let known = self.routes.entry(key).or_default();
        let mut effect = Effect::Nothing;
        for hop in hops {
            match known.iter_mut().find(|old| old.gateway == hop.gateway) {
                Some(old) if *old == hop => {}
                Some(old) => {
                    *old = hop;
                    effect = Effect::Changed;
                }
                None => {
                    known.push(hop);
                    effect = Effect::Changed;
                }
            }
        }
        effect
    }

    fn del_route(&mut self, message: &RouteMessage) -> Effect {
        let gone = route::hops(message, self.if_index);
        if !gone.is_empty() && self.sourced.apply(message, false) {
            return Effect::Changed;
        }
        let Some(key) = RouteKey::of(message) else {
            return Effect::Nothing;
        };
        let Some(known) = self.routes.get_mut(&key) else {
            return Effect::Nothing;
        };
        let before = known.len();
        known.retain(|old| gone.iter().all(|hop| hop.gateway != old.gateway));
        let after = known.len();
        if after == 0 {
            self.routes.remove(&key);
        }
        changed(after != before)
    }
}

/// The MTU that a message about a link names.
fn mtu_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The name of the device in a message about a link.
fn name_of(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The locator whose link-local address a message is about.
pub(super) fn locator_of(message: &AddressMessage) -> Option<Ipv4Addr> {
    match local_address(message) {
        Some(IpAddr::V6(addr)) => iid::link_local_locator(&addr),
        _ => None,
    }
}

fn changed(yes: bool) -> Effect {
    if yes { Effect::Changed } else { Effect::Nothing }
}

fn is_6to4(addr: Ipv6Addr) -> bool {
    addr.segments()[0] == 0x2002
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    // IFA_LOCAL is our end; on a point-to-point link IFA_ADDRESS is the peer's. IPv6 mostly sends only the latter.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    });
    local.or_else(|| peer_address(message))
}

fn peer_address(message: &AddressMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(addr) => Some(*addr),
        _ => None,
    })
}

fn address_flags(message: &AddressMessage) -> AddressFlags {
    let extended = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    extended.unwrap_or(AddressFlags::from_bits_retain(u32::from(
        message.header.flags.bits(),
    )))
}

fn v4_address(message: &AddressMessage) -> Option<V4Address> {
    let Some(IpAddr::V4(addr)) = local_address(message) else {
        return None;
    };
    let Some(IpAddr::V4(network)) = peer_address(message).or(Some(IpAddr::V4(addr))) else {
        return None;
    };
    let connected = Ipv4Prefix::containing(network, message.header.prefix_len).ok()?;
    let announced = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Broadcast(broadcast) => Some(*broadcast),
        _ => None,
    });
    // Without IFA_BROADCAST the other hosts of the network still take the last address for a broadcast.
    let last = connected.addr().to_bits() | u32::MAX.checked_shr(u32::from(connected.len())).unwrap_or(0);
    let derived = (connected.len() < 31).then(|| Ipv4Addr::from_bits(last));
    Some(V4Address {
        addr,
        if_index: message.header.index,
        connected,
        broadcast: announced.or(derived),
    })
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
