//! Shows captures what the kernel refused after the worker had decided otherwise.

use super::carry::Carriage;
use super::preview::small;
use crate::capture::Fate;
use crate::io::lane::{Form, Lane, Refused};
use crate::reason::DropReason;
use crate::stats::Direction;
use crate::wire::ipv4::MIN_HEADER_LEN;
use crate::wire::vnet;

impl Carriage {
    /// Takes what the lane has kept and shows it. `now` as in [`Carriage::carry`].
    pub(super) fn show_refused<L: Lane>(&mut self, lane: &mut L, now: u64) {
        while let Some(refused) = lane.take_refused() {
            self.show_one(&refused, now);
        }
    }

    fn show_one(&mut self, refused: &Refused, now: u64) {
        match refused {
            Refused::Send(outgoing) => {
                let inner = match outgoing.form {
                    Form::Whole => outgoing.packet.bytes().get(MIN_HEADER_LEN..),
                    Form::Segments(_) => Some(outgoing.packet.bytes()),
                };
                let inner = inner.unwrap_or_default();
                let fate = Fate::Refused {
                    reason: DropReason::SendError,
                    packets: 1,
                    to: Some(outgoing.outer.dst),
                };
                self.taps.offer(Direction::Encap, &fate, inner, inner.len(), now);
            }
            Refused::Write {
                reason,
                head,
                len,
                packets,
            } => {
                // The vnet header was written over the outer one: the inner packet is what is left.
                let inner = head.bytes().get(vnet::LEN..).unwrap_or_default();
                let fate = Fate::Refused {
                    reason: *reason,
                    packets: small(*packets),
                    to: None,
                };
                let len = len.saturating_sub(vnet::LEN);
                self.taps.offer(Direction::Decap, &fate, inner, len, now);
            }
        }
    }
}
