//! The chain of IPv6 extension headers (RFC 8200 4), walked to the upper-layer protocol.
//!
//! ```text
//!   hop-by-hop 0, routing 43, destination options 60     fragment 44
//!  +--------+--------+--------------------------+       +--------+--------+-------------------+-+-+
//!  |  next  |  len   | (len + 1) * 8 bytes  ... |       |  next  |   0    | offset / 8 (13)   |0|M|
//!  +--------+--------+--------------------------+       +--------+--------+-------------------+-+-+
//!   authentication 51 (RFC 4302)                        |             identification              |
//!  +--------+--------+--------------------------+       +-----------------------------------------+
//!  |  next  |  len   | (len + 2) * 4 bytes  ... |
//!  +--------+--------+--------------------------+
//! ```
//!
//! The set is the one Linux skips; everything else (ESP, mobility, unknown numbers) is the upper layer, so
//! that daemon and kernel never disagree on where a packet's transport header lies (FAULTS 18). The walk is
//! total and bounded; what to do with a chain that is broken or too long is the caller's policy.

use super::ipv6::HEADER_LEN;
use super::{be16, be32};

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// IPv4 in IPv6.
pub const IPV4: u8 = 4;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 in IPv6.
pub const IPV6: u8 = 41;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Generic routing encapsulation.
pub const GRE: u8 = 47;
/// Encapsulating security payload: opaque from here on.
pub const ESP: u8 = 50;
/// Authentication header.
pub const AH: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows.
pub const NO_NEXT: u8 = 59;
/// Destination options.
pub const DEST_OPTS: u8 = 60;

/// The longest chain that is followed. Real ones have one or two headers; each kind once, and destination
/// options twice, make six (RFC 8200 4.1).
pub const MAX_HEADERS: u8 = 8;

/// Why the chain has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtError {
    /// A header lies outside the packet.
    Truncated,
    /// More than [`MAX_HEADERS`].
    TooMany,
}

/// The fields of a fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where this piece belongs, in bytes.
    pub offset: u16,
    /// Whether more pieces follow.
    pub more: bool,
    /// Identification, shared by all pieces.
    pub id: u32,
}

/// Where the chain ends and what begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The upper-layer protocol; for a fragment other than the first, what the fragment header names next.
    pub protocol: u8,
    /// Where it starts, in bytes from the start of the IPv6 header; never beyond the packet.
    pub offset: usize,
    /// The last fragment header passed.
    pub fragment: Option<Fragment>,
    /// How many extension headers were passed.
    pub headers: u8,
}

impl Upper {
    /// Whether `offset` is in the middle of a datagram, where no transport header can be read.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }

    /// Whether the packet carries another tunnel's packet (FAULTS 13).
    #[inline]
    pub fn is_tunnel(&self) -> bool {
        matches!(self.protocol, IPV4 | IPV6 | GRE)
    }
}

/// Whether the chain goes on behind a header of this number.
#[inline]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AH | DEST_OPTS)
}

/// Finds the upper layer of `packet`, a slice that gave an [`Ipv6View`](super::ipv6::Ipv6View). Bytes behind
/// the payload length are not looked at.
///
/// # Errors
/// The chain leaves the packet or is too long.
#[inline]
pub fn walk(packet: &[u8]) -> Result<Upper, ExtError> {
    let Some(fixed) = packet.first_chunk::<HEADER_LEN>() else {
        return Err(ExtError::Truncated);
    };
    let protocol = fixed[6];
    if !is_extension(protocol) {
        return Ok(Upper {
            protocol,
            offset: HEADER_LEN,
            fragment: None,
            headers: 0,
        });
    }
    let end = packet.len().min(HEADER_LEN + usize::from(be16(fixed, 4)));
    walk_chain(&packet[..end], protocol)
}

fn walk_chain(packet: &[u8], first: u8) -> Result<Upper, ExtError> {
    let mut upper = Upper {
        protocol: first,
        offset: HEADER_LEN,
        fragment: None,
        headers: 0,
    };
    while is_extension(upper.protocol) {
        if upper.headers == MAX_HEADERS {
            return Err(ExtError::TooMany);
        }
        // Every extension header has at least eight bytes.
        let header = packet
            .get(upper.offset..)
            .and_then(<[u8]>::first_chunk::<8>)
            .ok_or(ExtError::Truncated)?;
        let len = match upper.protocol {
            FRAGMENT => 8,
            AH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if len > packet.len() - upper.offset {
            return Err(ExtError::Truncated);
        }
        if upper.protocol == FRAGMENT {
            let field = be16(header, 2);
            upper.fragment = Some(Fragment {
                offset: field & 0xfff8,
                more: field & 1 != 0,
                id: be32(header, 4),
            });
        }
        upper.protocol = header[0];
        upper.offset += len;
        upper.headers += 1;
        if upper.is_later_fragment() {
            break;
        }
    }
    Ok(upper)
}
