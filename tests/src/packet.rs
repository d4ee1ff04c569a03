//! Crafted packets: any field may be wrong on purpose. Written without the engine, so the two check each other;
//! what was seen is read back by etherparse.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

/// IPv4 protocol number of encapsulated IPv6.
pub const PROTO_IPV6: u8 = 41;
/// Next header numbers.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// The Internet checksum (RFC 1071) over a list of parts, each of which but the last has an even length.
/// 16 bits at a time, as in the text: the oracle for faster versions.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded")
}

/// The checksum of an upper-layer message with the IPv6 pseudo-header (RFC 8200 8.1).
pub fn upper_checksum(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, message: &[u8]) -> u16 {
    let len = u32::try_from(message.len()).expect("a packet").to_be_bytes();
    checksum(&[
        &src.octets(),
        &dst.octets(),
        &len,
        &[0, 0, 0, next_header],
        message,
    ])
}

/// An outer IPv4 header about to be written; defaults are those of a correct ISATAP sender.
#[derive(Clone, Debug)]
pub struct Outer {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// TOS byte: DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// DF.
    pub dont_fragment: bool,
    /// MF.
    pub more_fragments: bool,
    /// Fragment offset in bytes.
    pub fragment_offset: u16,
    /// Protocol.
    pub protocol: u8,
    /// Option bytes; padded with 0 to a multiple of 4.
    pub options: Vec<u8>,
    /// Version, if not 4.
    pub version: u8,
    /// Header length field in words, if not the true one.
    pub header_words: Option<u8>,
    /// Total length field, if not the true one.
    pub total_len: Option<u16>,
}

impl Outer {
    /// A header of protocol 41.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Self {
            src,
            dst,
            tos: 0,
            ttl: 64,
            id: 0x4141,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            protocol: PROTO_IPV6,
            options: Vec::new(),
            version: 4,
            header_words: None,
            total_len: None,
        }
    }

    /// The whole IPv4 packet: this header, then `payload`.
    pub fn wrap(&self, payload: &[u8]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header_len = 20 + options.len();
        let words = self
            .header_words
            .unwrap_or(u8::try_from(header_len / 4).expect("at most 60 bytes"));
        let total = self
            .total_len
            .unwrap_or(u16::try_from(header_len + payload.len()).expect("one datagram"));
        let mut flags = self.fragment_offset / 8;
        flags |= u16::from(self.more_fragments) << 13 | u16::from(self.dont_fragment) << 14;
        let mut packet = vec![self.version << 4 | words & 15, self.tos];
        packet.extend_from_slice(&total.to_be_bytes());
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&flags.to_be_bytes());
        packet.extend_from_slice(&[self.ttl, self.protocol, 0, 0]);
        packet.extend_from_slice(&self.src.octets());
        packet.extend_from_slice(&self.dst.octets());
        packet.extend_from_slice(&options);
        let sum = checksum(&[&packet]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend_from_slice(payload);
        packet
    }

    /// The packet cut into IPv4 fragments with at most `size` payload bytes each (a multiple of 8).
    pub fn fragments(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        assert!(
            size.is_multiple_of(8) && size > 0,
            "fragments end at multiples of 8 bytes"
        );
        let count = payload.len().div_ceil(size);
        let piece = |(index, part): (usize, &[u8])| {
            let mut header = self.clone();
            header.fragment_offset = u16::try_from(index * size).expect("one datagram");
            header.more_fragments = index + 1 < count;
            header.wrap(part)
        };
        payload.chunks(size).enumerate().map(piece).collect()
    }
}

/// An inner IPv6 header about to be written.
#[derive(Clone, Debug)]
pub struct Inner {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Version, if not 6.
    pub version: u8,
    /// Payload length field, if not the true one.
    pub payload_len: Option<u16>,
}

