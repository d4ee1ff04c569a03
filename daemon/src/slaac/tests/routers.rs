//! Routers and what comes with them: routes, preferences, name servers; too much of everything; a restart.

use super::*;

/// V10: name servers and search domains live as long as said; lifetime 0 ends them at once; more than three are kept.
#[test]
fn v10_name_servers_and_search_domains() {
    let server = |number: u8| v6(&format!("2001:db8::{number:x}")).octets();
    let (now, mut machine) = host();
    let four: Vec<_> = (1..=4).map(server).collect();
    let dns = |lifetime, servers| NdOption::Rdnss { lifetime, servers };
    let names = b"\x07example\x03org\0\x01b\0\0\0\0";
    let search = NdOption::Dnssl { lifetime: 100, names };
    machine.advertised(now, &advert(A, 60, &[dns(100, &four), search]));
    assert_eq!(machine.wanted(now).dns.len(), 4);
    assert_eq!(machine.wanted(now).search, ["example.org", "b"]);

    machine.advertised(now, &advert(A, 60, &[dns(0, &four[1..3])]));
    let wanted = machine.wanted(now);
    assert_eq!(wanted.dns, [Ipv6Addr::from(server(1)), Ipv6Addr::from(server(4))]);
    assert_eq!(wanted.search, ["example.org", "b"], "not spoken of");
    machine.advertised(now, &advert(A, 60, &[dns(INFINITE_LIFETIME, &four[..1])]));
    assert!(machine.expire(now + secs(100)));
    let later = machine.wanted(now + secs(100));
    assert_eq!(
        (later.dns, later.search),
        (vec![Ipv6Addr::from(server(1))], vec![])
    );

    let bad = [
        v6("::").octets(),
        v6("::1").octets(),
        v6("ff02::fb").octets(),
        v6("fe80::5").octets(),
    ];
    let taken = advert(A, 60, &[dns(100, &bad)]);
    assert_eq!((taken.dns.len(), taken.ignored.server), (1, 3));
}

/// V10: a full list keeps what lives longest (RFC 8106 6.2), and the most preferred router speaks first.
#[test]
fn v10_dns_lists_are_bounded() {
    let (now, mut machine) = host();
    for number in 0..20_u8 {
        let servers = [Ipv6Addr::from((0x2001_0db8 << 96) + u128::from(number) + 1).octets()];
        let lifetime = 100 + u32::from(number);
        machine.advertised(
            now,
            &advert(
                A,
                60,
                &[NdOption::Rdnss {
                    lifetime,
                    servers: &servers,
                }],
            ),
        );
    }
    let dns = machine.wanted(now).dns;
    assert_eq!(dns.len(), MAX_SERVERS_PER_ROUTER);
    assert!(
        (13..=20).all(|number| dns.contains(&v6(&format!("2001:db8::{number:x}")))),
        "{dns:?}"
    );
    assert_eq!(machine.refused().dns, 12);

    let best = [v6("2001:db8:b::1").octets()];
    let fixed = RouterAdvertisement {
        router_lifetime: 60,
        preference: Preference::High,
        ..Default::default()
    };
    let rdnss = [NdOption::Rdnss {
        lifetime: 9,
        servers: &best,
    }];
    machine.advertised(
        now,
        &Advert::parse(&packet(iid::link_local(B), &fixed, &rdnss)).unwrap(),
    );
    let dns = machine.wanted(now).dns;
    assert_eq!((dns[0], dns.len()), (v6("2001:db8:b::1"), MAX_NAME_SERVERS));
    machine.forget_router(now, B);
    assert!(!machine.wanted(now).dns.contains(&v6("2001:db8:b::1")));
}

