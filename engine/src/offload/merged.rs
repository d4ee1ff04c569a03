//! Received packets whose checksum is only begun: merged by GRO, or sent by a neighbour that leaves checksums to hardware (DESIGN D3).
//!
//! The IPv4 stack merges TCP segments inside protocol 41 and leaves the folded pseudo-header sum in the checksum field
//! (`tcp6_gro_complete`); a peer on the same host or hypervisor sends single packets in the same state. Neither the segment size nor
//! the state is known to a raw socket, so it is read from the packet: the TUN must hear NEEDS_CSUM, or the kernel drops all of it.
//!
//! | protocol | checksum field | length | is | goes to the TUN |
//! |---|---|---|---|---|
//! | TCP, UDP | anything else | any | an ordinary packet | as it is |
//! | TCP, UDP | pseudo-header sum, right as a whole, too | <= MTU | an ordinary packet, by chance (1 : 65535) | as it is |
//! | TCP | pseudo-header sum | any | merged or partial | NEEDS_CSUM, as GSO if larger than [`SAFE_MTU`] |
//! | UDP | pseudo-header sum | <= MTU | partial | NEEDS_CSUM |
//! | UDP | pseudo-header sum | > MTU | datagrams glued together | not at all: where one ends is lost |
//!
//! Where somebody else knows how long the segments were, [`of_segments`] says what the TUN hears: nothing is lost then.
//!
//! That a damaged packet passes for partial takes a checksum field equal to one certain value: it is as likely as that damage
//! escapes the checksum itself.

use super::split::MAX_SEGMENT_HEADERS;
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::ext::{self, Upper};
use crate::wire::ipv6::{HEADER_LEN, MIN_MTU};
use crate::wire::transport::{
    CWR, RST, SYN, TCP_CHECKSUM_OFFSET, TcpView, UDP_CHECKSUM_OFFSET, UDP_HEADER_LEN, URG, UdpView,
};
use crate::wire::vnet::{GsoType, VnetHeader};

/// The packet size that every path takes; the segments of a merged packet are never made larger, whatever they were before.
pub const SAFE_MTU: usize = MIN_MTU;

/// The smallest segment size given to a merged packet. Longer headers than this leaves room for are a peer's attempt to have
/// one packet become thousands; such a packet stays whole.
const GSO_SIZE_MIN: usize = SAFE_MTU - MAX_SEGMENT_HEADERS;

/// What a received packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// One packet with a checksum of its own.
    No,
    /// TCP, merged or partial: write it behind this header.
    Tcp(VnetHeader),
    /// One UDP datagram with a partial checksum: write it behind this header.
    Udp(VnetHeader),
    /// UDP datagrams merged into one; their boundaries are lost.
    UdpUnsplittable,
}

/// Looks at `inner`, the bytes of an [`Ipv6View`](crate::wire::ipv6::Ipv6View), whose chain [`ext::walk`] followed to `upper`. An ordinary packet costs
/// one sum over its addresses; its payload is not touched.
#[inline]
pub fn recognise(inner: &[u8], upper: &Upper, tunnel_mtu: usize) -> Merged {
    let (Some(fixed), Some(segment)) = (inner.first_chunk::<HEADER_LEN>(), inner.get(upper.offset..)) else {
        return Merged::No;
    };
    let field_at = match upper.protocol {
        ext::TCP => usize::from(TCP_CHECKSUM_OFFSET),
        ext::UDP => usize::from(UDP_CHECKSUM_OFFSET),
        _ => return Merged::No,
    };
    let Some(field) = segment.get(field_at..).and_then(<[u8]>::first_chunk::<2>) else {
        return Merged::No;
    };
    let Some(pseudo) = pseudo_sum(fixed, upper, segment.len()) else {
        return Merged::No;
    };
    // Whole datagrams only: a fragment's checksum is complete before it is cut, and nothing merges fragments.
    if pseudo.fold() != u16::from_be_bytes(*field) || upper.fragment.is_some() {
        return Merged::No;
    }
    partial(inner.len(), segment, upper, tunnel_mtu, pseudo)
}

