//! V1, N4, N10, P4 (validity part), V11, FAULTS 4, 5: each rule of RFC 4861 6.1, 7.1, 8.1 broken one at a
//! time, on otherwise perfect messages.

mod round_trip;

use super::*;
use crate::wire::ext;
use crate::wire::icmpv6::fill_checksum;

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, 0x0a00, 1);
const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, 0x0a00, 2);
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0x5efe, 0x0a00, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITED: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const SLLAO: NdOption<'static> = NdOption::SourceLinkLayer(&[10, 0, 0, 2, 0, 0]);

const PREFIX: PrefixInfo = PrefixInfo {
    prefix: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
    prefix_len: 64,
    on_link: true,
    autonomous: true,
    valid_lifetime: 7200,
    preferred_lifetime: 1800,
};

const FIELDS: RouterAdvertisement = RouterAdvertisement {
    cur_hop_limit: 64,
    managed: false,
    other: true,
    preference: Preference::High,
    router_lifetime: 900,
    reachable_time: 30_000,
    retrans_timer: 1000,
};

fn built(emit: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    const UNTOUCHED: [u8; 4096] = [0xaa; 4096];
    let mut out = UNTOUCHED.to_vec();
    let len = emit(&mut out);
    assert_eq!(
        out[len..],
        UNTOUCHED[len..],
        "bytes past the message were touched"
    );
    out.truncate(len);
    out
}

