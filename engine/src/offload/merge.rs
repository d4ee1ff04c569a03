//! Runs of received segments become one superpacket for the TUN: GRO of our own, by the kernel's rules.
//!
//! ```text
//!  segment 1: [IPv6 | TCP | payload]           the head: its headers speak for all
//!  segment 2: [IPv6 | TCP | payload]           tails: only their payload is written,
//!  segment 3: [IPv6 | TCP | payl]              straight from where it lies
//! ```
//!
//! Merged is only what the kernel itself would merge (`net/ipv4/tcp_offload.c` `tcp_gro_receive`, `net/ipv6/ip6_offload.c`,
//! `net/ipv4/udp_offload.c`): the same flow, traffic class with ECN, flow label, hop limit, acknowledgement, window, options and
//! flags, payloads of one size with at most a shorter last one, in sequence. Each segment's checksum is verified before, since
//! a superpacket is presented as good: damage from the wire must never be given a valid checksum.
//!
//! A [`Run`] decides; the worker holds the packets.

use crate::wire::checksum::pseudo_v6;
use crate::wire::ext;
use crate::wire::ipv6::{self, HEADER_LEN, Ipv6View};
use crate::wire::transport::{
    ACK, FIN, PSH, TCP_CHECKSUM_OFFSET, TCP_MIN_HEADER_LEN, TcpView, UDP_CHECKSUM_OFFSET, UDP_HEADER_LEN,
    UdpView, set_tcp_checksum, set_tcp_flags, set_udp_checksum, set_udp_len,
};
use crate::wire::vnet::{GsoType, VnetHeader};

/// Segments of one superpacket, at most: as many as the kernel's own lists, and few enough for one gathered write.
pub const MAX_RUN_SEGMENTS: usize = 64;

/// Bytes of one superpacket, at most: what the IPv6 payload length can say.
const MAX_RUN_LEN: usize = HEADER_LEN + u16::MAX as usize;

/// Why a packet is not (or no longer) part of a run. Each is a row of the test table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another pair of addresses or ports, or another protocol.
    Flow,
    /// Traffic class (DSCP, ECN), flow label or hop limit differ.
    NetworkHeader,
    /// Not the next byte of the stream.
    Sequence,
    /// Acknowledgement, window, flags or header length differ.
    TransportHeader,
    /// TCP options differ.
    Options,
    /// Longer than the segments before it.
    Size,
    /// The superpacket would be longer, or have more segments, than it may.
    Full,
    /// The run ended with a segment that nothing follows: PSH, or shorter than the others.
    Ended,
}

/// A received packet that could be part of a superpacket: plain TCP or UDP without extension headers, checksum verified.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    protocol: Transport,
    header_len: usize,
    payload_len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp { seq: u32, flags: u8 },
    Udp,
}

impl Segment {
    /// Looks at an inner packet; `None` when it must travel alone: extension headers, no payload, a checksum that is wrong or
    /// absent, or TCP flags that mark a turning point of the connection.
    #[inline]
    pub fn new(inner: &[u8]) -> Option<Segment> {
        let view = Ipv6View::new(inner).ok()?;
        let transport = view.payload();
        let (protocol, header_len) = match view.next_header() {
            ext::TCP => {
                let tcp = TcpView::new(transport).ok()?;
                // Anything but ACK, PSH and FIN (SYN, RST, URG, ECE, CWR) travels alone, as in the kernel or stricter.
                let flags = tcp.flags();
                if flags & !(ACK | PSH | FIN) != 0 || flags & ACK == 0 || flags & FIN != 0 {
                    return None;
                }
                (
                    Transport::Tcp {
                        seq: tcp.seq(),
                        flags,
                    },
                    tcp.header_len(),
                )
            }
            ext::UDP => {
                let udp = UdpView::new(transport).ok()?;
                if usize::from(udp.len_field()) != transport.len() || udp.checksum() == 0 {
                    return None;
                }
                (Transport::Udp, UDP_HEADER_LEN)
            }
            _ => return None,
        };
        let payload_len = transport.len().checked_sub(header_len).filter(|len| *len > 0)?;
        let len = u32::try_from(transport.len()).ok()?;
        pseudo_v6(view.src_bytes(), view.dst_bytes(), len, view.next_header())
            .add_bytes(transport)
            .is_valid()
            .then_some(Segment {
                protocol,
                header_len: HEADER_LEN + header_len,
                payload_len,
            })
    }

    /// Where the payload lies in the packet.
    #[inline]
    pub fn payload(&self) -> core::ops::Range<usize> {
        self.header_len..self.header_len + self.payload_len
    }
}

/// Whether two inner packets, both plain TCP or UDP, belong to the same flow.
#[inline]
pub fn same_flow(a: &[u8], b: &[u8]) -> bool {
    match (a.get(..HEADER_LEN + 4), b.get(..HEADER_LEN + 4)) {
        (Some(a), Some(b)) => a[6] == b[6] && a[8..] == b[8..],
        _ => false,
    }
}