#[inline]
fn pseudo_sum(fixed: &[u8; HEADER_LEN], upper: &Upper, len: usize) -> Option<Sum> {
    let src = fixed[8..].first_chunk::<16>()?;
    let dst = fixed[24..].first_chunk::<16>()?;
    Some(pseudo_v6(src, dst, u32::try_from(len).ok()?, upper.protocol))
}

/// The field holds the pseudo-header sum: decide what that means.
#[inline(never)]
fn partial(inner_len: usize, segment: &[u8], upper: &Upper, tunnel_mtu: usize, pseudo: Sum) -> Merged {
    if inner_len <= tunnel_mtu && pseudo.add_bytes(segment).is_valid() {
        return Merged::No;
    }
    if upper.protocol == ext::TCP {
        TcpView::new(segment).map_or(Merged::No, |tcp| partial_tcp(&tcp, upper))
    } else {
        match UdpView::new(segment) {
            Ok(udp) if usize::from(udp.len_field()) != segment.len() => Merged::No,
            Ok(_) if inner_len <= tunnel_mtu => {
                needs_csum(upper, UDP_CHECKSUM_OFFSET, UDP_HEADER_LEN).map_or(Merged::No, Merged::Udp)
            }
            Ok(_) => Merged::UdpUnsplittable,
            Err(_) => Merged::No,
        }
    }
}

fn partial_tcp(tcp: &TcpView<'_>, upper: &Upper) -> Merged {
    let Some(vnet) = needs_csum(upper, TCP_CHECKSUM_OFFSET, tcp.header_len()) else {
        return Merged::No;
    };
    let gso_size = SAFE_MTU.saturating_sub(usize::from(vnet.hdr_len));
    // GRO merges none of these, and no splitter would know what to do with them.
    let unsplittable = tcp.flags() & (SYN | RST | URG) != 0 || gso_size < GSO_SIZE_MIN;
    if unsplittable || tcp.payload().len() <= gso_size {
        return Merged::Tcp(vnet);
    }
    Merged::Tcp(VnetHeader {
        gso: GsoType::TcpV6,
        gso_size: u16::try_from(gso_size).unwrap_or(u16::MAX),
        ecn: tcp.flags() & CWR != 0,
        ..vnet
    })
}

/// What the TUN is told of `inner`, which was put together of segments with `gso_size` bytes of payload each, the last one perhaps
/// with less. `None` when that is not possible. The checksum field may hold anything: it is begun anew.
pub fn of_segments(inner: &[u8], upper: &Upper, gso_size: u16) -> Option<VnetHeader> {
    let segment = inner.get(upper.offset..)?;
    let (gso, ecn, vnet) = match upper.protocol {
        ext::TCP => {
            let tcp = TcpView::new(segment).ok()?;
            if tcp.flags() & (SYN | RST | URG) != 0 {
                return None;
            }
            let vnet = needs_csum(upper, TCP_CHECKSUM_OFFSET, tcp.header_len())?;
            (GsoType::TcpV6, tcp.flags() & CWR != 0, vnet)
        }
        ext::UDP => {
            let udp = UdpView::new(segment).ok()?;
            if usize::from(udp.len_field()) != segment.len() {
                return None;
            }
            (
                GsoType::UdpL4,
                false,
                needs_csum(upper, UDP_CHECKSUM_OFFSET, UDP_HEADER_LEN)?,
            )
        }
        _ => return None,
    };
    let payload_len = inner.len().checked_sub(usize::from(vnet.hdr_len))?;
    if upper.fragment.is_some() || gso_size == 0 || payload_len <= usize::from(gso_size) {
        return None;
    }
    Some(VnetHeader {
        gso,
        gso_size,
        ecn,
        ..vnet
    })
}

/// The header of one packet whose checksum is to be completed; `None` if it starts beyond what the header can say.
fn needs_csum(upper: &Upper, csum_offset: u16, transport_len: usize) -> Option<VnetHeader> {
    Some(VnetHeader {
        needs_csum: true,
        hdr_len: u16::try_from(upper.offset + transport_len).ok()?,
        csum_start: u16::try_from(upper.offset).ok()?,
        csum_offset,
        ..VnetHeader::NONE
    })
}