fn solicitation(src: Ipv6Addr, options: &[NdOption<'_>]) -> Vec<u8> {
    let mut packet = built(|out| emit_router_solicitation(out, src, ALL_ROUTERS));
    append(
        &mut packet,
        &options.iter().flat_map(emitted).collect::<Vec<u8>>(),
    );
    packet
}

fn advertisement(src: Ipv6Addr, options: &[NdOption<'_>]) -> Vec<u8> {
    built(|out| emit_router_advertisement(out, src, HOST, &FIELDS, options))
}

fn neighbor_solicitation(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    options: &[NdOption<'_>],
) -> Vec<u8> {
    built(|out| emit_neighbor_solicitation(out, src, dst, target, options))
}

fn neighbor_advertisement(dst: Ipv6Addr, target: Ipv6Addr, solicited: bool) -> Vec<u8> {
    let flags = NeighborFlags {
        router: true,
        solicited,
        override_cache: false,
    };
    built(|out| emit_neighbor_advertisement(out, ROUTER, dst, target, flags, &[]))
}

fn redirect(src: Ipv6Addr, target: Ipv6Addr, redirected: Ipv6Addr) -> Vec<u8> {
    built(|out| emit_redirect(out, src, HOST, target, redirected, &[]))
}

fn one_of_each() -> [(NdKind, Vec<u8>); 5] {
    [
        (NdKind::RouterSolicitation, solicitation(HOST, &[])),
        (
            NdKind::RouterAdvertisement,
            advertisement(ROUTER, &[NdOption::PrefixInfo(PREFIX)]),
        ),
        (
            NdKind::NeighborSolicitation,
            neighbor_solicitation(HOST, ROUTER, ROUTER, &[]),
        ),
        (
            NdKind::NeighborAdvertisement,
            neighbor_advertisement(HOST, ROUTER, true),
        ),
        (NdKind::Redirect, redirect(ROUTER, HOST, GLOBAL)),
    ]
}

fn emitted(option: &NdOption<'_>) -> Vec<u8> {
    built(|out| option.emit(out))
}

/// Makes lengths and checksum right again after a test changed the message.
fn mend(packet: &mut [u8]) {
    let (src, dst) = {
        let mut addresses = packet[8..40]
            .as_chunks::<16>()
            .0
            .iter()
            .map(|octets| Ipv6Addr::from(*octets));
        (addresses.next().unwrap(), addresses.next().unwrap())
    };
    let payload_len = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
    fill_checksum(&mut packet[40..], &src, &dst);
}

fn append(packet: &mut Vec<u8>, bytes: &[u8]) {
    packet.extend_from_slice(bytes);
    mend(packet);
}

/// Puts an extension header between the IPv6 header and the message.
fn insert_header(packet: &[u8], kind: u8, header: &[u8; 8]) -> Vec<u8> {
    let mut out = [&packet[..40], header, &packet[40..]].concat();
    let payload_len = u16::try_from(out.len() - 40).unwrap();
    out[4..6].copy_from_slice(&payload_len.to_be_bytes());
    out[40] = std::mem::replace(&mut out[6], kind);
    out
}

fn parsed(packet: &[u8]) -> Option<Result<NdMessage<'_>, NdError>> {
    parse(packet, &ext::walk(packet).unwrap())
}

fn refusal(packet: &[u8]) -> Option<NdError> {
    parsed(packet).expect("neighbour discovery").err()
}

#[test]
fn perfect_messages_are_accepted_with_their_fields() {
    for (kind, packet) in one_of_each() {
        let message = parsed(&packet).unwrap().unwrap();
        assert_eq!(message.kind(), kind);
        assert_eq!(NdKind::from_type(kind as u8), Some(kind));
        assert_eq!(message.body(), &packet[40..]);
        let view = Ipv6View::new(&packet).unwrap();
        assert_eq!(
            (view.hop_limit(), message.src(), message.dst()),
            (255, view.src(), view.dst())
        );
    }
    let packet = redirect(ROUTER, HOST, GLOBAL);
    let message = parsed(&packet).unwrap().unwrap();
    assert_eq!(
        (message.target(), message.redirected()),
        (Some(HOST), Some(GLOBAL))
    );
    let packet = neighbor_advertisement(HOST, ROUTER, true);
    let message = parsed(&packet).unwrap().unwrap();
    let flags = NeighborFlags {
        router: true,
        solicited: true,
        override_cache: false,
    };
    assert_eq!(
        (message.target(), message.neighbor_flags()),
        (Some(ROUTER), Some(flags))
    );
}

/// N3, RFC 4213 3.8: our solicitation is 48 bytes and has no source link-layer address.
#[test]
fn our_router_solicitation_has_no_options() {
    let packet = solicitation(HOST, &[]);
    assert_eq!(packet.len(), 48);
    assert_eq!(packet[40], 133);
    assert_eq!(parsed(&packet).unwrap().unwrap().options().count(), 0);
}

#[test]
fn other_packets_are_none_of_our_business() {
    for message_type in (0..=255u8).filter(|message_type| !(133..=137).contains(message_type)) {
        let mut packet = solicitation(HOST, &[]);
        packet[40] = message_type;
        mend(&mut packet);
        assert!(parsed(&packet).is_none(), "type {message_type}");
    }
    let mut udp = solicitation(HOST, &[]);
    udp[6] = 17;
    assert!(parsed(&udp).is_none());
}

#[test]
fn any_hop_limit_but_255_is_refused() {
    for (kind, mut packet) in one_of_each() {
        for hop_limit in 0..255 {
            packet[7] = hop_limit;
            assert_eq!(refusal(&packet), Some(NdError::HopLimit), "{kind:?}, {hop_limit}");
        }
    }
}

#[test]
fn a_damaged_message_is_refused() {
    for (kind, packet) in one_of_each() {
        for at in 41..packet.len() {
            let mut packet = packet.clone();
            packet[at] ^= 0x10;
            assert_eq!(refusal(&packet), Some(NdError::Checksum), "{kind:?}, byte {at}");
        }
    }
}

#[test]
fn any_code_but_0_is_refused() {
    for (kind, mut packet) in one_of_each() {
        for code in 1..=255 {
            packet[41] = code;
            mend(&mut packet);
            assert_eq!(refusal(&packet), Some(NdError::Code), "{kind:?}, {code}");
        }
    }
}

/// Every length, with a right checksum each time: RS 8, RA 16, NS 24, NA 24, redirect 40, and no option cut.
#[test]
fn messages_cut_short_are_refused() {
    for (kind, packet) in one_of_each() {
        for len in 4..packet.len() - 40 {
            let mut packet = packet[..40 + len].to_vec();
            mend(&mut packet);
            let expected = match len.checked_sub(kind.min_len()) {
                None => Some(NdError::Length),
                Some(0) => None,
                Some(_) => Some(NdError::OptionLen),
            };
            assert_eq!(refusal(&packet), expected, "{kind:?}, {len} bytes");
        }
        for len in 1..4 {
            let mut packet = packet[..40 + len].to_vec();
            let payload_len = u16::try_from(len).unwrap();
            packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
            assert_eq!(refusal(&packet), Some(NdError::Length), "{kind:?}, {len} bytes");
        }
    }
}

#[test]
fn options_of_length_zero_or_past_the_end_are_refused() {
    for (kind, packet) in one_of_each() {
        for option in [
            &[250, 0, 0, 0, 0, 0, 0, 0][..],
            &[250, 2, 0, 0, 0, 0, 0, 0],
            &[5, 255],
            &[1],
        ] {
            let mut packet = packet.clone();
            append(&mut packet, option);
            assert_eq!(refusal(&packet), Some(NdError::OptionLen), "{kind:?} {option:?}");
            let mut behind_a_good_one = packet[..packet.len() - option.len()].to_vec();
            append(&mut behind_a_good_one, &[250, 1, 0, 0, 0, 0, 0, 0]);
            assert_eq!(refusal(&behind_a_good_one), None);
            append(&mut behind_a_good_one, option);
            assert_eq!(
                refusal(&behind_a_good_one),
                Some(NdError::OptionLen),
                "{kind:?} {option:?}"
            );
        }
    }
}

#[test]
fn addresses_must_suit_the_kind() {
    let bad = Some(NdError::Address);
    let table = [
        ("RS from an address", solicitation(GLOBAL, &[SLLAO]), None),
        ("RS from :: without SLLAO", solicitation(NONE, &[]), None),
        ("RS from :: with SLLAO", solicitation(NONE, &[SLLAO]), bad),
        (
            "RS from :: with a late SLLAO",
            solicitation(NONE, &[NdOption::Mtu(1280), SLLAO]),
            bad,
        ),
        (
            "RA from a link-local address",
            advertisement(ROUTER, &[SLLAO]),
            None,
        ),
        ("RA from a global address", advertisement(GLOBAL, &[]), bad),
        ("RA from ::", advertisement(NONE, &[]), bad),
        ("RA from a group", advertisement(ALL_ROUTERS, &[]), bad),
        (
            "NS about an address",
            neighbor_solicitation(HOST, ROUTER, GLOBAL, &[SLLAO]),
            None,
        ),
        (
            "NS about a group",
            neighbor_solicitation(HOST, ROUTER, ALL_NODES, &[]),
            bad,
        ),
        ("DAD", neighbor_solicitation(NONE, SOLICITED, HOST, &[]), None),
        (
            "DAD, not to a solicited-node group",
            neighbor_solicitation(NONE, ALL_NODES, HOST, &[]),
            bad,
        ),
        ("DAD to a host", neighbor_solicitation(NONE, HOST, HOST, &[]), bad),
        (
            "DAD with SLLAO",
            neighbor_solicitation(NONE, SOLICITED, HOST, &[SLLAO]),
            bad,
        ),
        ("NA", neighbor_advertisement(HOST, GLOBAL, true), None),
        (
            "NA about a group",
            neighbor_advertisement(HOST, ALL_NODES, true),
            bad,
        ),
        (
            "NA to all, unsolicited",
            neighbor_advertisement(ALL_NODES, ROUTER, false),
            None,
        ),
        (
            "NA to all, solicited",
            neighbor_advertisement(ALL_NODES, ROUTER, true),
            bad,
        ),
        ("redirect to a router", redirect(ROUTER, HOST, GLOBAL), None),
        (
            "redirect to the destination",
            redirect(ROUTER, GLOBAL, GLOBAL),
            None,
        ),
        (
            "redirect to another global address",
            redirect(ROUTER, GLOBAL, HOST),
            bad,
        ),
        (
            "redirect from a global address",
            redirect(GLOBAL, HOST, GLOBAL),
            bad,
        ),
        ("redirect of a group", redirect(ROUTER, HOST, ALL_NODES), bad),
        (
            "redirect of a group to itself",
            redirect(ROUTER, ALL_NODES, ALL_NODES),
            bad,
        ),
    ];
    for (what, packet, expected) in table {
        assert_eq!(refusal(&packet), expected, "{what}");
    }
}

/// V11, RFC 6980 5: also an atomic fragment, and a first fragment that hides the type. FAULTS 18: headers in
/// front hide nothing.
#[test]
fn fragments_are_refused_and_other_headers_hide_nothing() {
    for (kind, packet) in one_of_each() {
        let atomic = insert_header(&packet, ext::FRAGMENT, &[0; 8]);
        assert_eq!(refusal(&atomic), Some(NdError::Fragment), "{kind:?}");
        let first = insert_header(&packet, ext::FRAGMENT, &[0, 0, 0, 1, 0, 0, 0, 7]);
        assert_eq!(refusal(&first), Some(NdError::Fragment), "{kind:?}");
        let later = insert_header(&packet, ext::FRAGMENT, &[0, 0, 0, 9, 0, 0, 0, 7]);
        assert!(
            parsed(&later).is_none(),
            "{kind:?}: nothing can be read from a later fragment"
        );

        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        for header in [ext::HOP_BY_HOP, ext::DEST_OPTS] {
            let mut behind = insert_header(&packet, header, &padding);
            assert_eq!(parsed(&behind).unwrap().unwrap().kind(), kind);
            behind[7] = 64;
            assert_eq!(refusal(&behind), Some(NdError::HopLimit), "{kind:?}");
        }
    }
    let mut hidden = insert_header(&solicitation(HOST, &[]), ext::FRAGMENT, &[0, 0, 0, 1, 0, 0, 0, 7]);
    hidden.truncate(48);
    hidden[4..6].copy_from_slice(&8u16.to_be_bytes());
    assert_eq!(refusal(&hidden), Some(NdError::Fragment));
}

/// D6: what lies behind the payload length belongs to nobody.
#[test]
fn padding_is_not_part_of_a_message() {
    for (kind, mut packet) in one_of_each() {
        packet.extend_from_slice(&[0; 7]);
        let message = parsed(&packet).unwrap().unwrap();
        assert_eq!((message.kind(), message.body().len()), (kind, packet.len() - 47));
    }
}

#[test]
fn advertisements_give_their_fields_and_shortest_lifetime() {
    let options = [
        NdOption::Mtu(1480),
        NdOption::PrefixInfo(PREFIX),
        NdOption::Unknown {
            kind: 250,
            value: &[9; 6],
        },
        NdOption::RouteInfo(RouteInfo {
            prefix: Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 0),
            prefix_len: 48,
            preference: Preference::Low,
            lifetime: 600,
        }),
        NdOption::Rdnss {
            lifetime: 1200,
            servers: &[[1; 16], [2; 16]],
        },
        NdOption::Dnssl {
            lifetime: INFINITE_LIFETIME,
            names: &[0; 8],
        },
    ];
    let packet = advertisement(ROUTER, &options);
    let message = parsed(&packet).unwrap().unwrap();
    assert_eq!(message.router_advertisement(), Some(FIELDS));
    assert!(
        message.options().eq(options),
        "V2: order kept, unknown options stepped over"
    );
    assert_eq!(message.min_lifetime(), Some(600));
}

/// P5: what the next solicitation must come before.
#[test]
fn shortest_lifetime_skips_withdrawals_and_infinity() {
    let prefix = |valid_lifetime, preferred_lifetime| {
        NdOption::PrefixInfo(PrefixInfo {
            valid_lifetime,
            preferred_lifetime,
            ..PREFIX
        })
    };
    for (router_lifetime, options, expected) in [
        (900, vec![], Some(900)),
        (0, vec![], None),
        (0, vec![prefix(7200, 0)], Some(7200)),
        (900, vec![prefix(7200, 300)], Some(300)),
        (900, vec![prefix(INFINITE_LIFETIME, INFINITE_LIFETIME)], Some(900)),
        (0, vec![prefix(INFINITE_LIFETIME, INFINITE_LIFETIME)], None),
        (
            0,
            vec![NdOption::Rdnss {
                lifetime: 50,
                servers: &[[1; 16]],
            }],
            Some(50),
        ),
        (
            0,
            vec![NdOption::Dnssl {
                lifetime: 60,
                names: &[0; 8],
            }],
            Some(60),
        ),
    ] {
        let fields = RouterAdvertisement {
            router_lifetime,
            ..FIELDS
        };
        let packet = built(|out| emit_router_advertisement(out, ROUTER, HOST, &fields, &options));
        assert_eq!(
            parsed(&packet).unwrap().unwrap().min_lifetime(),
            expected,
            "{router_lifetime} {options:?}"
        );
    }
    assert_eq!(
        parsed(&solicitation(HOST, &[])).unwrap().unwrap().min_lifetime(),
        None
    );
}

/// RFC 4191 2.2: reserved means medium, and without a lifetime there is no preference.
#[test]
fn router_preference() {
    for (bits, router_lifetime, expected) in [
        (0b00, 900, Preference::Medium),
        (0b01, 900, Preference::High),
        (0b10, 900, Preference::Medium),
        (0b11, 900, Preference::Low),
        (0b01, 0, Preference::Medium),
        (0b11, 0, Preference::Medium),
    ] {
        let fields = RouterAdvertisement {
            router_lifetime,
            ..FIELDS
        };
        let mut packet = built(|out| emit_router_advertisement(out, ROUTER, HOST, &fields, &[]));
        packet[45] = bits << 3;
        mend(&mut packet);
        let parsed = parsed(&packet).unwrap().unwrap().router_advertisement().unwrap();
        assert_eq!(
            parsed.preference, expected,
            "{bits:02b}, lifetime {router_lifetime}"
        );
    }
}

/// V2, FAULTS 49: a known option of the wrong shape is ignored, its neighbours are not.
#[test]
fn misshapen_options_are_unknown() {
    let route = |units: u8, prefix_len: u8, prf: u8| {
        let mut bytes = vec![0; usize::from(units) * 8];
        bytes[..4].copy_from_slice(&[24, units, prefix_len, prf << 3]);
        bytes
    };
    let of_units = |kind: u8, units: u8| {
        let mut bytes = vec![0; usize::from(units) * 8];
        bytes[..2].copy_from_slice(&[kind, units]);
        bytes
    };
    let mut table = vec![
        (route(1, 0, 0), true),
        (route(1, 1, 0), false),
        (route(2, 64, 3), true),
        (route(2, 65, 0), false),
        (route(3, 128, 1), true),
        (route(3, 129, 0), false),
        (route(3, 64, 2), false),
        (route(4, 64, 0), false),
    ];
    for units in 1..8 {
        table.push((of_units(3, units), units == 4));
        table.push((of_units(5, units), units == 1));
        table.push((of_units(25, units), units >= 3 && units % 2 == 1));
        table.push((of_units(31, units), units >= 2));
        table.push((of_units(4, units), true));
        table.push((of_units(1, units), true));
        table.push((of_units(2, units), true));
    }
    for (bytes, known) in table {
        let option = NdOptions::new(&bytes).next().unwrap();
        assert_eq!(!matches!(option, NdOption::Unknown { .. }), known, "{bytes:?}");
        let mut packet = advertisement(ROUTER, &[]);
        append(&mut packet, &bytes);
        append(&mut packet, &emitted(&NdOption::PrefixInfo(PREFIX)));
        let last = parsed(&packet).unwrap().unwrap().options().last();
        assert_eq!(last, Some(NdOption::PrefixInfo(PREFIX)));
    }
}

#[test]
fn solicited_node_groups() {
    assert!(is_solicited_node(&SOLICITED));
    assert!(is_solicited_node(&"ff02::1:ffff:ffff".parse().unwrap()));
    for other in [
        "ff02::1:fe00:2",
        "ff05::1:ff00:2",
        "ff02::2:ff00:2",
        "ff02::1",
        "fe80::1:ff00:2",
    ] {
        assert!(!is_solicited_node(&other.parse().unwrap()), "{other}");
    }
}
