//! The outer header: IPv4 (RFC 791 3.1) as far as a tunnel needs it (RFC 4213 3.5, 3.6).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+-------------------------------+
//! |   4   |  IHL  |  DSCP     ECN |         total length          |  0
//! +-------+-------+---------------+-----+-------------------------+
//! |        identification         |0 D M|     fragment offset     |  4
//! +---------------+---------------+-----+-------------------------+
//! |      TTL      | protocol = 41 |        header checksum        |  8
//! +---------------+---------------+-------------------------------+
//! |                            source                             | 12
//! +---------------------------------------------------------------+
//! |                          destination                          | 16
//! +---------------------------------------------------------------+
//! |                 options, (IHL - 5) * 4 bytes                  | 20
//! +---------------------------------------------------------------+
//! ```
//!
//! The header checksum is not verified on receipt: the kernel did so before a raw socket saw the packet.

use super::be16;
use super::checksum::Sum;
use std::net::Ipv4Addr;

/// Bytes of a header without options; the only kind the daemon sends (E3).
pub const MIN_HEADER_LEN: usize = 20;
/// The largest header: IHL 15.
pub const MAX_HEADER_LEN: usize = 60;
/// IPv6 in IPv4 (RFC 4213 3.5).
pub const PROTO_IPV6: u8 = 41;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
/// Loose source and record route (RFC 791 3.1).
const OPTION_LSRR: u8 = 131;
/// Strict source and record route (RFC 791 3.1).
const OPTION_SSRR: u8 = 137;

const FLAG_DF: u16 = 0x4000;
const FLAG_MF: u16 = 0x2000;
/// The fragment offset, in units of 8 bytes, within its 16-bit word.
pub const OFFSET_MASK: u16 = 0x1fff;

/// Why bytes are no IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Error {
    /// Fewer bytes than the fixed header, the header length or the total length needs.
    Truncated,
    /// The version is not 4.
    Version,
    /// IHL below 5.
    HeaderLen,
    /// The total length does not even cover the header.
    TotalLen,
}

/// A received IPv4 packet: the header and exactly `total_len` bytes in all.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4View<'a> {
    fixed: &'a [u8; MIN_HEADER_LEN],
    packet: &'a [u8],
    header_len: usize,
}

impl<'a> Ipv4View<'a> {
    /// Looks at the packet at the start of `bytes`. Bytes behind `total_len` (link padding) are left out of
    /// the view.
    ///
    /// # Errors
    /// Says which length or field is impossible; see [`Ipv4Error`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Ipv4Error> {
        let Some(fixed) = bytes.first_chunk::<MIN_HEADER_LEN>() else {
            return Err(Ipv4Error::Truncated);
        };
        if fixed[0] >> 4 != 4 {
            return Err(Ipv4Error::Version);
        }
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if header_len < MIN_HEADER_LEN {
            return Err(Ipv4Error::HeaderLen);
        }
        let total_len = usize::from(be16(fixed, 2));
        if total_len < header_len {
            return Err(Ipv4Error::TotalLen);
        }
        match bytes.get(..total_len) {
            Some(packet) => Ok(Ipv4View {
                fixed,
                packet,
                header_len,
            }),
            None => Err(Ipv4Error::Truncated),
        }
    }

    /// Bytes of the header with its options: 20..=60.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.packet.len()
    }

    /// The octet of DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// The ECN field: 0..=3 (RFC 3168 5).
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.fixed[1] & 3
    }

    /// The identification.
    #[inline]
    pub fn id(&self) -> u16 {
        be16(self.fixed, 4)
    }

    /// The DF bit.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        be16(self.fixed, 6) & FLAG_DF != 0
    }

    /// The MF bit.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        be16(self.fixed, 6) & FLAG_MF != 0
    }

    /// Where this fragment belongs, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (be16(self.fixed, 6) & OFFSET_MASK) << 3
    }

    /// Whether this is one piece of a larger packet.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        be16(self.fixed, 6) & (FLAG_MF | OFFSET_MASK) != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// The payload's protocol number.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The options with their padding; empty for almost every packet.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        &self.packet[MIN_HEADER_LEN..self.header_len]
    }

    /// What the packet carries: exactly as much as the total length says.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.header_len..]
    }

    /// The packet from its first header byte to its last payload byte.
    #[inline]
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Whether the option list is well-formed: every length at least 2 and inside the header.
    #[inline]
    pub fn options_ok(&self) -> bool {
        self.header_len == MIN_HEADER_LEN || walk_options(self.options()).well_formed
    }

    /// Whether a source-route option is present (FAULTS 11). A list that breaks off is read as far as it
    /// goes; see [`options_ok`](Self::options_ok).
    #[inline]
    pub fn has_source_route(&self) -> bool {
        self.header_len != MIN_HEADER_LEN && walk_options(self.options()).source_route
    }
}

