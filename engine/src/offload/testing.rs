//! Packets for the tests of this module, as the kernel hands them over, with oracles that share no code with what they check.

use crate::miri::cases;
use crate::wire::ext;
use crate::wire::vnet::{GsoType, VnetHeader};
use proptest::prelude::*;

/// What a packet looks like apart from its payload.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) protocol: u8,
    /// Extension headers of eight bytes each: hop-by-hop first, then destination options.
    pub(super) extensions: usize,
    /// 32-bit words of TCP options.
    pub(super) option_words: usize,
    pub(super) seq: u32,
    pub(super) flags: u8,
}

impl Shape {
    pub(super) fn tcp() -> Shape {
        Shape {
            protocol: ext::TCP,
            extensions: 0,
            option_words: 3,
            seq: 0xffff_f000,
            flags: 0x10,
        }
    }

    pub(super) fn udp() -> Shape {
        Shape {
            protocol: ext::UDP,
            ..Shape::tcp()
        }
    }

    pub(super) fn with_extensions(self, extensions: usize) -> Shape {
        Shape { extensions, ..self }
    }

    pub(super) fn with_flags(self, flags: u8) -> Shape {
        Shape { flags, ..self }
    }

    pub(super) fn all() -> Vec<Shape> {
        let counts = cases([0, 1, 2, 3].as_slice(), &[0, 2]);
        let extended = |shape: Shape| counts.iter().map(move |&n| shape.clone().with_extensions(n));
        let options = [0, 3, 10].map(|option_words| Shape {
            option_words,
            ..Shape::tcp()
        });
        options
            .into_iter()
            .flat_map(extended)
            .chain(extended(Shape::udp()))
            .collect()
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.protocol == ext::TCP
    }

    pub(super) fn transport_at(&self) -> usize {
        40 + 8 * self.extensions
    }

    pub(super) fn header_len(&self) -> usize {
        self.transport_at()
            + if self.is_tcp() {
                20 + 4 * self.option_words
            } else {
                8
            }
    }

    pub(super) fn csum_offset(&self) -> usize {
        if self.is_tcp() { 16 } else { 6 }
    }
}

pub(super) fn any_shape() -> impl Strategy<Value = Shape> {
    (any::<bool>(), 0..=4usize, 0..=10usize, any::<u32>(), any::<u8>()).prop_map(
        |(tcp, extensions, option_words, seq, flags)| Shape {
            protocol: if tcp { ext::TCP } else { ext::UDP },
            extensions,
            option_words,
            seq,
            flags,
        },
    )
}

/// Bytes without a pattern that a checksum would not notice.
pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect()
}

