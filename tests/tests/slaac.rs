//! What routers advertise becomes addresses, routes, MTU and hop limit of the host's interface, lasts as long as they
//! say, and nothing of it is lost on the way (V2-V9, V12, P5, P9, P13; RFC 4861 6.3, RFC 4862 5.5, RFC 4191).
//! Topologies: see `isatap_tests::advertiser` and, with radvd, `isatap_tests::routers`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use isatap_tests::advertiser::{DAY, Stage, net, results, router, usual};
use isatap_tests::configured::Configured;
use isatap_tests::daemon::TUNNEL;
use isatap_tests::nd::{Advertisement, mtu_option, prefix_option, prefix_option_flagged, route_option};
use isatap_tests::packet::{isatap, link_local};
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::routers::{HOST, Routers, router_v4, server};
use isatap_tests::scene::SOON;
use isatap_tests::wait;

/// Neighbours of the host, not routers.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn near(seen: Option<u32>, seconds: u32) -> bool {
    seen.is_some_and(|seen| seen <= seconds && seen + 10 > seconds)
}

/// Lines of `ip monitor` while it runs.
struct Monitor {
    child: std::process::Child,
}

impl Monitor {
    fn start(scene: &Routers) -> Self {
        let mut command = std::process::Command::new("ip");
        command.args(["-6", "-o", "monitor", "address", "route"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let child = scene.host.spawn(&mut command);
        // It listens once it has a netlink socket with groups.
        let pid = child.id().to_string();
        wait::holds("ip monitor to listen", SOON, || {
            let sockets = scene
                .host
                .enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink"))
                .unwrap_or_default();
            let mut sockets = sockets
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            sockets
                .any(|columns| columns.get(2) == Some(&pid.as_str()) && columns.get(3) != Some(&"00000000"))
        });
        Self { child }
    }

    fn lines(mut self) -> Vec<String> {
        self.child.kill().expect("end ip monitor");
        let output = self.child.wait_with_output().expect("its output");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn nothing_lapses_over_many_lifetimes() {
    // P5, P9, V7: everything radvd says ends after five seconds, and is said again in time, again and again.
    const LIFETIMES: u64 = 3;
    let scene = Routers::new(1);
    let radvd = format!(
        "interface {TUNNEL} {{ AdvSendAdvert on; UnicastOnly on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; \
         AdvDefaultLifetime 5;\nprefix 2001:db8:1::/64 {{ AdvOnLink on; AdvAutonomous on; AdvValidLifetime 5; \
         AdvPreferredLifetime 5; }}; }};\n"
    );
    let router = scene.start_with(0, &radvd);
    let host = scene.host().config("MinRouterSolicitInterval 1").start();
    scene.wait_usable(&host, 1);
    ping_until(&scene.host, &server(1).to_string(), SOON);
    let monitor = Monitor::start(&scene);
    let before = results(&host, "accepted");
    let done = AtomicBool::new(false);
    let (pings, looks) = thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                ping(&scene.host, &server(1).to_string(), 10);
                sent += 10;
            }
            sent
        });
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = Configured::read(&scene.host);
                let address = seen
                    .address(net(1).1)
                    .unwrap_or_else(|| panic!("no address: {seen:?}"));
                assert!(!address.deprecated, "{seen:?}");
                assert_eq!(seen.to("default").len(), 1, "{seen:?}");
                assert_eq!(seen.to("2001:db8:1::/64").len(), 1, "{seen:?}");
                looks += 1;
            }
            looks
        });
        // Refreshed at 70 to 80 per cent of its life: four times in three lives.
        wait::until("more than the lifetimes to pass", SOON * 4, || {
            let refreshed = results(&host, "accepted") - before;
            let over = pings.is_finished() || looks.is_finished();
            if over || refreshed > LIFETIMES {
                Ok(())
            } else {
                Err(refreshed.to_string())
            }
        });
        done.store(true, Ordering::Relaxed);
        (
            pings.join().expect("every ping is answered"),
            looks.join().expect("nothing lapses"),
        )
    });
    assert!(pings >= 20 && looks >= 20, "{pings} pings, {looks} looks");
    let lines = monitor.lines();
    let deleted: Vec<_> = lines.iter().filter(|line| line.starts_with("Deleted")).collect();
    assert!(deleted.is_empty(), "{deleted:?} of {lines:?}");
    let refreshed = lines
        .iter()
        .filter(|line| line.contains("2001:db8:1::5efe:a00:a/128"));
    assert!(refreshed.count() as u64 >= LIFETIMES, "{lines:?}");
    // P6: and no more often than that.
    let asked = host.metrics().sum("isatapd_router_solicitations_total", &[]);
    assert!(asked <= 2 * (LIFETIMES + 3), "{asked} solicitations");
    host.conservation();
    router.daemon.conservation();
}

