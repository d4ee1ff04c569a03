//! Completes the checksum that the kernel left to the device (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, VIRTIO 1.2 5.1.6.2).
//!
//! ```text
//!  | IPv6 | extension headers | transport header .. [checksum] .. payload |
//!                             ^ csum_start            ^ csum_start + csum_offset
//!                             |<------- summed, with what the field holds ------->|
//! ```
//!
//! The field holds the pseudo-header sum, so that the addresses need not be known here: with a routing header they are
//! not the ones in the IPv6 header.

use crate::wire::checksum;
use crate::wire::ext;
use crate::wire::transport::TCP_CHECKSUM_OFFSET;
use crate::wire::vnet::VnetHeader;

/// Why a checksum cannot be completed. The packet is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsumError {
    /// The packet has no end to its header chain, or is a fragment, whose checksum covers more than is here.
    NotTransport,
    /// The summed part begins before the transport header or beyond the packet.
    CsumStart,
    /// The checksum field would lie outside the packet or across two words of the sum.
    CsumOffset,
}

/// Fills the checksum field in if `vnet` asks for it; `inner` is one packet, an [`Ipv6View`](crate::wire::ipv6::Ipv6View)'s bytes.
///
/// # Errors
/// The vnet header does not fit the packet (FAULTS 31).
#[inline]
pub fn complete(vnet: &VnetHeader, inner: &mut [u8]) -> Result<(), CsumError> {
    if !vnet.needs_csum {
        return Ok(());
    }
    let upper = ext::walk(inner).map_err(|_| CsumError::NotTransport)?;
    if upper.fragment.is_some() {
        return Err(CsumError::NotTransport);
    }
    let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
    // At or behind the transport header: a packet inside a packet (VXLAN over us) has its own checksum further in. Never
    // before it, or the headers that the verdict was about would change.
    if start < upper.offset {
        return Err(CsumError::CsumStart);
    }
    let covered = inner.get_mut(start..).ok_or(CsumError::CsumStart)?;
    if offset % 2 != 0 || offset + 2 > covered.len() {
        return Err(CsumError::CsumOffset);
    }
    // 0 would mean "no checksum" for UDP; 0xffff is the same number for everybody else, and what the kernel writes.
    let checksum = match checksum::sum(covered) {
        0 => 0xffff,
        checksum => checksum,
    };
    covered[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// Writes the pseudo-header sum of a superpacket, which the kernel goes on from for each segment. It is there already, unless its segments
/// were put together with what each of them had.
#[inline]
pub fn begin(vnet: &VnetHeader, inner: &mut [u8]) {
    let protocol = if vnet.csum_offset == TCP_CHECKSUM_OFFSET {
        ext::TCP
    } else {
        ext::UDP
    };
    let start = usize::from(vnet.csum_start);
    let field = start + usize::from(vnet.csum_offset);
    let addresses = (
        inner.get(8..).and_then(<[u8]>::first_chunk),
        inner.get(24..).and_then(<[u8]>::first_chunk),
    );
    let len = u32::try_from(inner.len().saturating_sub(start)).unwrap_or(u32::MAX);
    let (Some(src), Some(dst)) = addresses else {
        return;
    };
    let sum = checksum::pseudo_v6(src, dst, len, protocol).fold();
    if let Some(field) = inner.get_mut(field..).and_then(<[u8]>::first_chunk_mut) {
        *field = sum.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Shape, is_intact};
    use super::*;
    use crate::miri::cases;
    use crate::wire::vnet::GsoType;
    use proptest::prelude::*;

    fn partial(csum_start: u16, csum_offset: u16) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            csum_start,
            csum_offset,
            ..VnetHeader::NONE
        }
    }

    #[test]
    fn without_the_flag_nothing_changes() {
        let (_, mut packet) = testing::partial_packet(&Shape::tcp(), b"payload");
        let before = packet.clone();
        assert_eq!(
            complete(
                &VnetHeader {
                    needs_csum: false,
                    ..partial(40, 16)
                },
                &mut packet
            ),
            Ok(())
        );
        assert_eq!(packet, before);
    }

    #[test]
    fn tcp_and_udp_with_and_without_extension_headers() {
        for shape in Shape::all() {
            for &len in cases([0, 1, 2, 7, 8, 1219, 1220].as_slice(), &[0, 1, 8, 119]) {
                let payload = testing::payload(len);
                let (vnet, mut packet) = testing::partial_packet(&shape, &payload);
                assert!(!is_intact(&packet), "{shape:?} {len}");
                assert_eq!(complete(&vnet, &mut packet), Ok(()));
                assert!(is_intact(&packet), "{shape:?} {len}");
            }
        }
    }

    /// RFC 768, RFC 8200 8.1: a computed 0 becomes 0xffff.
    #[test]
    fn a_udp_checksum_is_never_zero() {
        let (vnet, packet) = testing::partial_packet(&Shape::udp(), &[0, 0]);
        let at = packet.len() - 2;
        let mut sum_so_far = packet.clone();
        complete(&vnet, &mut sum_so_far).unwrap();
        // Adding the present checksum to the data makes the next one 0.
        let mut zero = packet;
        zero[at..].copy_from_slice(&sum_so_far[46..48]);
        complete(&vnet, &mut zero).unwrap();
        assert_eq!(zero[46..48], [0xff, 0xff]);
        assert!(is_intact(&zero));
    }

    /// FAULTS 31: positions that would damage other headers or lie outside.
    #[test]
    fn positions_outside_the_transport_are_refused() {
        let (_, packet) = testing::partial_packet(&Shape::tcp(), b"payload");
        let len = u16::try_from(packet.len()).unwrap();
        for (vnet, error) in [
            (partial(0, 16), CsumError::CsumStart),
            (partial(8, 0), CsumError::CsumStart),
            (partial(39, 16), CsumError::CsumStart),
            (partial(len + 1, 0), CsumError::CsumStart),
            (partial(u16::MAX, u16::MAX), CsumError::CsumStart),
            (partial(len, 0), CsumError::CsumOffset),
            (partial(len - 1, 0), CsumError::CsumOffset),
            (partial(40, len - 40), CsumError::CsumOffset),
            (partial(40, 15), CsumError::CsumOffset),
            (partial(40, u16::MAX - 1), CsumError::CsumOffset),
        ] {
            let mut bytes = packet.clone();
            assert_eq!(complete(&vnet, &mut bytes), Err(error), "{vnet:?}");
            assert_eq!(bytes, packet);
        }
    }

    #[test]
    fn before_the_end_of_the_extension_headers_is_too_early() {
        let (vnet, packet) = testing::partial_packet(&Shape::tcp().with_extensions(2), b"payload");
        for csum_start in [40, 48, vnet.csum_start - 1] {
            let error = complete(&VnetHeader { csum_start, ..vnet }, &mut packet.clone());
            assert_eq!(error, Err(CsumError::CsumStart));
        }
    }

    #[test]
    fn fragments_and_broken_chains_are_refused() {
        let (vnet, packet) = testing::partial_packet(&Shape::tcp(), b"payload");
        let mut fragment = packet.clone();
        fragment[6] = ext::FRAGMENT;
        fragment[40] = ext::TCP;
        assert_eq!(complete(&vnet, &mut fragment), Err(CsumError::NotTransport));
        let mut endless = packet;
        endless[6] = ext::HOP_BY_HOP;
        endless[41] = 255;
        assert_eq!(complete(&vnet, &mut endless), Err(CsumError::NotTransport));
    }

    proptest! {
        /// FAULTS 31: any vnet header over any bytes; what is before `csum_start` never changes.
        #[test]
        fn never_panics(raw in any::<[u8; 10]>(), mut bytes in testing::any_packet()) {
            if let Ok(vnet) = VnetHeader::parse(&raw) {
                let before = bytes.clone();
                let result = complete(&vnet, &mut bytes);
                let kept = if result.is_ok() && vnet.needs_csum { usize::from(vnet.csum_start) } else { before.len() };
                prop_assert!(kept >= 40 || before.len() < 40);
                prop_assert_eq!(&bytes[..kept], &before[..kept]);
            }
        }

        #[test]
        fn completes_what_the_kernel_left(
            shape in testing::any_shape(),
            payload in proptest::collection::vec(any::<u8>(), 0..cases(1500, 100)),
        ) {
            let (vnet, mut packet) = testing::partial_packet(&shape, &payload);
            prop_assert_eq!(vnet.gso, GsoType::None);
            complete(&vnet, &mut packet).unwrap();
            prop_assert!(is_intact(&packet));
            testing::check_with_other_libraries(&packet);
        }
    }
}