fn packet(shape: &Shape, payload: &[u8]) -> Vec<u8> {
    let total = shape.header_len() + payload.len();
    let mut packet = vec![0x6a, 0x3b, 0xcd, 0xef];
    packet.extend_from_slice(&u16::try_from(total - 40).unwrap().to_be_bytes());
    let kinds = [
        ext::HOP_BY_HOP,
        ext::DEST_OPTS,
        ext::DEST_OPTS,
        ext::DEST_OPTS,
        ext::DEST_OPTS,
    ];
    let mut chain = kinds[..shape.extensions].iter().copied().chain([shape.protocol]);
    packet.extend_from_slice(&[chain.next().unwrap(), 63]);
    packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0x5e, 0xfe, 10, 1, 2, 3]);
    packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 2, 0, 0, 0x5e, 0xfe, 10, 9, 8, 7]);
    for next in chain {
        packet.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend_from_slice(&[0x12, 0x34, 0xab, 0xcd]);
    if shape.is_tcp() {
        packet.extend_from_slice(&shape.seq.to_be_bytes());
        packet.extend_from_slice(&[0x77, 0x66, 0x55, 0x44]);
        packet.push(u8::try_from(5 + shape.option_words).unwrap() << 4);
        packet.extend_from_slice(&[shape.flags, 0x7f, 0xff, 0, 0, 0x19, 0x91]);
        packet.extend(std::iter::repeat_n([1, 1, 8, 10], shape.option_words).flatten());
    } else {
        packet.extend_from_slice(&u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
    }
    packet.extend_from_slice(payload);
    let field = shape.transport_at() + shape.csum_offset();
    let pseudo = plain_sum(&pseudo_header(
        &packet,
        shape.protocol,
        total - shape.transport_at(),
    ));
    packet[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    packet
}

/// A single packet whose checksum the kernel left to us.
pub(super) fn partial_packet(shape: &Shape, payload: &[u8]) -> (VnetHeader, Vec<u8>) {
    let vnet = VnetHeader {
        needs_csum: true,
        csum_start: u16::try_from(shape.transport_at()).unwrap(),
        csum_offset: u16::try_from(shape.csum_offset()).unwrap(),
        ..VnetHeader::NONE
    };
    (vnet, packet(shape, payload))
}

/// A superpacket. `hdr_len` is nonsense on purpose.
pub(super) fn superpacket(shape: &Shape, payload: &[u8], gso_size: u16) -> (VnetHeader, Vec<u8>) {
    let (vnet, packet) = partial_packet(shape, payload);
    let gso = if shape.is_tcp() {
        GsoType::TcpV6
    } else {
        GsoType::UdpL4
    };
    (
        VnetHeader {
            gso,
            gso_size,
            hdr_len: 9,
            ecn: shape.flags & 0x80 != 0,
            ..vnet
        },
        packet,
    )
}

/// Whether lengths and the transport checksum are those of a packet that may travel.
pub(super) fn is_intact(packet: &[u8]) -> bool {
    let upper = ext::walk(packet).unwrap();
    let segment = &packet[upper.offset..];
    let mut bytes = pseudo_header(packet, upper.protocol, segment.len());
    bytes.extend_from_slice(segment);
    let lengths = usize::from(u16::from_be_bytes([packet[4], packet[5]])) == packet.len() - 40;
    let udp = upper.protocol != ext::UDP
        || usize::from(u16::from_be_bytes([segment[4], segment[5]])) == segment.len()
            && segment[6..8] != [0, 0];
    lengths && udp && plain_sum(&bytes) == 0xffff
}

/// The same question to two libraries that others wrote.
pub(super) fn check_with_other_libraries(packet: &[u8]) {
    let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let (src, dst) = match sliced.net {
        Some(etherparse::NetSlice::Ipv6(ip)) => (ip.header().source(), ip.header().destination()),
        other => panic!("not IPv6: {other:?}"),
    };
    let addr = |octets: [u8; 16]| smoltcp::wire::IpAddress::Ipv6(octets.into());
    match sliced.transport {
        Some(etherparse::TransportSlice::Tcp(tcp)) => {
            let expected = tcp
                .to_header()
                .calc_checksum_ipv6_raw(src, dst, tcp.payload())
                .unwrap();
            assert_eq!(tcp.checksum(), expected);
            let theirs = smoltcp::wire::TcpPacket::new_checked(tcp.slice()).unwrap();
            assert!(theirs.verify_checksum(&addr(src), &addr(dst)));
        }
        Some(etherparse::TransportSlice::Udp(udp)) => {
            let expected = udp
                .to_header()
                .calc_checksum_ipv6_raw(src, dst, udp.payload())
                .unwrap();
            assert_eq!(udp.checksum(), expected);
            let theirs = smoltcp::wire::UdpPacket::new_checked(udp.slice()).unwrap();
            assert!(theirs.verify_checksum(&addr(src), &addr(dst)));
        }
        other => panic!("neither TCP nor UDP: {other:?}"),
    }
}

/// Bytes that a hostile kernel or peer could hand over: noise, and good packets cut or damaged in a few places.
pub(super) fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..cases(300, 100));
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let damaged = (
        any_shape(),
        0..cases(3000, 300usize),
        damage,
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(shape, len, damage, cut, whole)| {
            let mut bytes = packet(&shape, &payload(len));
            if !whole {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            for (at, value) in damage {
                // Headers are where damage matters.
                let reach = bytes.len().min(128);
                if reach > 0 {
                    bytes[at.index(reach)] = value;
                }
            }
            bytes
        });
    prop_oneof![1 => noise, 4 => damaged]
}

/// Metadata near the truth or far from it.
pub(super) fn any_vnet() -> impl Strategy<Value = VnetHeader> {
    let gso = prop_oneof![
        Just(GsoType::None),
        Just(GsoType::TcpV4),
        Just(GsoType::Udp),
        Just(GsoType::TcpV6),
        Just(GsoType::UdpL4),
    ];
    let start = prop_oneof![(0..8u16).prop_map(|n| 40 + 8 * n), any::<u16>()];
    let offset = prop_oneof![Just(16u16), Just(6), any::<u16>()];
    let size = prop_oneof![0..4u16, 36..1500u16, any::<u16>()];
    (any::<[bool; 3]>(), gso, any::<u16>(), size, start, offset).prop_map(
        |([needs_csum, data_valid, ecn], gso, hdr_len, gso_size, csum_start, csum_offset)| VnetHeader {
            needs_csum,
            data_valid,
            gso,
            ecn,
            hdr_len,
            gso_size,
            csum_start,
            csum_offset,
        },
    )
}

fn pseudo_header(packet: &[u8], protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = packet[8..40].to_vec();
    bytes.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, protocol]);
    bytes
}

/// RFC 1071 word by word, not complemented.
pub(super) fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap()
}
