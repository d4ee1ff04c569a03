//! TCP and UDP superpackets from the TUN into segments (TSO6, USO6): headers written anew, payload left where it is.
//!
//! ```text
//!  superpacket   | IPv6 | ext | TCP/UDP |  gso_size  |  gso_size  |  gso_size  | rest |
//!                |<---- header_len ---->|<-------------- up to 64 KiB --------------->|
//!
//!  segment i     [ headers, 20..256 bytes, in the caller's buffer ] + a range of the superpacket
//! ```
//!
//! | field | in segment i |
//! |---|---|
//! | IPv6 payload length, UDP length | its own |
//! | TCP sequence number | + i * gso_size |
//! | FIN, PSH | last segment only |
//! | CWR | first segment only (RFC 3168 6.1.2: said once) |
//! | checksum | computed anew: the payload is read once, the headers' part is summed once per superpacket |
//! | everything else, options and extension headers included | copied |

use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::ext::{self, Upper};
use crate::wire::ipv6::{self, HEADER_LEN, Ipv6View};
use crate::wire::transport::{
    CWR, FIN, PSH, TCP_CHECKSUM_OFFSET, TcpView, UDP_CHECKSUM_OFFSET, UDP_HEADER_LEN, set_tcp_checksum,
    set_tcp_flags, set_tcp_seq, set_udp_checksum, set_udp_len,
};
use crate::wire::vnet::{GsoType, VnetHeader};
use std::ops::Range;

/// The longest inner headers of a segment: IPv6, 156 bytes of extension headers, TCP with all options.
pub const MAX_SEGMENT_HEADERS: usize = 256;

/// The most segments one superpacket may become. Linux takes no TCP segment size below 48 - 12 bytes (`tcp_min_snd_mss`), which
/// makes 1820 out of 64 KiB, and 128 UDP datagrams; more would let one read keep a worker busy.
pub const MAX_SEGMENTS: usize = 2048;

/// Why a superpacket cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// Not TSO over IPv6 nor USO: we never offered it.
    GsoType,
    /// A segment size of 0.
    GsoSize,
    /// The headers are cut short, impossible, or longer than [`MAX_SEGMENT_HEADERS`].
    HeaderLen,
    /// `csum_start` or `csum_offset` name another place than the transport header's checksum.
    CsumStart,
    /// No IPv6 packet, no end to its header chain, a fragment, or authenticated as a whole.
    NotTransport,
    /// More than [`MAX_SEGMENTS`].
    TooManySegments,
    /// The packet carries another protocol than the GSO type says.
    Mismatch,
}

/// How one superpacket becomes segments.
#[derive(Clone, Copy, Debug)]
pub struct SplitPlan {
    /// Bytes of all inner headers, the same in every segment.
    pub header_len: usize,
    /// Segments; at least one.
    pub count: usize,
    /// Payload bytes of every segment but the last.
    pub gso_size: usize,
    total_len: usize,
    transport_at: usize,
    /// Pseudo-header and transport header without what differs between segments.
    shared: Sum,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp { seq: u32, flags: u8 },
    Udp,
}

impl SplitPlan {
    /// Checks that `inner` is a superpacket of the kind `vnet` says, and prepares its segments. `hdr_len` is not looked at.
    ///
    /// # Errors
    /// The metadata does not fit the packet (FAULTS 31); see [`SplitError`].
    pub fn new(vnet: &VnetHeader, inner: &[u8]) -> Result<SplitPlan, SplitError> {
        let (protocol, csum_offset) = match vnet.gso {
            GsoType::TcpV6 => (ext::TCP, TCP_CHECKSUM_OFFSET),
            GsoType::UdpL4 => (ext::UDP, UDP_CHECKSUM_OFFSET),
            GsoType::None | GsoType::TcpV4 | GsoType::Udp => return Err(SplitError::GsoType),
        };
        let gso_size = usize::from(vnet.gso_size);
        if gso_size == 0 {
            return Err(SplitError::GsoSize);
        }
        let view = Ipv6View::new(inner).map_err(|_| SplitError::NotTransport)?;
        let packet = view.packet();
        let upper = ext::walk(packet).map_err(|_| SplitError::NotTransport)?;
        if upper.fragment.is_some() {
            return Err(SplitError::NotTransport);
        }
        if upper.protocol != protocol {
            return Err(SplitError::Mismatch);
        }
        if vnet.needs_csum
            && (usize::from(vnet.csum_start) != upper.offset || vnet.csum_offset != csum_offset)
        {
            return Err(SplitError::CsumStart);
        }
        let segment = packet.get(upper.offset..).ok_or(SplitError::HeaderLen)?;
        let (transport, transport_len) = Transport::parse(protocol, segment)?;
        let header_len = upper.offset + transport_len;
        if header_len > MAX_SEGMENT_HEADERS {
            return Err(SplitError::HeaderLen);
        }
        let count = (packet.len() - header_len).div_ceil(gso_size).max(1);
        if count > MAX_SEGMENTS {
            return Err(SplitError::TooManySegments);
        }
        let pseudo = shared_pseudo(vnet, &view, &upper, segment)?;
        Ok(SplitPlan {
            header_len,
            count,
            gso_size,
            total_len: packet.len(),
            transport_at: upper.offset,
            shared: transport.add_shared(pseudo, &segment[..transport_len]),
            transport,
        })
    }

