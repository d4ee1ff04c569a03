//! Options of neighbour discovery: RFC 4861 4.6, route information (RFC 4191 2.3), name servers (RFC 8106 5).
//!
//! ```text
//! +---------------+---------------+------------------
//! |     type      |  length / 8   |  value ...
//! +---------------+---------------+------------------
//!  1 source, 2 target link-layer address      address
//!  3 prefix information (length 4)            len 1 | L A 1 | valid 4 | preferred 4 | reserved 4 | prefix 16
//!  4 redirected header                        reserved 6 | packet
//!  5 MTU (length 1)                           reserved 2 | mtu 4
//! 24 route information (length 1..3)          len 1 | Prf 1 | lifetime 4 | prefix 0, 8 or 16
//! 25 RDNSS (length 3, 5, ..)                  reserved 2 | lifetime 4 | addresses
//! 31 DNSSL (length >= 2)                      reserved 2 | lifetime 4 | names
//! ```
//!
//! A length of zero would never end; it makes the whole message invalid. A known option whose length does not
//! fit its kind comes out as [`NdOption::Unknown`], so it is ignored without harm to its neighbours (RFC 4861
//! 6.1.2).

use super::{Preference, address_at};
use crate::wire::be32;
use std::net::Ipv6Addr;

/// A lifetime without end (RFC 4861 4.6.2).
pub const INFINITE_LIFETIME: u32 = u32::MAX;

/// Options are measured in units of eight bytes.
const UNIT: usize = 8;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const PREFIX_INFO: u8 = 3;
const REDIRECTED_HEADER: u8 = 4;
const MTU: u8 = 5;
const ROUTE_INFO: u8 = 24;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

const FLAG_ON_LINK: u8 = 0x80;
const FLAG_AUTONOMOUS: u8 = 0x40;

/// A prefix of the link (RFC 4861 4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixInfo {
    /// The prefix; bits behind `prefix_len` are as received.
    pub prefix: Ipv6Addr,
    /// Bits: 0..=128 in a sane message, any byte in a received one.
    pub prefix_len: u8,
    /// L: the prefix is on-link.
    pub on_link: bool,
    /// A: addresses may be formed from it.
    pub autonomous: bool,
    /// Seconds; [`INFINITE_LIFETIME`] for ever.
    pub valid_lifetime: u32,
    /// Seconds; [`INFINITE_LIFETIME`] for ever.
    pub preferred_lifetime: u32,
}

