//! Would the programs carry this packet? For each cause to leave one what is true of it then, seen from the packet and the
//! verdict of `path`, by other means than the programs'.
//!
//! For people who ask (`isatapctl explain`), and for the test that holds the two against each other
//! (`tests/tests/ebpf_differential.rs`): a packet with such a cause is never carried, and one that is left has the
//! cause it is counted for. Superpackets are not looked into.

use std::net::Ipv4Addr;

use super::cause::Cause;
use super::compile::{Egress, Surroundings};
use super::numbers::MAX_ALONE;
use crate::fib::Rulebook;
use crate::isatap::ecn;
use crate::path::{DecapVerdict, EncapVerdict};
use crate::reason::DropReason;
use crate::wire::checksum;
use crate::wire::ext;
use crate::wire::ipv4::MIN_HEADER_LEN;
use crate::wire::ipv6::HEADER_LEN;

/// Types of neighbour discovery, router solicitation to redirect (RFC 4861 4).
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
/// Where in an inner packet the next header and the destination are.
const NEXT_HEADER: usize = 6;
const DESTINATION: usize = 24;

/// An outer packet that came in, and all that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The rules.
    pub rules: &'a Rulebook,
    /// What the programs know besides.
    pub surroundings: &'a Surroundings,
    /// The interface index of the device it came by.
    pub device: u32,
    /// The packet, from the IPv4 header on.
    pub packet: &'a [u8],
    /// What a worker makes of it.
    pub verdict: &'a DecapVerdict,
}

impl Arrival<'_> {
    /// Whether the packet belongs to our tunnel at all: for others nothing is counted.
    pub fn is_ours(&self) -> bool {
        let locators = self.rules.locators().iter();
        self.byte(9) == ext::IPV6
            && locators
                .map(|locator| locator.addr.octets())
                .any(|addr| Some(&addr[..]) == self.packet.get(16..MIN_HEADER_LEN))
    }

    /// Whether the packet may be left for this cause.
    pub fn excuses(&self, cause: Cause) -> bool {
        if !self.surroundings.carry_in {
            return cause == Cause::Held;
        }
        let packet = self.packet;
        let inner = packet.get(MIN_HEADER_LEN..).unwrap_or_default();
        match cause {
            Cause::Device => self.rules.locators().iter().any(|locator| {
                Some(&locator.addr.octets()[..]) == packet.get(16..MIN_HEADER_LEN)
                    && ![0, self.device].contains(&locator.if_index)
            }),
            Cause::Options => self.byte(0) != 0x45,
            Cause::Checksum => packet
                .get(..MIN_HEADER_LEN)
                .is_none_or(|header| checksum::sum(header) != 0),
            Cause::Martian => {
                let own = self.surroundings.own_v4.iter();
                own.map(Ipv4Addr::octets)
                    .any(|addr| Some(&addr[..]) == packet.get(12..16))
            }
            Cause::Fragment => self.byte(6) & 0x3f != 0 || self.byte(7) != 0,
            Cause::Length => {
                let inner_total = HEADER_LEN + be16(inner, 4);
                be16(packet, 2) != packet.len() || inner_total < inner.len()
            }
            Cause::Multicast => is_multicast(inner),
            Cause::Extension => has_extension(inner),
            Cause::Control => is_discovery(inner),
            Cause::Ecn => ecn::is_dangerous(self.byte(1), byte(inner, 1) >> 4),
            Cause::Merged => {
                let mtu = usize::from(self.rules.tunnel().mtu.tunnel_mtu());
                byte(inner, NEXT_HEADER) == ext::UDP && inner.len() > mtu
            }
            Cause::Refused => !self.surroundings.alone && matches!(self.verdict, DecapVerdict::Drop(_)),
            Cause::Held
            | Cause::Rules
            | Cause::Outdated
            | Cause::Route
            | Cause::TooBig
            | Cause::LinkMtu
            | Cause::Offload
            | Cause::Room
            | Cause::Segmentation => false,
        }
    }

    /// A cause for which the packet is left, if it is.
    pub fn excuse(&self) -> Option<Cause> {
        Cause::ALL.iter().copied().find(|cause| self.excuses(*cause))
    }

    fn byte(&self, at: usize) -> u8 {
        byte(self.packet, at)
    }
}

/// An inner packet on its way out, and all that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'a> {
    /// What the programs know besides the rules.
    pub surroundings: &'a Surroundings,
    /// The packet, from the IPv6 header on.
    pub packet: &'a [u8],
    /// What a worker makes of it.
    pub verdict: &'a EncapVerdict,
}

impl Departure<'_> {
    /// Whether the packet may be left for this cause.
    pub fn excuses(&self, cause: Cause) -> bool {
        if !self.surroundings.carry_out {
            return cause == Cause::Held;
        }
        let packet = self.packet;
        match cause {
            Cause::Refused => !matches!(self.verdict, EncapVerdict::Send(_)),
            Cause::Length => HEADER_LEN + be16(packet, 4) != packet.len(),
            Cause::Multicast => is_multicast(packet),
            Cause::Extension => has_extension(packet),
            Cause::Control => is_discovery(packet),
            Cause::TooBig => matches!(self.verdict, EncapVerdict::Reply(DropReason::TooBig, _)),
            Cause::Route => self.way().is_none(),
            Cause::LinkMtu => {
                let (EncapVerdict::Send(route), Some(way)) = (self.verdict, self.way()) else {
                    return false;
                };
                packet.len() + MIN_HEADER_LEN > usize::from(way.mtu.min(route.link_mtu))
            }
            Cause::Room => packet.len() > MAX_ALONE as usize,
            Cause::Held
            | Cause::Rules
            | Cause::Outdated
            | Cause::Device
            | Cause::Options
            | Cause::Checksum
            | Cause::Martian
            | Cause::Fragment
            | Cause::Ecn
            | Cause::Merged
            | Cause::Offload
            | Cause::Segmentation => false,
        }
    }

    /// A cause for which the packet is left, if it is.
    pub fn excuse(&self) -> Option<Cause> {
        Cause::ALL.iter().copied().find(|cause| self.excuses(*cause))
    }

    /// The way of a packet that is sent: by the longest network that contains the next hop.
    pub fn way(&self) -> Option<&Egress> {
        match self.verdict {
            EncapVerdict::Send(route) => self.surroundings.way_to(route.outer.dst),
            _ => None,
        }
    }
}

fn is_multicast(inner: &[u8]) -> bool {
    byte(inner, DESTINATION) == 0xff
}

fn has_extension(inner: &[u8]) -> bool {
    [0, 43, 44, 51, 60].contains(&byte(inner, NEXT_HEADER))
}

fn is_discovery(inner: &[u8]) -> bool {
    byte(inner, NEXT_HEADER) == ext::ICMPV6 && DISCOVERY.contains(&byte(inner, HEADER_LEN))
}

/// What is not there is 0.
fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(byte(bytes, at)) << 8 | usize::from(byte(bytes, at + 1))
}