    /// Writes the inner headers of segment `index` to the first [`header_len`](Self::header_len) bytes of `header_out` and returns where
    /// its payload lies in `inner`, the bytes the plan was made from. Past the last segment the range is empty.
    ///
    /// # Panics
    /// `header_out` is shorter than `header_len`, or `inner` shorter than the packet the plan was made from.
    #[inline]
    pub fn segment(&self, inner: &[u8], index: usize, header_out: &mut [u8]) -> Range<usize> {
        let Range { start, end } = self.payload(index);
        let headers = &mut header_out[..self.header_len];
        headers.copy_from_slice(&inner[..self.header_len]);
        let beyond_fixed = u16_len(self.header_len - HEADER_LEN + (end - start));
        ipv6::set_payload_len(headers, beyond_fixed);

        let len = u16_len(self.header_len - self.transport_at + (end - start));
        let sum = self.shared.add_u16(len).add_bytes(&inner[start..end]);
        let header = &mut headers[self.transport_at..];
        match self.transport {
            Transport::Tcp { seq, flags } => {
                let seq = seq.wrapping_add(wrapping_u32(start - self.header_len));
                let flags = flags & !self.not_in_segment(index);
                set_tcp_seq(header, seq);
                set_tcp_flags(header, flags);
                set_tcp_checksum(header, sum.add_u32(seq).add_u16(u16::from(flags)).finish());
            }
            Transport::Udp => {
                set_udp_len(header, len);
                // The length counts twice: in the pseudo-header and in the UDP header.
                set_udp_checksum(header, sum.add_u16(len).finish());
            }
        }
        start..end
    }

    /// Where the payload of segment `index` lies in the superpacket.
    #[inline]
    pub fn payload(&self, index: usize) -> Range<usize> {
        let start = (self.header_len + index * self.gso_size).min(self.total_len);
        start..(start + self.gso_size).min(self.total_len)
    }

    /// Bytes of the largest segment with its inner headers: what has to fit the tunnel MTU.
    #[inline]
    pub fn segment_len(&self) -> usize {
        self.total_len.min(self.header_len + self.gso_size)
    }

    /// The TCP flags that segment `index` does not have.
    #[inline]
    fn not_in_segment(&self, index: usize) -> u8 {
        let first = if index == 0 { 0 } else { CWR };
        let last = if index + 1 >= self.count { 0 } else { FIN | PSH };
        first | last
    }
}

impl Transport {
    /// The header at the start of `segment` and its length.
    #[inline]
    fn parse(protocol: u8, segment: &[u8]) -> Result<(Transport, usize), SplitError> {
        if protocol == ext::TCP {
            let tcp = TcpView::new(segment).map_err(|_| SplitError::HeaderLen)?;
            Ok((
                Transport::Tcp {
                    seq: tcp.seq(),
                    flags: tcp.flags(),
                },
                tcp.header_len(),
            ))
        } else if segment.len() >= UDP_HEADER_LEN {
            // Its length field covers the superpacket or nothing we could use; each segment gets its own.
            Ok((Transport::Udp, UDP_HEADER_LEN))
        } else {
            Err(SplitError::HeaderLen)
        }
    }

    /// Adds the fields of the transport header that all segments share.
    #[inline]
    fn add_shared(self, sum: Sum, header: &[u8]) -> Sum {
        match self {
            // Ports | sequence number | acknowledgement | offset, flags | window | checksum | urgent pointer, options
            Transport::Tcp { .. } => sum
                .add_bytes(&header[0..4])
                .add_bytes(&header[8..12])
                .add_bytes(&[header[12], 0])
                .add_bytes(&header[14..16])
                .add_bytes(&header[18..]),
            Transport::Udp => sum.add_bytes(&header[0..4]),
        }
    }
}

/// The pseudo-header's sum with a length of 0. With a routing header that is not used up, the destination in it is the last of the
/// route (RFC 8200 8.1); then the kernel's own sum in the checksum field is the one to go by.
#[inline]
fn shared_pseudo(
    vnet: &VnetHeader,
    view: &Ipv6View<'_>,
    upper: &Upper,
    segment: &[u8],
) -> Result<Sum, SplitError> {
    let route_pending = upper.headers != 0 && inspect_chain(view.packet(), upper)?;
    if !route_pending {
        return Ok(pseudo_v6(view.src_bytes(), view.dst_bytes(), 0, upper.protocol));
    }
    if !vnet.needs_csum {
        return Err(SplitError::CsumStart);
    }
    let field = usize::from(vnet.csum_offset);
    // Ones' complement: adding the complement takes the superpacket's length out again.
    Ok(Sum::new()
        .add_bytes(&segment[field..field + 2])
        .add_u16(!u16_len(segment.len())))
}

/// Looks through a chain that was walked already: whether a routing header has segments left. An authentication header is refused,
/// since its value covers the packet as it is.
#[cold]
fn inspect_chain(packet: &[u8], upper: &Upper) -> Result<bool, SplitError> {
    let (mut kind, mut at) = (packet[6], HEADER_LEN);
    let mut pending = false;
    while at < upper.offset {
        let header = packet.get(at..at + 8).ok_or(SplitError::NotTransport)?;
        match kind {
            ext::AH => return Err(SplitError::NotTransport),
            ext::ROUTING => pending |= header[3] != 0,
            _ => {}
        }
        kind = header[0];
        at += (usize::from(header[1]) + 1) * 8;
    }
    Ok(pending)
}

/// A length inside an IPv6 payload, which is a 16-bit number in any packet that gave a view.
#[inline]
fn u16_len(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// An offset inside a superpacket.
#[inline]
fn wrapping_u32(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
