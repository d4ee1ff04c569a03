//! FAULTS 13, 18: chains of extension headers: 0 to 9 of them, each kind, each cut, and the ones that lie
//! about their length.

use super::*;
use crate::wire::ext::*;

const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A packet whose chain is `headers` (kind and bytes), ending in `last` with `payload`.
pub(super) fn chain(headers: &[(u8, Vec<u8>)], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, (_, header)) in headers.iter().enumerate() {
        let next = headers.get(at + 1).map_or(last, |(kind, _)| *kind);
        bytes.push(next);
        bytes.extend_from_slice(&header[1..]);
    }
    bytes.extend_from_slice(payload);
    inner(headers.first().map_or(last, |(kind, _)| *kind), &bytes)
}

/// Chains of 0 to 9 headers of every kind and several lengths; now and then one lies, or the packet is cut.
pub(super) fn any_chain() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![HOP_BY_HOP, ROUTING, DEST_OPTS, AH, FRAGMENT]);
    let header = (kind, 0..4u8, prop::bool::weighted(0.05)).prop_map(|(kind, units, lies)| {
        let len = match kind {
            FRAGMENT => 8,
            AH => 8 + 4 * usize::from(units),
            _ => 8 + 8 * usize::from(units),
        };
        let mut bytes = vec![0; len];
        bytes[1] = if lies { units + 5 } else { units };
        (kind, bytes)
    });
    let last = prop::sample::select(vec![TCP, UDP, ICMPV6, IPV6, GRE, ESP, NO_NEXT, 253]);
    (
        prop::collection::vec(header, 0..10),
        last,
        1..40usize,
        prop::bool::weighted(0.2),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(headers, last, payload_len, is_cut, cut)| {
            let mut packet = chain(&headers, last, &vec![0x55; payload_len]);
            if is_cut {
                let payload_len = u16::try_from(1 + cut.index(packet.len() - 40)).unwrap();
                packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
            }
            packet
        })
}

fn fragment(offset_units: u16, more: bool, id: u32) -> (u8, Vec<u8>) {
    let field = offset_units << 3 | u16::from(more);
    (
        FRAGMENT,
        [&[0, 0][..], &field.to_be_bytes(), &id.to_be_bytes()].concat(),
    )
}

#[test]
fn no_extension_header() {
    for protocol in (0..=255u8).filter(|&protocol| !is_extension(protocol)) {
        let upper = walk(&inner(protocol, &[0; 8])).unwrap();
        assert_eq!(
            upper,
            Upper {
                protocol,
                offset: 40,
                fragment: None,
                headers: 0
            }
        );
        assert_eq!(
            upper.is_tunnel(),
            [4, 41, 47].contains(&protocol),
            "FAULTS 13: {protocol}"
        );
    }
}

#[test]
fn zero_to_nine_headers() {
    for count in 0..=9u8 {
        let headers = vec![(DEST_OPTS, PADDING.to_vec()); usize::from(count)];
        let expected = if count <= MAX_HEADERS {
            let offset = 40 + 8 * usize::from(count);
            Ok(Upper {
                protocol: UDP,
                offset,
                fragment: None,
                headers: count,
            })
        } else {
            Err(ExtError::TooMany)
        };
        assert_eq!(walk(&chain(&headers, UDP, &[0; 8])), expected, "{count} headers");
    }
}

#[test]
fn each_kind_has_its_own_measure() {
    let of_len = |len: usize, units: u8| {
        let mut bytes = vec![0; len];
        bytes[1] = units;
        bytes
    };
    for (kind, bytes) in [
        (HOP_BY_HOP, of_len(8, 0)),
        (HOP_BY_HOP, of_len(2048, 255)),
        (ROUTING, of_len(24, 2)),
        (DEST_OPTS, of_len(16, 1)),
        (AH, of_len(8, 0)),
        (AH, of_len(24, 4)),
        (AH, of_len(28, 5)),
        // A fragment header's second byte is reserved, not a length.
        (FRAGMENT, of_len(8, 0)),
        (FRAGMENT, [0, 200, 0, 0, 0, 0, 0, 0].to_vec()),
    ] {
        let len = bytes.len();
        let packet = chain(&[(kind, bytes)], TCP, &[0; 20]);
        let upper = walk(&packet).unwrap();
        assert_eq!(
            (upper.protocol, upper.offset, upper.headers),
            (TCP, 40 + len, 1),
            "kind {kind}"
        );
    }
}

