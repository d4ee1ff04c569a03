//! Addresses and routes of advertisements in a real kernel: with lifetimes, preference and protocol; back when somebody
//! takes them away; beside those of others.
//!
//! ```text
//!   namespace [ is0 10.0.0.5 ]--veth--[ far0 ]      routers 10.0.0.1 and 10.0.0.2 exist by their advertisements only
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::fib::NextHop;
use isatap_engine::isatap::iid;
use isatap_tests::netns::Netns;
use isatapd::advertise::own;
use isatapd::config::advertise::AdvertisedPrefix;
use isatapd::config::resolved::Advertise;
use isatapd::link::apply::{Failure, Installed, apply, known, plan};
use isatapd::link::change::direct::Direct;
use isatapd::link::{Effect, Netlink, Watch};
use isatapd::slaac::{Advert, AdvertPrefix, AdvertRoute, Ignored, Slaac, SlaacConfig};

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MTU: u16 = 1280;
const PATIENCE: Duration = Duration::from_secs(20);

struct Host<'a> {
    ns: &'a Netns,
    netlink: Netlink,
    watch: Watch,
    if_index: u32,
    direct: Direct,
    installed: Installed,
    slaac: Slaac,
}

impl<'a> Host<'a> {
    async fn new(ns: &'a Netns) -> Self {
        let netlink = Netlink::open().expect("a netlink socket");
        let index = nix::net::if_::if_nametoindex("is0").expect("is0");
        let mut installed = Installed::default();
        installed.set_mtu(MTU);
        let mut slaac = Slaac::new(SlaacConfig {
            default_route: Some(1024),
            mtu_ceiling: 1480,
        });
        slaac.set_locators(&[US]);
        Self {
            ns,
            watch: Watch::open(netlink.clone(), index).await.expect("a first dump"),
            netlink,
            if_index: index,
            direct: Direct::open(index).expect("a netlink socket"),
            installed,
            slaac,
        }
    }

    /// Plans and applies until the kernel's own notifications leave nothing to be done.
    async fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            let wanted = self.slaac.wanted(now);
            let ops = plan(&self.installed, self.watch.state(), &wanted, MTU, now);
            if ops.is_empty() {
                return;
            }
            let failures = apply(&mut self.installed, &self.direct, &ops, now).await;
            let refused: Vec<String> = failures
                .iter()
                .map(|Failure { error, .. }| error.to_string())
                .collect();
            assert!(refused.is_empty(), "{refused:?}");
            // An update of a route's end is not announced: then there is nothing to wait for.
            let _ = tokio::time::timeout(Duration::from_millis(200), self.watch.changed()).await;
            assert!(Instant::now() < deadline, "still to do: {ops:?}");
        }
    }

    /// Waits until the mirror shows what somebody else did.
    async fn until(&mut self, what: &str, seen: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen(self) {
            assert!(Instant::now() < deadline, "{what}\n{}", self.shown());
            let _: Result<Result<Effect, _>, _> =
                tokio::time::timeout(Duration::from_millis(200), self.watch.changed()).await;
        }
    }

    /// Who gets what goes everywhere, given who answers.
    fn default_routers(&self, reachable: impl Fn(Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
        let choices = self.watch.state().routes(Ipv4Addr::UNSPECIFIED, reachable);
        let default = choices.routes.iter().find(|(prefix, _)| prefix.len() == 0);
        match default.map(|(_, hop)| *hop) {
            Some(NextHop::Via(router)) => vec![router],
            Some(NextHop::Group(number)) => choices.groups[usize::from(number)].active().to_vec(),
            other => panic!("{other:?} is no router"),
        }
    }

    fn shown(&self) -> String {
        let addresses = self.ns.ip("-6 addr show dev is0");
        format!("{addresses}{}", self.ns.ip("-6 route show dev is0")) + &self.ns.ip("-6 route show")
    }

    /// The seconds behind `word` in the first line that contains `line`.
    fn seconds(&self, command: &str, line: &str, word: &str) -> u32 {
        let text = self.ns.ip(command);
        let from = text.find(line).unwrap_or_else(|| panic!("{line} in {text}"));
        let after = text[from..]
            .split(word)
            .nth(1)
            .unwrap_or_else(|| panic!("{word} in {text}"));
        let digits: String = after.trim().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("{word} in {text}"))
    }
}