#[test]
fn the_kernel_has_what_was_advertised() {
    // V2, V3, V4: protocol, lifetimes and metrics as the kernel's own router discovery would set them.
    let stage = Stage::new(1);
    let daemon = stage.start("Mtu 1480");
    let base = Configured::read(&stage.host);
    assert!(base.addresses.is_empty() && base.routes.is_empty(), "{base:?}");
    let mut first = Advertisement::new(&[usual(1), mtu_option(1400)]);
    first.hop_limit = 33;
    stage.advertise(&daemon, 0, &first);
    let seen = Configured::read(&stage.host);
    let address = seen.address(net(1).1).unwrap_or_else(|| panic!("{seen:?}"));
    assert_eq!(address.prefix_len, 128);
    assert!(
        ["", "kernel_ra"].contains(&address.protocol.as_str()),
        "{address:?}"
    );
    assert!(
        near(address.valid, DAY) && near(address.preferred, DAY / 2),
        "{address:?}"
    );
    let default = seen.to("default")[0];
    assert_eq!((default.via, default.protocol.as_str()), (Some(router(0)), "ra"));
    assert_eq!((default.metric, default.preference.as_str()), (1024, "medium"));
    assert!(near(default.expires, 1800), "{default:?}");
    let prefix = seen.to("2001:db8:1::/64")[0];
    assert_eq!(
        (prefix.via, prefix.protocol.as_str(), prefix.metric),
        (None, "ra", 256)
    );
    assert!(near(prefix.expires, DAY), "{prefix:?}");
    assert_eq!((seen.mtu, seen.hop_limit), (1400, 33));
    assert_eq!((seen.addresses.len(), seen.routes.len()), (1, 2), "{seen:?}");

    // What an advertisement does not specify, or nobody knows, changes nothing; the prefix beside it is taken.
    let unknown = vec![250, 1, 1, 2, 3, 4, 5, 6];
    stage.advertise(&daemon, 0, &Advertisement::new(&[unknown, usual(2)]));
    let seen = Configured::read(&stage.host);
    assert!(seen.address(net(2).1).is_some(), "{seen:?}");
    assert_eq!((seen.mtu, seen.hop_limit), (1400, 33));

    // V4: an MTU that IPv6 or this interface cannot have is as if it were not there.
    for (mtu, expected) in [
        (1000, 1400),
        (9000, 1400),
        (1279, 1400),
        (1280, 1280),
        (1480, 1480),
    ] {
        stage.advertise(&daemon, 0, &Advertisement::new(&[mtu_option(mtu)]));
        assert_eq!(Configured::read(&stage.host).mtu, expected, "MTU option {mtu}");
    }

    // V3: no default router any more, at once; what else is in there counts.
    let goodbye = Advertisement::new(&[usual(3)]).lifetime(0);
    stage.advertise(&daemon, 0, &goodbye);
    let seen = Configured::read(&stage.host);
    assert!(seen.to("default").is_empty(), "{seen:?}");
    assert!(
        seen.address(net(1).1).is_some() && seen.address(net(3).1).is_some(),
        "{seen:?}"
    );
    assert!(!daemon.http("/ready").is_ok_and(|(status, _)| status == 200));
    stage.advertise(&daemon, 0, &Advertisement::new(&[]));
    assert_eq!(
        Configured::read(&stage.host).default_routers(),
        [router(0)].into()
    );
    daemon.wait_ready();
    daemon.conservation();
}

