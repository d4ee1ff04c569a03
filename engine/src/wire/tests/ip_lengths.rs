//! D6, D8, E3, FAULTS 9, 10, 11: the two IP headers, every length against every claim.

use super::*;
use crate::wire::checksum;
use crate::wire::ipv4::{Ipv4Error, Ipv4View, MIN_HEADER_LEN, PROTO_IPV6};
use crate::wire::ipv6::{self, Ipv6Error, Ipv6View};
use std::net::Ipv4Addr;

fn outer_bytes(ihl: u8, total_len: u16) -> [u8; 120] {
    let mut bytes = [0xa5; 120];
    bytes[0] = 0x40 | ihl;
    bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
    bytes
}

/// FAULTS 9: every received length 0..=120, every IHL, every total length around it.
#[test]
fn ipv4_lengths() {
    for ihl in 0..16u8 {
        for total_len in (0..=125u16).step_by(cases(1, 11)).chain([1500, 0x8000, u16::MAX]) {
            let bytes = outer_bytes(ihl, total_len);
            let (header_len, total) = (usize::from(ihl) * 4, usize::from(total_len));
            for len in 0..=120 {
                let view = Ipv4View::new(&bytes[..len]);
                let expected = if len < 20 {
                    Some(Ipv4Error::Truncated)
                } else if ihl < 5 {
                    Some(Ipv4Error::HeaderLen)
                } else if total < header_len {
                    Some(Ipv4Error::TotalLen)
                } else if total > len {
                    Some(Ipv4Error::Truncated)
                } else {
                    None
                };
                assert_eq!(
                    view.as_ref().err(),
                    expected.as_ref(),
                    "IHL {ihl}, total {total}, {len} bytes"
                );
                if let Ok(view) = view {
                    assert_eq!((view.header_len(), view.total_len()), (header_len, total));
                    assert_eq!(view.options(), &bytes[20..header_len]);
                    assert_eq!(view.payload(), &bytes[header_len..total], "padding is cut off");
                }
            }
        }
    }
}

#[test]
fn ipv4_versions() {
    for first in 0..=255u8 {
        let mut bytes = outer_bytes(5, 120);
        bytes[0] = first;
        let refused_version = Ipv4View::new(&bytes).err() == Some(Ipv4Error::Version);
        assert_eq!(refused_version, first >> 4 != 4, "{first:#x}");
    }
}

/// FAULTS 10, D6: every received length 0..=120 against every payload length.
#[test]
fn ipv6_lengths() {
    for payload_len in (0..=90u16).chain([1500, 0x8000, u16::MAX]) {
        let mut bytes = [0x5a; 120];
        bytes[0] = 0x60;
        bytes[4..6].copy_from_slice(&payload_len.to_be_bytes());
        let total = 40 + usize::from(payload_len);
        for len in 0..=120 {
            let view = Ipv6View::new(&bytes[..len]);
            let expected = if len < 40 {
                Some(Ipv6Error::Truncated)
            } else if payload_len == 0 {
                Some(Ipv6Error::PayloadZero)
            } else if total > len {
                Some(Ipv6Error::PayloadLen)
            } else {
                None
            };
            assert_eq!(
                view.as_ref().err(),
                expected.as_ref(),
                "payload {payload_len}, {len} bytes"
            );
            if let Ok(view) = view {
                assert_eq!(view.total_len(), total);
                assert_eq!(view.packet(), &bytes[..total], "padding is cut off");
                assert_eq!(view.payload(), &bytes[40..total]);
            }
        }
    }
}

#[test]
fn ipv6_versions() {
    for first in 0..=255u8 {
        let mut bytes = inner(59, &[0; 8]);
        bytes[0] = first;
        let expected = if first >> 4 == 6 {
            None
        } else {
            Some(Ipv6Error::Version)
        };
        assert_eq!(Ipv6View::new(&bytes).err(), expected, "{first:#x}");
    }
}

/// FAULTS 11: source routes are found behind anything, and any list ends.
#[test]
fn ipv4_options() {
    let table: &[(&str, &[u8], bool, bool)] = &[
        ("no-ops", &[1, 1, 1, 1], true, false),
        ("end at once", &[0, 0, 0, 0], true, false),
        ("router alert", &[148, 4, 0, 0], true, false),
        ("loose source route", &[131, 7, 4, 10, 0, 0, 1, 0], true, true),
        ("strict source route", &[137, 7, 4, 10, 0, 0, 1, 0], true, true),
        ("source route behind a no-op", &[1, 131, 3, 4], true, true),
        (
            "source route behind another",
            &[148, 4, 0, 0, 137, 3, 4, 0],
            true,
            true,
        ),
        ("behind the end there is nothing", &[0, 131, 3, 4], true, false),
        ("its number as another's data", &[148, 4, 131, 137], true, false),
        ("length 0", &[148, 0, 0, 0], false, false),
        ("length 1", &[148, 1, 0, 0], false, false),
        ("past the header", &[148, 5, 0, 0], false, false),
        ("no room for a length", &[1, 1, 1, 148], false, false),
        ("source route of length 0", &[131, 0, 0, 0], false, true),
        ("source route past the header", &[137, 9, 4, 0], false, true),
        (
            "source route, then broken",
            &[131, 3, 4, 7, 0, 0, 0, 0],
            false,
            true,
        ),
    ];
    for (what, options, well_formed, source_route) in table {
        let ihl = 5 + u8::try_from(options.len() / 4).unwrap();
        let mut bytes = outer_bytes(ihl, 120);
        bytes[20..20 + options.len()].copy_from_slice(options);
        let view = Ipv4View::new(&bytes).unwrap();
        assert_eq!(view.options(), *options);
        assert_eq!(
            (view.options_ok(), view.has_source_route()),
            (*well_formed, *source_route),
            "{what}"
        );
    }
    let view_bytes = outer_bytes(5, 120);
    let view = Ipv4View::new(&view_bytes).unwrap();
    assert!(view.options_ok() && !view.has_source_route());
}