/// P13: preferences and routes of RFC 4191, as a type C host takes them.
#[test]
fn p13_preferences_and_routes() {
    use Preference::{High, Low, Medium};
    let (now, mut machine) = host();
    let say = |from, lifetime, preference, options: &[NdOption<'_>]| {
        let fixed = RouterAdvertisement {
            router_lifetime: lifetime,
            preference,
            ..Default::default()
        };
        Advert::parse(&packet(iid::link_local(from), &fixed, options)).unwrap()
    };
    machine.advertised(now, &say(A, 60, High, &[rio("2001:db8:9::/48", Low, 100)]));
    machine.advertised(now, &say(B, 60, Low, &[rio("2001:db8:9::/48", Medium, 50)]));
    let all = [
        "2001:db8:9::/48 10.0.0.1 -1",
        "2001:db8:9::/48 10.0.0.2 0",
        "::/0 10.0.0.1 1",
        "::/0 10.0.0.2 -1",
    ];
    assert_eq!(routes(&machine, now), all);
    // A route is replaced, withdrawn, or runs out on its own; not being spoken of changes nothing.
    machine.advertised(now, &say(A, 60, Medium, &[rio("2001:db8:9::/48", High, 100)]));
    machine.advertised(now, &say(A, 60, Medium, &[]));
    assert_eq!(routes(&machine, now)[0], "2001:db8:9::/48 10.0.0.1 1");
    assert!(machine.expire(now + secs(50)));
    assert!(!routes(&machine, now + secs(50)).contains(&"2001:db8:9::/48 10.0.0.2 0".to_owned()));
    machine.advertised(now, &say(A, 60, Medium, &[rio("2001:db8:9::/48", Medium, 0)]));
    machine.expire(now + secs(60));
    assert_eq!(routes(&machine, now + secs(60)), Vec::<String>::new());
    // The option for ::/0 is the last word on the default route.
    machine.advertised(now, &say(A, 60, Low, &[rio("::/0", High, 10)]));
    assert_eq!(routes(&machine, now), ["::/0 10.0.0.1 1"]);
    assert_eq!(machine.next_deadline(), Some(now + secs(10)));
    machine.advertised(now, &say(A, 60, Low, &[rio("::/0", High, 0)]));
    assert_eq!(routes(&machine, now), Vec::<String>::new());
    for nowhere in ["fe80::/64", "ff00::/8", "::/96", "::1/128"] {
        let taken = say(A, 0, Medium, &[rio(nowhere, Medium, 100)]);
        assert_eq!((taken.routes.len(), taken.ignored.route), (0, 1), "{nowhere}");
    }
}

/// FAULTS 48: a router that left the PRL is no way out any more; its prefixes run out by themselves.
#[test]
fn a_router_that_left() {
    let (now, mut machine) = host();
    let options = [
        pio("2001:db8::/64", "LA", 100, 100),
        rio("2001:db8:9::/48", Preference::Medium, 100),
    ];
    machine.advertised(now, &advert(A, 60, &options));
    assert!(machine.forget_router(now, A));
    assert!(!machine.forget_router(now, A));
    assert_eq!(routes(&machine, now), ["2001:db8::/64 on-link"]);
    assert_eq!(addrs(&machine, now).len(), 1);
    assert_eq!(machine.router_view(A), None);
    machine.advertised(now, &advert(B, 60, &[pio("2001:db8::/64", "LA", 300, 300)]));
    assert!(!machine.expire(now + secs(59)));
    machine.expire(now + secs(100));
    assert_eq!(
        addrs(&machine, now + secs(100)).len(),
        1,
        "another router advertises it"
    );
}

