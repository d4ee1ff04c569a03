//! Wanted, installed and mirrored states, and the operations between them.

use super::*;
use crate::slaac::WantedRoute;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteHeader;

const OURS: u32 = 7;
const MTU: u16 = 1280;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A kernel that does what it is told, seen through the mirror.
struct Machine {
    mirror: MirrorState,
    installed: Installed,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            mirror: MirrorState::new(OURS),
            installed: Installed::default(),
        };
        machine.installed.set_mtu(MTU);
        machine.set_link(true);
        machine
    }

    fn set_link(&mut self, up: bool) {
        let mut link = LinkMessage::default();
        link.header.index = OURS;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.attributes.push(LinkAttribute::Mtu(u32::from(MTU)));
        self.mirror.apply(0, &RouteNetlinkMessage::NewLink(link));
    }

    fn address(&mut self, addr: Ipv6Addr, prefix_len: u8, present: bool) {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = OURS;
        message.header.prefix_len = prefix_len;
        message.attributes.push(AddressAttribute::Address(addr.into()));
        let message = match present {
            true => RouteNetlinkMessage::NewAddress(message),
            false => RouteNetlinkMessage::DelAddress(message),
        };
        self.mirror.apply(0, &message);
    }

    fn route(&mut self, id: &RouteId, present: bool) {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = id.prefix.len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet6(id.prefix.addr())),
            RouteAttribute::Oif(OURS),
            RouteAttribute::Priority(id.metric),
        ];
        let gateway = id
            .via
            .map(|via| RouteAttribute::Gateway(RouteAddress::Inet6(via)));
        message.attributes.extend(gateway);
        let message = match present {
            true => RouteNetlinkMessage::NewRoute(message),
            false => RouteNetlinkMessage::DelRoute(message),
        };
        self.mirror.apply(0, &message);
    }

    /// Plans, does it, and shows what was done.
    fn turn(&mut self, wanted: &Wanted, now: Instant) -> Vec<Op> {
        let ops = plan(&self.installed, &self.mirror, wanted, MTU, now);
        for op in &ops {
            match op {
                Op::SetAddress(address) => self.address(address.addr, address.prefix_len, true),
                Op::RemoveAddress(addr, prefix_len) => self.address(*addr, *prefix_len, false),
                Op::SetRoute(id, _) => self.route(id, true),
                Op::RemoveRoute(id) => self.route(id, false),
                Op::SetMtu(_) | Op::SetHopLimit(_) => {}
            }
            self.installed.done(op);
        }
        ops
    }
}

fn address(addr: &str, valid: Lifetime, preferred: Lifetime) -> WantedAddress {
    WantedAddress {
        addr: v6(addr),
        prefix_len: 128,
        valid,
        preferred,
        origin: Origin::Advertised,
    }
}

fn default_via(via: &str, preference: i8, lifetime: Lifetime) -> WantedRoute {
    WantedRoute {
        prefix: "::/0".parse().unwrap(),
        via: Some(v6(via)),
        metric: 1024,
        preference,
        lifetime,
        origin: Origin::Advertised,
    }
}

fn wanted(addresses: &[WantedAddress], routes: &[WantedRoute]) -> Wanted {
    Wanted {
        addresses: addresses.to_vec(),
        routes: routes.to_vec(),
        ..Default::default()
    }
}

const ROUTER: &str = "fe80::5efe:a00:1";
const OTHER: &str = "fe80::5efe:a00:2";
const ADDR: &str = "2001:db8::5efe:a00:5";

#[test]
fn what_is_wanted_is_set_once_and_taken_back() {
    let now = Instant::now();
    let end = Lifetime::Until(now + secs(100));
    let mut machine = Machine::new();
    let want = wanted(&[address(ADDR, end, end)], &[default_via(ROUTER, 0, end)]);
    let id = RouteId::of(&want.routes[0]);
    let set = [Op::SetAddress(want.addresses[0]), Op::SetRoute(id, end)];
    assert_eq!(machine.turn(&want, now), set);
    assert_eq!(machine.turn(&want, now), []);
    assert_eq!(machine.installed.counts(), (1, 1));
    let removed = [Op::RemoveAddress(v6(ADDR), 128), Op::RemoveRoute(id)];
    assert_eq!(machine.turn(&Wanted::default(), now), removed);
    assert_eq!(machine.turn(&Wanted::default(), now), []);
    assert_eq!(machine.installed.counts(), (0, 0));
}

/// Lifetimes are refreshed when they moved by what the kernel can tell; V7: deprecated is deprecated, however long ago.
#[test]
fn v7_lifetimes_are_refreshed() {
    let now = Instant::now();
    let at = |seconds, millis| Lifetime::Until(now + secs(seconds) + Duration::from_millis(millis));
    let mut machine = Machine::new();
    let want = |valid, preferred, route| {
        wanted(
            &[address(ADDR, valid, preferred)],
            &[default_via(ROUTER, 0, route)],
        )
    };
    machine.turn(&want(at(100, 0), at(50, 0), at(60, 0)), now);
    for (valid, preferred, route, ops) in [
        (at(100, 900), at(50, 0), at(60, 900), 0),
        (at(102, 0), at(50, 0), at(60, 0), 1),
        (at(102, 0), at(55, 0), at(60, 0), 1),
        (at(102, 0), at(55, 0), at(70, 0), 1),
        (Lifetime::Forever, at(0, 0), at(80, 0), 2),
        (Lifetime::Forever, at(0, 0), at(80, 0), 0),
    ] {
        let done = machine.turn(&want(valid, preferred, route), now);
        assert_eq!(done.len(), ops, "{valid:?} {preferred:?} {route:?}: {done:?}");
    }
    let later = now + secs(30);
    let again = want(Lifetime::Forever, Lifetime::Until(later), at(80, 0));
    assert_eq!(machine.turn(&again, later), []);
}