#[cfg(test)]
mod tests {
    use super::super::csum;
    use super::super::split::SplitPlan;
    use super::super::testing::{self, Shape, is_intact, partial_packet, plain_sum, superpacket};
    use super::*;
    use crate::miri::cases;
    use crate::wire::ipv6::Ipv6View;
    use crate::wire::transport::ACK;
    use proptest::prelude::*;

    const MTU: usize = 1480;

    fn recognised(inner: &[u8]) -> Merged {
        recognise(inner, &ext::walk(inner).unwrap(), MTU)
    }

    /// What GRO does with consecutive segments (`skb_gro_receive`, `tcp6_gro_complete`): the headers of the first, all
    /// payloads, flags of the last, a new length, and the pseudo-header sum for a checksum.
    fn gro(shape: &Shape, segments: &[Vec<u8>]) -> Vec<u8> {
        let (at, header_len) = (shape.transport_at(), shape.header_len());
        let mut merged = segments[0][..header_len].to_vec();
        for segment in segments {
            merged.extend_from_slice(&segment[header_len..]);
        }
        merged[at + 13] |= segments.last().unwrap()[at + 13];
        let len = u16::try_from(merged.len() - 40).unwrap();
        merged[4..6].copy_from_slice(&len.to_be_bytes());
        let upper_len = u32::try_from(merged.len() - at).unwrap();
        let pseudo = [&merged[8..40], &upper_len.to_be_bytes(), &[0, 0, 0, 6]].concat();
        merged[at + 16..at + 18].copy_from_slice(&plain_sum(&pseudo).to_be_bytes());
        merged
    }

    fn split(vnet: &VnetHeader, inner: &[u8]) -> Vec<Vec<u8>> {
        let plan = SplitPlan::new(vnet, inner).unwrap();
        (0..plan.count)
            .map(|index| {
                let mut out = [0; MAX_SEGMENT_HEADERS];
                let range = plan.segment(inner, index, &mut out);
                [&out[..plan.header_len], &inner[range]].concat()
            })
            .collect()
    }

    /// Sends a payload in segments, merges them, and checks what the TUN would be told.
    fn check_merge(shape: &Shape, payload: &[u8], gso_size: u16) {
        let (vnet, inner) = superpacket(shape, payload, gso_size);
        let sent = split(&vnet, &inner);
        for segment in &sent {
            assert_eq!(recognised(segment), Merged::No, "an ordinary segment");
        }
        let merged = gro(shape, &sent);
        let Merged::Tcp(vnet) = recognised(&merged) else {
            panic!("{shape:?} {}", merged.len())
        };
        assert!(vnet.needs_csum);
        assert_eq!(usize::from(vnet.csum_start), shape.transport_at());
        assert_eq!(
            (vnet.csum_offset, usize::from(vnet.hdr_len)),
            (16, shape.header_len())
        );
        if payload.len() <= SAFE_MTU - shape.header_len() {
            assert_eq!((vnet.gso, vnet.gso_size, vnet.ecn), (GsoType::None, 0, false));
            let mut whole = merged;
            csum::complete(&vnet, &mut whole).unwrap();
            assert!(is_intact(&whole));
        } else {
            assert_eq!(vnet.gso, GsoType::TcpV6);
            assert_eq!(usize::from(vnet.gso_size), SAFE_MTU - shape.header_len());
            assert_eq!(vnet.ecn, shape.flags & CWR != 0);
            let again = split(&vnet, &merged);
            assert!(
                again
                    .iter()
                    .all(|segment| segment.len() <= SAFE_MTU && is_intact(segment))
            );
            let joined: Vec<u8> = again
                .iter()
                .flat_map(|segment| &segment[shape.header_len()..])
                .copied()
                .collect();
            assert_eq!(joined, payload);
        }
    }

    /// DESIGN D3, with merged packets below the MTU as well.
    #[test]
    fn merged_tcp_is_recognised_at_every_size() {
        for shape in Shape::all().into_iter().filter(Shape::is_tcp) {
            for flags in [ACK, ACK | CWR] {
                let shape = shape.clone().with_flags(flags);
                let largest = 65_535 + 40 - shape.header_len();
                let lens = [2, 200, 1100, 1240, 1400, 2800, 30_000, largest];
                for &len in cases(lens.as_slice(), &[2, 1240]) {
                    for &gso_size in cases([100, 1228].as_slice(), &[1228]) {
                        check_merge(&shape, &testing::payload(len), gso_size);
                    }
                }
            }
        }
    }

