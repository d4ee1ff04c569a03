//! Tables of advertisements with the clock moved by hand; the ids of REQUIREMENTS are in the comments.

mod properties;
mod routers;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::fib::Ipv6Prefix;
use isatap_engine::isatap::iid;
use isatap_engine::wire::nd::{
    self, INFINITE_LIFETIME, NdOption, Preference, PrefixInfo, RouteInfo, RouterAdvertisement,
};

use super::*;

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CONFIG: SlaacConfig = SlaacConfig {
    default_route: Some(1024),
    mtu_ceiling: 1480,
};
const DAY: u32 = 86400;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv6Prefix {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn until(now: Instant, seconds: u32) -> Lifetime {
    Lifetime::from_secs(now, seconds)
}

fn packet(source: Ipv6Addr, fixed: &RouterAdvertisement, options: &[NdOption<'_>]) -> Vec<u8> {
    let mut packet = vec![0; 65535];
    let len = nd::emit_router_advertisement(&mut packet, source, iid::link_local(US), fixed, options);
    packet.truncate(len);
    packet
}

fn advert(from: Ipv4Addr, lifetime: u16, options: &[NdOption<'_>]) -> Advert {
    let fixed = RouterAdvertisement {
        router_lifetime: lifetime,
        ..Default::default()
    };
    Advert::parse(&packet(iid::link_local(from), &fixed, options)).unwrap()
}

/// Prefix information with the flags `"LA"`, `"L"`, `"A"` or `""`.
fn pio<'a>(prefix: &str, flags: &str, valid: u32, preferred: u32) -> NdOption<'a> {
    let (addr, len) = prefix.split_once('/').unwrap();
    NdOption::PrefixInfo(PrefixInfo {
        prefix: v6(addr),
        prefix_len: len.parse().unwrap(),
        on_link: flags.contains('L'),
        autonomous: flags.contains('A'),
        valid_lifetime: valid,
        preferred_lifetime: preferred,
    })
}

fn rio<'a>(prefix: &str, preference: Preference, lifetime: u32) -> NdOption<'a> {
    let prefix = net(prefix);
    NdOption::RouteInfo(RouteInfo {
        prefix: prefix.addr(),
        prefix_len: prefix.len(),
        preference,
        lifetime,
    })
}

fn host() -> (Instant, Slaac) {
    let mut machine = Slaac::new(CONFIG);
    machine.set_locators(&[US]);
    (Instant::now(), machine)
}

fn addrs(machine: &Slaac, now: Instant) -> Vec<String> {
    let wanted = machine.wanted(now);
    wanted.addresses.iter().map(|a| a.addr.to_string()).collect()
}

/// `prefix via-ipv4 preference`, sorted.
fn routes(machine: &Slaac, now: Instant) -> Vec<String> {
    let wanted = machine.wanted(now);
    let show = |route: &WantedRoute| match route.via {
        Some(via) => format!(
            "{} {} {}",
            route.prefix,
            iid::embedded(&via).unwrap(),
            route.preference
        ),
        None => format!("{} on-link", route.prefix),
    };
    let mut list: Vec<_> = wanted.routes.iter().map(show).collect();
    list.sort();
    list
}

/// V1, V11: one bad field each, and nothing is taken.
#[test]
fn v1_an_invalid_advertisement_says_nothing() {
    let fixed = RouterAdvertisement::default();
    let good = packet(
        iid::link_local(A),
        &fixed,
        &[pio("2001:db8::/64", "LA", DAY, DAY)],
    );
    assert!(Advert::parse(&good).is_some());
    for (what, at, value) in [
        ("hop limit", 7, 254),
        ("checksum", 42, good[42] ^ 1),
        ("code", 41, 1),
        ("option length 0", 57, 0),
        ("a fragment", 6, 44),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Advert::parse(&bad), None, "{what}");
    }
    for len in 0..good.len() {
        assert_eq!(Advert::parse(&good[..len]), None, "cut to {len}");
    }
    for source in ["2001:db8::5efe:10.0.0.1", "fe80::1", "fe80:0:0:1:0:5efe:a00:1"] {
        assert_eq!(
            Advert::parse(&packet(v6(source), &fixed, &[])),
            None,
            "P4: {source}"
        );
    }
}

/// V2, N3: unknown options and link-layer addresses harm nothing; values not specified overwrite nothing.
#[test]
fn v2_what_is_unknown_or_unspecified() {
    let (now, mut machine) = host();
    let options = [
        NdOption::Unknown {
            kind: 250,
            value: &[0; 6],
        },
        NdOption::SourceLinkLayer(&[1; 6]),
        pio("2001:db8::/64", "A", DAY, DAY),
        NdOption::Unknown {
            kind: 24,
            value: &[0; 30],
        },
        NdOption::Mtu(1400),
    ];
    let fixed = RouterAdvertisement {
        cur_hop_limit: 33,
        reachable_time: 20_000,
        retrans_timer: 500,
        router_lifetime: 60,
        ..Default::default()
    };
    let full = Advert::parse(&packet(iid::link_local(A), &fixed, &options)).unwrap();
    assert_eq!((full.ignored.unknown, full.ignored.link_layer), (2, 1));
    assert!(machine.advertised(now, &full));
    assert_eq!(addrs(&machine, now), ["2001:db8::5efe:a00:5"]);
    assert!(!machine.advertised(now, &full), "the same again");
    machine.advertised(now, &advert(A, 60, &[]));
    let facts = machine.router_view(A).unwrap();
    assert_eq!((facts.hop_limit, facts.mtu), (Some(33), Some(1400)));
    assert_eq!(
        (facts.reachable, facts.retrans),
        (Some(secs(20)), Some(Duration::from_millis(500)))
    );
    assert_eq!(machine.wanted(now).hop_limit, Some(33));
    assert_eq!(addrs(&machine, now), ["2001:db8::5efe:a00:5"]);
}

/// V3: lifetime 0 ends the default route at once; prefixes of the same advertisement count.
#[test]
fn v3_router_lifetime_zero() {
    let (now, mut machine) = host();
    machine.advertised(now, &advert(A, 1800, &[]));
    assert_eq!(routes(&machine, now), ["::/0 10.0.0.1 0"]);
    assert!(machine.advertised(now, &advert(A, 0, &[pio("2001:db8::/64", "LA", DAY, DAY)])));
    assert_eq!(routes(&machine, now), ["2001:db8::/64 on-link"]);
    assert_eq!(addrs(&machine, now).len(), 1);
    assert_eq!(machine.router_view(A).unwrap().lifetime, None);
}

/// The default route ends with the router's lifetime, and another router's stays (P12).
#[test]
fn v3_router_lifetimes_end_one_by_one() {
    let (now, mut machine) = host();
    machine.advertised(now, &advert(A, 100, &[]));
    machine.advertised(now, &advert(B, 200, &[]));
    assert_eq!(machine.next_deadline(), Some(now + secs(100)));
    assert!(!machine.expire(now + secs(99)));
    assert_eq!(routes(&machine, now + secs(99)).len(), 2);
    assert!(machine.expire(now + secs(100)));
    assert_eq!(routes(&machine, now + secs(100)), ["::/0 10.0.0.2 0"]);
    assert!(machine.expire(now + secs(200)));
    assert_eq!(
        (machine.next_deadline(), routes(&machine, now + secs(200))),
        (None, vec![])
    );
}

/// V4, FAULTS 49: an MTU is taken from 1280 to what the interface may have; M12: the smallest of several routers.
#[test]
fn v4_mtu() {
    let (now, mut machine) = host();
    for (said, wanted) in [
        (0, None),
        (1000, None),
        (1279, None),
        (1400, Some(1400)),
        (1481, Some(1400)),
        (9000, Some(1400)),
        (65535, Some(1400)),
        (u32::MAX, Some(1400)),
        (1480, Some(1480)),
        (1280, Some(1280)),
    ] {
        machine.advertised(now, &advert(A, 60, &[NdOption::Mtu(said)]));
        assert_eq!(machine.wanted(now).mtu, wanted, "{said}");
    }
    let refused = machine.refused().since(&Refused::default());
    assert_eq!(refused, [("mtu", 3), ("excess", 0)], "1481, 9000 and 65535");
    machine.advertised(now, &advert(A, 60, &[NdOption::Mtu(1400)]));
    machine.advertised(now, &advert(B, 60, &[NdOption::Mtu(1300)]));
    assert_eq!(machine.wanted(now).mtu, Some(1300));
    machine.forget_router(now, B);
    assert_eq!(machine.wanted(now).mtu, Some(1400));
    machine.set_config(SlaacConfig {
        mtu_ceiling: 1280,
        ..CONFIG
    });
    assert_eq!(machine.wanted(now).mtu, None);
}

/// V5, FAULTS 49: which prefixes form addresses, and which are on-link (V8).
#[test]
fn v5_prefixes_that_count() {
    let on_link = |prefix: &'static str| vec![format!("{prefix} on-link")];
    let address = || vec!["2001:db8::5efe:a00:5".to_owned()];
    for (prefix, flags, valid, preferred, addresses, expected) in [
        (
            "2001:db8::/64",
            "LA",
            DAY,
            DAY,
            address(),
            on_link("2001:db8::/64"),
        ),
        ("2001:db8::/64", "A", DAY, 0, address(), vec![]),
        (
            "2001:db8::1:2:3:4/64",
            "LA",
            DAY,
            10,
            address(),
            on_link("2001:db8::/64"),
        ),
        ("2001:db8::/64", "L", DAY, DAY, vec![], on_link("2001:db8::/64")),
        ("2001:db8::/64", "", DAY, DAY, vec![], vec![]),
        ("2001:db8::/64", "LA", 0, 0, vec![], vec![]),
        ("2001:db8::/64", "LA", 10, 11, vec![], vec![]),
        ("2001:db8::/64", "LA", DAY, INFINITE_LIFETIME, vec![], vec![]),
        ("2001:db8::/48", "A", DAY, DAY, vec![], vec![]),
        ("2001:db8::/65", "A", DAY, DAY, vec![], vec![]),
        ("2001:db8::/48", "LA", DAY, DAY, vec![], on_link("2001:db8::/48")),
        ("2001:db8::/129", "LA", DAY, DAY, vec![], vec![]),
        ("2001:db8::/255", "LA", DAY, DAY, vec![], vec![]),
        ("::/0", "LA", DAY, DAY, vec![], vec![]),
        ("::/64", "LA", DAY, DAY, vec![], vec![]),
        ("fe80::/64", "LA", DAY, DAY, vec![], vec![]),
        ("fe80:1::/64", "LA", DAY, DAY, vec![], vec![]),
        ("ff02::/64", "LA", DAY, DAY, vec![], vec![]),
    ] {
        let (now, mut machine) = host();
        machine.advertised(now, &advert(A, 0, &[pio(prefix, flags, valid, preferred)]));
        assert_eq!(
            addrs(&machine, now),
            addresses,
            "{prefix} {flags} {valid} {preferred}"
        );
        assert_eq!(
            routes(&machine, now),
            expected,
            "{prefix} {flags} {valid} {preferred}"
        );
    }
}

/// V6: the two-hour rule. The preferred lifetime follows in any case.
#[test]
fn v6_two_hour_rule() {
    for (left, said, expected) in [
        (7 * DAY, 10, 7200),
        (7 * DAY, 0, 7200),
        (7 * DAY, 7201, 7201),
        (7201, 10, 7200),
        (7200, 10, 7200),
        (3600, 10, 3600),
        (3600, 3599, 3599 + 1),
        (3600, 3601, 3601),
        (3600, DAY, DAY),
        (INFINITE_LIFETIME, 10, 7200),
        (3600, INFINITE_LIFETIME, INFINITE_LIFETIME),
    ] {
        let (now, mut machine) = host();
        let prefix = |valid, preferred| advert(A, 0, &[pio("2001:db8::/64", "LA", valid, preferred)]);
        machine.advertised(now, &prefix(left, left));
        machine.advertised(now, &prefix(said, said));
        let wanted = machine.wanted(now);
        let address = wanted.addresses[0];
        assert_eq!(address.valid, until(now, expected), "{left} then {said}");
        assert_eq!(address.preferred, until(now, said), "{left} then {said}");
        // On-link the advertisement is obeyed as it is (RFC 4861 6.3.4).
        let on_link = wanted.routes.first().map(|route| route.lifetime);
        assert_eq!(
            on_link,
            (said != 0).then(|| until(now, said)),
            "{left} then {said}"
        );
    }
}

/// V7: deprecated when the preferred lifetime ends, gone when the valid one does.
#[test]
fn v7_deprecated_then_gone() {
    let (now, mut machine) = host();
    machine.advertised(now, &advert(A, 0, &[pio("2001:db8::/64", "A", 100, 40)]));
    for (at, preferred, valid) in [(0, 40, 100), (39, 1, 61), (40, 0, 60), (99, 0, 1)] {
        let then = now + secs(at);
        machine.expire(then);
        let address = machine.wanted(then).addresses[0];
        assert_eq!(
            (address.preferred.seconds(then), address.valid.seconds(then)),
            (preferred, valid),
            "after {at} s"
        );
    }
    assert_eq!(
        addrs(&machine, now + secs(100)),
        Vec::<String>::new(),
        "even before expire"
    );
    assert!(machine.expire(now + secs(100)));
    assert_eq!(machine.prefix_count(), 0);
}

/// V8: an address brings no on-link route; a prefix without the flag does not take one back.
#[test]
fn v8_on_link_only_when_said() {
    let (now, mut machine) = host();
    machine.advertised(now, &advert(A, 60, &[pio("2001:db8::/64", "A", DAY, DAY)]));
    assert_eq!(routes(&machine, now), ["::/0 10.0.0.1 0"]);
    assert_eq!(machine.wanted(now).addresses[0].prefix_len, 128);
    machine.advertised(now, &advert(B, 0, &[pio("2001:db8::/64", "L", 50, 0)]));
    machine.advertised(now, &advert(A, 60, &[pio("2001:db8::/64", "A", DAY, DAY)]));
    assert_eq!(
        routes(&machine, now),
        ["2001:db8::/64 on-link", "::/0 10.0.0.1 0"]
    );
    machine.expire(now + secs(50));
    assert_eq!(routes(&machine, now + secs(50)), ["::/0 10.0.0.1 0"]);
    assert_eq!(addrs(&machine, now + secs(50)).len(), 1);
}

/// V12: renumbering: the old prefix deprecated, the new one beside it.
#[test]
fn v12_renumbering() {
    let (now, mut machine) = host();
    machine.advertised(now, &advert(A, 60, &[pio("2001:db8:1::/64", "LA", 7 * DAY, DAY)]));
    let both = [
        pio("2001:db8:1::/64", "LA", 0, 0),
        pio("2001:db8:2::/64", "LA", DAY, DAY),
    ];
    machine.advertised(now, &advert(A, 60, &both));
    let wanted = machine.wanted(now);
    let shown: Vec<_> = wanted
        .addresses
        .iter()
        .map(|a| (a.addr.to_string(), a.preferred.seconds(now), a.valid.seconds(now)))
        .collect();
    let expected = [
        ("2001:db8:1::5efe:a00:5".to_owned(), 0, 7200),
        ("2001:db8:2::5efe:a00:5".to_owned(), DAY, DAY),
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        routes(&machine, now),
        ["2001:db8:2::/64 on-link", "::/0 10.0.0.1 0"]
    );
}

/// The configuration decides about default routes, not about others.
#[test]
fn default_route_off_and_metric() {
    let (now, mut machine) = host();
    machine.advertised(
        now,
        &advert(A, 60, &[rio("2001:db8:9::/48", Preference::Medium, 100)]),
    );
    machine.set_config(SlaacConfig {
        default_route: Some(77),
        ..CONFIG
    });
    let metrics: Vec<_> = machine
        .wanted(now)
        .routes
        .iter()
        .map(|route| route.metric)
        .collect();
    assert_eq!(metrics, [77, ROUTE_METRIC]);
    machine.set_config(SlaacConfig {
        default_route: None,
        ..CONFIG
    });
    assert_eq!(routes(&machine, now), ["2001:db8:9::/48 10.0.0.1 0"]);
}

/// A1, A2, A6: an address for each locator; a lost locator's go; without any, nothing leads into the tunnel.
#[test]
fn a6_addresses_follow_the_locators() {
    let (now, mut machine) = host();
    machine.advertised(now, &advert(A, 60, &[pio("2001:db8::/64", "LA", DAY, DAY)]));
    let public = Ipv4Addr::new(8, 8, 8, 8);
    machine.set_locators(&[US, public, US]);
    assert_eq!(
        addrs(&machine, now),
        ["2001:db8::5efe:a00:5", "2001:db8::200:5efe:808:808"]
    );
    // What begins is to begin at the preferred one: the kernel would take the newest.
    let preferred = |machine: &Slaac| -> Vec<bool> {
        let wanted = machine.wanted(now).addresses.into_iter();
        wanted.map(|address| !address.preferred.is_over(now)).collect()
    };
    assert_eq!(preferred(&machine), [true, false]);
    machine.set_locators(&[public]);
    assert_eq!(addrs(&machine, now), ["2001:db8::200:5efe:808:808"]);
    assert_eq!(preferred(&machine), [true]);
    machine.set_locators(&[]);
    assert_eq!((addrs(&machine, now), routes(&machine, now)), (vec![], vec![]));
    machine.set_locators(&[US]);
    assert_eq!((addrs(&machine, now).len(), routes(&machine, now).len()), (1, 2));
}

/// A2: a router may write its address with either u bit; the next hop is the one it used last.
#[test]
fn a2_the_next_hop_is_the_source_as_seen() {
    let (now, mut machine) = host();
    let fixed = RouterAdvertisement {
        router_lifetime: 60,
        ..Default::default()
    };
    for source in ["fe80::200:5efe:10.0.0.1", "fe80::5efe:10.0.0.1"] {
        let seen = Advert::parse(&packet(v6(source), &fixed, &[])).unwrap();
        assert_eq!(seen.from, A);
        machine.advertised(now, &seen);
        let wanted = machine.wanted(now);
        assert_eq!((wanted.routes.len(), wanted.routes[0].via), (1, Some(v6(source))));
    }
}
