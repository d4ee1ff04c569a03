//! Messages there and back, and bytes that are none (FAULTS 72).

use super::*;
use proptest::prelude::*;

fn prefix() -> impl Strategy<Value = Ipv6Prefix> {
    (any::<Ipv6Addr>(), 0..=128u8).prop_map(|(addr, len)| Ipv6Prefix::containing(addr, len).unwrap())
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![Just(Origin::Advertised), Just(Origin::Own)]
}

fn route() -> impl Strategy<Value = RouteId> {
    (
        prefix(),
        any::<u32>(),
        any::<Option<Ipv6Addr>>(),
        any::<i8>(),
        origin(),
    )
        .prop_map(|(prefix, metric, via, preference, origin)| RouteId {
            prefix,
            metric,
            via,
            preference,
            origin,
        })
}

fn address() -> impl Strategy<Value = AddressChange> {
    (any::<Ipv6Addr>(), any::<[u32; 2]>(), any::<u8>(), origin()).prop_map(
        |(addr, [valid, preferred], prefix_len, origin)| AddressChange {
            addr,
            prefix_len,
            valid,
            preferred,
            origin,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u16>().prop_map(Change::Shape),
        any::<u16>().prop_map(Change::Mtu),
        Just(Change::Up),
        Just(Change::Down),
        any::<Ipv4Addr>().prop_map(Change::LinkLocal),
        address().prop_map(Change::Address),
        any::<(Ipv6Addr, u8)>().prop_map(|(addr, len)| Change::RemoveAddress(addr, len)),
        (route(), any::<Option<u32>>()).prop_map(|(id, end)| Change::Route(id, end)),
        route().prop_map(Change::RemoveRoute),
        prop_oneof![Just(Role::Host), Just(Role::Router)].prop_map(Change::Sysctls),
        any::<Option<u8>>().prop_map(Change::HopLimit),
        any::<[u32; 16]>().prop_map(Change::Programs),
    ]
}

fn say() -> impl Strategy<Value = Say> {
    let cause = (0..Cause::ALL.len()).prop_map(|at| Cause::ALL[at]);
    prop_oneof![
        Just(Say::Ready),
        Just(Say::Reloading),
        ".{0,200}".prop_map(Say::Status),
        Just(Say::Alive),
        Just(Say::Reloaded),
        Just(Say::Keep),
        (cause, any::<u8>(), ".{0,200}").prop_map(|(cause, status, text)| Say::Failed(cause, status, text)),
        (any::<u32>(), change()).prop_map(|(number, change)| Say::Change(number, change)),
        any::<(u32, IpAddr, u16)>()
            .prop_map(|(number, ip, port)| Say::Listen(number, SocketAddr::new(ip, port))),
        Just(Say::StopListening),
        any::<u32>().prop_map(Say::Upgrade),
        any::<u32>().prop_map(Say::Attend),
        ".{0,200}".prop_map(Say::WithoutPrograms),
        any::<(u16, u32, [u64; 2])>().prop_map(|(worker, thread, [turns, looked_at])| {
            Say::Suspect(Suspect {
                worker,
                thread,
                turns,
                looked_at,
            })
        }),
    ]
}

fn segmenters() -> impl Strategy<Value = Segmenters> {
    prop_oneof![
        Just(Segmenters::Unknown),
        prop::collection::vec(any::<u32>(), 0..=MAX_SEGMENTERS).prop_map(Segmenters::Known),
    ]
}

fn left() -> impl Strategy<Value = Left> {
    let addresses = || prop::collection::vec(any::<Ipv4Addr>(), 0..=MAX_ADDRESSES);
    let allowed = || prop::option::of(addresses());
    let looked_up = prop::option::of(("[a-z.]{1,253}", addresses()));
    (allowed(), allowed(), looked_up).prop_map(|(now, before, looked_up)| Left {
        bounds: Bounds { now, before },
        looked_up: looked_up.map(|(name, addresses)| LookedUp { name, addresses }),
    })
}

fn place() -> impl Strategy<Value = Place> {
    let direction = prop_oneof![Just(Direction::Encap), Just(Direction::Decap)];
    let filter = prop::option::of(any::<(u16, bool)>());
    (direction, any::<u32>(), filter).prop_map(|(direction, device, filter)| Place {
        direction,
        device,
        filter: filter.map(|(priority, added)| Filter { priority, added }),
    })
}

fn order() -> impl Strategy<Value = Order> {
    let answer = prop_oneof![
        Just(Answer::Done),
        any::<i32>().prop_map(Answer::Kernel),
        ".{0,100}".prop_map(Answer::Refused),
    ];
    let setup = (
        any::<([u32; 3], u16, [u32; 2], [bool; 8], [bool; 3])>(),
        any::<([u64; 7], u64, [u64; 2])>(),
        "[a-z0-9]{1,15}",
    );
    let setup = setup.prop_map(
        |((numbers, workers, ids, flags, waived), (restarts, upgrades, [rules, filters]), interface)| {
            Order::Setup(Setup {
                version: numbers[0],
                interface,
                if_index: numbers[1],
                key: numbers[2],
                workers,
                udp_offload: flags[0],
                steered: flags[1],
                ids,
                waived,
                detached: flags[2],
                successor: flags[3],
                restarts,
                upgrades,
                rules,
                filters,
                metrics: flags[4],
                names: flags[5],
                programs: flags[6],
                gso_sizes: flags[7],
            })
        },
    );
    let asked = prop_oneof![
        Just(Asked::Reload),
        Just(Asked::Summary),
        Just(Asked::ReopenLogs),
        Just(Asked::Terminate),
        Just(Asked::Interrupt),
        Just(Asked::HandOver),
    ];
    prop_oneof![
        setup,
        any::<u16>().prop_map(Order::Worker),
        any::<(u32, u32)>().prop_map(|(slots, cpus)| Order::Maps(MapsShape { slots, cpus })),
        ".{0,200}".prop_map(Order::WithoutPrograms),
        left().prop_map(Order::Left),
        place().prop_map(Order::Attached),
        (any::<[bool; 4]>(), segmenters()).prop_map(|([firewall, ipsec, listeners, shaping], segmenters)| {
            Order::Others(Others {
                firewall,
                ipsec,
                listeners,
                shaping,
                segmenters,
            })
        }),
        Just(Order::Begin),
        (any::<u32>(), answer).prop_map(|(number, answer)| Order::Answer(number, answer)),
        asked.prop_map(Order::Signal),
    ]
}

proptest! {
    #[test]
    fn what_the_engine_says_comes_back(message in say()) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= MAX_MESSAGE_LEN);
        prop_assert_eq!(Say::decode(&bytes), Ok(message));
    }

    #[test]
    fn what_the_monitor_says_comes_back(message in order()) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= MAX_MESSAGE_LEN);
        prop_assert_eq!(Order::decode(&bytes), Ok(message));
    }

    /// Total, and one encoding for each message: what is read is written back the same.
    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
        if let Ok(message) = Say::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(message) = Order::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn damaged_messages_are_other_messages_or_refused(message in say(), at in any::<usize>(), bits in 1..=255u8) {
        let mut bytes = message.encode();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        if let Ok(other) = Say::decode(&bytes) {
            prop_assert_ne!(&other, &message);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn half_a_message_and_one_too_long_are_none(message in say(), cut in any::<usize>()) {
        let mut bytes = message.encode();
        prop_assert_eq!(Say::decode(&bytes[..cut % bytes.len()]), Err(Malformed));
        bytes.push(0);
        prop_assert_eq!(Say::decode(&bytes), Err(Malformed));
    }
}

#[test]
fn long_texts_are_cut_at_the_end_of_a_character() {
    let long = Say::Status("ä".repeat(MAX_TEXT_LEN));
    assert_eq!(
        Say::decode(&long.encode()),
        Ok(Say::Status("ä".repeat(MAX_TEXT_LEN / 2)))
    );
    let odd = Say::Status(format!("x{}", "ä".repeat(MAX_TEXT_LEN)));
    let Ok(Say::Status(text)) = Say::decode(&odd.encode()) else {
        panic!("no status")
    };
    assert_eq!(text.len(), MAX_TEXT_LEN - 1);
}

#[test]
fn each_cause_has_a_number() {
    for cause in Cause::ALL {
        let message = Say::Failed(cause, 1, String::new());
        assert_eq!(Say::decode(&message.encode()), Ok(message));
    }
}
