//! Tables of rtnetlink messages and what they mean.

use super::*;
use isatap_engine::fib::NextHop;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteNextHop, RoutePreference, RouteType,
};

const OURS: u32 = 7;
const OTHER: u32 = 3;
const ROUTER_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ROUTER_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Ipv6Prefix {
    text.parse().unwrap()
}

fn link(index: u32, up: bool, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}

fn new_link(index: u32, up: bool, mtu: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(link(index, up, mtu))
}

fn address(index: u32, addr: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes.push(AddressAttribute::Address(addr));
    message
}

fn route(dst: &str, device: u32, gateway: Option<&str>, metric: u32) -> RouteMessage {
    let dst = prefix(dst);
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = dst.len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::Inet6(dst.addr())));
    message.attributes.push(RouteAttribute::Oif(device));
    message.attributes.push(RouteAttribute::Priority(metric));
    message
        .attributes
        .extend(gateway.map(|gw| RouteAttribute::Gateway(RouteAddress::Inet6(v6(gw)))));
    message
}

fn new_route(message: RouteMessage) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRoute(message)
}

fn all(state: &MirrorState) -> Vec<(String, NextHop)> {
    state
        .routes(Ipv4Addr::UNSPECIFIED, |_| true)
        .routes
        .into_iter()
        .map(|(prefix, hop)| (prefix.to_string(), hop))
        .collect()
}

/// Who gets the packets of the first prefix, given who answers.
fn gateways(state: &MirrorState, reachable: impl Fn(Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
    let choices = state.routes(Ipv4Addr::UNSPECIFIED, reachable);
    match choices.routes[0].1 {
        NextHop::Via(gateway) => vec![gateway],
        NextHop::Group(number) => choices.groups[usize::from(number)].active().to_vec(),
        other => panic!("{other:?} has no gateway"),
    }
}

/// E1: no gateway is on-link, an ISATAP gateway with either u bit is its IPv4 address, any other is no way to go.
#[test]
fn e1_next_hops_by_gateway() {
    for (gateway, expected) in [
        (None, NextHop::OnLink),
        (Some("fe80::5efe:10.0.0.1"), NextHop::Via(ROUTER_A)),
        (Some("fe80::200:5efe:10.0.0.1"), NextHop::Via(ROUTER_A)),
        (Some("fe80::1"), NextHop::Unreachable),
    ] {
        let mut state = MirrorState::new(OURS);
        let message = new_route(route("2001:db8:5::/48", OURS, gateway, 1024));
        assert_eq!(state.apply(0, &message), Effect::Changed);
        assert_eq!(state.apply(0, &message), Effect::Nothing, "the same again");
        assert_eq!(all(&state), [("2001:db8:5::/48".to_owned(), expected)]);
    }
}

#[test]
fn routes_that_are_not_ours_are_left_alone() {
    let local = |kind| {
        let mut message = route("2001:db8::1/128", OURS, None, 0);
        message.header.kind = kind;
        message
    };
    let mut cloned = route("2001:db8::1/128", OURS, None, 0);
    cloned.header.flags = RouteFlags::Cloned;
    let mut v4 = route("::/0", OURS, None, 0);
    v4.header.address_family = AddressFamily::Inet;
    let others = [
        local(RouteType::Local),
        local(RouteType::Multicast),
        local(RouteType::Anycast),
        cloned,
        v4,
        route("2001:db8::/32", OTHER, None, 0),
    ];
    let mut state = MirrorState::new(OURS);
    for message in others {
        assert_eq!(
            state.apply(0, &new_route(message.clone())),
            Effect::Nothing,
            "{message:?}"
        );
    }
    assert_eq!(state.route_count(), 0);
}

#[test]
fn the_best_metric_of_the_main_table_wins() {
    let mut state = MirrorState::new(OURS);
    let mut elsewhere = route("2001:db8::/32", OURS, Some("fe80::5efe:10.0.0.9"), 1);
    elsewhere.attributes.push(RouteAttribute::Table(1000));
    for message in [
        elsewhere,
        route("2001:db8::/32", OURS, Some("fe80::5efe:10.0.0.2"), 2048),
        route("2001:db8::/32", OURS, Some("fe80::5efe:10.0.0.1"), 1024),
    ] {
        state.apply(0, &new_route(message));
    }
    assert_eq!(gateways(&state, |_| true), [ROUTER_A]);
    assert_eq!(
        gateways(&state, |gateway| gateway != ROUTER_A),
        [ROUTER_B],
        "a silent gateway gives way to the next metric"
    );
    let gone = route("2001:db8::/32", OURS, Some("fe80::5efe:10.0.0.1"), 1024);
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::DelRoute(gone)),
        Effect::Changed
    );
    assert_eq!(gateways(&state, |_| true), [ROUTER_B]);
}

