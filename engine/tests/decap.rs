//! Outer packet in, verdict out: every refusal of decapsulation, and what is left of a packet that enters.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::net::Ipv4Addr;

use common::{GATEWAY, HOST, Inner, OWN, ROUTER, host, outer, router, site, v6};
use isatap_engine::fib::{Role, Rulebook};
use isatap_engine::isatap::iid;
use isatap_engine::path::{DecapVerdict, Delivery, PuntKind, decap};
use isatap_engine::reason::DropReason;
use isatap_engine::wire::ext;
use isatap_engine::wire::nd::{self, NdKind, NeighborFlags, RouterAdvertisement};

const FROM_HOST: &str = "2001:db8:1::5efe:10.0.0.2";
const TO_US: &str = "2001:db8:1::5efe:10.0.0.1";

fn drop_of(rules: &Rulebook, packet: &[u8]) -> DropReason {
    match decap::decide(rules, packet) {
        DecapVerdict::Drop(reason) => reason,
        other => panic!("not dropped: {other:?}"),
    }
}

fn delivery_of(rules: &Rulebook, packet: &[u8]) -> Delivery {
    match decap::decide(rules, packet) {
        DecapVerdict::Deliver(delivery) => delivery,
        other => panic!("not delivered: {other:?}"),
    }
}

fn good() -> Vec<u8> {
    outer(HOST, OWN, 0, &Inner::udp(FROM_HOST, TO_US).bytes())
}

#[test]
fn an_ordinary_packet_enters_as_it_is() {
    let delivery = delivery_of(&router(), &good());
    assert_eq!(
        (delivery.outer_len, delivery.inner_len, delivery.segments),
        (20, 64, 1)
    );
    assert_eq!((delivery.set_ecn, delivery.copy), (None, None));
    assert!(!delivery.vnet.needs_csum);
}

/// D6, FAULTS 9 and 19: bytes after the inner packet are cut off, bytes missing are refused, at every length.
#[test]
fn padding_is_cut_and_truncation_refused() {
    let inner = Inner::udp(FROM_HOST, TO_US).bytes();
    let padded = [&inner[..], &[0xaa; 7]].concat();
    assert_eq!(
        delivery_of(&router(), &outer(HOST, OWN, 0, &padded)).inner_len,
        inner.len()
    );
    let whole = good();
    for cut in 0..whole.len() {
        assert_eq!(
            drop_of(&router(), &whole[..cut]),
            DropReason::Truncated,
            "received {cut} bytes"
        );
    }
    for cut in 0..inner.len() {
        assert_eq!(
            drop_of(&router(), &outer(HOST, OWN, 0, &inner[..cut])),
            DropReason::Truncated,
            "inner {cut}"
        );
    }
}

/// D8, FAULTS 10 and 11.
#[test]
fn malformed_headers() {
    let change = |at: usize, value: u8| {
        let mut packet = good();
        packet[at] = value;
        packet
    };
    for (what, packet, reason) in [
        ("outer version 6", change(0, 0x65), DropReason::Malformed),
        ("IHL 4", change(0, 0x44), DropReason::Malformed),
        ("protocol 4", change(9, 4), DropReason::Malformed),
        ("more fragments", change(6, 0x20), DropReason::Malformed),
        ("inner version 4", change(20, 0x45), DropReason::Malformed),
        ("inner payload length 0", change(25, 0), DropReason::Malformed),
        (
            "inner payload length 65280",
            change(24, 0xff),
            DropReason::Truncated,
        ),
    ] {
        assert_eq!(drop_of(&router(), &packet), reason, "{what}");
    }
}

/// FAULTS 11: options are skipped at every header length; a source route is refused.
#[test]
fn options_are_skipped_and_source_routes_refused() {
    let inner = Inner::udp(FROM_HOST, TO_US).bytes();
    let with_options = |options: &[u8]| {
        let mut packet = outer(HOST, OWN, 0, &inner);
        packet.splice(20..20, options.iter().copied());
        packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
        let total = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet
    };
    for words in 1..=10 {
        let delivery = delivery_of(&router(), &with_options(&vec![1; words * 4]));
        assert_eq!(
            (delivery.outer_len, delivery.inner_len),
            (20 + words * 4, inner.len())
        );
    }
    for kind in [131, 137] {
        let packet = with_options(&[kind, 7, 4, 10, 0, 0, 5, 0]);
        assert_eq!(drop_of(&router(), &packet), DropReason::SourceRoute);
    }
    assert_eq!(
        drop_of(&router(), &with_options(&[148, 0, 0, 0])),
        DropReason::Malformed
    );
}

