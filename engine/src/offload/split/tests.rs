//! Tests of splitting: every shape and length that matters, each refusal by its name, and properties over any input.

use super::*;
use crate::miri::cases;
use crate::offload::testing::{self, Shape, is_intact, superpacket};
use crate::wire::transport::{ACK, ECE, URG};
use proptest::prelude::*;

/// Every segment as it would go out.
fn segments(vnet: &VnetHeader, inner: &[u8]) -> Vec<Vec<u8>> {
    let plan = SplitPlan::new(vnet, inner).unwrap();
    (0..plan.count)
        .map(|index| {
            // Stale bytes must not show, and nothing behind the headers may be written.
            let mut out = [0xa5; MAX_SEGMENT_HEADERS];
            let range = plan.segment(inner, index, &mut out);
            assert!(out[plan.header_len..].iter().all(|&byte| byte == 0xa5));
            let segment = [&out[..plan.header_len], &inner[range]].concat();
            assert!(segment.len() <= plan.segment_len());
            segment
        })
        .collect()
}

fn check_round_trip(shape: &Shape, payload: &[u8], gso_size: u16) {
    let (vnet, inner) = superpacket(shape, payload, gso_size);
    let segments = segments(&vnet, &inner);
    let header_len = shape.header_len();
    let (t, count) = (shape.transport_at(), segments.len());
    assert_eq!(count, payload.len().div_ceil(usize::from(gso_size)).max(1));
    let mut joined = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        assert!(is_intact(segment), "{shape:?} {index}");
        assert!(index + 1 == count || segment.len() == header_len + usize::from(gso_size));
        // The same headers, but for the fields that must differ.
        let mut expected = inner[..header_len].to_vec();
        expected[4..6].copy_from_slice(&segment[4..6]);
        if shape.is_tcp() {
            let seq = shape.seq.wrapping_add(u32::try_from(joined.len()).unwrap());
            expected[t + 4..t + 8].copy_from_slice(&seq.to_be_bytes());
            expected[t + 13] = shape.flags
                & !(if index > 0 { CWR } else { 0 })
                & !(if index + 1 < count { FIN | PSH } else { 0 });
            expected[t + 16..t + 18].copy_from_slice(&segment[t + 16..t + 18]);
        } else {
            expected[t + 4..t + 8].copy_from_slice(&segment[t + 4..t + 8]);
        }
        assert_eq!(segment[..header_len], expected);
        joined.extend_from_slice(&segment[header_len..]);
    }
    assert_eq!(joined, payload);
}

#[test]
fn every_shape_at_the_lengths_where_counts_change() {
    let lens = [0, 1, 99, 100, 101, 199, 200, 201, 1000];
    for shape in Shape::all() {
        for &len in cases(lens.as_slice(), &[0, 1, 101]) {
            check_round_trip(&shape, &testing::payload(len), 100);
            check_round_trip(&shape, &testing::payload(len), 101);
        }
    }
}

/// The largest packet an IPv6 header can describe: 65535 bytes behind the fixed 40.
#[test]
fn the_largest_superpacket() {
    const LARGEST: usize = cases(65_535 + 40, 3000);
    for shape in Shape::all().into_iter().step_by(cases(1, 2)) {
        let payload = testing::payload(LARGEST - shape.header_len());
        for &gso_size in cases([36, 1220, 1428, 65_535].as_slice(), &[1428, 65_535]) {
            check_round_trip(&shape, &payload, gso_size);
        }
    }
}

/// RFC 3168 6.1.2 and RFC 9293: which flags go where, at every position.
#[test]
fn flags_by_position() {
    let all = FIN | PSH | ACK | ECE | CWR;
    let flags = |payload_len: usize| -> Vec<u8> {
        let (vnet, inner) = superpacket(&Shape::tcp().with_flags(all), &testing::payload(payload_len), 100);
        segments(&vnet, &inner)
            .iter()
            .map(|segment| segment[40 + 13])
            .collect()
    };
    assert_eq!(flags(300), [ACK | ECE | CWR, ACK | ECE, FIN | PSH | ACK | ECE]);
    assert_eq!(flags(101), [ACK | ECE | CWR, FIN | PSH | ACK | ECE]);
    assert_eq!(flags(100), [all]);
    let (vnet, inner) = superpacket(&Shape::tcp().with_flags(URG | ACK), &testing::payload(200), 100);
    assert!(
        segments(&vnet, &inner)
            .iter()
            .all(|segment| segment[40 + 13] == URG | ACK)
    );
}