/// Two default routers learned from advertisements share prefix and metric: both are used while they are equal, then the
/// one that answers, then the preferred one (RFC 4191).
#[test]
fn p12_p15_two_default_routers() {
    let mut state = MirrorState::new(OURS);
    for gateway in ["fe80::5efe:10.0.0.1", "fe80::5efe:10.0.0.2"] {
        state.apply(0, &new_route(route("::/0", OURS, Some(gateway), 1024)));
    }
    assert_eq!(gateways(&state, |_| true), [ROUTER_A, ROUTER_B]);
    assert_eq!(gateways(&state, |gateway| gateway == ROUTER_B), [ROUTER_B]);
    let mut high = route("::/0", OURS, Some("fe80::5efe:10.0.0.2"), 1024);
    high.attributes
        .push(RouteAttribute::Preference(RoutePreference::High));
    assert_eq!(state.apply(0, &new_route(high)), Effect::Changed);
    assert_eq!(gateways(&state, |_| true), [ROUTER_B]);
    let gone = route("::/0", OURS, Some("fe80::5efe:10.0.0.2"), 1024);
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::DelRoute(gone)),
        Effect::Changed
    );
    assert_eq!(gateways(&state, |_| true), [ROUTER_A]);
}

#[test]
fn a_multipath_route_counts_where_it_leads_over_our_interface() {
    let path = |index, gateway: &str| {
        let mut path = RouteNextHop::default();
        path.interface_index = index;
        path.attributes
            .push(RouteAttribute::Gateway(RouteAddress::Inet6(v6(gateway))));
        path
    };
    let mut message = route("2001:db8::/32", OURS, None, 1024);
    message
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    message.attributes.push(RouteAttribute::MultiPath(vec![
        path(OTHER, "fe80::1"),
        path(OURS, "fe80::5efe:10.0.0.2"),
    ]));
    let mut state = MirrorState::new(OURS);
    assert_eq!(state.apply(0, &new_route(message)), Effect::Changed);
    assert_eq!(
        all(&state),
        [("2001:db8::/32".to_owned(), NextHop::Via(ROUTER_B))]
    );
}

#[test]
fn a_replaced_route_asks_for_a_dump_when_it_concerns_us() {
    let mut state = MirrorState::new(OURS);
    let elsewhere = new_route(route("2001:db8::/32", OTHER, None, 1024));
    assert_eq!(state.apply(NLM_F_REPLACE, &elsewhere), Effect::Nothing);
    let ours = new_route(route("2001:db8::/32", OURS, None, 1024));
    assert_eq!(state.apply(NLM_F_REPLACE, &ours), Effect::Resync);
    state.apply(0, &ours);
    assert_eq!(
        state.apply(NLM_F_REPLACE, &elsewhere),
        Effect::Resync,
        "it moved away"
    );
}

/// E1: a route that is replaced by one that refuses packets is told of by the new one alone.
#[test]
fn e1_a_route_that_refuses_packets_takes_the_place_of_ours() {
    let refusing = |kind| {
        let mut message = route("2001:db8::/32", 1, None, 1024);
        message.header.kind = kind;
        new_route(message)
    };
    for kind in [
        RouteType::BlackHole,
        RouteType::Unreachable,
        RouteType::Prohibit,
        RouteType::Throw,
    ] {
        let mut state = MirrorState::new(OURS);
        assert_eq!(state.apply(NLM_F_REPLACE, &refusing(kind)), Effect::Nothing);
        let ours = route("2001:db8::/32", OURS, Some("fe80::5efe:10.0.0.1"), 1024);
        state.apply(0, &new_route(ours));
        assert_eq!(state.apply(0, &refusing(kind)), Effect::Nothing, "beside it");
        assert_eq!(
            state.apply(NLM_F_REPLACE, &refusing(kind)),
            Effect::Resync,
            "{kind:?}"
        );
    }
}