/// A run of segments, in the making.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    head: Segment,
    /// Segments so far.
    count: usize,
    /// Payload bytes so far.
    payload_len: usize,
    /// Flags that only the last segment had.
    last_flags: u8,
    ended: bool,
}

impl Run {
    /// A run of one.
    pub fn start(head: Segment) -> Run {
        let mut run = Run {
            head,
            count: 0,
            payload_len: 0,
            last_flags: 0,
            ended: false,
        };
        run.add(head);
        run
    }

    /// Segments so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether nothing can follow any more.
    pub fn has_ended(&self) -> bool {
        self.ended || self.count >= MAX_RUN_SEGMENTS
    }

    /// Adds `next`, the packet `inner`, to the run that began with the packet `head`.
    ///
    /// # Errors
    /// Why it does not belong there; the run stays as it was.
    pub fn append(&mut self, head: &[u8], next: Segment, inner: &[u8]) -> Result<(), Refusal> {
        if !same_flow(head, inner) {
            return Err(Refusal::Flow);
        }
        if self.ended {
            return Err(Refusal::Ended);
        }
        // Version, traffic class, flow label; then the hop limit.
        if head[..4] != inner[..4] || head[7] != inner[7] {
            return Err(Refusal::NetworkHeader);
        }
        if next.payload_len > self.head.payload_len {
            return Err(Refusal::Size);
        }
        if self.count >= MAX_RUN_SEGMENTS || self.total_len() + next.payload_len > MAX_RUN_LEN {
            return Err(Refusal::Full);
        }
        self.check_transport(head, next, inner)?;
        self.add(next);
        Ok(())
    }

    fn check_transport(&self, head: &[u8], next: Segment, inner: &[u8]) -> Result<(), Refusal> {
        let (Transport::Tcp { seq: first, .. }, Transport::Tcp { seq, .. }) =
            (self.head.protocol, next.protocol)
        else {
            return if self.head.protocol == next.protocol {
                Ok(())
            } else {
                Err(Refusal::Flow)
            };
        };
        let so_far = u32::try_from(self.payload_len).unwrap_or(u32::MAX);
        if seq != first.wrapping_add(so_far) {
            return Err(Refusal::Sequence);
        }
        // Acknowledgement; data offset; window. Flags were restricted to ACK and PSH when the segment was made.
        let same = |range: core::ops::Range<usize>| head.get(range.clone()) == inner.get(range);
        let at = |offset: usize| HEADER_LEN + offset;
        if self.head.header_len != next.header_len || !same(at(8)..at(13)) || !same(at(14)..at(16)) {
            return Err(Refusal::TransportHeader);
        }
        if same(at(TCP_MIN_HEADER_LEN)..self.head.header_len) {
            Ok(())
        } else {
            Err(Refusal::Options)
        }
    }

    fn add(&mut self, segment: Segment) {
        self.count += 1;
        self.payload_len += segment.payload_len;
        self.ended = segment.payload_len < self.head.payload_len;
        if let Transport::Tcp { flags, .. } = segment.protocol {
            self.last_flags = flags;
            self.ended |= flags & PSH != 0;
        }
    }

    /// Bytes of the superpacket, headers included.
    pub fn total_len(&self) -> usize {
        self.head.header_len + self.payload_len
    }

    /// Turns the head's headers into those of the whole superpacket, with a partial checksum, and says what the kernel is to
    /// be told. A run of one stays as it is.
    pub fn finish(&self, head: &mut [u8]) -> VnetHeader {
        if self.count < 2 {
            return VnetHeader::NONE;
        }
        let beyond_fixed = u16::try_from(self.total_len() - HEADER_LEN).unwrap_or(u16::MAX);
        ipv6::set_payload_len(head, beyond_fixed);
        let (protocol, gso, csum_offset) = match self.head.protocol {
            Transport::Tcp { .. } => (ext::TCP, GsoType::TcpV6, TCP_CHECKSUM_OFFSET),
            Transport::Udp => (ext::UDP, GsoType::UdpL4, UDP_CHECKSUM_OFFSET),
        };
        let addresses = (head[8..].first_chunk::<16>(), head[24..].first_chunk::<16>());
        let partial = match addresses {
            (Some(src), Some(dst)) => pseudo_v6(src, dst, u32::from(beyond_fixed), protocol).fold(),
            _ => 0,
        };
        let transport = &mut head[HEADER_LEN..];
        match self.head.protocol {
            Transport::Tcp { flags, .. } => {
                set_tcp_flags(transport, flags | self.last_flags);
                set_tcp_checksum(transport, partial);
            }
            Transport::Udp => {
                set_udp_len(transport, beyond_fixed);
                set_udp_checksum(transport, partial);
            }
        }
        VnetHeader {
            needs_csum: true,
            gso,
            hdr_len: u16::try_from(self.head.header_len).unwrap_or(u16::MAX),
            gso_size: u16::try_from(self.head.payload_len).unwrap_or(u16::MAX),
            csum_start: u16::try_from(HEADER_LEN).unwrap_or(u16::MAX),
            csum_offset,
            ..VnetHeader::NONE
        }
    }
}

#[cfg(test)]
mod tests;