impl Inner {
    /// A header with hop limit 64.
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        Self {
            src,
            dst,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            version: 6,
            payload_len: None,
        }
    }

    /// The whole IPv6 packet: this header, then `payload` as `next_header`.
    pub fn wrap(&self, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let len = self
            .payload_len
            .unwrap_or(u16::try_from(payload.len()).expect("one packet"));
        let first =
            u32::from(self.version) << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        let mut packet = first.to_be_bytes().to_vec();
        packet.extend_from_slice(&len.to_be_bytes());
        packet.extend_from_slice(&[next_header, self.hop_limit]);
        packet.extend_from_slice(&self.src.octets());
        packet.extend_from_slice(&self.dst.octets());
        packet.extend_from_slice(payload);
        packet
    }

    /// A packet whose upper-layer message has its checksum at `checksum_at`, filled in here.
    pub fn wrap_summed(&self, next_header: u8, mut message: Vec<u8>, checksum_at: usize) -> Vec<u8> {
        message[checksum_at..checksum_at + 2].fill(0);
        let sum = match upper_checksum(self.src, self.dst, next_header, &message) {
            0 if next_header == UDP => 0xffff,
            sum => sum,
        };
        message[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        self.wrap(next_header, &message)
    }

    /// A UDP datagram.
    pub fn udp(&self, src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
        self.wrap_summed(UDP, udp_message(src_port, dst_port, data), 6)
    }

    /// An ICMPv6 message: type, code, then `body` after the checksum.
    pub fn icmpv6(&self, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(body);
        self.wrap_summed(ICMPV6, message, 2)
    }

    /// An echo request.
    pub fn echo_request(&self, id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
        self.icmpv6(128, 0, &echo_body(id, sequence, data))
    }

    /// A TCP segment without options.
    pub fn tcp(&self, src_port: u16, dst_port: u16, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(20 + data.len());
        message.extend_from_slice(&src_port.to_be_bytes());
        message.extend_from_slice(&dst_port.to_be_bytes());
        message.extend_from_slice(&sequence.to_be_bytes());
        message.extend_from_slice(&[0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        message.extend_from_slice(data);
        self.wrap_summed(TCP, message, 16)
    }
}

/// A UDP header and its data, checksum 0.
pub fn udp_message(src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(8 + data.len());
    message.extend_from_slice(&src_port.to_be_bytes());
    message.extend_from_slice(&dst_port.to_be_bytes());
    message.extend_from_slice(&u16::try_from(8 + data.len()).expect("one datagram").to_be_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(data);
    message
}

/// What follows the checksum of an echo message.
pub fn echo_body(id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + data.len());
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(data);
    body
}

/// `fe80::[0|200]:5efe:<v4>` with the u bit as asked (RFC 5214 6.1).
pub fn isatap(prefix: &str, universal: bool, v4: Ipv4Addr) -> Ipv6Addr {
    let prefix: Ipv6Addr = prefix.parse().unwrap_or_else(|e| panic!("{prefix}: {e}"));
    let mut octets = prefix.octets();
    octets[8..12].copy_from_slice(&[if universal { 2 } else { 0 }, 0, 0x5e, 0xfe]);
    octets[12..].copy_from_slice(&v4.octets());
    octets.into()
}

/// The link-local ISATAP address of a private IPv4 address.
pub fn link_local(v4: Ipv4Addr) -> Ipv6Addr {
    isatap("fe80::", false, v4)
}

/// A seen IPv4 packet that carries IPv6.
#[derive(Clone, Copy, Debug)]
pub struct SeenOuter<'a> {
    /// The outer header.
    pub header: Ipv4HeaderSlice<'a>,
    /// Everything after it, up to its total length.
    pub payload: &'a [u8],
}

impl<'a> SeenOuter<'a> {
    /// Reads a packet of protocol 41; `None` for anything else.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        if header.protocol().0 != PROTO_IPV6 {
            return None;
        }
        let payload = packet.get(header.slice().len()..usize::from(header.total_len()))?;
        Some(Self { header, payload })
    }

    /// Source address.
    pub fn src(&self) -> Ipv4Addr {
        self.header.source_addr()
    }

    /// Destination address.
    pub fn dst(&self) -> Ipv4Addr {
        self.header.destination_addr()
    }

    /// The TOS byte.
    pub fn tos(&self) -> u8 {
        self.header.dcp().value() << 2 | self.header.ecn().value()
    }

    /// The packet inside, if it is IPv6.
    pub fn inner(&self) -> Option<SeenInner<'a>> {
        SeenInner::read(self.payload)
    }
}

