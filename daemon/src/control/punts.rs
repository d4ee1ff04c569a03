//! Solicitations that go out and advertisements that come in (RFC 5214 8.3). Pure, but for making the packet.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use isatap_engine::isatap::{ecn, iid};
use isatap_engine::path::limit::TokenBucket;
use isatap_engine::wire::ipv6::Ipv6View;
use isatap_engine::wire::{ext, nd};

use tracing::warn;

use crate::prl::Heard;
use crate::slaac::MAX_ROUTERS;

/// Where solicitations go inside: with the u bit of the router's identifier unknown, the group every router has
/// joined is the one address that is always right (P7).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Room for a router solicitation: an IPv6 header and eight bytes.
const SOLICITATION_ROOM: usize = 64;
/// Room for a neighbour solicitation: an IPv6 header and 24 bytes.
const PROBE_ROOM: usize = 64;

/// Advertisements of one router looked at per second, and at once; what is beyond is counted (FAULTS 50).
const ADVERTISEMENTS_PER_SECOND: u32 = 10;

/// Solicitations of programs on this host passed on per second, and at once (FAULTS 51).
pub(super) const SOLICITATIONS_PER_SECOND: u32 = 10;

/// Other packets of programs on this host to all routers passed on per second, and at once.
pub(super) const ALL_ROUTERS_PER_SECOND: u32 = 50;

/// How much each router is listened to: one that went mad must not silence the others.
#[derive(Debug, Default)]
pub(super) struct AdvertisementLimits(BTreeMap<Ipv4Addr, TokenBucket>);

impl AdvertisementLimits {
    /// Whether `router` may be listened to at `now`, in nanoseconds of a clock that never steps back.
    pub(super) fn take(&mut self, router: Ipv4Addr, now: u64) -> bool {
        if self.0.len() >= MAX_ROUTERS && !self.0.contains_key(&router) {
            return false;
        }
        let full = || TokenBucket::new(ADVERTISEMENTS_PER_SECOND, ADVERTISEMENTS_PER_SECOND);
        self.0.entry(router).or_insert_with(full).take(now)
    }

    /// Forgets all but these routers.
    pub(super) fn keep(&mut self, routers: &[Ipv4Addr]) {
        self.0.retain(|router, _| routers.contains(router));
    }
}

/// A router solicitation from the locator's link-local address.
pub(super) fn solicitation(locator: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; SOLICITATION_ROOM];
    let len = nd::emit_router_solicitation(&mut packet, iid::link_local(locator), ALL_ROUTERS);
    packet.truncate(len);
    packet
}

/// A neighbour solicitation from the locator's link-local address: does `target` still answer (RFC 4861 7.3)?
pub(super) fn probe(locator: Ipv4Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0; PROBE_ROOM];
    let len = nd::emit_neighbor_solicitation(&mut packet, iid::link_local(locator), target, target, &[]);
    packet.truncate(len);
    packet
}

/// Reads a copy of a neighbour advertisement: the router that answered a solicitation about its own link-local address.
/// `None` for any other, since it confirms nothing (RFC 4861 7.3.1).
pub(super) fn solicited_answer(packet: &[u8]) -> Option<Ipv4Addr> {
    let upper = ext::walk(packet).ok()?;
    let message = nd::parse(packet, &upper)?.ok()?;
    let solicited =
        message.kind() == nd::NdKind::NeighborAdvertisement && message.neighbor_flags()?.solicited;
    let about_itself = message.target()? == message.src();
    (solicited && about_itself)
        .then(|| iid::embedded(&message.src()))
        .flatten()
}

/// The router whose link-local address a packet comes from, by the address alone.
pub(super) fn sender(packet: &[u8]) -> Option<Ipv4Addr> {
    iid::embedded(&Ipv6View::new(packet).ok()?.src())
}

/// Reads a copy of an advertisement: who sent it and what it promises. `None` when it is none after all.
pub(super) fn advertisement(packet: &[u8]) -> Option<(Ipv4Addr, Heard)> {
    let upper = ext::walk(packet).ok()?;
    let message = nd::parse(packet, &upper)?.ok()?;
    let fixed = message.router_advertisement()?;
    let router = iid::embedded(&message.src())?;
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    // Zero is unspecified (RFC 4861 4.2).
    let millis = |millis: u32| (millis != 0).then(|| Duration::from_millis(u64::from(millis)));
    Some((
        router,
        Heard {
            source: message.src(),
            router_lifetime: seconds(u32::from(fixed.router_lifetime)),
            shortest_lifetime: message.min_lifetime().map(seconds),
            preference: fixed.preference.rank(),
            reachable_time: millis(fixed.reachable_time),
            retrans_timer: millis(fixed.retrans_timer),
        },
    ))
}