/// D2, D4, D5, FAULTS 8 and 15.
#[test]
fn outer_addresses() {
    let inner = Inner::udp(FROM_HOST, TO_US).bytes();
    let verdict = |src: [u8; 4], dst: Ipv4Addr| drop_of(&router(), &outer(src.into(), dst, 0, &inner));
    for src in [
        [0, 0, 0, 1],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
        [10, 0, 0, 1],
        [10, 0, 0, 255],
    ] {
        assert_eq!(verdict(src, OWN), DropReason::OuterForbidden, "{src:?}");
    }
    assert_eq!(verdict([192, 0, 2, 1], OWN), DropReason::NotSite);
    assert_eq!(
        verdict(HOST.octets(), Ipv4Addr::new(10, 0, 0, 3)),
        DropReason::NotLocal
    );
    assert_eq!(
        verdict(HOST.octets(), Ipv4Addr::BROADCAST),
        DropReason::OuterForbidden
    );
}

/// D1, D11, FAULTS 1-3, 6: the source check with the real Rulebook behind it.
#[test]
fn inner_sources() {
    let verdict = |rules: &Rulebook, from, src| match decap::decide(
        rules,
        &outer(from, OWN, 0, &Inner::udp(src, TO_US).bytes()),
    ) {
        DecapVerdict::Deliver(_) | DecapVerdict::Punt(_) => None,
        DecapVerdict::Drop(reason) => Some(reason),
    };
    for (from, src, expected) in [
        (HOST, "fe80::5efe:10.0.0.2", None),
        (HOST, "fe80::200:5efe:10.0.0.2", None),
        (HOST, "fe80::5efe:10.0.0.3", Some(DropReason::SrcMismatch)),
        (HOST, "2001:db8:2::5efe:10.0.0.2", Some(DropReason::SrcPrefix)),
        (HOST, "2001:db8:99::1", Some(DropReason::SrcMismatch)),
        (HOST, "2001:db8:7::1", Some(DropReason::SrcMismatch)),
        (GATEWAY, "2001:db8:7::1", None),
        (ROUTER, "2001:db8:99::1", None),
        (ROUTER, "ff02::1", Some(DropReason::SrcForbidden)),
        (ROUTER, TO_US, Some(DropReason::SrcForbidden)),
        (ROUTER, "::", None),
        (HOST, "::", Some(DropReason::SrcForbidden)),
    ] {
        assert_eq!(verdict(&host(), from, src), expected, "{src} from {from}");
    }
    // Not on-link, and a neighbour's all the same: we have an address there.
    let spoke = {
        let mut parts = site(Role::Host);
        parts.own6.push(v6("2001:db8:3::5efe:10.0.0.1"));
        parts.own6.push(v6("2001:db8:4::1"));
        parts.build().unwrap()
    };
    for (src, expected) in [
        ("2001:db8:3::5efe:10.0.0.2", None),
        ("2001:db8:3::5efe:10.0.0.3", Some(DropReason::SrcMismatch)),
        ("2001:db8:4::5efe:10.0.0.2", Some(DropReason::SrcPrefix)),
    ] {
        assert_eq!(verdict(&spoke, HOST, src), expected, "{src}");
    }
    // An address given by hand, or left from a locator that went: ours, though it embeds the sender.
    let foreign = {
        let mut parts = site(Role::Host);
        parts.own6.push(v6("2001:db8:1::5efe:10.0.0.2"));
        parts.build().unwrap()
    };
    assert_eq!(
        verdict(&foreign, HOST, "2001:db8:1::5efe:10.0.0.2"),
        Some(DropReason::SrcForbidden)
    );
    assert_eq!(verdict(&foreign, HOST, "fe80::5efe:10.0.0.2"), None);
    let lax = {
        let mut parts = site(Role::Router);
        parts.strict_ingress = false;
        parts.build().unwrap()
    };
    assert_eq!(verdict(&lax, HOST, "2001:db8:2::5efe:10.0.0.2"), None, "D9");
    assert_eq!(
        verdict(&lax, HOST, "2001:db8:2::5efe:10.0.0.3"),
        Some(DropReason::SrcMismatch)
    );
}