fn in_namespace(label: &str, test: impl AsyncFnOnce(Host<'_>) + Send) {
    let ns = Netns::new(label);
    ns.ip_batch(
        "link add is0 mtu 1280 type veth peer name far0\n\
         link set is0 addrgenmode none\n\
         link set is0 up\n\
         link set far0 up\n\
         addr add fe80::5efe:a00:5/64 dev is0 nodad",
    );
    ns.sysctl("ipv6/conf/is0/accept_ra", "0");
    ns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let host = Host::new(&ns).await;
            test(host).await;
        });
    });
}

fn advert(from: Ipv4Addr, lifetime: u64, preference: i8) -> Advert {
    Advert {
        from,
        source: iid::link_local(from),
        hop_limit: 0,
        preference,
        router_lifetime: Duration::from_secs(lifetime),
        reachable: None,
        retrans: None,
        prefixes: Vec::new(),
        routes: Vec::new(),
        mtu: None,
        dns: Vec::new(),
        search: Vec::new(),
        ignored: Ignored::default(),
    }
}

fn prefix(text: &str, on_link: bool, valid: u32, preferred: u32) -> AdvertPrefix {
    AdvertPrefix {
        prefix: text.parse().expect("a prefix"),
        on_link,
        autonomous: true,
        valid,
        preferred,
    }
}

fn about(seconds: u32, expected: u32) -> bool {
    (expected - 20..=expected).contains(&seconds)
}

/// V5, V7, V8, P13: what `ip` shows of an advertisement, and of its withdrawal.
#[test]
fn v5_v8_p13_an_advertisement_in_the_kernel() {
    in_namespace("apply", async |mut host| {
        let mut from_a = advert(A, 1800, 1);
        from_a.prefixes = vec![
            prefix("2001:db8:1::/64", true, 86400, 3600),
            prefix("2001:db8:2::/64", false, u32::MAX, u32::MAX),
        ];
        from_a.routes = vec![AdvertRoute {
            prefix: "2001:db8:9::/48".parse().unwrap(),
            preference: -1,
            lifetime: 600,
        }];
        (from_a.mtu, from_a.hop_limit) = (Some(1400), 33);
        host.slaac.advertised(Instant::now(), &from_a);
        host.settle().await;
        let addresses = host.ns.ip("-6 addr show dev is0");
        assert!(addresses.contains("mtu 1400"), "{addresses}");
        let lifetime = |host: &Host<'_>, addr, word| host.seconds("-6 addr show dev is0", addr, word);
        for addr in [
            "2001:db8:1::5efe:a00:5/128 scope global",
            "2001:db8:2::5efe:a00:5/128 scope global",
        ] {
            assert!(addresses.contains(addr), "{addresses}");
        }
        assert!(addresses.contains("noprefixroute"), "{addresses}");
        assert!(
            about(lifetime(&host, "2001:db8:1::", "valid_lft"), 86400),
            "{addresses}"
        );
        assert!(
            about(lifetime(&host, "2001:db8:1::", "preferred_lft"), 3600),
            "{addresses}"
        );
        assert_eq!(addresses.matches("valid_lft forever").count(), 2, "{addresses}");
        let routes = host.ns.ip("-6 route show");
        let line = |start: &str| {
            let found = routes.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("{start} in {routes}"))
        };
        let default = line("default via fe80::5efe:a00:1 dev is0 proto ra metric 1023");
        assert!(
            default.contains("expires") && default.contains("pref high"),
            "{default}"
        );
        let more = line("2001:db8:9::/48 via fe80::5efe:a00:1 dev is0 proto ra metric 1025");
        assert!(more.contains("expires") && more.contains("pref low"), "{more}");
        let on_link = line("2001:db8:1::/64 dev is0 proto ra metric 256");
        assert!(on_link.contains("expires"), "{on_link}");
        assert!(!routes.contains("2001:db8:2::"), "{routes}");
        assert!(
            about(host.seconds("-6 route show", "default", "expires"), 1800),
            "{routes}"
        );
        assert_eq!(host.ns.read_sysctl("ipv6/conf/is0/hop_limit"), "33");

        // The same again with other lifetimes: no second object, new ends. A deprecated address says so.
        from_a.router_lifetime = Duration::from_secs(9000);
        from_a.prefixes[0] = prefix("2001:db8:1::/64", true, 90000, 0);
        host.slaac.advertised(Instant::now(), &from_a);
        host.settle().await;
        assert!(
            about(host.seconds("-6 route show", "default", "expires"), 9000),
            "{}",
            host.shown()
        );
        assert!(
            about(lifetime(&host, "2001:db8:1::", "valid_lft"), 90000),
            "{}",
            host.shown()
        );
        assert!(
            about(host.seconds("-6 route show", "2001:db8:1::/64", "expires"), 90000),
            "{}",
            host.shown()
        );
        let addresses = host.ns.ip("-6 addr show dev is0 deprecated");
        assert!(addresses.contains("2001:db8:1::5efe:a00:5"), "{addresses}");

        // A6: without the locator nothing of it stays.
        host.slaac.set_locators(&[]);
        host.settle().await;
        let shown = host.shown();
        assert!(
            !shown.contains("2001:db8:") && !shown.contains("proto ra"),
            "{shown}"
        );
        assert!(shown.contains("fe80::5efe:a00:5"), "{shown}");
        assert_eq!(host.installed.counts(), (0, 0));
    });
}

