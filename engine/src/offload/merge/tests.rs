//! Tests of merging: a row for each case of the kernel's GRO self-test, and merge-then-split as a property.

use super::*;
use crate::miri::cases;
use crate::offload::split::{MAX_SEGMENT_HEADERS, SplitPlan};
use crate::offload::testing::{self, Shape, is_intact, partial_packet, superpacket};
use proptest::prelude::*;

/// The segments a sender's superpacket becomes on the wire.
fn segments(shape: &Shape, payload: &[u8], gso_size: u16) -> Vec<Vec<u8>> {
    let (vnet, inner) = superpacket(shape, payload, gso_size);
    split(&vnet, &inner)
}

fn split(vnet: &VnetHeader, inner: &[u8]) -> Vec<Vec<u8>> {
    let plan = SplitPlan::new(vnet, inner).unwrap();
    (0..plan.count)
        .map(|index| {
            let mut headers = [0; MAX_SEGMENT_HEADERS];
            let payload = plan.segment(inner, index, &mut headers);
            [&headers[..plan.header_len], &inner[payload]].concat()
        })
        .collect()
}

/// Merges as far as the rules allow, as the worker does: a refused packet begins the next run.
fn merge(packets: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>, usize)> {
    let mut out: Vec<(VnetHeader, Vec<u8>, usize)> = Vec::new();
    let mut open: Option<(Run, Vec<u8>, Vec<u8>)> = None;
    let mut flush = |open: &mut Option<(Run, Vec<u8>, Vec<u8>)>| {
        if let Some((run, mut head, tails)) = open.take() {
            let vnet = run.finish(&mut head);
            head.extend(tails);
            assert_eq!(head.len(), run.total_len());
            out.push((vnet, head, run.count()));
        }
    };
    for packet in packets {
        let Some(segment) = Segment::new(packet) else {
            flush(&mut open);
            open = None;
            flush(&mut Some((Run::alone(packet), packet.clone(), Vec::new())));
            continue;
        };
        let joined = open.as_mut().is_some_and(|(run, head, tails)| {
            let joined = run.append(head, segment, packet).is_ok();
            if joined {
                tails.extend_from_slice(&packet[segment.payload()]);
            }
            joined
        });
        if !joined {
            flush(&mut open);
            open = Some((Run::start(segment), packet.clone(), Vec::new()));
        }
    }
    flush(&mut open);
    out
}

impl Run {
    /// A packet that is no segment, for counting.
    fn alone(packet: &[u8]) -> Run {
        let head = Segment {
            protocol: Transport::Udp,
            header_len: HEADER_LEN,
            payload_len: packet.len() - HEADER_LEN,
        };
        Run::start(head)
    }
}

fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
    merge(packets).iter().map(|(_, _, count)| *count).collect()
}

