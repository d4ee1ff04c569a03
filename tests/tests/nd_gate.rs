//! Neighbour discovery from the IPv4 side: a message that breaks a rule never reaches the kernel and has its own
//! counter; advertisements come from routers of the PRL only (P4, P11, V1, N4, N10, A3; FAULTS 4, 5).
//!
//! ```text
//!   dut 10.0.0.2 (host, PRL 10.0.0.1) ---+--- prl 10.0.0.1 (crafted)
//!                                        +--- x   10.0.0.9 (crafted)
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{
    self, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{ICMPV6, Inner, link_local};
use isatap_tests::raw::{Crafter, Sniffer};
use isatap_tests::scene::{SOON, X};
use isatap_tests::state::snapshot;
use isatap_tests::topology::{Site, UNDERLAY, mac};
use isatap_tests::wait;

const DUT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PRL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// What a rogue advertises.
const ROGUE_PREFIX: &str = "2001:db8:bad::";
const GOOD_PREFIX: &str = "2001:db8:7::";

struct Parts {
    site: Site,
    dut: Netns,
    prl: Netns,
    x: Netns,
}

impl Parts {
    fn new() -> Self {
        let site = Site::new();
        let (dut, prl, x) = (site.member("dut", 2), site.member("prl", 1), site.member("x", 9));
        Self { site, dut, prl, x }
    }

    fn crafters(&self) -> (Crafter, Crafter) {
        let to = mac(&self.dut, UNDERLAY);
        (
            Crafter::new(&self.prl, UNDERLAY, PRL, to, DUT),
            Crafter::new(&self.x, UNDERLAY, X, to, DUT),
        )
    }
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn advertisement(src: Ipv6Addr, prefix: &str) -> Vec<u8> {
    let body = nd::router_advertisement(1800, &nd::prefix_option(v6(prefix), 64, 86400, 14400));
    nd::packet(src, link_local(DUT), ROUTER_ADVERTISEMENT, &body)
}

/// A packet with another hop limit than 255. The ICMPv6 checksum does not cover it.
fn with_hop_limit(mut packet: Vec<u8>, hop_limit: u8) -> Vec<u8> {
    packet[7] = hop_limit;
    packet
}

/// The whole table: what it is, who sends it, and why it is dropped.
fn table() -> Vec<(&'static str, bool, Vec<u8>, &'static str)> {
    let (dut, prl, x) = (link_local(DUT), link_local(PRL), link_local(X));
    let prefix = nd::prefix_option(v6(ROGUE_PREFIX), 64, 86400, 14400);
    let body = nd::router_advertisement(1800, &prefix);
    let packet = |src, kind, body: &[u8]| nd::packet(src, dut, kind, body);
    let with_code = |src, kind, body: &[u8]| {
        let mut inner = Inner::new(src, dut);
        inner.hop_limit = 255;
        inner.icmpv6(kind, 1, body)
    };
    let spoilt = |mut packet: Vec<u8>| {
        let last = packet.len() - 1;
        packet[last] ^= 0xff;
        packet
    };
    let fragment = |src, kind, body: &[u8]| {
        let message = packet(src, kind, body);
        let mut inner = Inner::new(src, dut);
        inner.hop_limit = 255;
        // A fragment header with offset 0 and no more fragments: an atomic fragment (RFC 6980, RFC 6946).
        inner.wrap(44, &[&[ICMPV6, 0, 0, 0, 0, 0, 0, 1], &message[40..]].concat())
    };
    let zero_option = [
        &nd::router_advertisement(1800, &[])[..],
        &[3, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let long_option = [
        &nd::router_advertisement(1800, &[])[..],
        &[3, 9, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let global = v6("2001:db8:1::5efe:a00:1");
    let target = v6("fe80::5efe:a00:1");
    let solicitation = nd::neighbour_solicitation(dut);
    let neighbour = nd::neighbour_advertisement(0x20, target);
    let redirect = nd::redirect(link_local(X), v6("2001:db8:99::1"));
    vec![
        (
            "a perfect RA of somebody",
            false,
            packet(x, ROUTER_ADVERTISEMENT, &body),
            "nd_not_router",
        ),
        (
            "an RA in the router's name",
            false,
            packet(prl, ROUTER_ADVERTISEMENT, &body),
            "src_mismatch",
        ),
        (
            "a perfect redirect of somebody",
            false,
            packet(x, REDIRECT, &redirect),
            "nd_not_router",
        ),
        (
            "an RA that was forwarded",
            true,
            with_hop_limit(packet(prl, ROUTER_ADVERTISEMENT, &body), 254),
            "nd_hop_limit",
        ),
        (
            "an RA of code 1",
            true,
            with_code(prl, ROUTER_ADVERTISEMENT, &body),
            "nd_code",
        ),
        (
            "a spoilt RA",
            true,
            spoilt(packet(prl, ROUTER_ADVERTISEMENT, &body)),
            "nd_checksum",
        ),
        (
            "an RA from a global address",
            true,
            packet(global, ROUTER_ADVERTISEMENT, &body),
            "nd_address",
        ),
        (
            "a short RA",
            true,
            packet(prl, ROUTER_ADVERTISEMENT, &body[..8]),
            "nd_length",
        ),
        (
            "an RA with an option of length 0",
            true,
            packet(prl, ROUTER_ADVERTISEMENT, &zero_option),
            "nd_length",
        ),
        (
            "an RA with an option past its end",
            true,
            packet(prl, ROUTER_ADVERTISEMENT, &long_option),
            "nd_length",
        ),
        (
            "an RA in a fragment",
            true,
            fragment(prl, ROUTER_ADVERTISEMENT, &body),
            "nd_fragment",
        ),
        (
            "a redirect from a global address",
            true,
            packet(global, REDIRECT, &redirect),
            "nd_address",
        ),
        (
            "a redirect that was forwarded",
            true,
            with_hop_limit(packet(prl, REDIRECT, &redirect), 64),
            "nd_hop_limit",
        ),
        (
            "an NS that was forwarded",
            false,
            with_hop_limit(packet(x, NEIGHBOUR_SOLICITATION, &solicitation), 64),
            "nd_hop_limit",
        ),
        (
            "a spoilt NS",
            false,
            spoilt(packet(x, NEIGHBOUR_SOLICITATION, &solicitation)),
            "nd_checksum",
        ),
        (
            "an NS of code 1",
            false,
            with_code(x, NEIGHBOUR_SOLICITATION, &solicitation),
            "nd_code",
        ),
        (
            "a short NS",
            false,
            packet(x, NEIGHBOUR_SOLICITATION, &solicitation[..16]),
            "nd_length",
        ),
        (
            "an NS about a group",
            false,
            packet(
                x,
                NEIGHBOUR_SOLICITATION,
                &nd::neighbour_solicitation(v6("ff02::1")),
            ),
            "nd_address",
        ),
        (
            "an NS in a fragment",
            false,
            fragment(x, NEIGHBOUR_SOLICITATION, &solicitation),
            "nd_fragment",
        ),
        (
            "an NA that was forwarded",
            false,
            with_hop_limit(packet(x, NEIGHBOUR_ADVERTISEMENT, &neighbour), 1),
            "nd_hop_limit",
        ),
        (
            "a short NA",
            false,
            packet(x, NEIGHBOUR_ADVERTISEMENT, &neighbour[..12]),
            "nd_length",
        ),
        (
            "an NA about a group",
            false,
            packet(
                x,
                NEIGHBOUR_ADVERTISEMENT,
                &nd::neighbour_advertisement(0, v6("ff02::1")),
            ),
            "nd_address",
        ),
        (
            "an RS that was forwarded",
            false,
            with_hop_limit(packet(x, ROUTER_SOLICITATION, &nd::router_solicitation()), 64),
            "nd_hop_limit",
        ),
        (
            "a short RS",
            false,
            packet(x, ROUTER_SOLICITATION, &[]),
            "nd_length",
        ),
    ]
}

fn each_message_has_its_counter(lane: Lane) {
    let parts = Parts::new();
    let daemon = Daemon::host(&parts.dut, DUT, &[PRL])
        .lane(lane)
        .workers(1)
        .start();
    let (prl, x) = parts.crafters();
    let sniffer = Sniffer::start(&parts.dut, TUNNEL);
    let state = snapshot(&parts.dut, TUNNEL);
    for (what, from_prl, packet, reason) in table() {
        sniffer.clear();
        let before = daemon.counters(Direction::Decap);
        if from_prl {
            prl.send_inner(&packet)
        } else {
            x.send_inner(&packet)
        }
        let since = daemon.wait_received(Direction::Decap, &before, 1);
        assert_eq!(since.drops, BTreeMap::from([(reason.to_owned(), 1)]), "{what}");
        assert_eq!(sniffer.count(|c| !c.outgoing), 0, "{what} reached the kernel");
    }
    assert_eq!(snapshot(&parts.dut, TUNNEL), state);
    daemon.conservation();
}

#[test]
fn each_bad_message_has_its_counter_uring() {
    each_message_has_its_counter(Lane::Uring);
}

#[test]
fn each_bad_message_has_its_counter_syscall() {
    each_message_has_its_counter(Lane::Syscall);
}

#[test]
fn each_bad_message_has_its_counter_ebpf() {
    each_message_has_its_counter(Lane::Ebpf);
}

#[test]
fn only_routers_of_the_prl_configure_a_host() {
    let parts = Parts::new();
    let daemon = Daemon::host(&parts.dut, DUT, &[PRL]).start();
    let (prl, x) = parts.crafters();
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let before = daemon.counters(Direction::Decap);
    x.send_inner(&advertisement(link_local(X), ROGUE_PREFIX));
    daemon.wait_received(Direction::Decap, &before, 1);
    prl.send_inner(&advertisement(link_local(PRL), GOOD_PREFIX));
    let state = wait::until("an address by autoconfiguration", SOON, || {
        let state = snapshot(&parts.dut, TUNNEL);
        if state.contains("2001:db8:7:0:0:5efe:a00:2/128") || state.contains("2001:db8:7::5efe:a00:2/128") {
            Ok(state)
        } else {
            Err(state)
        }
    });
    assert!(state.contains("default via fe80::5efe:a00:1"), "{state}");
    assert!(!state.contains("2001:db8:bad"), "{state}");
    // A3, A8: nobody asks whether the address is taken, or who has one; only the router is asked whether it answers (N2).
    let others = wire.count(|c| {
        let inner = c.outer().and_then(|outer| outer.inner());
        inner.is_some_and(|inner| {
            let solicits = inner
                .icmpv6()
                .is_some_and(|(kind, _, _)| kind == NEIGHBOUR_SOLICITATION);
            solicits && (inner.src(), inner.dst()) != (link_local(DUT), link_local(PRL))
        })
    });
    assert_eq!(others, 0, "other neighbour solicitations on the wire");
    let metrics = daemon.metrics();
    assert!(metrics.sum("isatapd_router_advertisements_total", &[]) >= 1);
    daemon.wait_ready();
    drop(parts.site);
}

#[test]
fn a_host_answers_no_router_solicitation() {
    // P11. Behind it a packet that is answered, as a fence.
    let parts = Parts::new();
    let daemon = Daemon::host(&parts.dut, DUT, &[PRL]).workers(1).start();
    let (_, x) = parts.crafters();
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    x.send_inner(&nd::packet(
        link_local(X),
        link_local(DUT),
        ROUTER_SOLICITATION,
        &nd::router_solicitation(),
    ));
    let mut ping = Inner::new(link_local(X), link_local(DUT));
    ping.hop_limit = 255;
    x.send_inner(&ping.echo_request(1, 1, b"fence"));
    let kind_of = |c: &isatap_tests::raw::Captured| {
        let kind = c.outer()?.inner()?.icmpv6()?.0;
        c.outgoing.then_some(kind)
    };
    wire.wait_for("an echo reply", SOON, |c| kind_of(c) == Some(129));
    assert_eq!(wire.count(|c| kind_of(c) == Some(ROUTER_ADVERTISEMENT)), 0);
    daemon.conservation();
}

#[test]
fn unicast_neighbour_solicitations_are_answered() {
    // N1, N3: reachability probes get an answer, without a link-layer address option.
    for universal in [false, true] {
        let parts = Parts::new();
        let daemon = Daemon::host(&parts.dut, DUT, &[PRL]).start();
        let (_, x) = parts.crafters();
        let wire = Sniffer::start(&parts.dut, UNDERLAY);
        let src = isatap_tests::packet::isatap("fe80::", universal, X);
        let question = nd::neighbour_solicitation(link_local(DUT));
        x.send_inner(&nd::packet(
            src,
            link_local(DUT),
            NEIGHBOUR_SOLICITATION,
            &question,
        ));
        let answer = wire.wait_for("a neighbour advertisement", SOON, |c| {
            let inner = c.outer().and_then(|outer| outer.inner());
            c.outgoing
                && inner
                    .and_then(|inner| inner.icmpv6())
                    .is_some_and(|(kind, _, _)| kind == NEIGHBOUR_ADVERTISEMENT)
        });
        let outer = answer.outer().expect("protocol 41");
        let inner = outer.inner().expect("IPv6");
        assert_eq!((outer.dst(), inner.dst()), (X, src));
        assert_eq!(inner.payload.len(), 24, "no options");
        assert_eq!(inner.payload[4] & 0x40, 0x40, "solicited");
        daemon.conservation();
    }
}

#[test]
fn a_flood_of_solicitations_from_a_program_is_bounded() {
    // FAULTS 51, from the inside: control takes what it can, the rest is counted; routers get a few.
    const FLOOD: u64 = 4000;
    let parts = Parts::new();
    let daemon = Daemon::host(&parts.dut, DUT, &[PRL]).workers(1).start();
    let injector = isatap_tests::raw::Injector::tun(&parts.dut, TUNNEL);
    let wire = Sniffer::start(&parts.dut, UNDERLAY);
    let (_prl, _x) = parts.crafters();
    let packet = nd::packet(
        link_local(DUT),
        v6("ff02::2"),
        ROUTER_SOLICITATION,
        &nd::router_solicitation(),
    );
    let before = daemon.counters(Direction::Encap);
    for sent in 1..=FLOOD {
        injector.send(&packet);
        // Never more on the way than the queue of the interface holds: what it loses is not counted here.
        if sent % 200 == 0 {
            daemon.wait_received(Direction::Encap, &before, sent);
        }
    }
    let since = daemon.wait_received(Direction::Encap, &before, FLOOD);
    let limited = since.drops.get("rate_limited").copied().unwrap_or(0);
    assert_eq!(since.punted + limited, since.received, "{since}");
    let solicitations = wire.count(|c| {
        let inner = c.outer().and_then(|outer| outer.inner());
        inner
            .and_then(|inner| inner.icmpv6())
            .is_some_and(|(kind, _, _)| kind == ROUTER_SOLICITATION)
    });
    assert!(solicitations <= 100, "{solicitations} solicitations on the wire");
    daemon.conservation();
}
