//! Tests that concern several headers, or are too long to stand under their code.

mod differential;
mod ext_chains;
mod ip_lengths;
mod transport_and_vnet;

use super::ipv4::OuterHeader;
use super::ipv6::{HEADER_LEN, Ipv6Header};
use crate::miri::cases;
use proptest::prelude::*;
use std::net::Ipv6Addr;

const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, 0x0a00, 1);
const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, 0x0a00, 2);

/// A whole IPv6 packet around `payload`.
fn inner(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let payload_len = u16::try_from(payload.len()).unwrap();
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len,
        next_header,
        hop_limit: 64,
        src: A,
        dst: B,
    };
    let mut packet = vec![0; HEADER_LEN];
    header.emit(&mut packet);
    packet.extend_from_slice(payload);
    packet
}

fn any_outer() -> impl Strategy<Value = OuterHeader> {
    (
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
        any::<[u8; 2]>(),
        any::<bool>(),
        any::<u16>(),
        0..=cases(65_515u16, 500),
    )
        .prop_map(
            |(src, dst, [tos, ttl], dont_fragment, id, payload_len)| OuterHeader {
                src: src.into(),
                dst: dst.into(),
                tos,
                ttl,
                dont_fragment,
                id,
                payload_len,
            },
        )
}

fn any_inner() -> impl Strategy<Value = Ipv6Header> {
    (
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<[u8; 3]>(),
        0..1u32 << 20,
        1..=cases(u16::MAX, 500),
    )
        .prop_map(
            |(src, dst, [traffic_class, next_header, hop_limit], flow_label, payload_len)| Ipv6Header {
                traffic_class,
                flow_label,
                payload_len,
                next_header,
                hop_limit,
                src: src.into(),
                dst: dst.into(),
            },
        )
}

/// Bytes that often look like a packet: version, lengths and a few protocol numbers are steered toward what
/// parsers let pass, and then sometimes missed by one.
fn nearly_packet(version: u8) -> impl Strategy<Value = Vec<u8>> {
    let next = prop::sample::select(vec![0u8, 6, 17, 41, 43, 44, 51, 58, 60, 135]);
    (
        prop::collection::vec(any::<u8>(), 0..160),
        any::<u8>(),
        -2..=2i32,
        next,
    )
        .prop_map(move |(mut bytes, luck, miss, next)| {
            if bytes.len() < 44 || luck < 16 {
                return bytes;
            }
            let len = i32::try_from(bytes.len()).unwrap();
            if version == 4 {
                bytes[0] = 0x40 | [5, 5, 6, 15, 4, 0, 5, 7][usize::from(luck % 8)];
                bytes[2..4].copy_from_slice(&u16::try_from(len + miss).unwrap().to_be_bytes());
                bytes[9] = if luck & 16 == 0 { 41 } else { 17 };
            } else {
                bytes[0] = 0x60 | (bytes[0] & 0x0f);
                bytes[4..6].copy_from_slice(&u16::try_from(len - 40 + miss).unwrap().to_be_bytes());
                bytes[6] = next;
                // Short extension headers, so that chains get some links.
                bytes[41] %= 3;
                bytes[40] = if luck & 1 == 0 { 60 } else { bytes[40] };
            }
            bytes
        })
}
