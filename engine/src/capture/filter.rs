//! Which packets a capture wants: decided in the worker, before anything is copied.
//!
//! Addresses are read where they stand, whatever the lengths say: a damaged packet is still from somebody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fate::Fate;
use crate::isatap::iid;
use crate::reason::DropReason;
use crate::stats::Direction;
use crate::wire::ipv4::MIN_HEADER_LEN;

/// Addresses one filter may name.
pub const MAX_HOSTS: usize = 8;

/// A set of reasons to drop; empty stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonSet(u64);

const _: () = assert!(DropReason::COUNT <= 64, "a reason has one bit");

impl ReasonSet {
    /// Adds a reason.
    pub fn insert(&mut self, reason: DropReason) {
        self.0 |= 1 << reason as u64;
    }

    /// Whether it names none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it names this one.
    pub fn contains(self, reason: DropReason) -> bool {
        self.0 & 1 << reason as u64 != 0
    }
}

impl FromIterator<DropReason> for ReasonSet {
    fn from_iter<T: IntoIterator<Item = DropReason>>(reasons: T) -> Self {
        let mut set = Self::default();
        reasons.into_iter().for_each(|reason| set.insert(reason));
        set
    }
}

/// What a capture wants; all of it has to be true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This direction alone.
    pub direction: Option<Direction>,
    /// Dropped packets alone.
    pub drops_only: bool,
    /// Packets dropped for one of these reasons alone, unless empty.
    pub reasons: ReasonSet,
    /// Packets from or to one of these alone, unless all are `None`: an IPv4 address is that of the peer, whether in the outer
    /// header, as next hop, or embedded in an inner ISATAP address; an IPv6 address is an inner one.
    pub hosts: [Option<IpAddr>; MAX_HOSTS],
}

impl Filter {
    /// Whether a packet is wanted. `packet` begins with the outer or the inner header.
    pub(super) fn wants(&self, direction: Direction, fate: &Fate, packet: &[u8]) -> bool {
        if self.direction.is_some_and(|wanted| wanted != direction) {
            return false;
        }
        let by_reason = match fate.reason() {
            Some(reason) => self.reasons.is_empty() || self.reasons.contains(reason),
            None => !self.drops_only && self.reasons.is_empty(),
        };
        by_reason && self.wants_host(fate, packet)
    }

    fn wants_host(&self, fate: &Fate, packet: &[u8]) -> bool {
        let mut hosts = self.hosts.iter().flatten().peekable();
        if hosts.peek().is_none() {
            return true;
        }
        let ends = Ends::read(packet);
        hosts.any(|host| match host {
            IpAddr::V4(host) => fate.next_hop() == Some(*host) || ends.has_v4(*host),
            IpAddr::V6(host) => ends.inner.contains(&Some(*host)),
        })
    }
}

/// The addresses in a packet, as far as there are any.
#[derive(Debug, Default)]
struct Ends {
    outer: [Option<Ipv4Addr>; 2],
    inner: [Option<Ipv6Addr>; 2],
}

