//! V1, N4: what is emitted is what is parsed, and no bytes make a parser panic or spin.

use super::*;
use proptest::prelude::*;

fn any_address() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 16]>().prop_map(Ipv6Addr::from)
}

fn any_preference() -> impl Strategy<Value = Preference> {
    prop::sample::select(vec![Preference::Low, Preference::Medium, Preference::High])
}

/// An option as owned parts, since the values borrow.
#[derive(Clone, Debug)]
enum Made {
    Fixed(NdOption<'static>),
    Source(Vec<u8>),
    Redirected(Vec<u8>),
    Unknown(u8, Vec<u8>),
    Servers(u32, Vec<[u8; 16]>),
    Names(u32, Vec<u8>),
}

impl Made {
    fn option(&self) -> NdOption<'_> {
        match self {
            Made::Fixed(option) => *option,
            Made::Source(value) => NdOption::SourceLinkLayer(value),
            Made::Redirected(packet) => NdOption::RedirectedHeader(packet),
            Made::Unknown(kind, value) => NdOption::Unknown { kind: *kind, value },
            Made::Servers(lifetime, servers) => NdOption::Rdnss {
                lifetime: *lifetime,
                servers,
            },
            Made::Names(lifetime, names) => NdOption::Dnssl {
                lifetime: *lifetime,
                names,
            },
        }
    }
}

/// Values whose sizes are what the wire can carry without padding, so that the round trip is exact.
fn any_option() -> impl Strategy<Value = Made> {
    let bytes = |plus: usize, least: usize| {
        (least..5usize).prop_flat_map(move |n| prop::collection::vec(any::<u8>(), n * 8 + plus))
    };
    let prefix =
        (any_address(), any::<[u8; 3]>(), any::<[u32; 2]>()).prop_map(|(prefix, [len, l, a], [v, p])| {
            Made::Fixed(NdOption::PrefixInfo(PrefixInfo {
                prefix,
                prefix_len: len,
                on_link: l & 1 != 0,
                autonomous: a & 1 != 0,
                valid_lifetime: v,
                preferred_lifetime: p,
            }))
        });
    let route = (any::<u128>(), 0..=128u8, any_preference(), any::<u32>()).prop_map(
        |(addr, len, preference, lifetime)| {
            let kept = addr & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            let prefix = Ipv6Addr::from(kept);
            Made::Fixed(NdOption::RouteInfo(RouteInfo {
                prefix,
                prefix_len: len,
                preference,
                lifetime,
            }))
        },
    );
    prop_oneof![
        prefix,
        route,
        any::<u32>().prop_map(|mtu| Made::Fixed(NdOption::Mtu(mtu))),
        bytes(6, 0).prop_map(Made::Source),
        bytes(0, 0).prop_map(Made::Redirected),
        (32..=255u8, bytes(6, 0)).prop_map(|(kind, value)| Made::Unknown(kind, value)),
        (any::<u32>(), prop::collection::vec(any::<[u8; 16]>(), 1..4)).prop_map(|(l, s)| Made::Servers(l, s)),
        (any::<u32>(), bytes(0, 1)).prop_map(|(l, n)| Made::Names(l, n)),
    ]
}

proptest! {
    #[test]
    fn no_packet_panics(mut packet in prop::collection::vec(any::<u8>(), 0..300), kind in 0..6u8) {
        // Steer most inputs past the first guards.
        if packet.len() > 48 {
            packet[0] = 0x60;
            packet[6] = 58;
            packet[7] = 255;
            packet[40] = 132 + kind;
            packet[41] = 0;
            mend(&mut packet);
        }
        if let Ok(upper) = ext::walk(&packet)
            && let Some(Ok(message)) = parse(&packet, &upper)
        {
            prop_assert!(message.options().count() <= packet.len() / 8);
            message.min_lifetime();
            message.target();
            message.redirected();
        }
    }

    #[test]
    fn any_option_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let options = NdOptions::new(&bytes);
        prop_assert!(options.count() <= bytes.len() / 8);
        options.has_source_link_layer();
        if options.are_well_formed() {
            let total: usize = options.map(|option| option.emit_len()).sum();
            prop_assert_eq!(total, bytes.len());
        }
    }

    #[test]
    fn advertisements_survive_the_round_trip(
        (hop, managed, other, preference) in (any::<u8>(), any::<bool>(), any::<bool>(), any_preference()),
        (lifetime, reachable_time, retrans_timer) in (1..=u16::MAX, any::<u32>(), any::<u32>()),
        made in prop::collection::vec(any_option(), 0..8),
    ) {
        let fields = RouterAdvertisement {
            cur_hop_limit: hop,
            managed,
            other,
            preference,
            router_lifetime: lifetime,
            reachable_time,
            retrans_timer,
        };
        let options: Vec<_> = made.iter().map(Made::option).collect();
        let packet = built(|out| emit_router_advertisement(out, ROUTER, HOST, &fields, &options));
        let message = parsed(&packet).unwrap().unwrap();
        prop_assert_eq!(message.router_advertisement(), Some(fields));
        prop_assert_eq!(message.options().collect::<Vec<_>>(), options);
    }

    #[test]
    fn neighbor_messages_survive_the_round_trip(
        target in any_address().prop_filter("no group", |a| !a.is_multicast()),
        flags in any::<[bool; 3]>(),
        made in prop::collection::vec(any_option(), 0..4),
    ) {
        let options: Vec<_> = made.iter().map(Made::option).collect();
        let [router, solicited, override_cache] = flags;
        let flags = NeighborFlags { router, solicited, override_cache };
        let packet = built(|out| emit_neighbor_advertisement(out, ROUTER, HOST, target, flags, &options));
        let message = parsed(&packet).unwrap().unwrap();
        prop_assert_eq!((message.target(), message.neighbor_flags()), (Some(target), Some(flags)));
        prop_assert_eq!(message.options().collect::<Vec<_>>(), options.clone());

        let packet = built(|out| emit_neighbor_solicitation(out, HOST, ROUTER, target, &options));
        let message = parsed(&packet).unwrap().unwrap();
        prop_assert_eq!(message.target(), Some(target));
        prop_assert_eq!(message.options().collect::<Vec<_>>(), options);
    }
}

/// RFC 4191 2.3: what an option carries behind the length of its prefix is to be ignored. Found by the target `nd_messages`.
#[test]
fn bits_behind_the_prefix_of_a_route_are_ignored() {
    let mut option = vec![24, 3, 48, 0, 0, 0, 2, 0x58];
    option.extend([
        0x20, 1, 0x0d, 0xb8, 0, 9, 0xff, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
    ]);
    for (len, prefix) in [
        (0, "::"),
        (47, "2001:db8:8::"),
        (48, "2001:db8:9::"),
        (64, "2001:db8:9:ff00::"),
        (128, "2001:db8:9:ff00::ffff:ffff"),
    ] {
        option[2] = len;
        let read = NdOptions::new(&option).next();
        let Some(NdOption::RouteInfo(route)) = read else {
            panic!("{read:?} is no route");
        };
        assert_eq!((route.prefix, route.prefix_len), (prefix.parse().unwrap(), len));
    }
}