/// A route through the sender (RFC 4191 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// The prefix, zero behind `prefix_len`: what a message has there is to be ignored (RFC 4191 2.3).
    pub prefix: Ipv6Addr,
    /// Bits: 0..=128.
    pub prefix_len: u8,
    /// Preference among routers for this route.
    pub preference: Preference,
    /// Seconds; 0 withdraws.
    pub lifetime: u32,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdOption<'a> {
    /// Type 1, ignored on this link (RFC 4213 3.8).
    SourceLinkLayer(&'a [u8]),
    /// Type 2, ignored on this link (RFC 4213 3.8).
    TargetLinkLayer(&'a [u8]),
    /// Type 3.
    PrefixInfo(PrefixInfo),
    /// Type 4: the start of the packet that caused a redirect.
    RedirectedHeader(&'a [u8]),
    /// Type 5: the link's MTU in bytes, as received.
    Mtu(u32),
    /// Type 24.
    RouteInfo(RouteInfo),
    /// Type 25.
    Rdnss {
        /// Seconds; 0 withdraws.
        lifetime: u32,
        /// Sixteen bytes each, at least one.
        servers: &'a [[u8; 16]],
    },
    /// Type 31.
    Dnssl {
        /// Seconds; 0 withdraws.
        lifetime: u32,
        /// Names in DNS wire format, zero-padded; not checked here.
        names: &'a [u8],
    },
    /// Anything else, or a known type that does not have the shape it must have.
    Unknown {
        /// The type.
        kind: u8,
        /// What follows type and length.
        value: &'a [u8],
    },
}

impl<'a> NdOption<'a> {
    /// `value` is everything after type and length: `8 * n - 2` bytes for an `n` of at least 1.
    fn parse(kind: u8, value: &'a [u8]) -> Self {
        let known = match kind {
            SOURCE_LINK_LAYER => Some(NdOption::SourceLinkLayer(value)),
            TARGET_LINK_LAYER => Some(NdOption::TargetLinkLayer(value)),
            PREFIX_INFO => parse_prefix(value).map(NdOption::PrefixInfo),
            REDIRECTED_HEADER => value.get(6..).map(NdOption::RedirectedHeader),
            MTU if value.len() == 6 => Some(NdOption::Mtu(be32(value, 2))),
            ROUTE_INFO => parse_route(value).map(NdOption::RouteInfo),
            RDNSS => parse_servers(value),
            DNSSL if value.len() > 6 => Some(NdOption::Dnssl {
                lifetime: be32(value, 2),
                names: &value[6..],
            }),
            _ => None,
        };
        known.unwrap_or(NdOption::Unknown { kind, value })
    }

    /// Bytes the option takes in a message, padding included.
    pub fn emit_len(&self) -> usize {
        let len = match self {
            NdOption::SourceLinkLayer(value)
            | NdOption::TargetLinkLayer(value)
            | NdOption::Unknown { value, .. } => 2 + value.len(),
            NdOption::PrefixInfo(_) => 32,
            NdOption::RedirectedHeader(packet) => 8 + packet.len(),
            NdOption::Mtu(_) => 8,
            NdOption::RouteInfo(route) => route.emit_len(),
            NdOption::Rdnss { servers, .. } => 8 + 16 * servers.len(),
            NdOption::Dnssl { names, .. } => 8 + names.len(),
        };
        len.next_multiple_of(UNIT)
    }

    /// Writes [`emit_len`](Self::emit_len) bytes to the start of `out` and returns how many.
    ///
    /// # Panics
    /// When `out` is too short, or the option longer than the 2040 bytes its length field can name.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let len = self.emit_len();
        let out = &mut out[..len];
        out.fill(0);
        out[1] = u8::try_from(len / UNIT).expect("an option of at most 2040 bytes");
        match *self {
            NdOption::SourceLinkLayer(value) => put(out, SOURCE_LINK_LAYER, 2, value),
            NdOption::TargetLinkLayer(value) => put(out, TARGET_LINK_LAYER, 2, value),
            NdOption::Unknown { kind, value } => put(out, kind, 2, value),
            NdOption::RedirectedHeader(packet) => put(out, REDIRECTED_HEADER, 8, packet),
            NdOption::Mtu(mtu) => put(out, MTU, 4, &mtu.to_be_bytes()),
            NdOption::PrefixInfo(ref prefix) => prefix.emit(out),
            NdOption::RouteInfo(ref route) => route.emit(out),
            NdOption::Rdnss { lifetime, servers } => {
                put(out, RDNSS, 4, &lifetime.to_be_bytes());
                put(out, RDNSS, 8, servers.as_flattened());
            }
            NdOption::Dnssl { lifetime, names } => {
                put(out, DNSSL, 4, &lifetime.to_be_bytes());
                put(out, DNSSL, 8, names);
            }
        }
        len
    }
}

impl PrefixInfo {
    fn emit(&self, out: &mut [u8]) {
        let on_link = if self.on_link { FLAG_ON_LINK } else { 0 };
        let autonomous = if self.autonomous { FLAG_AUTONOMOUS } else { 0 };
        put(out, PREFIX_INFO, 2, &[self.prefix_len, on_link | autonomous]);
        put(out, PREFIX_INFO, 4, &self.valid_lifetime.to_be_bytes());
        put(out, PREFIX_INFO, 8, &self.preferred_lifetime.to_be_bytes());
        put(out, PREFIX_INFO, 16, &self.prefix.octets());
    }
}

impl RouteInfo {
    fn emit_len(&self) -> usize {
        8 + usize::from(self.prefix_len.div_ceil(64)) * 8
    }

    fn emit(&self, out: &mut [u8]) {
        let prefix_room = self.emit_len() - 8;
        put(
            out,
            ROUTE_INFO,
            2,
            &[self.prefix_len, self.preference.bits() << 3],
        );
        put(out, ROUTE_INFO, 4, &self.lifetime.to_be_bytes());
        put(out, ROUTE_INFO, 8, &self.prefix.octets()[..prefix_room]);
    }
}

fn put(out: &mut [u8], kind: u8, at: usize, value: &[u8]) {
    out[0] = kind;
    out[at..at + value.len()].copy_from_slice(value);
}

fn parse_prefix(value: &[u8]) -> Option<PrefixInfo> {
    if value.len() != 30 {
        return None;
    }
    Some(PrefixInfo {
        prefix: address_at(value, 14),
        prefix_len: value[0],
        on_link: value[1] & FLAG_ON_LINK != 0,
        autonomous: value[1] & FLAG_AUTONOMOUS != 0,
        valid_lifetime: be32(value, 2),
        preferred_lifetime: be32(value, 6),
    })
}

/// RFC 4191 2.3: the length must have room for the prefix, and the reserved preference makes the option void.
fn parse_route(value: &[u8]) -> Option<RouteInfo> {
    let (head, carried) = value.split_at_checked(6)?;
    let prefix_len = head[0];
    if carried.len() > 16 || usize::from(prefix_len) > carried.len() * 8 {
        return None;
    }
    let mut octets = [0; 16];
    octets[..carried.len()].copy_from_slice(carried);
    let host_bits = u128::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
    Some(RouteInfo {
        prefix: Ipv6Addr::from_bits(u128::from_be_bytes(octets) & !host_bits),
        prefix_len,
        preference: Preference::from_bits(head[1] >> 3)?,
        lifetime: be32(head, 2),
    })
}

/// RFC 8106 5.1: one address at least, and nothing left over.
fn parse_servers(value: &[u8]) -> Option<NdOption<'_>> {
    let (head, rest) = value.split_at_checked(6)?;
    let (servers, left_over) = rest.as_chunks::<16>();
    (!servers.is_empty() && left_over.is_empty()).then(|| NdOption::Rdnss {
        lifetime: be32(head, 2),
        servers,
    })
}