impl Ends {
    fn read(packet: &[u8]) -> Self {
        let mut ends = Self::default();
        let mut inner = packet;
        if let Some(first) = packet.first()
            && first >> 4 == 4
        {
            let v4 = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|o| Ipv4Addr::from(*o));
            ends.outer = [v4(12), v4(16)];
            let header_len = (usize::from(first & 15) * 4).max(MIN_HEADER_LEN);
            inner = packet.get(header_len..).unwrap_or_default();
        }
        let v6 = |at: usize| inner.get(at..)?.first_chunk::<16>().map(|o| Ipv6Addr::from(*o));
        ends.inner = [v6(8), v6(24)];
        ends
    }

    fn has_v4(&self, host: Ipv4Addr) -> bool {
        let embeds = |addr: &Option<Ipv6Addr>| addr.and_then(|addr| iid::embedded(&addr)) == Some(host);
        self.outer.contains(&Some(host)) || self.inner.iter().any(embeds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn inner(src: &str, dst: &str) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        for addr in [src, dst] {
            packet.extend(addr.parse::<Ipv6Addr>().unwrap().octets());
        }
        packet
    }

    fn outer(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 41, 0, 0];
        packet.extend(src.octets());
        packet.extend(dst.octets());
        packet.extend(payload);
        packet
    }

    const DELIVERED: Fate = Fate::Delivered {
        segments: 1,
        gso_size: 0,
    };

    fn dropped(reason: DropReason) -> Fate {
        Fate::Dropped { reason, told: None }
    }

    #[test]
    fn reasons_and_directions() {
        let wants = |filter: &Filter, direction, fate| filter.wants(direction, &fate, &[]);
        let all = Filter::default();
        assert!(
            wants(&all, Direction::Encap, DELIVERED)
                && wants(&all, Direction::Decap, dropped(DropReason::Ecn))
        );
        let drops = Filter {
            drops_only: true,
            ..all
        };
        assert!(!wants(&drops, Direction::Decap, DELIVERED));
        assert!(!wants(
            &drops,
            Direction::Decap,
            Fate::Punted(crate::path::PuntKind::Redirect)
        ));
        assert!(wants(&drops, Direction::Decap, dropped(DropReason::Ecn)));
        let some = Filter {
            reasons: [DropReason::Truncated, DropReason::Shutdown]
                .into_iter()
                .collect(),
            direction: Some(Direction::Decap),
            ..all
        };
        assert!(
            !wants(&some, Direction::Decap, DELIVERED),
            "a reason asks for drops"
        );
        assert!(!wants(&some, Direction::Decap, dropped(DropReason::Ecn)));
        assert!(wants(&some, Direction::Decap, dropped(DropReason::Truncated)));
        assert!(!wants(&some, Direction::Encap, dropped(DropReason::Truncated)));
        let refused = Fate::Refused {
            reason: DropReason::Shutdown,
            packets: 1,
            to: None,
        };
        assert!(wants(&some, Direction::Decap, refused));
    }

    #[test]
    fn hosts_are_found_wherever_they_stand() {
        let filter = |hosts: &[IpAddr]| {
            let mut filter = Filter::default();
            for (slot, host) in filter.hosts.iter_mut().zip(hosts) {
                *slot = Some(*host);
            }
            filter
        };
        let other = Ipv4Addr::new(10, 0, 0, 1);
        let (routed, embedded) = (
            inner("2001:db8:9::1", "2001:db8:7::1"),
            inner("2001:db8:9::1", "2001:db8:1::5efe:10.0.0.9"),
        );
        let peer = filter(&[PEER.into()]);
        let wants = |packet: &[u8]| peer.wants(Direction::Decap, &DELIVERED, packet);
        assert!(wants(&outer(PEER, other, &routed)) && wants(&outer(other, PEER, &routed)));
        assert!(wants(&embedded) && wants(&outer(other, other, &embedded)));
        assert!(!wants(&routed) && !wants(&outer(other, other, &routed)) && !wants(&[]));
        assert!(
            wants(&outer(PEER, other, &[])[..16]),
            "the destination is cut off"
        );
        let sent = Fate::Sent {
            to: PEER,
            segments: 1,
            segment_len: 0,
        };
        assert!(peer.wants(Direction::Encap, &sent, &routed), "the next hop");
        let inside = filter(&["2001:db8:7::1".parse().unwrap()]);
        assert!(inside.wants(Direction::Encap, &DELIVERED, &routed));
        assert!(inside.wants(Direction::Decap, &DELIVERED, &outer(PEER, other, &routed)));
        assert!(!inside.wants(Direction::Decap, &DELIVERED, &outer(PEER, other, &embedded)));
        let either = filter(&["2001:db8::".parse().unwrap(), PEER.into()]);
        assert!(either.wants(Direction::Encap, &DELIVERED, &embedded));
    }
}