/// FAULTS 49: 200 prefixes and 200 routes in one message, then from other routers: bounded, counted, and room for others.
#[test]
fn faults_49_more_than_there_is_room_for() {
    let (now, mut machine) = host();
    let prefixes: Vec<_> = (0..200)
        .map(|n| pio(&format!("2001:db8:{n:x}::/64"), "LA", DAY, DAY))
        .collect();
    let first = advert(A, 60, &prefixes);
    assert_eq!(first.ignored.excess, 200 - 32);
    machine.advertised(now, &first);
    machine.advertised(now, &advert(A, 60, &prefixes[100..]));
    assert_eq!((machine.prefix_count(), addrs(&machine, now).len()), (32, 32));
    assert_eq!(machine.refused().prefixes, 32);
    assert_eq!(machine.refused().since(&Refused::default())[1], ("excess", 32));
    machine.advertised(now, &advert(B, 60, &prefixes[150..]));
    let third = Ipv4Addr::new(10, 0, 0, 3);
    machine.advertised(
        now,
        &advert(third, 60, &[pio("2001:db8:ffff::/64", "LA", DAY, DAY)]),
    );
    assert_eq!(machine.prefix_count(), MAX_PREFIXES);

    let many: Vec<_> = (0..200)
        .map(|n| rio(&format!("2001:db8:{n:x}::/48"), Preference::Medium, 60))
        .collect();
    machine.advertised(now, &advert(A, 60, &many));
    machine.advertised(now, &advert(A, 60, &many[100..]));
    assert_eq!(machine.router_view(A).unwrap().routes, MAX_ROUTES_PER_ROUTER);
    assert_eq!(machine.refused().routes, 32);
    for last in 0..200 {
        machine.advertised(now, &advert(Ipv4Addr::new(10, 1, 0, last), 60, &[]));
    }
    assert_eq!(machine.refused().routers, 200 + 3 - MAX_ROUTERS as u64);
    machine.expire(now + secs(60));
    assert_eq!(
        routes(&machine, now + secs(60)).len(),
        MAX_PREFIXES,
        "only prefixes are left"
    );
}

/// After a restart with the same interface: what the kernel has runs out as it would have, or is confirmed.
#[test]
fn what_the_kernel_has_is_adopted() {
    let (now, mut machine) = host();
    let address = |addr: &str| KnownAddress {
        addr: v6(addr),
        valid: until(now, 100),
        preferred: until(now, 50),
    };
    let known = [
        address("2001:db8::5efe:a00:5"),
        address("fe80::5efe:a00:5"),
        address("2001:db8:5::1"),
    ];
    let route = |prefix: &str, via: Option<&str>| KnownRoute {
        prefix: net(prefix),
        via: via.map(v6),
        preference: 1,
        lifetime: until(now, 80),
    };
    let router = Some("fe80::5efe:a00:1");
    let kept = [
        route("::/0", router),
        route("2001:db8:9::/48", router),
        route("2001:db8::/64", None),
        route("2001:db8:7::/48", Some("fe80::1")),
    ];
    machine.adopt(now, &known, &kept);
    assert_eq!(addrs(&machine, now), ["2001:db8::5efe:a00:5"]);
    let all = [
        "2001:db8:9::/48 10.0.0.1 1",
        "2001:db8::/64 on-link",
        "::/0 10.0.0.1 1",
    ];
    assert_eq!(routes(&machine, now), all);
    machine.advertised(now, &advert(A, 1800, &[pio("2001:db8::/64", "LA", DAY, DAY)]));
    machine.adopt(now, &known, &kept);
    assert_eq!(
        machine.wanted(now).addresses[0].valid,
        until(now, DAY),
        "what is known is known better"
    );
    machine.expire(now + secs(100));
    assert_eq!(
        routes(&machine, now + secs(100)),
        ["2001:db8::/64 on-link", "::/0 10.0.0.1 0"]
    );
}

/// A6: addresses of other locators were deprecated from the beginning; the prefix is not.
#[test]
fn a_deprecated_address_does_not_deprecate_its_prefix() {
    for order in [[0, DAY], [DAY, 0]] {
        let (now, mut machine) = host();
        let known = order.map(|preferred| KnownAddress {
            addr: iid::address(&v6("2001:db8::"), US),
            valid: until(now, DAY),
            preferred: until(now, preferred),
        });
        machine.adopt(now, &known, &[]);
        assert_eq!(machine.wanted(now).addresses[0].preferred, until(now, DAY));
    }
}