#[test]
fn the_interface_comes_goes_and_changes() {
    let mut state = MirrorState::new(OURS);
    assert_eq!(state.apply(0, &new_link(OTHER, true, 1500)), Effect::Nothing);
    assert_eq!(state.link(), None);
    assert_eq!(state.apply(0, &new_link(OURS, true, 1480)), Effect::Changed);
    assert_eq!(state.apply(0, &new_link(OURS, true, 1480)), Effect::Nothing);
    assert_eq!(state.apply(0, &new_link(OURS, true, 1400)), Effect::Changed);
    assert_eq!(state.apply(0, &new_link(OURS, false, 1400)), Effect::Resync);
    assert!(!state.is_up());
    assert_eq!(state.apply(0, &new_link(OURS, true, 68)), Effect::Resync);
    let mut port = link(OURS, true, 1400);
    port.header.interface_family = AddressFamily::Bridge;
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::DelLink(port)),
        Effect::Nothing
    );
    let gone = RouteNetlinkMessage::DelLink(link(OURS, false, 1400));
    assert_eq!(state.apply(0, &gone), Effect::Gone);
}

#[test]
fn ipv6_addresses_of_our_interface_only() {
    let mut state = MirrorState::new(OURS);
    let addr = v6("2001:db8::5efe:10.0.0.5");
    let message = address(OURS, addr.into(), 64);
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::NewAddress(message.clone())),
        Effect::Changed
    );
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::NewAddress(message.clone())),
        Effect::Nothing
    );
    let other = address(OTHER, v6("2001:db8::9").into(), 64);
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::NewAddress(other)),
        Effect::Nothing
    );
    assert!(state.has_own6(addr));
    let mut failed = message.clone();
    failed.header.flags = AddressHeaderFlags::Dadfailed;
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::NewAddress(failed)),
        Effect::Changed
    );
    assert!(!state.has_own6(addr));
    state.apply(0, &RouteNetlinkMessage::NewAddress(message.clone()));
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::DelAddress(message)),
        Effect::Changed
    );
    assert_eq!(state.own6().count(), 0);
}

#[test]
fn ipv4_addresses_bring_networks_and_broadcasts() {
    let addr = Ipv4Addr::new(192, 0, 2, 5);
    for (prefix_len, announced, connected, broadcast) in [
        (24, None, "192.0.2.0/24", Some("192.0.2.255")),
        (24, Some("192.0.2.254"), "192.0.2.0/24", Some("192.0.2.254")),
        (30, None, "192.0.2.4/30", Some("192.0.2.7")),
        (31, None, "192.0.2.4/31", None),
        (32, None, "192.0.2.5/32", None),
        (0, None, "0.0.0.0/0", Some("255.255.255.255")),
    ] {
        let mut message = address(OTHER, addr.into(), prefix_len);
        message
            .attributes
            .extend(announced.map(|text: &str| AddressAttribute::Broadcast(text.parse().unwrap())));
        let mut state = MirrorState::new(OURS);
        assert_eq!(
            state.apply(0, &RouteNetlinkMessage::NewAddress(message.clone())),
            Effect::Changed
        );
        let seen = state.v4().next().unwrap();
        assert_eq!(seen.connected.to_string(), connected);
        assert_eq!(seen.broadcast, broadcast.map(|text| text.parse().unwrap()));
        assert_eq!(state.device_of(addr), Some(OTHER));
        assert_eq!(
            state.apply(0, &RouteNetlinkMessage::DelAddress(message)),
            Effect::Changed
        );
        assert_eq!(state.device_of(addr), None);
    }
}

#[test]
fn the_far_end_of_a_point_to_point_link_is_the_network() {
    let mut message = address(OTHER, Ipv4Addr::new(10, 9, 0, 2).into(), 32);
    message
        .attributes
        .push(AddressAttribute::Local(Ipv4Addr::new(10, 9, 0, 1).into()));
    let state = MirrorState::from_dump(OURS, &[RouteNetlinkMessage::NewAddress(message)]);
    let seen = state.v4().next().unwrap();
    assert_eq!(
        (seen.addr, seen.connected.to_string()),
        (Ipv4Addr::new(10, 9, 0, 1), "10.9.0.2/32".to_owned())
    );
}

