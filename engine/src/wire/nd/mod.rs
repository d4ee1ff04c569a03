//! Neighbour discovery messages (RFC 4861 4) and the checks every receiver makes (6.1, 7.1, 8.1; RFC 6980 5).
//!
//! ```text
//!  type 133..137, code 0, checksum, then:
//!   133 router solicitation      reserved 4
//!   134 router advertisement     hop limit 1 | flags 1 | lifetime 2 | reachable time 4 | retrans timer 4
//!   135 neighbour solicitation   reserved 4  | target 16
//!   136 neighbour advertisement  flags 4     | target 16
//!   137 redirect                 reserved 4  | target 16 | destination 16
//!  and options: type 1 | length / 8, never 0 | ...
//! ```
//!
//! [`parse`] says no only for what a message itself gets wrong. Whether its sender may speak (is a router of
//! the PRL, embeds the outer source) is the gate's decision, and what lifetimes mean is control's.

mod emit;
mod options;

pub use emit::{
    emit_neighbor_advertisement, emit_neighbor_solicitation, emit_redirect, emit_router_advertisement,
    emit_router_solicitation,
};
pub use options::{INFINITE_LIFETIME, NdOption, NdOptions, PrefixInfo, RouteInfo};

use super::ext::{ICMPV6, Upper};
use super::icmpv6::{self, Icmpv6Error, Icmpv6View};
use super::ipv6::Ipv6View;
use super::{be16, be32};
use std::net::Ipv6Addr;

/// The hop limit that proves a packet was not forwarded.
pub const HOP_LIMIT: u8 = 255;

/// The five messages, by their ICMPv6 type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NdKind {
    /// RFC 4861 4.1.
    RouterSolicitation = 133,
    /// RFC 4861 4.2.
    RouterAdvertisement = 134,
    /// RFC 4861 4.3.
    NeighborSolicitation = 135,
    /// RFC 4861 4.4.
    NeighborAdvertisement = 136,
    /// RFC 4861 4.5.
    Redirect = icmpv6::REDIRECT,
}

impl NdKind {
    /// The message of this ICMPv6 type, if it is one of the five.
    #[inline]
    pub const fn from_type(message_type: u8) -> Option<Self> {
        match message_type {
            133 => Some(NdKind::RouterSolicitation),
            134 => Some(NdKind::RouterAdvertisement),
            135 => Some(NdKind::NeighborSolicitation),
            136 => Some(NdKind::NeighborAdvertisement),
            137 => Some(NdKind::Redirect),
            _ => None,
        }
    }

    /// Bytes before the options: the least a valid message has.
    #[inline]
    pub const fn min_len(self) -> usize {
        match self {
            NdKind::RouterSolicitation => 8,
            NdKind::RouterAdvertisement => 16,
            NdKind::NeighborSolicitation | NdKind::NeighborAdvertisement => 24,
            NdKind::Redirect => 40,
        }
    }
}

/// Why a message is to be discarded silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdError {
    /// The packet came in a fragment (RFC 6980 5).
    Fragment,
    /// The hop limit is not 255.
    HopLimit,
    /// The checksum is wrong.
    Checksum,
    /// The code is not 0.
    Code,
    /// The message is shorter than its kind.
    Length,
    /// An option has length 0 or leaves the message.
    OptionLen,
    /// Source, destination or target is not what the kind allows.
    Address,
}

/// A message that passed every check of RFC 4861.
#[derive(Clone, Copy, Debug)]
pub struct NdMessage<'a> {
    kind: NdKind,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    body: &'a [u8],
}

/// Recognises and validates the message in `packet`, a slice that gave an [`Ipv6View`] and for which `upper`
/// is the result of [`ext::walk`](super::ext::walk). `None`: not neighbour discovery.
///
/// A later fragment cannot be recognised, and its datagram is refused by its first fragment. A first fragment
/// that ends before the ICMPv6 type is taken for neighbour discovery in hiding (RFC 7112) and refused as
/// well.
#[inline]
pub fn parse<'a>(packet: &'a [u8], upper: &Upper) -> Option<Result<NdMessage<'a>, NdError>> {
    if upper.protocol != ICMPV6 || upper.is_later_fragment() {
        return None;
    }
    let view = Ipv6View::new(packet).ok()?;
    match view.packet().get(upper.offset) {
        Some(&message_type) => {
            let kind = NdKind::from_type(message_type)?;
            Some(validate(&view, upper, kind))
        }
        None => upper.fragment.map(|_| Err(NdError::Fragment)),
    }
}