/// P12: several default routers, each with its own life; the withdrawal of one leaves the other.
#[test]
fn p12_routers_come_and_go_one_by_one() {
    in_namespace("routers", async |mut host| {
        for (prefer_a, prefer_b) in [(0, 0), (1, 0), (0, 1), (0, 0)] {
            host.slaac.advertised(Instant::now(), &advert(A, 600, prefer_a));
            host.slaac.advertised(Instant::now(), &advert(B, 900, prefer_b));
            host.settle().await;
            let routes = host.ns.ip("-6 route show default");
            for router in ["via fe80::5efe:a00:1 dev is0", "via fe80::5efe:a00:2 dev is0"] {
                assert_eq!(routes.matches(router).count(), 1, "{routes}");
            }
            let expected = match prefer_a - prefer_b {
                1 => vec![A],
                -1 => vec![B],
                _ => vec![A, B],
            };
            assert_eq!(host.default_routers(|_| true), expected);
            let best = expected[0];
            let other = if best == A { B } else { A };
            assert_eq!(host.default_routers(|gateway| gateway != best), [other]);
        }
        host.slaac.advertised(Instant::now(), &advert(A, 0, 0));
        host.settle().await;
        let routes = host.ns.ip("-6 route show default");
        assert!(
            routes.contains("fe80::5efe:a00:2") && !routes.contains("fe80::5efe:a00:1"),
            "{routes}"
        );
        assert!(
            about(host.seconds("-6 route show default", "default", "expires"), 900),
            "{routes}"
        );
    });
}

