//! Packets that are control's business: handed over, copied, or shown now and then, within limits.

use super::carry::Carrier;
use super::punt::OuterEnds;
use crate::buf::Packet;
use crate::capture::Fate;
use crate::io::lane::Lane;
use crate::offload::csum;
use crate::path::{Delivery, Handed, PuntKind};
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent};
use crate::wire::ipv4::{Ipv4View, MAX_HEADER_LEN};
use crate::wire::ipv6::{self, Ipv6View};
use crate::wire::vnet::{self, VnetHeader};

impl<L: Lane> Carrier<'_, L> {
    /// Shows control the headers of an outer packet whose ECN fields make no sense, one now and then (RFC 6040 4.2).
    #[cold]
    pub(super) fn ecn_alarm(&mut self, packet: &[u8]) {
        self.stats.event(LoopEvent::EcnDangerous).bump();
        if self.alarms.take(self.now) {
            let headers = &packet[..packet.len().min(MAX_HEADER_LEN + ipv6::HEADER_LEN)];
            self.punts.send(PuntKind::EcnAlarm, headers, ends(packet));
        }
    }

    /// Gives control what the kernel is not to see.
    pub(super) fn hand_over(&mut self, packet: &[u8], handed: &Handed) {
        let inner = packet.get(handed.outer_len..handed.outer_len + handed.inner_len);
        let taken = self.may_tell(handed.kind, packet)
            && self
                .punts
                .send(handed.kind, inner.unwrap_or_default(), ends(packet));
        if taken {
            self.stats.direction(Direction::Decap).punted.bump();
            self.show(Direction::Decap, &Fate::Punted(handed.kind), packet);
        } else {
            self.dropped(Direction::Decap, DropReason::RateLimited, packet);
        }
    }

    /// Whether an outer packet of this kind is within the limits; only solicitations have any.
    fn may_tell(&mut self, kind: PuntKind, packet: &[u8]) -> bool {
        let (PuntKind::HostSolicitation, Some(ends)) = (kind, ends(packet)) else {
            return true;
        };
        let connected = self.rules.is_connected(ends.src);
        self.solicitations.take(ends.src, connected, self.now)
    }

    /// Gives a frame from the TUN queue to control, which sends it as it is: whole, and with its checksum.
    pub(super) fn punt_sent(&mut self, kind: PuntKind, mut packet: Packet) {
        let header = packet.bytes().first_chunk().map(VnetHeader::parse);
        packet.strip(vnet::LEN);
        let inner_len = Ipv6View::new(packet.bytes()).map_or(0, |view| view.total_len());
        packet.truncate(inner_len);
        if let Some(Ok(vnet)) = header
            && vnet.needs_csum
            && csum::complete(&vnet, packet.bytes_mut()).is_err()
        {
            return self.dropped(Direction::Encap, DropReason::BadOffload, packet.bytes());
        }
        if self.punts.send(kind, packet.bytes(), None) {
            self.stats.direction(Direction::Encap).punted.bump();
            self.show(Direction::Encap, &Fate::Punted(kind), packet.bytes());
        } else {
            self.dropped(Direction::Encap, DropReason::RateLimited, packet.bytes());
        }
    }

    /// Gives control a copy of what the kernel gets; false when the kernel is not to get it either.
    pub(super) fn tell(&mut self, kind: PuntKind, packet: &[u8], delivery: &Delivery) -> bool {
        let within_limits = self.may_tell(kind, packet);
        let inner = packet.get(delivery.outer_len..delivery.outer_len + delivery.inner_len);
        if within_limits && !self.punts.send(kind, inner.unwrap_or_default(), ends(packet)) {
            self.stats.event(LoopEvent::PuntOverflow).bump();
        }
        within_limits
    }
}

/// The addresses of an outer packet.
fn ends(packet: &[u8]) -> Option<OuterEnds> {
    let outer = Ipv4View::new(packet).ok()?;
    Some(OuterEnds {
        src: outer.src(),
        dst: outer.dst(),
    })
}