/// A route without end is given one by taking it away first: the kernel would not.
#[test]
fn an_endless_route_gets_an_end() {
    let now = Instant::now();
    let mut machine = Machine::new();
    let want = |lifetime| wanted(&[], &[default_via(ROUTER, 0, lifetime)]);
    machine.turn(&want(Lifetime::Forever), now);
    let end = Lifetime::Until(now + secs(100));
    let id = RouteId::of(&want(end).routes[0]);
    assert_eq!(
        machine.turn(&want(end), now),
        [Op::RemoveRoute(id), Op::SetRoute(id, end)]
    );
    assert_eq!(
        machine.turn(&want(Lifetime::Forever), now),
        [Op::SetRoute(id, Lifetime::Forever)]
    );
}

#[test]
fn what_somebody_took_away_comes_back() {
    let now = Instant::now();
    let end = Lifetime::Until(now + secs(100));
    let mut machine = Machine::new();
    let want = wanted(&[address(ADDR, end, end)], &[default_via(ROUTER, 0, end)]);
    let first = machine.turn(&want, now);
    machine.address(v6(ADDR), 128, false);
    assert_eq!(machine.turn(&want, now), first[..1]);
    machine.route(&RouteId::of(&want.routes[0]), false);
    assert_eq!(machine.turn(&want, now), first[1..]);
    machine.set_link(false);
    machine.address(v6(ADDR), 128, false);
    machine.route(&RouteId::of(&want.routes[0]), false);
    assert_eq!(machine.turn(&want, now), [], "it is down");
    machine.set_link(true);
    assert_eq!(machine.turn(&want, now), first);
}

#[test]
fn what_others_set_is_left_alone() {
    let now = Instant::now();
    let end = Lifetime::Until(now + secs(100));
    let mut machine = Machine::new();
    let want = wanted(&[address(ADDR, end, end)], &[default_via(ROUTER, 0, end)]);
    let second = "2001:db8:7::5efe:a00:5";
    let want = Wanted {
        addresses: vec![address(ADDR, end, end), address(second, end, end)],
        ..want
    };
    machine.address(v6(ADDR), 64, true);
    machine.address(v6(second), 128, true);
    machine.address(v6("2001:db8:5::1"), 128, true);
    machine.route(&RouteId::of(&want.routes[0]), true);
    machine.route(&RouteId::of(&default_via(OTHER, 0, end)), true);
    assert_eq!(machine.turn(&want, now), []);
    assert_eq!(machine.turn(&Wanted::default(), now), []);
    // Once theirs is gone, ours is needed.
    machine.address(v6(ADDR), 64, false);
    machine.route(&RouteId::of(&want.routes[0]), false);
    assert_eq!(machine.turn(&want, now).len(), 2);
}

/// P13: the preference is in the metric, and a change of it is a new route before the old one goes.
#[test]
fn p13_preference_and_metric() {
    let now = Instant::now();
    let end = Lifetime::Until(now + secs(100));
    for (metric, preference, expected) in [
        (1024, 1, 1023),
        (1024, 0, 1024),
        (1024, -1, 1025),
        (0, 1, 1),
        (u32::MAX, -1, u32::MAX),
    ] {
        let route = WantedRoute {
            metric,
            ..default_via(ROUTER, preference, end)
        };
        assert_eq!(RouteId::of(&route).metric, expected, "{metric} {preference}");
    }
    let mut machine = Machine::new();
    let want = |preference| wanted(&[], &[default_via(ROUTER, preference, end)]);
    machine.turn(&want(1), now);
    let ops = machine.turn(&want(-1), now);
    let id = |preference| RouteId::of(&want(preference).routes[0]);
    assert_eq!(ops, [Op::SetRoute(id(-1), end), Op::RemoveRoute(id(1))]);
}

/// V4, V2: MTU and hop limit; without a router that says so, the MTU is the configured one again.
#[test]
fn v4_mtu_and_hop_limit() {
    let now = Instant::now();
    let mut machine = Machine::new();
    let mut want = Wanted {
        mtu: Some(1400),
        hop_limit: Some(33),
        ..Default::default()
    };
    assert_eq!(
        machine.turn(&want, now),
        [Op::SetMtu(1400), Op::SetHopLimit(Some(33))]
    );
    assert_eq!(machine.turn(&want, now), []);
    want = Wanted::default();
    assert_eq!(machine.turn(&want, now), [Op::SetMtu(MTU), Op::SetHopLimit(None)]);
    assert_eq!(machine.turn(&want, now), []);
}

/// P5: two advertisements close together must not cost a short life what lies between them.
#[test]
fn p5_short_lifetimes_are_told_exactly() {
    let start = Instant::now();
    for (life, moved, told) in [
        (8, 1000, true),
        (8, 300, false),
        (86400, 1000, false),
        (86400, 2000, true),
    ] {
        let mut machine = Machine::new();
        let want = |now| {
            let end = Lifetime::from_secs(now, life);
            Wanted {
                addresses: vec![address("2001:db8:1::5efe:a00:a", end, end)],
                ..Default::default()
            }
        };
        let later = start + Duration::from_millis(moved);
        machine.turn(&want(start), start);
        let ops = machine.turn(&want(later), later);
        assert_eq!(!ops.is_empty(), told, "{life} s, {moved} ms later: {ops:?}");
    }
}