/// What somebody takes away comes back, also after the interface was down; what others set stays as it is.
#[test]
fn what_is_taken_away_comes_back_and_others_are_left_alone() {
    in_namespace("back", async |mut host| {
        host.ns.ip_batch(
            "addr add 2001:db8:77::1/64 dev is0 nodad\n\
             addr add 2001:db8:2::5efe:a00:5/64 dev is0 nodad noprefixroute\n\
             route add default via fe80::5efe:a00:2 dev is0 proto static metric 2000\n\
             route add 2001:db8:66::/48 via fe80::5efe:a00:2 dev is0 proto static metric 1024\n\
             route add 2001:db8:55::/48 via fe80::5efe:a00:2 dev is0 proto static metric 1024",
        );
        let mut from_a = advert(A, 1800, 0);
        from_a.prefixes = ["2001:db8:1::/64", "2001:db8:2::/64"]
            .map(|text| prefix(text, true, 86400, 3600))
            .to_vec();
        // The same destination as an operator's route, through another router and through the same.
        let to = |text: &str| AdvertRoute {
            prefix: text.parse().unwrap(),
            preference: 0,
            lifetime: 600,
        };
        from_a.routes = vec![to("2001:db8:66::/48")];
        let mut from_b = advert(B, 0, 0);
        from_b.routes = vec![to("2001:db8:55::/48")];
        let own: Ipv6Addr = "2001:db8:2::5efe:a00:5".parse().unwrap();
        host.until("the operator's address", |host| host.watch.state().has_own6(own))
            .await;
        let theirs = "2001:db8:55::/48".parse().unwrap();
        let via_b = Some(iid::link_local(B));
        host.until("the operator's route", |host| {
            host.watch.state().has_route(theirs, 1024, via_b)
        })
        .await;
        host.slaac.advertised(Instant::now(), &from_a);
        host.slaac.advertised(Instant::now(), &from_b);
        host.settle().await;

        let first: Ipv6Addr = "2001:db8:1::5efe:a00:5".parse().unwrap();
        let everywhere = "::/0".parse().unwrap();
        let via = Some(iid::link_local(A));
        host.ns.ip("-6 addr del 2001:db8:1::5efe:a00:5/128 dev is0");
        host.ns
            .ip("-6 route del default via fe80::5efe:a00:1 dev is0 metric 1024");
        host.until("both are gone", |host| {
            let state = host.watch.state();
            !state.has_own6(first) && !state.has_route(everywhere, 1024, via)
        })
        .await;
        host.settle().await;
        let back = |host: &Host<'_>| {
            let state = host.watch.state();
            state.has_own6(first) && state.has_route(everywhere, 1024, via)
        };
        host.until("both are back", back).await;

        host.ns.ip("link set is0 down");
        host.until("it is down", |host| !host.watch.state().is_up() && !back(host))
            .await;
        host.ns.ip("link set is0 up");
        host.until("it is up", |host| host.watch.state().is_up()).await;
        host.settle().await;
        host.until("both are back", back).await;
        assert!(
            host.ns
                .ip("-6 route show")
                .contains("2001:db8:1::/64 dev is0 proto ra metric 256")
        );

        // The operator's things, once more after the interface took its routes with it.
        host.ns.ip_batch(
            "addr replace 2001:db8:77::1/64 dev is0 nodad\n\
             addr replace 2001:db8:2::5efe:a00:5/64 dev is0 nodad noprefixroute\n\
             route replace default via fe80::5efe:a00:2 dev is0 proto static metric 2000",
        );
        host.slaac.set_locators(&[]);
        host.settle().await;
        let shown = host.shown();
        assert!(
            !shown.contains("proto ra") && !shown.contains("2001:db8:1::5efe"),
            "{shown}"
        );
        for kept in [
            "2001:db8:77::1/64",
            "default via fe80::5efe:a00:2 dev is0 proto static metric 2000",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    });
}

