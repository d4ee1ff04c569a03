//! The inner header: IPv6 (RFC 8200 3).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+---------------+---------------------------------------+
//! |   6   |  DSCP     ECN |              flow label               |  0
//! +-------+---------------+-------+---------------+---------------+
//! |        payload length         |  next header  |   hop limit   |  4
//! +-------------------------------+---------------+---------------+
//! |                       source, 16 bytes                        |  8
//! +---------------------------------------------------------------+
//! |                     destination, 16 bytes                     | 24
//! +---------------------------------------------------------------+
//! ```
//!
//! Payload length 0 means a jumbogram (RFC 2675) or nothing at all; neither goes through a tunnel (E9, FAULTS
//! 10).

use super::be16;
use std::net::Ipv6Addr;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// The MTU every IPv6 link has at least (RFC 8200 5).
pub const MIN_MTU: usize = 1280;

/// Why bytes are no IPv6 packet for this tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Error {
    /// Fewer than 40 bytes.
    Truncated,
    /// The version is not 6.
    Version,
    /// The payload length is 0.
    PayloadZero,
    /// The payload length says more than there is.
    PayloadLen,
}

/// A received IPv6 packet: the header and exactly `40 + payload_len` bytes in all.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6View<'a> {
    fixed: &'a [u8; HEADER_LEN],
    packet: &'a [u8],
}

impl<'a> Ipv6View<'a> {
    /// Looks at the packet at the start of `bytes`. The length comes from the header: a padded datagram is
    /// cut, a truncated one refused (D6).
    ///
    /// # Errors
    /// Says which length or field is impossible; see [`Ipv6Error`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Ipv6Error> {
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Ipv6Error::Truncated);
        };
        if fixed[0] >> 4 != 6 {
            return Err(Ipv6Error::Version);
        }
        let payload_len = usize::from(be16(fixed, 4));
        if payload_len == 0 {
            return Err(Ipv6Error::PayloadZero);
        }
        match bytes.get(..HEADER_LEN + payload_len) {
            Some(packet) => Ok(Ipv6View { fixed, packet }),
            None => Err(Ipv6Error::PayloadLen),
        }
    }

    /// The octet of DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.fixed[0] << 4) | (self.fixed[1] >> 4)
    }

    /// The ECN field: 0..=3 (RFC 3168 5).
    #[inline]
    pub fn ecn(&self) -> u8 {
        (self.fixed[1] >> 4) & 3
    }

    /// The flow label: 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.fixed[1] & 0x0f, self.fixed[2], self.fixed[3]])
    }

    /// Bytes after the fixed header.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// Protocol number of the first header after this one.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv6Addr {
        Ipv6Addr::from(*self.src_bytes())
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv6Addr {
        Ipv6Addr::from(*self.dst_bytes())
    }

    /// Source address as it lies in the packet.
    #[inline]
    pub fn src_bytes(&self) -> &'a [u8; 16] {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = self.fixed;
        let [src @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = addresses;
        src
    }

    /// Destination address as it lies in the packet.
    #[inline]
    pub fn dst_bytes(&self) -> &'a [u8; 16] {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = self.fixed;
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, dst @ ..] = addresses;
        dst
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.packet.len()
    }

    /// What follows the fixed header: extension headers and all.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[HEADER_LEN..]
    }

    /// The packet from its first header byte to its last payload byte, without padding.
    #[inline]
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }
}

/// Writes the whole traffic class octet of the packet at the start of `packet`.
///
/// # Panics
/// When `packet` is shorter than two bytes; a slice that gave an [`Ipv6View`] never is.
#[inline]
pub fn set_traffic_class(packet: &mut [u8], traffic_class: u8) {
    packet[1] = (packet[1] & 0x0f) | (traffic_class << 4);
    packet[0] = 0x60 | (traffic_class >> 4);
}

/// Writes the two ECN bits (`ecn` 0..=3) and leaves the DSCP alone.
///
/// # Panics
/// When `packet` is shorter than two bytes.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: u8) {
    packet[1] = (packet[1] & 0xcf) | ((ecn & 3) << 4);
}

/// Writes the payload length.
///
/// # Panics
/// When `packet` is shorter than six bytes.
#[inline]
pub fn set_payload_len(packet: &mut [u8], payload_len: u16) {
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
}

/// The header of a packet the daemon makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label; only 20 bits are written.
    pub flow_label: u32,
    /// Bytes after this header.
    pub payload_len: u16,
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Hop limit; 255 for neighbour discovery.
    pub hop_limit: u8,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
}

impl Ipv6Header {
    /// The value of a received header.
    pub fn parse(view: &Ipv6View<'_>) -> Self {
        Ipv6Header {
            traffic_class: view.traffic_class(),
            flow_label: view.flow_label(),
            payload_len: view.payload_len(),
            next_header: view.next_header(),
            hop_limit: view.hop_limit(),
            src: view.src(),
            dst: view.dst(),
        }
    }

    /// Writes all 40 bytes to the start of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than 40 bytes.
    pub fn emit(&self, out: &mut [u8]) {
        let first = 0x6000_0000 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0x000f_ffff);
        out[0..4].copy_from_slice(&first.to_be_bytes());
        out[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        out[6] = self.next_header;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.src.octets());
        out[24..40].copy_from_slice(&self.dst.octets());
    }
}
