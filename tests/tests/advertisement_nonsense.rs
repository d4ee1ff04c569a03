//! Routers of the list that advertise nonsense: the kernel's state is what the RFCs say, each thing left out is counted, and
//! every table has a bound (V1-V5, V10; FAULTS 49). Topology: see `isatap_tests::advertiser`.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use isatap_tests::advertiser::{DAY, Stage, ignored, usual};
use isatap_tests::configured::Configured;
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{
    Advertisement, dns_option, link_layer_option, mtu_option, prefix_option, prefix_option_flagged,
    route_option,
};
use isatap_tests::packet::isatap;
use isatap_tests::routers::HOST;
use isatap_tests::scene::SOON;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// What is in force before each case.
fn base() -> Advertisement {
    Advertisement::new(&[usual(1), mtu_option(1400)])
}

/// What becomes of an advertisement.
enum Fate {
    /// The whole of it is dropped.
    Dropped(&'static str),
    /// It counts but for what is ignored, by cause; then the kernel's state is changed by this.
    Taken(&'static [(&'static str, u64)], fn(&mut Configured)),
}

/// It changes nothing.
fn same(_: &mut Configured) {}

fn no_default(state: &mut Configured) {
    state.routes.retain(|route| route.prefix != "default");
}

fn table() -> Vec<(&'static str, Advertisement, Fate)> {
    use Fate::{Dropped, Taken};
    let with = |options: &[Vec<u8>]| Advertisement::new(options);
    let prefix = |text, len, valid, preferred| with(&[prefix_option(v6(text), len, valid, preferred)]);
    let shaped = |kind: u8, units: u8| {
        let mut option = vec![0; usize::from(units) * 8];
        option[..2].copy_from_slice(&[kind, units]);
        with(&[option])
    };
    let search = |names: &[u8]| {
        let mut option = vec![31, 3, 0, 0, 0, 0, 1, 0];
        option.extend_from_slice(names);
        option.resize(24, 0);
        with(&[option])
    };
    let good = v6("2001:db8:5::");
    vec![
        ("router lifetime 0", with(&[]).lifetime(0), Taken(&[], no_default)),
        ("router lifetime 9000", with(&[]).lifetime(9000), Taken(&[], same)),
        (
            "router lifetime 65535",
            with(&[]).lifetime(65535),
            Taken(&[], same),
        ),
        ("MTU 0", with(&[mtu_option(0)]), Taken(&[("mtu", 1)], same)),
        ("MTU 1279", with(&[mtu_option(1279)]), Taken(&[("mtu", 1)], same)),
        (
            "MTU 1280",
            with(&[mtu_option(1280)]),
            Taken(&[], |state| state.mtu = 1280),
        ),
        ("MTU 1481", with(&[mtu_option(1481)]), Taken(&[("mtu", 1)], same)),
        (
            "MTU 65535",
            with(&[mtu_option(65535)]),
            Taken(&[("mtu", 1)], same),
        ),
        (
            "the largest MTU",
            with(&[mtu_option(u32::MAX)]),
            Taken(&[("mtu", 1)], same),
        ),
        (
            "an MTU option of 16 bytes",
            shaped(5, 2),
            Taken(&[("unknown", 1)], same),
        ),
        (
            "an option of length 0",
            with(&[vec![3, 0, 0, 0, 0, 0, 0, 0]]),
            Dropped("nd_length"),
        ),
        (
            "length 0 behind good ones",
            with(&[mtu_option(1300), vec![1, 0]]),
            Dropped("nd_length"),
        ),
        (
            "an option past the end",
            with(&[vec![3, 9, 0, 0, 0, 0, 0, 0]]),
            Dropped("nd_length"),
        ),
        (
            "half an option",
            with(&[mtu_option(1300)[..4].to_vec()]),
            Dropped("nd_length"),
        ),
        ("one byte of an option", with(&[vec![5]]), Dropped("nd_length")),
        (
            "a prefix option of 24 bytes",
            shaped(3, 3),
            Taken(&[("unknown", 1)], same),
        ),
        (
            "a prefix option of 40 bytes",
            shaped(3, 5),
            Taken(&[("unknown", 1)], same),
        ),
        (
            "preferred for longer than valid",
            prefix("2001:db8:5::", 64, 10, 20),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "preferred for ever, valid for a day",
            prefix("2001:db8:5::", 64, DAY, u32::MAX),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "valid for no time",
            prefix("2001:db8:5::", 64, 0, 0),
            Taken(&[], same),
        ),
        (
            "a link-local prefix",
            prefix("fe80::", 64, DAY, DAY),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "a multicast prefix",
            prefix("ff02::", 64, DAY, DAY),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "everything",
            prefix("::", 0, DAY, DAY),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "the loopback prefix",
            prefix("::", 64, DAY, DAY),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "a prefix of 129 bits",
            prefix("2001:db8:5::", 129, DAY, DAY),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "a prefix of 255 bits",
            prefix("2001:db8:5::", 255, DAY, DAY),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "addresses from a /48 and a /65",
            with(&[48, 65].map(|len| prefix_option_flagged(good, len, 0x40, DAY, DAY))),
            Taken(&[("prefix", 2)], same),
        ),
        (
            "a prefix that is for nothing",
            with(&[prefix_option_flagged(good, 64, 0, DAY, DAY)]),
            Taken(&[("prefix", 1)], same),
        ),
        (
            "a route of 129 bits",
            with(&[route_option(good, 129, 0, DAY)]),
            Taken(&[("unknown", 1)], same),
        ),
        (
            "a route to groups",
            with(&[route_option(v6("ff00::"), 8, 0, DAY)]),
            Taken(&[("route", 1)], same),
        ),
        (
            "a route to neighbours",
            with(&[route_option(v6("fe80::"), 10, 0, DAY)]),
            Taken(&[("route", 1)], same),
        ),
        (
            "a route for no time",
            with(&[route_option(good, 48, 0, 0)]),
            Taken(&[], same),
        ),
        (
            "the default route withdrawn",
            with(&[route_option(v6("::"), 0, 0, 0)]),
            Taken(&[], no_default),
        ),
        (
            "a server that is a group",
            with(&[dns_option(&[v6("ff02::1")], DAY)]),
            Taken(&[("server", 1)], same),
        ),
        (
            "a list of no servers",
            shaped(25, 1),
            Taken(&[("unknown", 1)], same),
        ),
        (
            "a server and a half",
            shaped(25, 4),
            Taken(&[("unknown", 1)], same),
        ),
        (
            "a name past its end",
            search(&[40, b'a', b'b']),
            Taken(&[("name", 1)], same),
        ),
        (
            "a compressed name",
            search(&[0xc0, 4]),
            Taken(&[("name", 1)], same),
        ),
        (
            "hardware addresses",
            with(&[1, 2].map(|kind| link_layer_option(kind, [2; 6]))),
            Taken(&[("link_layer", 2)], same),
        ),
        (
            "options of no kind",
            with(&[vec![0, 1, 0, 0, 0, 0, 0, 0], vec![255, 1, 9, 9, 9, 9, 9, 9]]),
            Taken(&[("unknown", 2)], same),
        ),
    ]
}