/// Rewrites bytes and makes the checksum right again.
fn changed(packet: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = packet.to_vec();
    change(&mut packet);
    let field = HEADER_LEN + if packet[6] == ext::TCP { 16 } else { 6 };
    packet[field..field + 2].fill(0);
    let src = packet[8..].first_chunk::<16>().unwrap();
    let dst = packet[24..].first_chunk::<16>().unwrap();
    let len = u32::try_from(packet.len() - HEADER_LEN).unwrap();
    let sum = pseudo_v6(src, dst, len, packet[6])
        .add_bytes(&packet[HEADER_LEN..])
        .finish();
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn three() -> Vec<Vec<u8>> {
    segments(&Shape::tcp(), &testing::payload(300), 100)
}

/// The cases of `tools/testing/selftests/net/gro.c`, by its names; `[n, m]` are the packets the kernel sees.
#[test]
fn the_cases_of_the_kernels_own_test() {
    let plain = three();
    let second = |change: fn(&mut Vec<u8>)| vec![plain[0].clone(), changed(&plain[1], change)];
    for (case, packets, expected) in [
        ("data_same: equal sizes", plain[..2].to_vec(), vec![2]),
        (
            "data_lrg_sml: the last is smaller",
            segments(&Shape::tcp(), &testing::payload(150), 100),
            vec![2],
        ),
        (
            "data_sml_lrg: a larger one begins anew",
            {
                let all = segments(&Shape::tcp(), &testing::payload(150), 100);
                let small = changed(&plain[0], |p| {
                    p.truncate(p.len() - 50);
                    p[5] -= 50;
                });
                let large = changed(&all[0], |p| p[47] = p[47].wrapping_add(50));
                vec![small, large]
            },
            vec![1, 1],
        ),
        (
            "ack: pure acknowledgements",
            vec![testing_ack(), testing_ack()],
            vec![1, 1],
        ),
        (
            "flags_psh: ends a run",
            {
                let mut packets = plain.clone();
                packets[1] = changed(&packets[1], |p| p[53] |= PSH);
                packets
            },
            vec![2, 1],
        ),
        ("flags_syn", second(|p| p[53] |= 0x02), vec![1, 1]),
        ("flags_rst", second(|p| p[53] |= 0x04), vec![1, 1]),
        ("flags_urg", second(|p| p[53] |= 0x20), vec![1, 1]),
        ("flags_cwr", second(|p| p[53] |= 0x80), vec![1, 1]),
        ("flags_fin", second(|p| p[53] |= FIN), vec![1, 1]),
        (
            "tcp_csum: a wrong checksum travels alone",
            {
                let mut packets = plain.clone();
                packets[1][80] ^= 1;
                packets
            },
            vec![1, 1, 1],
        ),
        (
            "tcp_seq: a gap",
            second(|p| p[47] = p[47].wrapping_add(1)),
            vec![1, 1],
        ),
        (
            "tcp_ts / tcp_opt: other options",
            second(|p| p[63] ^= 1),
            vec![1, 1],
        ),
        ("another acknowledgement", second(|p| p[51] ^= 1), vec![1, 1]),
        ("another window", second(|p| p[55] ^= 1), vec![1, 1]),
        ("ip_ecn", second(|p| p[1] ^= 0x10), vec![1, 1]),
        ("ip_tos", second(|p| p[0] ^= 0x01), vec![1, 1]),
        ("another flow label", second(|p| p[3] ^= 1), vec![1, 1]),
        ("ip_ttl: another hop limit", second(|p| p[7] ^= 1), vec![1, 1]),
        ("another port", second(|p| p[41] ^= 1), vec![1, 1]),
        ("another source", second(|p| p[23] ^= 1), vec![1, 1]),
        (
            "ip_ext: extension headers",
            segments(&Shape::tcp().with_extensions(1), &testing::payload(200), 100),
            vec![1, 1],
        ),
        (
            "large_max / large_rem: no longer than one packet can be",
            {
                let mut all = segments(&Shape::tcp(), &testing::payload(60_000), 1400);
                all.extend(segments(
                    &Shape {
                        seq: 0xffff_f000u32.wrapping_add(60_000),
                        ..Shape::tcp()
                    },
                    &testing::payload(9_000),
                    1400,
                ));
                all
            },
            vec![43, 7],
        ),
    ] {
        assert_eq!(counts(&packets), expected, "{case}");
    }
}

fn testing_ack() -> Vec<u8> {
    let (_, packet) = partial_packet(&Shape::tcp(), &[]);
    changed(&packet, |_| ())
}

/// UDP: equal datagrams merge, a shorter one ends the run, one without a checksum travels alone.
#[test]
fn datagrams() {
    let all = segments(&Shape::udp(), &testing::payload(350), 100);
    assert_eq!(counts(&all), [4]);
    let mut bare = all.clone();
    bare[1][46..48].fill(0);
    assert_eq!(counts(&bare), [1, 1, 2]);
    let longer_last = vec![all[3].clone(), all[0].clone()];
    assert_eq!(counts(&longer_last), [1, 1]);
}

#[test]
fn a_run_has_a_longest_length() {
    let all = segments(
        &Shape::udp(),
        &testing::payload(100 * (MAX_RUN_SEGMENTS + 3)),
        100,
    );
    assert_eq!(counts(&all), [MAX_RUN_SEGMENTS, 3]);
}

/// A damaged segment between good ones is never given a valid checksum: it stays alone, and stays damaged.
#[test]
fn damage_is_not_laundered() {
    const SIZE: u16 = cases(100, 8);
    const COUNT: usize = cases(10, 3);
    const DAMAGED: usize = (COUNT - 1) / 2;
    let good = segments(&Shape::tcp(), &testing::payload(COUNT * usize::from(SIZE)), SIZE);
    for byte in 0..good[DAMAGED].len() {
        let mut packets = good.clone();
        packets[DAMAGED][byte] ^= 0x10;
        for (vnet, bytes, count) in merge(&packets) {
            if count == 1 && !vnet.needs_csum {
                continue;
            }
            let delivered: Vec<_> = split(&vnet, &bytes);
            assert!(
                delivered
                    .iter()
                    .all(|segment| is_intact(segment) && good.contains(segment)),
                "byte {byte}"
            );
        }
    }
}

fn check_round_trip(shape: &Shape, len: usize, gso_size: u16) {
    let original = segments(shape, &testing::payload(len), gso_size);
    let merged = merge(&original);
    let again: Vec<_> = merged
        .iter()
        .flat_map(|(vnet, bytes, count)| {
            if *count > 1 {
                split(vnet, bytes)
            } else {
                vec![bytes.clone()]
            }
        })
        .collect();
    assert_eq!(again, original);
}

proptest! {
    /// What is merged and split again is what was sent, byte for byte.
    #[test]
    fn merge_then_split_round_trips(shape in testing::any_shape(), len in 1..cases(20_000, 1500usize), gso_size in 64u16..1440) {
        check_round_trip(&shape, len, gso_size);
    }

    /// No bytes make it panic, and only intact packets become segments.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(segment) = Segment::new(&bytes) {
            prop_assert!(segment.payload().end <= bytes.len());
        }
    }
}