fn validate<'a>(view: &Ipv6View<'a>, upper: &Upper, kind: NdKind) -> Result<NdMessage<'a>, NdError> {
    if upper.fragment.is_some() {
        return Err(NdError::Fragment);
    }
    if view.hop_limit() != HOP_LIMIT {
        return Err(NdError::HopLimit);
    }
    let message = Icmpv6View::new(view.packet(), upper.offset).map_err(|error| match error {
        Icmpv6Error::Truncated => NdError::Length,
        Icmpv6Error::Checksum => NdError::Checksum,
    })?;
    if message.code() != 0 {
        return Err(NdError::Code);
    }
    let body = message.message();
    if body.len() < kind.min_len() {
        return Err(NdError::Length);
    }
    let message = NdMessage {
        kind,
        src: view.src(),
        dst: view.dst(),
        body,
    };
    if !NdOptions::new(&body[kind.min_len()..]).are_well_formed() {
        return Err(NdError::OptionLen);
    }
    if !message.has_allowed_addresses() {
        return Err(NdError::Address);
    }
    Ok(message)
}

impl<'a> NdMessage<'a> {
    /// Which of the five.
    #[inline]
    pub fn kind(&self) -> NdKind {
        self.kind
    }

    /// Source of the packet.
    #[inline]
    pub fn src(&self) -> Ipv6Addr {
        self.src
    }

    /// Destination of the packet.
    #[inline]
    pub fn dst(&self) -> Ipv6Addr {
        self.dst
    }

    /// The ICMPv6 message from its type byte on.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The options; all of them lie inside the message.
    #[inline]
    pub fn options(&self) -> NdOptions<'a> {
        NdOptions::new(&self.body[self.kind.min_len()..])
    }

    /// The target of a solicitation or advertisement of a neighbour, or of a redirect.
    pub fn target(&self) -> Option<Ipv6Addr> {
        match self.kind {
            NdKind::RouterSolicitation | NdKind::RouterAdvertisement => None,
            NdKind::NeighborSolicitation | NdKind::NeighborAdvertisement | NdKind::Redirect => {
                Some(address_at(self.body, 8))
            }
        }
    }

    /// The destination a redirect speaks of.
    pub fn redirected(&self) -> Option<Ipv6Addr> {
        (self.kind == NdKind::Redirect).then(|| address_at(self.body, 24))
    }

    /// The fixed fields of a router advertisement.
    pub fn router_advertisement(&self) -> Option<RouterAdvertisement> {
        (self.kind == NdKind::RouterAdvertisement).then(|| RouterAdvertisement::parse(self.body))
    }

    /// The flags of a neighbour advertisement.
    pub fn neighbor_flags(&self) -> Option<NeighborFlags> {
        (self.kind == NdKind::NeighborAdvertisement).then(|| NeighborFlags::from_bits(self.body[4]))
    }

    /// The shortest lifetime in seconds that a router advertisement gives to anything: the router, a prefix,
    /// a route, a name server. Solicit before it ends (RFC 5214 8.3.4). Zero (a withdrawal) and infinity do
    /// not count; `None` when nothing ends.
    pub fn min_lifetime(&self) -> Option<u32> {
        let router = self.router_advertisement()?;
        let of_options = self.options().flat_map(|option| match option {
            NdOption::PrefixInfo(prefix) => [Some(prefix.valid_lifetime), Some(prefix.preferred_lifetime)],
            NdOption::RouteInfo(route) => [Some(route.lifetime), None],
            NdOption::Rdnss { lifetime, .. } | NdOption::Dnssl { lifetime, .. } => [Some(lifetime), None],
            _ => [None, None],
        });
        of_options
            .flatten()
            .chain([u32::from(router.router_lifetime)])
            .filter(|&lifetime| lifetime != 0 && lifetime != INFINITE_LIFETIME)
            .min()
    }

    /// The address rules of RFC 4861 6.1.1, 6.1.2, 7.1.1, 7.1.2 and 8.1.
    fn has_allowed_addresses(&self) -> bool {
        let has_source_option = || self.options().has_source_link_layer();
        match self.kind {
            NdKind::RouterSolicitation => !(self.src.is_unspecified() && has_source_option()),
            NdKind::RouterAdvertisement => self.src.is_unicast_link_local(),
            NdKind::NeighborSolicitation => {
                // From `::` it is duplicate address detection.
                let may_be_unspecified = is_solicited_node(&self.dst) && !has_source_option();
                !address_at(self.body, 8).is_multicast() && (!self.src.is_unspecified() || may_be_unspecified)
            }
            NdKind::NeighborAdvertisement => {
                let unsolicited = !NeighborFlags::from_bits(self.body[4]).solicited;
                !address_at(self.body, 8).is_multicast() && (unsolicited || !self.dst.is_multicast())
            }
            NdKind::Redirect => {
                let (target, redirected) = (address_at(self.body, 8), address_at(self.body, 24));
                self.src.is_unicast_link_local()
                    && !redirected.is_multicast()
                    && (target.is_unicast_link_local() || target == redirected)
            }
        }
    }
}