struct OptionsSeen {
    well_formed: bool,
    source_route: bool,
}

/// Each turn consumes at least one byte, so at most 40 turns.
#[cold]
fn walk_options(mut options: &[u8]) -> OptionsSeen {
    let mut source_route = false;
    loop {
        match *options {
            [] | [OPTION_END, ..] => {
                return OptionsSeen {
                    well_formed: true,
                    source_route,
                };
            }
            [OPTION_NOP, ref rest @ ..] => options = rest,
            [kind, ref rest @ ..] => {
                source_route |= kind == OPTION_LSRR || kind == OPTION_SSRR;
                let len = rest.first().map_or(0, |&len| usize::from(len));
                if len < 2 || len > options.len() {
                    return OptionsSeen {
                        well_formed: false,
                        source_route,
                    };
                }
                options = &options[len..];
            }
        }
    }
}

/// The header put in front of an IPv6 packet: version 4, IHL 5, protocol 41, checksum right (E3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHeader {
    /// Our locator.
    pub src: Ipv4Addr,
    /// The locator of the next hop.
    pub dst: Ipv4Addr,
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// The DF bit; always clear under a static tunnel MTU (RFC 4213 3.2.1).
    pub dont_fragment: bool,
    /// Identification; 0 lets the kernel choose one (RFC 6864 for what is needed).
    pub id: u16,
    /// Bytes of the IPv6 packet, at most 65515.
    pub payload_len: u16,
}

impl OuterHeader {
    /// Writes all 20 bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8; MIN_HEADER_LEN]) {
        self.emit_with(if self.dont_fragment { FLAG_DF } else { 0 }, out);
    }

    /// Writes all 20 bytes of a fragment's header (RFC 791 3.2); the payload length is the fragment's. `offset` is in bytes, a
    /// multiple of 8 at most 65528, and `more` says that others follow. DF is clear.
    #[inline]
    pub fn emit_fragment(&self, offset: u16, more: bool, out: &mut [u8; MIN_HEADER_LEN]) {
        debug_assert!(offset.is_multiple_of(8));
        self.emit_with(offset >> 3 | if more { FLAG_MF } else { 0 }, out);
    }

    #[inline]
    fn emit_with(&self, flags: u16, out: &mut [u8; MIN_HEADER_LEN]) {
        debug_assert!(usize::from(self.payload_len) + MIN_HEADER_LEN <= usize::from(u16::MAX));
        let total_len = self.payload_len.saturating_add(20);
        let first = u32::from_be_bytes([0x45, self.tos, 0, 0]) | u32::from(total_len);
        let second = u32::from(self.id) << 16 | u32::from(flags);
        let third = u32::from_be_bytes([self.ttl, PROTO_IPV6, 0, 0]);
        let (src, dst) = (self.src.to_bits(), self.dst.to_bits());
        // Summed from registers: reading back what was just written costs more than all the rest.
        let sum = Sum::new()
            .add_u32(first)
            .add_u32(second)
            .add_u32(third)
            .add_u32(src)
            .add_u32(dst);
        let third = third | u32::from(sum.finish());
        let words = [first, second, third, src, dst];
        for (field, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *field = word.to_be_bytes();
        }
    }
}