/// Iterates over a message's options; ends at the first one that is not well-formed.
#[derive(Clone, Copy, Debug)]
pub struct NdOptions<'a> {
    rest: &'a [u8],
}

impl<'a> NdOptions<'a> {
    /// The options in `bytes`, which begin where the message's fixed part ends.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        NdOptions { rest: bytes }
    }

    /// Whether every option has a length above zero and lies inside (RFC 4861 6.1.1 and its siblings).
    pub fn are_well_formed(&self) -> bool {
        let mut options = *self;
        while options.next_raw().is_some() {}
        options.rest.is_empty()
    }

    /// Whether a source link-layer address is among them, whatever its length.
    pub fn has_source_link_layer(&self) -> bool {
        let mut options = *self;
        std::iter::from_fn(move || options.next_raw()).any(|(kind, _)| kind == SOURCE_LINK_LAYER)
    }

    /// Type and value of the next option; each call consumes at least eight bytes or ends.
    fn next_raw(&mut self) -> Option<(u8, &'a [u8])> {
        let [kind, units, ..] = *self.rest else {
            return None;
        };
        if units == 0 {
            return None;
        }
        let (option, rest) = self.rest.split_at_checked(usize::from(units) * UNIT)?;
        self.rest = rest;
        Some((kind, &option[2..]))
    }
}

impl<'a> Iterator for NdOptions<'a> {
    type Item = NdOption<'a>;

    fn next(&mut self) -> Option<NdOption<'a>> {
        self.next_raw().map(|(kind, value)| NdOption::parse(kind, value))
    }
}
