//! Which packets the programs may leave to a worker: for each cause what must be true of the packet, told apart here by
//! other means than the programs'.

use isatap_engine::ebpf::{Cause, Surroundings};
use isatap_engine::fib::Rulebook;
use isatap_engine::isatap::ecn;
use isatap_engine::path::{DecapVerdict, EncapVerdict};
use isatap_engine::reason::DropReason;

use super::rulebooks::DEVICE;
use isatap_tests::packet::checksum;

/// An outer packet and all that is known of it.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    /// The rules.
    pub(crate) rules: &'a Rulebook,
    /// What the programs know besides.
    pub(crate) surroundings: &'a Surroundings,
    /// The packet.
    pub(crate) packet: &'a [u8],
    /// What a worker makes of it.
    pub(crate) verdict: &'a DecapVerdict,
}

impl Arrival<'_> {
    /// Whether the packet belongs to our tunnel at all: for others nothing is counted.
    pub(crate) fn is_ours(&self) -> bool {
        self.packet.len() >= 20
            && self.packet[9] == 41
            && self
                .rules
                .locators()
                .iter()
                .any(|locator| locator.addr.octets() == self.packet[16..20])
    }

    /// Whether the packet may be left for this cause.
    pub(crate) fn excuses(&self, cause: Cause) -> bool {
        let packet = self.packet;
        let inner = packet.get(20..).unwrap_or_default();
        let byte = |at: usize| inner.get(at).copied().unwrap_or(0);
        match cause {
            Cause::Held => !self.surroundings.carry_in,
            Cause::Device => self.rules.locators().iter().any(|locator| {
                locator.addr.octets() == packet[16..20] && ![0, DEVICE].contains(&locator.if_index)
            }),
            Cause::Options => packet[0] != 0x45,
            Cause::Checksum => checksum(&[&packet[..20]]) != 0,
            Cause::Fragment => packet[6] & 0x3f != 0 || packet[7] != 0,
            Cause::Length => {
                let total = usize::from(be16(packet, 2));
                let inner_total = 40 + usize::from(be16(inner, 4));
                total != packet.len() || inner_total < inner.len()
            }
            Cause::Multicast => byte(24) == 0xff,
            Cause::Extension => [0, 43, 44, 51, 60].contains(&byte(6)),
            Cause::Control => byte(6) == 58 && (133..=137).contains(&byte(40)),
            Cause::Ecn => ecn::is_dangerous(packet[1], byte(1) >> 4),
            Cause::Merged => byte(6) == 17 && inner.len() > usize::from(self.rules.tunnel().mtu.tunnel_mtu()),
            Cause::Refused => !self.surroundings.alone && matches!(self.verdict, DecapVerdict::Drop(_)),
            Cause::Rules
            | Cause::Outdated
            | Cause::Route
            | Cause::TooBig
            | Cause::LinkMtu
            | Cause::Offload
            | Cause::Room => false,
        }
    }
}

/// An inner packet on its way out, and all that is known of it.
#[derive(Debug)]
pub(crate) struct Departure<'a> {
    /// What the programs know besides.
    pub(crate) surroundings: &'a Surroundings,
    /// The packet.
    pub(crate) packet: &'a [u8],
    /// What a worker makes of it.
    pub(crate) verdict: &'a EncapVerdict,
}

impl Departure<'_> {
    /// Whether the packet may be left for this cause.
    pub(crate) fn excuses(&self, cause: Cause) -> bool {
        let byte = |at: usize| self.packet.get(at).copied().unwrap_or(0);
        match cause {
            Cause::Held => !self.surroundings.carry_out,
            Cause::Refused => !matches!(self.verdict, EncapVerdict::Send(_)),
            Cause::Length => 40 + usize::from(be16(self.packet, 4)) != self.packet.len(),
            Cause::Multicast => byte(24) == 0xff,
            Cause::Extension => [0, 43, 44, 51, 60].contains(&byte(6)),
            Cause::Control => byte(6) == 58 && (133..=137).contains(&byte(40)),
            Cause::TooBig => matches!(self.verdict, EncapVerdict::Reply(DropReason::TooBig, _)),
            Cause::Route => self.way().is_none(),
            Cause::LinkMtu => {
                let EncapVerdict::Send(route) = self.verdict else {
                    return false;
                };
                let link = self.way().map_or(0, |(_, mtu)| mtu).min(route.link_mtu);
                self.packet.len() + 20 > usize::from(link)
            }
            Cause::Rules
            | Cause::Outdated
            | Cause::Device
            | Cause::Options
            | Cause::Checksum
            | Cause::Fragment
            | Cause::Ecn
            | Cause::Merged
            | Cause::Offload
            | Cause::Room => false,
        }
    }

    /// The device and its MTU by the longest network that contains the next hop; the later of two counts.
    fn way(&self) -> Option<(u32, u16)> {
        let EncapVerdict::Send(route) = self.verdict else {
            return None;
        };
        let ways = self.surroundings.egress.iter();
        let longest = ways
            .filter(|way| way.network.contains(route.outer.dst))
            .max_by_key(|way| way.network.len())?;
        (longest.device != 0).then_some((longest.device, longest.mtu))
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .map_or(0, |field| u16::from_be_bytes([field[0], field[1]]))
}