/// A route without end gets one, and loses it again.
#[test]
fn a_route_without_end_gets_one() {
    in_namespace("end", async |mut host| {
        for lifetime in [u32::MAX, 600, u32::MAX, 300] {
            let mut from_a = advert(A, 0, 0);
            from_a.routes = vec![AdvertRoute {
                prefix: "2001:db8:9::/48".parse().unwrap(),
                preference: 0,
                lifetime,
            }];
            host.slaac.advertised(Instant::now(), &from_a);
            host.settle().await;
            let routes = host.ns.ip("-6 route show 2001:db8:9::/48");
            assert_eq!(routes.matches("via fe80::5efe:a00:1").count(), 1, "{routes}");
            assert_eq!(routes.contains("expires"), lifetime != u32::MAX, "{routes}");
        }
        assert!(about(
            host.seconds("-6 route show", "2001:db8:9::/48", "expires"),
            300
        ));
    });
}

/// After a restart with the same interface: what is there is recognised and lives on without a change.
#[test]
fn what_was_set_before_a_restart_is_recognised() {
    in_namespace("adopt", async |mut host| {
        let mut from_a = advert(A, 1800, 1);
        from_a.prefixes = vec![prefix("2001:db8:1::/64", true, 86400, 3600)];
        host.slaac.advertised(Instant::now(), &from_a);
        host.settle().await;
        host.ns
            .ip("-6 route add 2001:db8:66::/48 via fe80::5efe:a00:2 dev is0 proto static");
        let before = host.installed.counts();

        let mut again = Host::new(host.ns).await;
        let now = Instant::now();
        let dump = again.netlink.dump(again.if_index).await.unwrap();
        let found = known(again.if_index, &dump, now);
        let (addresses, routes) = found.advertised();
        again.installed.adopt(&found);
        again.slaac.adopt(now, &addresses, &routes);
        assert_eq!(again.installed.counts(), before);
        let wanted = again.slaac.wanted(now);
        assert_eq!((wanted.addresses.len(), wanted.routes.len()), (1, 2));
        assert_eq!(plan(&again.installed, again.watch.state(), &wanted, MTU, now), []);
        let end = wanted.addresses[0].valid.seconds(now);
        assert!(about(end, 86400), "{end}");
        again.slaac.set_locators(&[]);
        again.settle().await;
        let shown = again.shown();
        assert!(
            !shown.contains("proto ra") && !shown.contains("2001:db8:1::"),
            "{shown}"
        );
        assert!(shown.contains("2001:db8:66::/48"), "{shown}");
    });
}

/// A router's own part in its prefixes is recognised as well, and goes with the prefix (T11).
#[test]
fn what_a_router_set_for_itself_is_recognised() {
    in_namespace("own", async |mut host| {
        let says = Advertise {
            on: true,
            prefixes: vec![AdvertisedPrefix {
                prefix: "2001:db8:5::/64".parse().expect("a prefix"),
                on_link: true,
                valid: 7200,
                preferred: 3600,
                hosts: None,
            }],
            ..Advertise::default()
        };
        let wanted = own::wanted(&says, &[US]);
        let now = Instant::now();
        let ops = plan(&host.installed, host.watch.state(), &wanted, MTU, now);
        assert!(
            apply(&mut host.installed, &host.direct, &ops, now)
                .await
                .is_empty()
        );
        host.ns
            .ip("-6 addr add 2001:db8:5::5efe:a00:9/128 dev is0 nodad noprefixroute");
        let before = host.installed.counts();
        assert_eq!(before, (1, 1));

        let mut again = Host::new(host.ns).await;
        let dump = again.netlink.dump(again.if_index).await.expect("a dump");
        let found = known(again.if_index, &dump, now);
        again.installed.adopt(&found);
        assert_eq!(again.installed.counts(), before, "and nobody else's");
        assert_eq!(found.advertised(), (vec![], vec![]), "no router said so");
        assert_eq!(plan(&again.installed, again.watch.state(), &wanted, MTU, now), []);
        again.settle().await;
        let shown = again.shown();
        assert!(
            !shown.contains("2001:db8:5::5efe:a00:5") && !shown.contains("2001:db8:5::/64"),
            "{shown}"
        );
        assert!(shown.contains("2001:db8:5::5efe:a00:9/128"), "{shown}");
    });
}