#[test]
fn only_a_prefix_that_is_on_link_makes_neighbours() {
    // V8, V9; RFC 5942 4, RFC 6964 3.5: with A=1 and L=0 the router forwards between hosts of one prefix.
    let stage = Stage::new(1);
    let daemon = stage.start("");
    let (wire, other) = (stage.wire(), stage.site.member("n", 77));
    let _sink = isatap_tests::raw::Crafter::new(
        &other,
        isatap_tests::topology::UNDERLAY,
        NEIGHBOUR,
        isatap_tests::topology::mac(&stage.host, isatap_tests::topology::UNDERLAY),
        HOST,
    );
    let neighbour = isatap("2001:db8:1::", false, NEIGHBOUR);
    let with = |flags| Advertisement::new(&[prefix_option_flagged(net(1).0, 64, flags, DAY, DAY)]);
    stage.advertise(&daemon, 0, &with(AUTONOMOUS));
    let seen = Configured::read(&stage.host);
    assert!(seen.address(net(1).1).is_some(), "{seen:?}");
    assert!(seen.to("2001:db8:1::/64").is_empty(), "{seen:?}");
    stage.wait_way(&wire, neighbour, router_v4(0));
    assert_eq!(stage.way(&wire, link_local(NEIGHBOUR)), NEIGHBOUR, "V9");

    stage.advertise(&daemon, 0, &with(ON_LINK));
    assert_eq!(Configured::read(&stage.host).to("2001:db8:1::/64").len(), 1);
    stage.wait_way(&wire, neighbour, NEIGHBOUR);
    // L=0 later takes nothing back: it says nothing.
    stage.advertise(&daemon, 0, &with(AUTONOMOUS));
    assert_eq!(Configured::read(&stage.host).to("2001:db8:1::/64").len(), 1);
    assert_eq!(stage.way(&wire, neighbour), NEIGHBOUR);
    // On-link alone, and of any length: neighbours, but no address (V5).
    let wide = prefix_option_flagged(v6("2001:db8:4000::"), 36, ON_LINK | AUTONOMOUS, DAY, DAY);
    stage.advertise(&daemon, 0, &Advertisement::new(&[wide]));
    let seen = Configured::read(&stage.host);
    assert_eq!(seen.to("2001:db8:4000::/36").len(), 1, "{seen:?}");
    assert_eq!(seen.addresses.len(), 1, "{seen:?}");
    daemon.conservation();
}

#[test]
fn addresses_age_as_rfc_4862_says() {
    // V6, V7, V12.
    let stage = Stage::new(1);
    let daemon = stage.start("");
    let say = |n, valid, preferred| {
        let prefix = prefix_option(net(n).0, 64, valid, preferred);
        stage.advertise(&daemon, 0, &Advertisement::new(&[prefix]));
        Configured::read(&stage.host)
    };
    // A new one comes: both are there, the old one stops being preferred, and lives on for two hours at least.
    say(1, 7 * DAY, DAY);
    let seen = say(2, 7 * DAY, DAY);
    assert!(
        [1, 2].iter().all(|n| seen.address(net(*n).1).is_some()),
        "{seen:?}"
    );
    let seen = say(1, 10, 0);
    let old = seen.address(net(1).1).unwrap_or_else(|| panic!("{seen:?}"));
    assert!(near(old.valid, 7200) && old.deprecated, "{old:?}");
    let new = seen.address(net(2).1).unwrap_or_else(|| panic!("{seen:?}"));
    assert!(near(new.valid, 7 * DAY) && !new.deprecated, "{new:?}");
    // The on-link route has no such rule (RFC 4861 6.3.4).
    assert!(near(seen.to("2001:db8:1::/64")[0].expires, 10), "{seen:?}");
    // Within two hours nothing shortens it further, and more than is left lengthens it.
    let seen = say(1, 0, 0);
    assert!(
        near(seen.address(net(1).1).and_then(|old| old.valid), 7200),
        "{seen:?}"
    );
    assert!(seen.to("2001:db8:1::/64").is_empty(), "{seen:?}");
    let seen = say(1, 7300, 7300);
    let old = seen.address(net(1).1).unwrap_or_else(|| panic!("{seen:?}"));
    assert!(near(old.valid, 7300) && !old.deprecated, "{old:?}");

    // A short life from the beginning: preferred, deprecated, gone, and the prefix with it.
    let seen = say(3, 4, 2);
    assert!(
        seen.address(net(3).1).is_some_and(|address| !address.deprecated),
        "{seen:?}"
    );
    let deprecated = |seen: &Configured| seen.address(net(3).1).is_some_and(|address| address.deprecated);
    Configured::wait(&stage.host, "the end of the preferred lifetime", SOON, deprecated);
    let gone = |seen: &Configured| seen.address(net(3).1).is_none() && seen.to("2001:db8:3::/64").is_empty();
    Configured::wait(&stage.host, "the end of the valid lifetime", SOON, gone);
    // V5: what is over already makes nothing new.
    let seen = say(4, 0, 0);
    assert!(
        seen.address(net(4).1).is_none() && seen.to("2001:db8:4::/64").is_empty(),
        "{seen:?}"
    );
    daemon.conservation();
}