fn since(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = now
        .iter()
        .map(|(cause, count)| (cause.clone(), count - before.get(cause).unwrap_or(&0)));
    more.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn nonsense_changes_nothing_and_is_counted() {
    // FAULTS 49; V1, V2, V3, V4, V5, V10.
    let stage = Stage::new(1);
    let daemon = stage.start("Mtu 1480");
    stage.advertise(&daemon, 0, &base());
    let state = Configured::read(&stage.host).timeless();
    assert_eq!(
        (state.addresses.len(), state.routes.len(), state.mtu),
        (1, 2, 1400),
        "{state:?}"
    );
    for (what, advertisement, fate) in table() {
        let (before, counters) = (ignored(&daemon), daemon.counters(Direction::Decap));
        let mut expected = state.clone();
        match fate {
            Fate::Dropped(reason) => {
                stage.crafter(0).send_inner(&stage.packet(0, &advertisement));
                let since = daemon.wait_received(Direction::Decap, &counters, 1);
                assert_eq!(since.drops, BTreeMap::from([(reason.to_owned(), 1)]), "{what}");
            }
            Fate::Taken(causes, change) => {
                stage.advertise(&daemon, 0, &advertisement);
                change(&mut expected);
                let causes = causes.iter().map(|(cause, count)| ((*cause).to_owned(), *count));
                assert_eq!(since(&ignored(&daemon), &before), causes.collect(), "{what}");
            }
        }
        assert_eq!(Configured::read(&stage.host).timeless(), expected, "{what}");
        if expected != state {
            stage.advertise(&daemon, 0, &base());
            assert_eq!(Configured::read(&stage.host).timeless(), state, "after {what}");
        }
    }
    daemon.conservation();
}

#[test]
fn tables_have_bounds() {
    // FAULTS 49: 200 prefixes, 200 routes, 100 name servers; what is beyond is counted, and ends as it began.
    const SHORT: u32 = 4;
    let stage = Stage::new(2);
    let daemon = stage.start("Mtu 1480");
    stage.advertise(&daemon, 0, &base());
    stage.advertise(&daemon, 1, &Advertisement::new(&[]));
    let state = Configured::read(&stage.host);
    let excess = |f: &dyn Fn()| {
        let before = ignored(&daemon);
        f();
        since(&ignored(&daemon), &before)
    };
    let numbered = |first: u16, n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0x1000 + first + n, 0, 0, 0, 0, 0);
    let prefixes = |first, count| {
        let option = |n| prefix_option(numbered(first, n), 64, SHORT, SHORT);
        Advertisement::new(&(0..count).map(option).collect::<Vec<_>>())
    };
    let causes = |count| BTreeMap::from([("excess".to_owned(), count)]);
    // One that is in the table already leaves room for 31; 32 of one kind are looked at.
    assert_eq!(
        excess(&|| stage.advertise(&daemon, 0, &prefixes(0, 200))),
        causes(169)
    );
    let seen = Configured::read(&stage.host);
    assert_eq!(
        (seen.addresses.len(), seen.routes.len()),
        (32, 3 + 31),
        "{seen:?}"
    );
    assert_eq!(
        excess(&|| stage.advertise(&daemon, 0, &prefixes(300, 40))),
        causes(40)
    );
    // Another router has room of its own.
    assert_eq!(
        excess(&|| stage.advertise(&daemon, 1, &prefixes(400, 200))),
        causes(168)
    );
    assert_eq!(Configured::read(&stage.host).addresses.len(), 64);
    let routes: Vec<_> = (0..200)
        .map(|n| route_option(numbered(0, n), 60, 0, SHORT))
        .collect();
    assert_eq!(
        excess(&|| stage.advertise(&daemon, 1, &Advertisement::new(&routes))),
        causes(168)
    );
    let seen = Configured::read(&stage.host);
    let through = seen.routes.iter().filter(|route| route.prefix.ends_with("/60"));
    assert_eq!(through.count(), 32);
    let servers: Vec<_> = (0..100).map(|n| numbered(n, 0)).collect();
    let many = Advertisement::new(&[dns_option(&servers, SHORT)]);
    assert_eq!(excess(&|| stage.advertise(&daemon, 1, &many)), causes(92));
    let as_before = |seen: &Configured| seen.clone().timeless() == state.clone().timeless();
    Configured::wait(&stage.host, "all of it to end", SOON * 2, as_before);
    // There is room again.
    stage.advertise(&daemon, 0, &prefixes(300, 1));
    let address = isatap(&numbered(300, 0).to_string(), false, HOST);
    assert!(Configured::read(&stage.host).address(address).is_some());
    daemon.conservation();
}