#[test]
fn sequence_numbers_wrap() {
    let shape = Shape {
        seq: u32::MAX - 50,
        ..Shape::tcp()
    };
    let (vnet, inner) = superpacket(&shape, &testing::payload(200), 100);
    assert_eq!(segments(&vnet, &inner)[1][44..48], 49u32.to_be_bytes());
}

/// Bytes behind the payload length (a longer read, an older packet) belong to nobody (FAULTS 19).
#[test]
fn trailing_bytes_are_left_out() {
    let (vnet, mut inner) = superpacket(&Shape::udp(), &testing::payload(250), 100);
    let clean = segments(&vnet, &inner);
    inner.extend_from_slice(&[0xee; 77]);
    assert_eq!(segments(&vnet, &inner), clean);
}

/// Past the end there is nothing; a wrong index must not read elsewhere.
#[test]
fn past_the_last_segment_the_payload_is_empty() {
    let (vnet, inner) = superpacket(&Shape::tcp(), &testing::payload(250), 100);
    let plan = SplitPlan::new(&vnet, &inner).unwrap();
    let mut out = [0; MAX_SEGMENT_HEADERS];
    assert_eq!(plan.segment(&inner, 2, &mut out).len(), 50);
    assert_eq!(plan.segment(&inner, 3, &mut out), inner.len()..inner.len());
    assert_eq!(plan.segment_len(), plan.header_len + 100);
}

/// RFC 8200 8.1: the pseudo-header names the final destination; the kernel's sum in the field knows it.
#[test]
fn a_pending_routing_header_goes_by_the_sum_of_the_kernel() {
    let final_dst = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9];
    // Segment routing with one entry (RFC 8754): 24 bytes, between IPv6 and TCP.
    let (vnet, plain) = superpacket(&Shape::tcp(), &testing::payload(3000), 1000);
    let with_route = |segments_left: u8| {
        let mut inner = plain[..40].to_vec();
        inner[6] = ext::ROUTING;
        inner[4..6].copy_from_slice(&u16::try_from(plain.len() - 40 + 24).unwrap().to_be_bytes());
        inner.extend_from_slice(&[ext::TCP, 2, 4, segments_left, 0, 0, 0, 0]);
        inner.extend_from_slice(&final_dst);
        inner.extend_from_slice(&plain[40..]);
        inner
    };
    let vnet = VnetHeader {
        csum_start: 64,
        ..vnet
    };
    // What the packet looks like where its journey ends.
    let arrived = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[24..40].copy_from_slice(&final_dst);
        packet
    };

    let mut pending = with_route(1);
    let len = u32::try_from(plain.len() - 40).unwrap();
    let pseudo = [&pending[8..24], &final_dst, &len.to_be_bytes(), &[0, 0, 0, 6]].concat();
    pending[80..82].copy_from_slice(&testing::plain_sum(&pseudo).to_be_bytes());
    let sent = segments(&vnet, &pending);
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter()
            .all(|segment| is_intact(&arrived(segment)) && !is_intact(segment))
    );
    let unknown = SplitPlan::new(
        &VnetHeader {
            needs_csum: false,
            ..vnet
        },
        &pending,
    );
    assert_eq!(unknown.unwrap_err(), SplitError::CsumStart);

    assert!(
        segments(&vnet, &with_route(0))
            .iter()
            .all(|segment| is_intact(segment))
    );
}

/// FAULTS 31: each refusal by its name.
#[test]
fn metadata_that_does_not_fit_is_refused() {
    let (vnet, inner) = superpacket(&Shape::tcp(), &testing::payload(3000), 1000);
    let refused = |vnet: VnetHeader, inner: &[u8]| SplitPlan::new(&vnet, inner).unwrap_err();
    for gso in [GsoType::None, GsoType::TcpV4, GsoType::Udp] {
        assert_eq!(refused(VnetHeader { gso, ..vnet }, &inner), SplitError::GsoType);
    }
    assert_eq!(
        refused(VnetHeader { gso_size: 0, ..vnet }, &inner),
        SplitError::GsoSize
    );
    assert_eq!(
        refused(VnetHeader { gso_size: 1, ..vnet }, &inner),
        SplitError::TooManySegments
    );
    let udp = VnetHeader {
        gso: GsoType::UdpL4,
        ..vnet
    };
    assert_eq!(refused(udp, &inner), SplitError::Mismatch);
    for csum_start in [0, 39, 41, 48, u16::MAX] {
        assert_eq!(
            refused(VnetHeader { csum_start, ..vnet }, &inner),
            SplitError::CsumStart
        );
    }
    for csum_offset in [0, 6, 17, u16::MAX] {
        assert_eq!(
            refused(VnetHeader { csum_offset, ..vnet }, &inner),
            SplitError::CsumStart
        );
    }
    for cut in [0, 39, 40, 59, 71, inner.len() - 1] {
        assert_eq!(
            refused(vnet, &inner[..cut]),
            SplitError::NotTransport,
            "cut at {cut}"
        );
    }
    let changed = |at: usize, value: u8| {
        let mut inner = inner.clone();
        inner[at] = value;
        inner
    };
    assert_eq!(refused(vnet, &changed(0, 0x45)), SplitError::NotTransport);
    assert_eq!(refused(vnet, &changed(52, 0x40)), SplitError::HeaderLen);
    let mut short = inner[..71].to_vec();
    short[4..6].copy_from_slice(&31u16.to_be_bytes());
    assert_eq!(refused(vnet, &short), SplitError::HeaderLen);
}