/// A2: one router with both u bits is two routes; the end of one is not that of the other.
#[test]
fn a2_both_spellings_of_a_router_are_kept_apart() {
    let mut state = MirrorState::new(OURS);
    let spellings = ["fe80::5efe:10.0.0.1", "fe80::200:5efe:10.0.0.1"];
    for gateway in spellings {
        state.apply(0, &new_route(route("::/0", OURS, Some(gateway), 1024)));
    }
    let gone = RouteNetlinkMessage::DelRoute(route("::/0", OURS, Some(spellings[0]), 1024));
    assert_eq!(state.apply(0, &gone), Effect::Changed);
    let has = |text| state.has_route(prefix("::/0"), 1024, Some(v6(text)));
    assert_eq!(spellings.map(has), [false, true]);
    assert_eq!(all(&state), [("::/0".to_owned(), NextHop::Via(ROUTER_A))]);
}

/// A link that is narrow for a moment leaves no trace in the mirror: what it took is to be learned from the messages.
#[test]
fn what_links_took_ends_with_a_message() {
    let mut state = MirrorState::new(OURS);
    let mut ended = |message: &RouteNetlinkMessage| {
        let ended = state.mtu_ended_by(message);
        state.apply(0, message);
        ended
    };
    let without_mtu = {
        let mut message = link(OTHER, false, 0);
        message.attributes.clear();
        RouteNetlinkMessage::NewLink(message)
    };
    let of_a_bridge = {
        let mut message = link(OTHER, true, 576);
        message.header.interface_family = AddressFamily::Bridge;
        RouteNetlinkMessage::DelLink(message)
    };
    for (message, expected) in [
        (new_link(OTHER, true, 1500), None),
        (new_link(OTHER, true, 600), Some(1500)),
        (new_link(OTHER, false, 600), None),
        (without_mtu, None),
        (of_a_bridge, None),
        (new_link(OTHER, true, 1500), Some(600)),
        (new_link(OURS, true, 1280), None),
        (new_link(OURS, true, 1480), None),
        (RouteNetlinkMessage::DelLink(link(OTHER, true, 1500)), Some(1500)),
        (new_link(OTHER, true, 9000), None),
    ] {
        assert_eq!(ended(&message), expected, "{message:?}");
    }
}

/// FAULTS 36.
#[test]
fn other_isatap_interfaces_are_told_by_their_link_local_addresses() {
    let named = |name: &str| {
        let mut message = link(OTHER, true, 1280);
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message
    };
    let addr = |index, text| address(index, IpAddr::V6(v6(text)), 64);
    let new = |message| RouteNetlinkMessage::NewAddress(message);
    let mut state = MirrorState::new(OURS);
    let at = |state: &MirrorState, locator| {
        state
            .also_at(&[locator])
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let unknown = addr(OTHER + 1, "fe80::5efe:10.0.0.3");
    assert_eq!(state.apply(0, &new(unknown.clone())), Effect::Resync);
    state.apply(0, &RouteNetlinkMessage::DelAddress(unknown));
    state.apply(0, &RouteNetlinkMessage::NewLink(named("is1")));
    // Ours, one of a prefix, and one that is of no locator, are no other tunnel.
    for message in [
        addr(OURS, "fe80::5efe:10.0.0.1"),
        addr(OTHER, "2001:db8::5efe:10.0.0.1"),
        addr(OTHER, "fe80::1"),
    ] {
        state.apply(0, &new(message));
        assert_eq!(at(&state, ROUTER_A), [] as [&str; 0]);
    }
    for text in ["fe80::5efe:10.0.0.1", "fe80::200:5efe:10.0.0.2"] {
        assert_eq!(state.apply(0, &new(addr(OTHER, text))), Effect::Changed);
        assert_eq!(state.apply(0, &new(addr(OTHER, text))), Effect::Nothing);
    }
    assert_eq!(at(&state, ROUTER_A), ["is1"]);
    assert_eq!(at(&state, ROUTER_B), ["is1"]);
    assert_eq!(at(&state, Ipv4Addr::new(10, 0, 0, 3)), [] as [&str; 0]);
    assert_eq!(
        state.apply(0, &RouteNetlinkMessage::NewLink(named("site"))),
        Effect::Changed
    );
    assert_eq!(at(&state, ROUTER_A), ["site"]);
    let gone = RouteNetlinkMessage::DelAddress(addr(OTHER, "fe80::5efe:10.0.0.1"));
    assert_eq!(state.apply(0, &gone), Effect::Changed);
    assert_eq!(at(&state, ROUTER_A), [] as [&str; 0]);
    assert_eq!(at(&state, ROUTER_B), ["site"]);
}