/// "HBH too long": the header claims more than the packet has, by one unit or by all.
#[test]
fn headers_that_leave_the_packet() {
    for (kind, unit_count) in [(HOP_BY_HOP, 3), (DEST_OPTS, 255), (ROUTING, 3), (AH, 5)] {
        let mut payload = [0; 24];
        payload[0] = UDP;
        payload[1] = unit_count;
        assert_eq!(
            walk(&inner(kind, &payload)),
            Err(ExtError::Truncated),
            "kind {kind}"
        );
        // Bytes behind the payload length are not the packet's.
        let mut padded = inner(kind, &payload);
        padded.resize(4000, 0);
        assert_eq!(walk(&padded), Err(ExtError::Truncated), "kind {kind}");
    }
    assert_eq!(
        walk(&chain(&[(DEST_OPTS, PADDING.to_vec())], HOP_BY_HOP, &[0; 7])),
        Err(ExtError::Truncated)
    );
}

/// Every cut of a packet with four headers: found when all of them fit, refused otherwise, no byte read past
/// the cut.
#[test]
fn every_cut() {
    let headers = [
        (HOP_BY_HOP, PADDING.to_vec()),
        (ROUTING, [&[0, 2, 0, 0][..], &[0; 20]].concat()),
        fragment(0, true, 7),
        (DEST_OPTS, PADDING.to_vec()),
    ];
    let packet = chain(&headers, UDP, &[0; 32]);
    let upper_at = 40 + 8 + 24 + 8 + 8;
    for len in 0..=packet.len() {
        let expected = if len < upper_at {
            Err(ExtError::Truncated)
        } else {
            Ok((UDP, upper_at))
        };
        let found = walk(&packet[..len]).map(|upper| (upper.protocol, upper.offset));
        assert_eq!(found, expected, "cut by the buffer at {len}");
        if len > 40 {
            let mut shorter = packet.clone();
            let payload_len = u16::try_from(len - 40).unwrap();
            shorter[4..6].copy_from_slice(&payload_len.to_be_bytes());
            let found = walk(&shorter).map(|upper| (upper.protocol, upper.offset));
            assert_eq!(found, expected, "cut by the payload length at {len}");
        }
    }
}

#[test]
fn fragments() {
    let behind = (DEST_OPTS, PADDING.to_vec());
    for (offset_units, more, stops) in [
        (0, false, false),
        (0, true, false),
        (1, true, true),
        (8191, false, true),
    ] {
        let packet = chain(
            &[fragment(offset_units, more, 0xdead_beef), behind.clone()],
            UDP,
            &[0; 8],
        );
        let upper = walk(&packet).unwrap();
        assert_eq!(
            upper.fragment,
            Some(Fragment {
                offset: offset_units * 8,
                more,
                id: 0xdead_beef
            })
        );
        assert_eq!(upper.is_later_fragment(), stops);
        let expected = if stops { (DEST_OPTS, 48, 1) } else { (UDP, 56, 2) };
        assert_eq!((upper.protocol, upper.offset, upper.headers), expected);
    }
}

/// What is opaque or unknown ends the chain and is not misread as an extension header.
#[test]
fn esp_and_odd_numbers_are_upper_layers() {
    for protocol in [ESP, NO_NEXT, 135, 139, 140, 253, 254] {
        let upper = walk(&chain(&[(DEST_OPTS, PADDING.to_vec())], protocol, &[0xff; 8])).unwrap();
        assert_eq!((upper.protocol, upper.offset), (protocol, 48));
    }
}

proptest! {
    #[test]
    fn any_bytes_end_inside(bytes in prop_oneof![nearly_packet(6), any_chain()]) {
        if let Ok(upper) = walk(&bytes) {
            prop_assert!(upper.offset <= bytes.len());
            prop_assert!(upper.headers <= MAX_HEADERS);
            prop_assert!(upper.is_later_fragment() || !is_extension(upper.protocol));
        }
    }
}