/// FAULTS 7.
#[test]
fn inner_destinations() {
    let verdict = |dst| {
        drop_of(
            &router(),
            &outer(HOST, OWN, 0, &Inner::udp(FROM_HOST, dst).bytes()),
        )
    };
    assert_eq!(verdict("::1"), DropReason::DstForbidden);
    assert_eq!(verdict("::"), DropReason::DstForbidden);
    assert_eq!(verdict("ff05::2"), DropReason::DstMulticast);
}

/// FAULTS 13 and 18: tunnel packets inside, also behind extension headers; chains that do not add up.
#[test]
fn nested_packets_and_chains() {
    let inner = |next_header, payload: Vec<u8>| {
        outer(
            HOST,
            OWN,
            0,
            &Inner {
                next_header,
                payload,
                ..Inner::udp(FROM_HOST, TO_US)
            }
            .bytes(),
        )
    };
    for protocol in [ext::IPV4, ext::IPV6, ext::GRE] {
        assert_eq!(
            drop_of(&router(), &inner(protocol, vec![0; 40])),
            DropReason::Nested
        );
        let behind = [vec![protocol, 0, 0, 0, 0, 0, 0, 0], vec![0; 40]].concat();
        assert_eq!(
            drop_of(&router(), &inner(ext::DEST_OPTS, behind)),
            DropReason::Nested
        );
    }
    let mut nested = site(Role::Router);
    nested.nested = true;
    delivery_of(&nested.build().unwrap(), &inner(ext::IPV6, vec![0; 40]));
    assert_eq!(
        drop_of(&router(), &inner(ext::HOP_BY_HOP, vec![6, 200, 0, 0, 0, 0, 0, 0])),
        DropReason::Malformed
    );
    delivery_of(&router(), &inner(253, vec![1, 2, 3]));
}

/// C3, FAULTS 17: all sixteen combinations.
#[test]
fn ecn() {
    for outer_ecn in 0..4u8 {
        for inner_ecn in 0..4u8 {
            let inner = Inner {
                traffic_class: 0xb8 | inner_ecn,
                ..Inner::udp(FROM_HOST, TO_US)
            };
            let packet = outer(HOST, OWN, 0x1c | outer_ecn, &inner.bytes());
            let expected = match (outer_ecn, inner_ecn) {
                (3, 0) => None,
                (_, 0) => Some(0),
                (3, _) | (_, 3) => Some(3),
                (1, _) | (_, 1) => Some(1),
                _ => Some(2),
            };
            match expected {
                None => assert_eq!(drop_of(&router(), &packet), DropReason::Ecn),
                Some(mark) => {
                    let delivery = delivery_of(&router(), &packet);
                    assert_eq!(
                        delivery.set_ecn.unwrap_or(inner_ecn),
                        mark,
                        "outer {outer_ecn} inner {inner_ecn}"
                    );
                }
            }
        }
    }
}

fn advertisement(src: &str) -> Vec<u8> {
    let mut out = [0; 200];
    let fields = RouterAdvertisement {
        router_lifetime: 1800,
        ..Default::default()
    };
    let len = nd::emit_router_advertisement(&mut out, v6(src), v6("fe80::5efe:10.0.0.1"), &fields, &[]);
    out[..len].to_vec()
}

/// N2: control hears the neighbour advertisements of routers, as they may answer its probes; nobody else's.
#[test]
fn n2_answers_of_routers_are_copied() {
    let answer = |from: Ipv4Addr| {
        let (mut out, src) = ([0; 100], iid::link_local(from));
        let flags = NeighborFlags {
            solicited: true,
            ..Default::default()
        };
        let len = nd::emit_neighbor_advertisement(&mut out, src, iid::link_local(OWN), src, flags, &[]);
        outer(from, OWN, 0, &out[..len])
    };
    let copy = |rules: &Rulebook, from| delivery_of(rules, &answer(from)).copy;
    assert_eq!(copy(&host(), ROUTER), Some(PuntKind::NeighborAdvertisement));
    assert_eq!(copy(&host(), HOST), None);
    assert_eq!(copy(&router(), HOST), None, "a router probes nobody");
}