#[test]
fn ipv4_fragment_fields() {
    for (field, df, mf, offset) in [
        (0x0000u16, false, false, 0),
        (0x4000, true, false, 0),
        (0x2000, false, true, 0),
        (0x0001, false, false, 8),
        (0x3fff, false, true, 65_528),
        (0x8000, false, false, 0),
    ] {
        let mut bytes = outer_bytes(5, 120);
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        let view = Ipv4View::new(&bytes).unwrap();
        assert_eq!(
            (
                view.dont_fragment(),
                view.more_fragments(),
                view.fragment_offset()
            ),
            (df, mf, offset)
        );
        assert_eq!(view.is_fragment(), mf || offset != 0, "{field:#x}");
    }
}

/// E3, byte by byte.
#[test]
fn outer_header_is_what_rfc_4213_asks_for() {
    let header = OuterHeader {
        src: Ipv4Addr::new(10, 0, 0, 1),
        dst: Ipv4Addr::new(10, 0, 0, 2),
        tos: 0,
        ttl: 64,
        dont_fragment: false,
        id: 0x1234,
        payload_len: 60,
    };
    let mut out = [0xff; MIN_HEADER_LEN];
    header.emit(&mut out);
    assert_eq!(out[..10], [0x45, 0, 0, 80, 0x12, 0x34, 0, 0, 64, 41]);
    assert_eq!(out[12..], [10, 0, 0, 1, 10, 0, 0, 2]);
    assert_eq!(checksum::sum(&out), 0, "header checksum");
    OuterHeader {
        dont_fragment: true,
        ..header
    }
    .emit(&mut out);
    assert_eq!(out[6..8], [0x40, 0]);
}

/// All four ECN codepoints under every traffic class, and setters that leave their neighbours alone.
#[test]
fn traffic_class_and_ecn() {
    let before = inner(59, &[0xee; 8]);
    for traffic_class in 0..=255u8 {
        let mut packet = before.clone();
        packet[1] |= 0x0a;
        let label = Ipv6View::new(&packet).unwrap().flow_label();
        ipv6::set_traffic_class(&mut packet, traffic_class);
        let view = Ipv6View::new(&packet).unwrap();
        assert_eq!(
            (view.traffic_class(), view.ecn()),
            (traffic_class, traffic_class & 3)
        );
        assert_eq!(view.flow_label(), label);
        for ecn in 0..4 {
            let mut marked = packet.clone();
            ipv6::set_ecn(&mut marked, ecn);
            let view = Ipv6View::new(&marked).unwrap();
            assert_eq!(view.traffic_class(), (traffic_class & !3) | ecn);
            assert_eq!(view.flow_label(), label);
            assert_eq!(marked[2..], packet[2..], "D10: nothing else changes");
        }
    }
    let mut packet = before.clone();
    ipv6::set_payload_len(&mut packet, 0x0102);
    assert_eq!(packet[4..6], [1, 2]);
    assert_eq!((&packet[..4], &packet[6..]), (&before[..4], &before[6..]));
}

proptest! {
    #[test]
    fn ipv4_round_trip(header in any_outer()) {
        let mut out = vec![0; MIN_HEADER_LEN + usize::from(header.payload_len)];
        header.emit(out.first_chunk_mut().unwrap());
        let view = Ipv4View::new(&out).unwrap();
        prop_assert_eq!(view.payload().len(), usize::from(header.payload_len));
        prop_assert_eq!((view.header_len(), view.protocol(), view.fragment_offset()), (20, PROTO_IPV6, 0));
        prop_assert!(!view.more_fragments());
        prop_assert!(checksum::Sum::new().add_bytes(&out[..20]).is_valid());
        let back = OuterHeader {
            src: view.src(),
            dst: view.dst(),
            tos: view.tos(),
            ttl: view.ttl(),
            dont_fragment: view.dont_fragment(),
            id: view.id(),
            payload_len: u16::try_from(view.total_len() - view.header_len()).unwrap(),
        };
        prop_assert_eq!(back, header);
        prop_assert_eq!(view.ecn(), header.tos & 3);
    }

    #[test]
    fn ipv6_round_trip(header in any_inner(), stale in any::<u8>()) {
        let mut out = vec![stale; ipv6::HEADER_LEN + usize::from(header.payload_len)];
        header.emit(&mut out);
        let view = Ipv6View::new(&out).unwrap();
        prop_assert_eq!(Ipv6Header::parse(&view), header);
        prop_assert_eq!(&view.src().octets(), view.src_bytes());
        prop_assert_eq!(&view.dst().octets(), view.dst_bytes());
        prop_assert!(out[40..].iter().all(|&b| b == stale));
    }

    #[test]
    fn no_bytes_panic(bytes in prop_oneof![nearly_packet(4), nearly_packet(6)]) {
        if let Ok(view) = Ipv4View::new(&bytes) {
            prop_assert!(view.total_len() <= bytes.len());
            view.has_source_route();
            view.options_ok();
        }
        if let Ok(view) = Ipv6View::new(&bytes) {
            prop_assert!(view.total_len() <= bytes.len());
        }
    }
}