    /// A neighbour on the same host leaves the checksum of single packets to hardware that is not there.
    #[test]
    fn partial_packets_get_their_checksum_completed() {
        for shape in Shape::all() {
            for len in [0, 1, 100, 1000] {
                let (vnet, packet) = partial_packet(&shape, &testing::payload(len));
                let vnet = VnetHeader {
                    hdr_len: u16::try_from(shape.header_len()).unwrap(),
                    ..vnet
                };
                let expected = if shape.is_tcp() {
                    Merged::Tcp(vnet)
                } else {
                    Merged::Udp(vnet)
                };
                assert_eq!(recognised(&packet), expected, "{shape:?} {len}");
            }
        }
    }

    #[test]
    fn merged_udp_has_lost_its_boundaries() {
        let (_, at_mtu) = partial_packet(&Shape::udp(), &testing::payload(MTU - 48));
        assert!(matches!(recognised(&at_mtu), Merged::Udp(_)));
        let (_, above) = partial_packet(&Shape::udp(), &testing::payload(MTU - 47));
        assert_eq!(recognised(&above), Merged::UdpUnsplittable);
    }

    /// A packet whose correct checksum happens to equal the pseudo-header sum.
    #[test]
    fn a_complete_checksum_that_looks_partial_is_left_alone() {
        for shape in [Shape::tcp(), Shape::udp()] {
            let (_, mut packet) = partial_packet(&shape, &[0; 100]);
            let field = shape.transport_at() + shape.csum_offset();
            let pseudo = u16::from_be_bytes([packet[field], packet[field + 1]]);
            // Payload that takes the sum of everything to all ones.
            let rest = plain_sum(&[&packet[40..], &pseudo.to_be_bytes()].concat());
            let at = packet.len() - 2;
            packet[at..].copy_from_slice(&(!rest).to_be_bytes());
            assert!(is_intact(&packet));
            assert_eq!(recognised(&packet), Merged::No);
            // One bit of damage, and it is not complete any more.
            packet[at] ^= 1;
            assert_ne!(recognised(&packet), Merged::No);
        }
    }

    #[test]
    fn ordinary_packets_and_other_protocols_are_not_merged() {
        for shape in Shape::all() {
            for &len in cases([0, 1, 1000, 60_000].as_slice(), &[0, 1, 200]) {
                let (vnet, mut packet) = partial_packet(&shape, &testing::payload(len));
                csum::complete(&vnet, &mut packet).unwrap();
                assert_eq!(recognised(&packet), Merged::No);
            }
        }
        let (_, mut icmp) = partial_packet(&Shape::tcp(), &testing::payload(3000));
        icmp[6] = ext::ICMPV6;
        assert_eq!(recognised(&icmp), Merged::No);
        let (_, mut no_checksum) = partial_packet(&Shape::udp(), &testing::payload(100));
        no_checksum[46..48].fill(0);
        assert_eq!(recognised(&no_checksum), Merged::No);
    }

    #[test]
    fn fragments_are_never_merged() {
        let (_, packet) = partial_packet(&Shape::tcp().with_extensions(1), &testing::payload(3000));
        for offset_and_more in [[0, 1], [0, 8], [1, 1]] {
            let mut fragment = packet.clone();
            fragment[6] = ext::FRAGMENT;
            fragment[42..44].copy_from_slice(&offset_and_more);
            assert_eq!(recognised(&fragment), Merged::No);
        }
    }