/// Logs the headers of an outer packet whose ECN fields make no sense together (RFC 6040 4.2).
pub(super) fn tell_ecn(packet: &[u8]) {
    let Some((src, outer, inner)) = ecn_fields(packet) else {
        return;
    };
    warn!(
        peer = %src,
        reason = "ecn",
        "a packet from {src} is marked {} outside and {} inside: an encapsulator or a router on the way is broken, or \
         somebody plays with congestion notification",
        ecn_name(outer),
        ecn_name(inner)
    );
}

/// The outer source, and the ECN fields outside and inside. The packet was whole before.
fn ecn_fields(packet: &[u8]) -> Option<(Ipv4Addr, u8, u8)> {
    let [first, tos, .., a, b, c, d, _, _, _, _] = packet.first_chunk::<20>()?;
    let at = usize::from(first & 0x0f) * 4;
    let class = packet.get(at + 1)?;
    Some((Ipv4Addr::new(*a, *b, *c, *d), tos & 3, class >> 4 & 3))
}

fn ecn_name(ecn: u8) -> &'static str {
    match ecn & 3 {
        ecn::NOT_ECT => "Not-ECT",
        ecn::ECT_0 => "ECT(0)",
        ecn::ECT_1 => "ECT(1)",
        _ => "CE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C4: what the line says.
    #[test]
    fn c4_ecn_fields_of_an_outer_packet() {
        let mut packet = [0; 64];
        packet[..2].copy_from_slice(&[0x46, 0xb8 | 1]);
        packet[12..16].copy_from_slice(&[10, 0, 0, 9]);
        packet[24..26].copy_from_slice(&[0x60, 0x30]);
        assert_eq!(ecn_fields(&packet), Some((Ipv4Addr::new(10, 0, 0, 9), 1, 3)));
        assert_eq!((ecn_name(1), ecn_name(3)), ("ECT(1)", "CE"));
        for len in 0..26 {
            assert!(ecn_fields(&packet[..len]).is_none(), "{len} bytes");
        }
    }

    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn router_advertisement(fixed: nd::RouterAdvertisement, src: Ipv6Addr) -> Vec<u8> {
        let mut packet = vec![0; 1280];
        let len = nd::emit_router_advertisement(&mut packet, src, iid::link_local(ROUTER), &fixed, &[]);
        packet.truncate(len);
        packet
    }

    /// FAULTS 50: ten at once and ten a second of each router, whatever the others do.
    #[test]
    fn each_router_has_a_limit_of_its_own() {
        const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
        let second = 1_000_000_000;
        let mut limits = AdvertisementLimits::default();
        let mut taken = |router, now| (0..1000).filter(|_| limits.take(router, now)).count();
        assert_eq!((taken(ROUTER, 5), taken(OTHER, 5)), (10, 10));
        assert_eq!(taken(ROUTER, 5 + second), 10);
        limits.keep(&[OTHER]);
        assert_eq!(limits.0.len(), 1);
        (0..1000).for_each(|bits| _ = limits.take(Ipv4Addr::from_bits(bits), 5));
        assert_eq!(limits.0.len(), MAX_ROUTERS);
        assert!(limits.take(OTHER, 5 + second), "it was there before");
    }

    #[test]
    fn a_solicitation_is_a_valid_one() {
        let packet = solicitation(Ipv4Addr::new(10, 0, 0, 5));
        let message = nd::parse(&packet, &ext::walk(&packet).unwrap()).unwrap().unwrap();
        assert_eq!(message.kind(), nd::NdKind::RouterSolicitation);
        assert_eq!(message.src(), "fe80::5efe:10.0.0.5".parse::<Ipv6Addr>().unwrap());
        assert_eq!(message.options().count(), 0, "no link-layer address (N3)");
    }

    #[test]
    fn an_advertisement_tells_who_and_how_long() {
        let fixed = nd::RouterAdvertisement {
            router_lifetime: 1800,
            ..Default::default()
        };
        for src in ["fe80::5efe:10.0.0.1", "fe80::200:5efe:10.0.0.1"] {
            let (router, seen) = advertisement(&router_advertisement(fixed, src.parse().unwrap())).unwrap();
            assert_eq!(router, ROUTER);
            assert_eq!(seen.router_lifetime, Duration::from_secs(1800));
            assert_eq!(seen.shortest_lifetime, Some(Duration::from_secs(1800)));
        }
        assert_eq!(
            advertisement(&router_advertisement(fixed, "fe80::1".parse().unwrap())),
            None
        );
        assert_eq!(advertisement(&solicitation(ROUTER)), None);
        assert_eq!(advertisement(&[]), None);
    }
}