/// How much a router or route is to be preferred (RFC 4191 2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preference {
    /// `11`
    Low,
    /// `00`, and for routers also the reserved `10`.
    #[default]
    Medium,
    /// `01`
    High,
}

impl Preference {
    /// -1, 0, 1: the higher goes first.
    pub const fn rank(self) -> i8 {
        match self {
            Preference::Low => -1,
            Preference::Medium => 0,
            Preference::High => 1,
        }
    }

    /// Reads the two bits; the reserved value gives `None`.
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Preference::Medium),
            1 => Some(Preference::High),
            3 => Some(Preference::Low),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Preference::Medium => 0,
            Preference::High => 1,
            Preference::Low => 3,
        }
    }
}

/// The fixed fields of a router advertisement (RFC 4861 4.2, RFC 4191 2.2).
///
/// ```text
/// | cur hop limit |M|O|H|Prf|     |        router lifetime        |
/// |                        reachable time                         |
/// |                         retrans timer                         |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Hop limit for hosts; 0 says nothing.
    pub cur_hop_limit: u8,
    /// Addresses by DHCPv6.
    pub managed: bool,
    /// Other configuration by DHCPv6.
    pub other: bool,
    /// Preference as a default router; medium whenever the lifetime is 0 (RFC 4191 2.2).
    pub preference: Preference,
    /// Seconds as a default router; 0: none.
    pub router_lifetime: u16,
    /// Milliseconds a neighbour stays reachable; 0 says nothing.
    pub reachable_time: u32,
    /// Milliseconds between solicitations; 0 says nothing.
    pub retrans_timer: u32,
}

impl RouterAdvertisement {
    /// `body` has been proven to hold the fixed part.
    fn parse(body: &[u8]) -> Self {
        let router_lifetime = be16(body, 6);
        let preference = match router_lifetime {
            0 => Preference::Medium,
            _ => Preference::from_bits(body[5] >> 3).unwrap_or_default(),
        };
        RouterAdvertisement {
            cur_hop_limit: body[4],
            managed: body[5] & 0x80 != 0,
            other: body[5] & 0x40 != 0,
            preference,
            router_lifetime,
            reachable_time: be32(body, 8),
            retrans_timer: be32(body, 12),
        }
    }
}

/// The flags of a neighbour advertisement (RFC 4861 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighborFlags {
    /// R: the sender is a router.
    pub router: bool,
    /// S: this answers a solicitation.
    pub solicited: bool,
    /// O: replace what the cache holds.
    pub override_cache: bool,
}

impl NeighborFlags {
    const fn from_bits(bits: u8) -> Self {
        NeighborFlags {
            router: bits & 0x80 != 0,
            solicited: bits & 0x40 != 0,
            override_cache: bits & 0x20 != 0,
        }
    }

    const fn bits(self) -> u8 {
        (self.router as u8) << 7 | (self.solicited as u8) << 6 | (self.override_cache as u8) << 5
    }
}

/// Whether an address is in ff02::1:ff00:0/104 (RFC 4291 2.7.1).
#[inline]
pub fn is_solicited_node(addr: &Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, _] = addr.segments();
    [a, b, c, d, e, f, g & 0xff00] == [0xff02, 0, 0, 0, 0, 1, 0xff00]
}

/// Sixteen bytes at `at`; the length has been proven.
fn address_at(body: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&body[at..at + 16]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests;