/// A seen IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct SeenInner<'a> {
    /// Its header.
    pub header: Ipv6HeaderSlice<'a>,
    /// Everything after the fixed header, as long as it says.
    pub payload: &'a [u8],
}

impl<'a> SeenInner<'a> {
    /// Reads a packet; `None` if it is not a whole IPv6 packet.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
        let payload = packet.get(40..40 + usize::from(header.payload_length()))?;
        Some(Self { header, payload })
    }

    /// Source address.
    pub fn src(&self) -> Ipv6Addr {
        self.header.source_addr()
    }

    /// Destination address.
    pub fn dst(&self) -> Ipv6Addr {
        self.header.destination_addr()
    }

    /// Type, code and what follows the checksum, if this is ICMPv6 without extension headers.
    pub fn icmpv6(&self) -> Option<(u8, u8, &'a [u8])> {
        (self.header.next_header().0 == ICMPV6 && self.payload.len() >= 4)
            .then(|| (self.payload[0], self.payload[1], &self.payload[4..]))
    }

    /// Ports and data, if this is UDP without extension headers.
    pub fn udp(&self) -> Option<(u16, u16, &'a [u8])> {
        (self.header.next_header().0 == UDP && self.payload.len() >= 8).then(|| {
            let port = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
            (port(0), port(2), &self.payload[8..])
        })
    }

    /// Whether the checksum of the upper-layer message, which starts right after the fixed header, is right.
    pub fn checksum_is_right(&self) -> bool {
        upper_checksum(self.src(), self.dst(), self.header.next_header().0, self.payload) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket};

    const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    /// etherparse builds the same packets from its own code.
    #[test]
    fn udp_packets_agree_with_etherparse() {
        let (src, dst) = (link_local(A4), link_local(B4));
        let mut expected = Vec::new();
        let builder = PacketBuilder::ipv6(src.octets(), dst.octets(), 64).udp(1000, 2000);
        builder.write(&mut expected, b"odd length!").expect("build");
        assert_eq!(Inner::new(src, dst).udp(1000, 2000, b"odd length!"), expected);
    }

    #[test]
    fn tcp_and_echo_checksums_are_right() {
        let inner = Inner::new(link_local(A4), link_local(B4));
        for packet in [
            inner.tcp(1, 2, 3, 0x18, b"data"),
            inner.echo_request(7, 8, b"ping me"),
        ] {
            assert!(SlicedPacket::from_ip(&packet).is_ok());
            assert!(SeenInner::read(&packet).expect("IPv6").checksum_is_right());
        }
    }

    #[test]
    fn outer_headers_read_back() {
        let mut outer = Outer::new(A4, B4);
        outer.tos = 0xb9;
        outer.options = vec![1, 1, 1];
        let packet = outer.wrap(b"123456789");
        let seen = SeenOuter::read(&packet).expect("protocol 41");
        assert_eq!(
            (seen.src(), seen.dst(), seen.tos(), seen.payload),
            (A4, B4, 0xb9, &b"123456789"[..])
        );
        assert_eq!(seen.header.slice().len(), 24);
        assert_eq!(checksum(&[seen.header.slice()]), 0);
    }

    #[test]
    fn fragments_cover_the_payload() {
        let payload: Vec<u8> = (0..=255).collect();
        let pieces = Outer::new(A4, B4).fragments(&payload, 104);
        assert_eq!(pieces.len(), 3);
        let mut joined = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let seen = SeenOuter::read(piece).expect("protocol 41");
            assert_eq!(
                usize::from(seen.header.fragments_offset().byte_offset()),
                joined.len()
            );
            assert_eq!(seen.header.more_fragments(), i < 2);
            joined.extend_from_slice(seen.payload);
        }
        assert_eq!(joined, payload);
    }
}
