//! What holds after any sequence of advertisements, withdrawals, locators and time.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Advertise(Advert),
    Forget(Ipv4Addr),
    Locators(Vec<Ipv4Addr>),
    Config(SlaacConfig),
    Wait(u64),
}

fn router() -> impl Strategy<Value = Ipv4Addr> {
    (1..=4_u8).prop_map(|last| Ipv4Addr::new(10, 0, 0, last))
}

fn lifetime() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(INFINITE_LIFETIME),
        0..20_u32,
        7100..7300_u32,
        any::<u32>()
    ]
}

fn option() -> impl Strategy<Value = NdOption<'static>> {
    let prefix = (
        0..80_u32,
        lifetime(),
        lifetime(),
        any::<bool>(),
        any::<bool>(),
        0..10_u8,
    );
    let prefix = prefix.prop_map(|(number, valid, preferred, on_link, autonomous, odd)| {
        NdOption::PrefixInfo(PrefixInfo {
            prefix: v6(&format!("2001:db8:{number:x}::")),
            prefix_len: if odd == 0 { 48 } else { 64 },
            on_link,
            autonomous,
            valid_lifetime: valid,
            preferred_lifetime: if odd == 1 { preferred } else { preferred.min(valid) },
        })
    });
    let route = (0..80_u32, lifetime()).prop_map(|(number, lifetime)| {
        let prefix = if number == 0 {
            "::/0".to_owned()
        } else {
            format!("2001:db8:{number:x}::/48")
        };
        rio(&prefix, Preference::High, lifetime)
    });
    let server = (0..12_u8, lifetime()).prop_map(|(number, lifetime)| {
        let server = Ipv6Addr::from((0x2001_0db8 << 96) + u128::from(number) + 1).octets();
        NdOption::Rdnss {
            lifetime,
            servers: Box::leak(Box::new([server])),
        }
    });
    prop_oneof![4 => prefix, 2 => route, 1 => server, 1 => any::<u32>().prop_map(NdOption::Mtu)]
}

fn step() -> impl Strategy<Value = Step> {
    let advert = (router(), 0..40_u16, prop::collection::vec(option(), 0..40));
    prop_oneof![
        4 => advert.prop_map(|(from, lifetime, options)| Step::Advertise(advert_of(from, lifetime, &options))),
        1 => router().prop_map(Step::Forget),
        1 => prop::collection::vec(router(), 0..3).prop_map(Step::Locators),
        1 => (prop::option::of(0..3_u32), 1280..1500_u16).prop_map(|(default_route, mtu_ceiling)| {
            Step::Config(SlaacConfig { default_route, mtu_ceiling })
        }),
        3 => prop_oneof![0..30_u64, 7000..7400_u64].prop_map(Step::Wait),
    ]
}

fn advert_of(from: Ipv4Addr, lifetime: u16, options: &[NdOption<'_>]) -> Advert {
    super::advert(from, lifetime, options)
}

/// What must hold at any moment, given every /64 that was ever advertised for addresses.
fn check(
    machine: &Slaac,
    now: Instant,
    config: SlaacConfig,
    advertised: &BTreeSet<Ipv6Prefix>,
    locators: &[Ipv4Addr],
) {
    let wanted = machine.wanted(now);
    assert!(machine.prefix_count() <= MAX_PREFIXES);
    assert!(wanted.addresses.len() <= MAX_PREFIXES * locators.len());
    assert!(wanted.routes.len() <= MAX_PREFIXES + MAX_ROUTERS * (MAX_ROUTES_PER_ROUTER + 1));
    assert!(wanted.dns.len() <= MAX_NAME_SERVERS && wanted.search.len() <= MAX_SEARCH_DOMAINS);
    assert!(
        wanted
            .mtu
            .is_none_or(|mtu| (1280..=config.mtu_ceiling).contains(&mtu))
    );
    let mut seen = BTreeSet::new();
    for address in &wanted.addresses {
        assert!(
            address.preferred <= address.valid && !address.valid.is_over(now),
            "{address:?}"
        );
        let prefix = Ipv6Prefix::containing(address.addr, 64).unwrap();
        assert!(advertised.contains(&prefix), "{address:?}");
        assert!(
            locators.contains(&iid::embedded(&address.addr).unwrap()),
            "{address:?}"
        );
        assert!(seen.insert(address.addr), "{address:?} twice");
    }
    let mut keys = BTreeSet::new();
    for route in &wanted.routes {
        assert!(
            !route.lifetime.is_over(now) && (-1..=1).contains(&route.preference),
            "{route:?}"
        );
        assert!(
            keys.insert((route.prefix, route.metric, route.via)),
            "{route:?} twice"
        );
    }
    assert_eq!(wanted, machine.wanted(now));
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules(steps in prop::collection::vec(step(), 1..60)) {
        let (mut now, mut machine) = host();
        let (mut config, mut locators) = (CONFIG, vec![US]);
        let mut advertised = BTreeSet::new();
        for step in steps {
            let before = machine.wanted(now);
            match step {
                Step::Advertise(advert) => {
                    let forming = advert.prefixes.iter().filter(|prefix| prefix.autonomous);
                    advertised.extend(forming.map(|prefix| prefix.prefix));
                    let said = machine.advertised(now, &advert);
                    prop_assert_eq!(said, machine.wanted(now) != before);
                }
                Step::Forget(router) => {
                    let said = machine.forget_router(now, router);
                    prop_assert_eq!(said, machine.wanted(now) != before);
                    prop_assert!(machine.wanted(now).routes.iter().all(
                        |route| route.via.is_none_or(|via| iid::embedded(&via) != Some(router))
                    ));
                }
                Step::Locators(list) => {
                    machine.set_locators(&list);
                    locators = list;
                }
                Step::Config(new) => {
                    machine.set_config(new);
                    config = new;
                }
                Step::Wait(seconds) => now += secs(seconds),
            }
            check(&machine, now, config, &advertised, &locators);
            let wanted = machine.wanted(now);
            machine.expire(now);
            prop_assert_eq!(&machine.wanted(now), &wanted, "expire takes only what is over");
            prop_assert!(machine.next_deadline().is_none_or(|at| at > now));
            prop_assert!(!machine.expire(now));
        }
    }

    /// FAULTS 49: whatever bytes the options hold, reading ends, and what is read is in bounds.
    #[test]
    fn any_options_are_read(options in prop::collection::vec(
        (
            prop_oneof![Just(3_u8), Just(5), Just(24), Just(25), Just(31), any::<u8>()],
            prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 0..80),
        ),
        0..50,
    )) {
        let options: Vec<_> = options
            .iter()
            .map(|(kind, value)| NdOption::Unknown { kind: *kind, value })
            .collect();
        let (now, mut machine) = host();
        let advert = advert_of(A, 60, &options);
        machine.advertised(now, &advert);
        prop_assert!(machine.prefix_count() <= MAX_PREFIXES);
        prop_assert!(advert.prefixes.iter().all(|prefix| prefix.preferred <= prefix.valid));
        prop_assert!(machine.wanted(now).mtu.is_none_or(|mtu| (1280..=1480).contains(&mtu)));
    }
}