    /// Nothing that GRO could not have made is split: handshakes, urgent data, headers that leave no room for data.
    #[test]
    fn unusual_tcp_is_kept_in_one_piece() {
        for flag in [SYN, RST, URG] {
            let (_, packet) = partial_packet(&Shape::tcp().with_flags(ACK | flag), &testing::payload(3000));
            assert!(
                matches!(recognised(&packet), Merged::Tcp(vnet) if vnet.gso == GsoType::None && vnet.needs_csum)
            );
        }
        let (_, packet) = partial_packet(&Shape::tcp(), &testing::payload(3000));
        let mut long = packet[..40].to_vec();
        long[6] = ext::DEST_OPTS;
        long.extend_from_slice(&[ext::TCP, 31]);
        long.extend_from_slice(&[0; 254]);
        long.extend_from_slice(&packet[40..]);
        let len = u16::try_from(long.len() - 40).unwrap();
        long[4..6].copy_from_slice(&len.to_be_bytes());
        assert!(
            matches!(recognised(&long), Merged::Tcp(vnet) if vnet.gso == GsoType::None && vnet.needs_csum)
        );
    }

    /// Whose segments are known is told as it was; what cannot have been merged is not.
    #[test]
    fn known_segments_are_told() {
        for shape in Shape::all() {
            let (_, packet) = partial_packet(&shape, &testing::payload(1000));
            let upper = ext::walk(&packet).unwrap();
            let told = of_segments(&packet, &upper, 300).unwrap();
            let gso = if shape.is_tcp() {
                GsoType::TcpV6
            } else {
                GsoType::UdpL4
            };
            assert_eq!((told.gso, told.gso_size, told.needs_csum), (gso, 300, true));
            let segments = split(&told, &packet);
            assert_eq!(segments.len(), 4);
            assert!(segments.iter().all(|segment| is_intact(segment)));
            // A field that is something else is begun anew.
            let mut other = packet.clone();
            other[shape.transport_at() + shape.csum_offset()] ^= 0x55;
            csum::begin(&told, &mut other);
            assert_eq!(other, packet);
            for impossible in [0, 1000, 1001] {
                assert_eq!(of_segments(&packet, &upper, impossible), None);
            }
        }
        let (_, syn) = partial_packet(&Shape::tcp().with_flags(SYN), &testing::payload(1000));
        assert_eq!(of_segments(&syn, &ext::walk(&syn).unwrap(), 300), None);
    }

    proptest! {
        #[test]
        fn merge_and_recognise(
            shape in testing::any_shape(),
            payload in proptest::collection::vec(any::<u8>(), 2..cases(20_000, 1500)),
            gso_size in 36..1400u16,
        ) {
            // GRO merges segments with ACK and what ACK allows.
            let shape = Shape { protocol: ext::TCP, flags: shape.flags & !(SYN | RST | URG) | ACK, ..shape };
            let (vnet, inner) = superpacket(&shape, &payload, gso_size);
            // One in 65536 looks complete or partial by chance; that is tested above.
            prop_assume!(split(&vnet, &inner).iter().all(|segment| recognised(segment) == Merged::No));
            prop_assume!(recognised(&gro(&shape, &split(&vnet, &inner))) != Merged::No);
            check_merge(&shape, &payload, gso_size);
        }

        #[test]
        fn never_panics(inner in testing::any_packet(), mtu in 1280..65_516usize, at in 0..70_000usize, protocol in any::<u8>()) {
            // Even a walk that belongs to another packet.
            let _ = recognise(&inner, &Upper { protocol, offset: at, fragment: None, headers: 0 }, mtu);
            let _ = recognise(&inner, &Upper { protocol: ext::TCP, offset: at % 128, fragment: None, headers: 0 }, mtu);
            let _ = of_segments(&inner, &Upper { protocol, offset: at, fragment: None, headers: 0 }, 1000);
            // Whoever asks has cut off what is behind the packet, and refused one that says to be longer than it is.
            let whole = Ipv6View::new(&inner).map(|view| view.packet().to_vec());
            if let Ok(inner) = whole
                && let Ok(upper) = ext::walk(&inner)
            {
                match recognise(&inner, &upper, mtu) {
                    Merged::Tcp(vnet) | Merged::Udp(vnet) => {
                        prop_assert!(usize::from(vnet.hdr_len) <= inner.len());
                        prop_assert!(csum::complete(&vnet, &mut inner.clone()).is_ok());
                        if vnet.gso != GsoType::None {
                            prop_assert!(SplitPlan::new(&vnet, &inner).is_ok());
                        }
                    }
                    Merged::No | Merged::UdpUnsplittable => {}
                }
            }
        }
    }
}