/// P4, V1, FAULTS 4: one thing wrong at a time, each with its own counter.
#[test]
fn router_advertisements_pass_from_routers_only() {
    let genuine = advertisement("fe80::5efe:10.0.0.9");
    let delivery = delivery_of(&host(), &outer(ROUTER, OWN, 0, &genuine));
    assert_eq!(delivery.copy, Some(PuntKind::RouterAdvertisement));
    delivery_of(
        &host(),
        &outer(ROUTER, OWN, 0, &advertisement("fe80::200:5efe:10.0.0.9")),
    );

    let from_host = advertisement("fe80::5efe:10.0.0.2");
    assert_eq!(
        drop_of(&host(), &outer(HOST, OWN, 0, &from_host)),
        DropReason::NdNotRouter
    );
    let borrowed = advertisement("fe80::5efe:10.0.0.2");
    assert_eq!(
        drop_of(&host(), &outer(ROUTER, OWN, 0, &borrowed)),
        DropReason::NdNotRouter
    );
    assert_eq!(
        drop_of(&router(), &outer(HOST, OWN, 0, &from_host)),
        DropReason::NdNotRouter,
        "a router takes none"
    );
    let global = advertisement("2001:db8:1::5efe:10.0.0.9");
    assert_eq!(
        drop_of(&host(), &outer(ROUTER, OWN, 0, &global)),
        DropReason::NdAddress
    );

    let change = |at: usize, value: u8| {
        let mut packet = genuine.clone();
        packet[at] = value;
        outer(ROUTER, OWN, 0, &packet)
    };
    assert_eq!(drop_of(&host(), &change(7, 254)), DropReason::NdHopLimit);
    assert_eq!(drop_of(&host(), &change(55, 1)), DropReason::NdChecksum);
    let mut other_code = genuine.clone();
    other_code[41] = 1;
    other_code[43] = other_code[43].wrapping_sub(1);
    assert_eq!(
        drop_of(&host(), &outer(ROUTER, OWN, 0, &other_code)),
        DropReason::NdCode
    );
}

/// V11: neighbour discovery in a fragment. FAULTS 5: redirects from others than routers; NS and NA pass when valid.
#[test]
fn the_rest_of_neighbour_discovery() {
    let mut out = [0; 200];
    let target = v6("fe80::5efe:10.0.0.1");
    let len = nd::emit_neighbor_solicitation(&mut out, v6("fe80::5efe:10.0.0.2"), target, target, &[]);
    delivery_of(&router(), &outer(HOST, OWN, 0, &out[..len]));
    let flags = NeighborFlags {
        router: false,
        solicited: true,
        override_cache: true,
    };
    let len = nd::emit_neighbor_advertisement(
        &mut out,
        v6("fe80::5efe:10.0.0.2"),
        target,
        v6("fe80::5efe:10.0.0.2"),
        flags,
        &[],
    );
    delivery_of(&router(), &outer(HOST, OWN, 0, &out[..len]));
    let len = nd::emit_redirect(
        &mut out,
        v6("fe80::5efe:10.0.0.2"),
        target,
        v6("fe80::5efe:10.0.0.3"),
        v6("2001:db8::1"),
        &[],
    );
    assert_eq!(
        drop_of(&host(), &outer(HOST, OWN, 0, &out[..len])),
        DropReason::NdNotRouter
    );

    let whole = advertisement("fe80::5efe:10.0.0.9");
    assert_eq!(NdKind::from_type(whole[40]), Some(NdKind::RouterAdvertisement));
    let payload = [&[ext::ICMPV6, 0, 0, 0, 0, 0, 0, 9][..], &whole[40..]].concat();
    let fragment = Inner {
        src: v6("fe80::5efe:10.0.0.9"),
        dst: v6("fe80::5efe:10.0.0.1"),
        next_header: ext::FRAGMENT,
        traffic_class: 0,
        hop_limit: 255,
        payload,
    };
    assert_eq!(
        drop_of(&host(), &outer(ROUTER, OWN, 0, &fragment.bytes())),
        DropReason::NdFragment
    );
}