#[test]
fn a_default_route_ends_with_its_lifetime() {
    // V3: and the router that has not spoken since is no default router.
    let stage = Stage::new(1);
    let daemon = stage.start("");
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]).lifetime(2));
    assert_eq!(
        Configured::read(&stage.host).default_routers(),
        [router(0)].into()
    );
    let gone = |seen: &Configured| seen.to("default").is_empty();
    let seen = Configured::wait(&stage.host, "the end of the router lifetime", SOON, gone);
    assert!(seen.address(net(1).1).is_some(), "{seen:?}");
    daemon.conservation();
}

#[test]
fn routes_lead_through_the_router_that_advertises_them() {
    // P13: a type C host has routes besides the default one, and takes the preferred way.
    let stage = Stage::new(2);
    let daemon = stage.start("");
    let (wire, inside, outside) = (stage.wire(), v6("2001:db8:9::1"), v6("2001:db8:8::1"));
    let route = |preference, lifetime| route_option(v6("2001:db8:9::"), 48, preference, lifetime);
    stage.advertise(&daemon, 0, &Advertisement::new(&[usual(1)]));
    let mut second = Advertisement::new(&[route(0, DAY)]);
    second.preference = -1;
    stage.advertise(&daemon, 1, &second);
    let seen = Configured::read(&stage.host);
    let more = seen.to("2001:db8:9::/48");
    assert_eq!(
        more.iter().map(|route| route.via).collect::<Vec<_>>(),
        [Some(router(1))]
    );
    assert!(more[0].protocol == "ra" && near(more[0].expires, DAY), "{seen:?}");
    stage.wait_way(&wire, inside, router_v4(1));
    stage.wait_way(&wire, outside, router_v4(0));

    // Both advertise it: the preference decides, whoever was first; it may change.
    stage.advertise(&daemon, 0, &Advertisement::new(&[route(1, DAY)]));
    stage.wait_way(&wire, inside, router_v4(0));
    stage.advertise(&daemon, 0, &Advertisement::new(&[route(-1, DAY)]));
    stage.wait_way(&wire, inside, router_v4(1));
    let mut first = Advertisement::new(&[]);
    first.preference = -1;
    second.preference = 1;
    stage.advertise(&daemon, 0, &first);
    stage.advertise(&daemon, 1, &second);
    stage.wait_way(&wire, outside, router_v4(1));
    let seen = Configured::read(&stage.host);
    assert_eq!(seen.to("default").len(), 2, "{seen:?}");

    // Lifetime 0 withdraws the route of the one who says so.
    second.options = route(0, 0);
    stage.advertise(&daemon, 1, &second);
    let seen = Configured::read(&stage.host);
    assert_eq!(seen.to("2001:db8:9::/48").len(), 1, "{seen:?}");
    stage.wait_way(&wire, inside, router_v4(0));
    daemon.conservation();
}
