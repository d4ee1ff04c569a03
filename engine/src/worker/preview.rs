//! What captures see of a batch: each packet with its verdict, before the batch is carried.
//!
//! Verdicts are pure, so that they are the same a moment later, and the code that carries packets knows nothing of captures. What
//! is decided by more than the verdict (control has limits) is shown where that is known: [`super::to_control`].

use super::carry::Carriage;
use crate::buf::Packet;
use crate::capture::Fate;
use crate::fib::Rulebook;
use crate::io::lane::Inbox;
use crate::path::{self, DecapVerdict, Delivery, EncapVerdict, Route};
use crate::stats::Direction;
use crate::wire::vnet;

impl Carriage {
    /// Shows the whole inbox to those who capture. `now` as in [`Carriage::carry`].
    #[cold]
    #[inline(never)]
    pub(super) fn preview(&mut self, inbox: &Inbox, rules: &Rulebook, now: u64) {
        for packet in &inbox.tun {
            if let Some((fate, inner)) = of_frame(rules, packet) {
                self.taps.offer(Direction::Encap, &fate, inner, inner.len(), now);
            }
        }
        for packet in &inbox.raw {
            if let Some(fate) = self.of_packet(rules, packet) {
                self.taps
                    .offer(Direction::Decap, &fate, packet.bytes(), packet.len(), now);
            }
        }
    }

    /// What becomes of a packet from the raw socket; `None` when control has a say.
    fn of_packet(&self, rules: &Rulebook, packet: &Packet) -> Option<Fate> {
        let gso_size = || self.gso_sizes.of(packet.bytes());
        match path::decap::decide_merged(rules, packet.bytes(), self.udp_offload, gso_size) {
            DecapVerdict::Deliver(delivery) => delivery.copy.is_none().then(|| delivered(&delivery)),
            DecapVerdict::Drop(reason) => Some(Fate::Dropped { reason, told: None }),
            DecapVerdict::Punt(_) => None,
        }
    }
}

/// What becomes of a frame from the TUN queue, and the packet in it; `None` when control has a say.
fn of_frame<'a>(rules: &Rulebook, frame: &'a Packet) -> Option<(Fate, &'a [u8])> {
    let inner = frame.bytes().get(vnet::LEN..).unwrap_or_default();
    Some(match path::encap::decide(rules, frame.bytes()) {
        EncapVerdict::Send(route) => (sent(&route), inner.get(..route.inner_len).unwrap_or(inner)),
        EncapVerdict::Drop(reason) => (Fate::Dropped { reason, told: None }, inner),
        EncapVerdict::Reply(reason, message) => {
            let told = Some(message);
            (Fate::Dropped { reason, told }, inner)
        }
        EncapVerdict::Punt(_) => return None,
    })
}

/// What a capture says of a packet that goes to the IPv4 network.
fn sent(route: &Route) -> Fate {
    let (segments, segment_len) = route
        .split
        .as_ref()
        .map_or((1, route.inner_len), |plan| (plan.count, plan.segment_len()));
    Fate::Sent {
        to: route.outer.dst,
        segments: small(segments),
        segment_len: small(segment_len),
    }
}

/// What a capture says of a packet that goes to the TUN interface.
pub(super) fn delivered(delivery: &Delivery) -> Fate {
    Fate::Delivered {
        segments: small(delivery.segments),
        gso_size: delivery.vnet.gso_size,
    }
}

/// Lengths and numbers within one packet.
pub(super) fn small(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