#[test]
fn headers_that_cannot_be_copied_into_segments_are_refused() {
    let (vnet, inner) = superpacket(&Shape::tcp().with_extensions(1), &testing::payload(3000), 1000);
    let with_first = |kind: u8, len: u8| {
        let mut inner = inner.clone();
        (inner[6], inner[41]) = (kind, len);
        inner
    };
    let refused = |vnet: &VnetHeader, inner: &[u8]| SplitPlan::new(vnet, inner).unwrap_err();
    assert_eq!(
        refused(&vnet, &with_first(ext::FRAGMENT, 0)),
        SplitError::NotTransport
    );
    assert_eq!(refused(&vnet, &with_first(ext::AH, 0)), SplitError::NotTransport);
    // A header so long that the walk ends in the payload, or beyond the packet.
    let mut lost = with_first(ext::DEST_OPTS, 255);
    lost[40] = ext::NO_NEXT;
    assert_eq!(refused(&vnet, &lost), SplitError::Mismatch);
    lost.truncate(1000);
    lost[4..6].copy_from_slice(&960u16.to_be_bytes());
    assert_eq!(refused(&vnet, &lost), SplitError::NotTransport);

    // One extension header of n * 8 bytes: 40 + 184 + 32 is the limit, one more is too much.
    let extended = |n: u8| {
        let mut long = inner[..40].to_vec();
        long.extend_from_slice(&[ext::TCP, n - 1, 1, 4, 0, 0, 0, 0]);
        long.resize(40 + usize::from(n) * 8, 0);
        long.extend_from_slice(&inner[48..]);
        let plen = u16::try_from(long.len() - 40).unwrap();
        long[4..6].copy_from_slice(&plen.to_be_bytes());
        (
            VnetHeader {
                csum_start: 40 + u16::from(n) * 8,
                ..vnet
            },
            long,
        )
    };
    let (vnet, long) = extended(23);
    assert!(segments(&vnet, &long).iter().all(|segment| is_intact(segment)));
    let (vnet, long) = extended(24);
    assert_eq!(refused(&vnet, &long), SplitError::HeaderLen);
}

proptest! {
    #[test]
    fn round_trip(
        shape in testing::any_shape(),
        payload in proptest::collection::vec(any::<u8>(), 0..cases(8000, 500)),
        gso_size in 36..3000u16,
    ) {
        check_round_trip(&shape, &payload, gso_size);
        let (vnet, inner) = superpacket(&shape, &payload, gso_size);
        for segment in segments(&vnet, &inner) {
            testing::check_with_other_libraries(&segment);
        }
    }

    /// FAULTS 31: whatever the metadata and the bytes, there is a plan whose segments are valid, or a reason.
    #[test]
    fn never_panics(vnet in testing::any_vnet(), inner in testing::any_packet()) {
        if let Ok(plan) = SplitPlan::new(&vnet, &inner) {
            prop_assert!((1..=MAX_SEGMENTS).contains(&plan.count));
            prop_assert!(plan.header_len <= MAX_SEGMENT_HEADERS);
            let payload: usize = (0..plan.count)
                .map(|index| plan.segment(&inner, index, &mut [0; MAX_SEGMENT_HEADERS]).len())
                .sum();
            prop_assert_eq!(payload + plan.header_len, plan.total_len);
        }
    }

    #[test]
    fn never_panics_on_raw_headers(raw in any::<[u8; 10]>(), inner in testing::any_packet()) {
        if let Ok(vnet) = VnetHeader::parse(&raw) {
            let _ = SplitPlan::new(&vnet, &inner);
        }
    }
}
