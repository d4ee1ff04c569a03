//! One outgoing packet in the send queue: what of it waits, what is with the kernel, what became of the rest.

use super::super::ident;
use super::super::lane::{Form, Outgoing};
use crate::offload::fragment::{self, Piece};
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent, WorkerStats};
use crate::wire::ipv4::MIN_HEADER_LEN;

/// A packet on its way.
pub(super) struct Load {
    pub(super) outgoing: Outgoing,
    /// Datagrams it consists of.
    count: usize,
    /// The first byte that has no frame yet: a datagram, and how much of its payload was given out.
    next: (usize, usize),
    /// Identification of the datagram that is being given out; 0 has the kernel choose.
    id: u16,
    /// Frames not done.
    pub(super) pending: usize,
    /// The last datagram of which something was refused.
    spoiled: Option<usize>,
    /// The link refused a datagram that must not be fragmented.
    too_big: bool,
    sent: usize,
    sent_bytes: usize,
}

/// What one frame brings of a load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Which datagram.
    pub(super) datagram: usize,
    /// First byte of its payload.
    pub(super) start: usize,
    /// The byte after the last.
    pub(super) end: usize,
    /// Bytes of the datagram's payload.
    pub(super) len: usize,
    /// The datagram's identification.
    pub(super) id: u16,
}

impl Share {
    /// Whether the datagram is complete with it.
    pub(super) fn is_last(&self) -> bool {
        self.end == self.len
    }

    /// Whether it is the whole datagram.
    pub(super) fn is_whole(&self) -> bool {
        self.start == 0 && self.is_last()
    }
}

impl Load {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        let count = match &outgoing.form {
            Form::Whole => 1,
            Form::Segments(plan) => plan.count,
        };
        Self {
            outgoing,
            count,
            next: (0, 0),
            id: 0,
            pending: 0,
            spoiled: None,
            too_big: false,
            sent: 0,
            sent_bytes: 0,
        }
    }

    /// Whether every byte has a frame, or had one.
    pub(super) fn is_given_out(&self) -> bool {
        self.next.0 == self.count
    }

    pub(super) fn is_done(&self) -> bool {
        self.pending == 0 && self.is_given_out()
    }

    /// Bytes behind the outer header of a datagram.
    fn payload_len(&self, datagram: usize) -> usize {
        match &self.outgoing.form {
            Form::Whole => self.outgoing.packet.bytes().len() - MIN_HEADER_LEN,
            Form::Segments(plan) => plan.header_len + plan.payload(datagram).len(),
        }
    }

    /// The next share: a datagram, or as much of it as the link takes at once.
    pub(super) fn give_out(&mut self) -> Share {
        let (datagram, start) = self.next;
        let len = self.payload_len(datagram);
        let outer = &self.outgoing.outer;
        if start == 0 {
            // A peer that needs fragments gets all numbers from one place (RFC 6864 4.3).
            let numbered = !outer.dont_fragment && self.outgoing.link_mtu < u16::MAX;
            self.id = if numbered {
                ident::next(outer.src, outer.dst)
            } else {
                outer.id
            };
        }
        let Piece { start, end } = if outer.dont_fragment {
            Piece { start, end: len }
        } else {
            fragment::piece(start, len, self.outgoing.link_mtu)
        };
        self.next = if end == len {
            (datagram + 1, 0)
        } else {
            (datagram, end)
        };
        self.pending += 1;
        Share {
            datagram,
            start,
            end,
            len,
            id: self.id,
        }
    }

    /// The kernel took all of a share. Shares of one datagram are settled in order.
    pub(super) fn sent(&mut self, share: &Share, stats: &WorkerStats) {
        self.pending -= 1;
        if share.is_last() && self.spoiled != Some(share.datagram) {
            self.sent += 1;
            self.sent_bytes += share.len;
            if !share.is_whole() {
                stats.event(LoopEvent::Fragmented).bump();
            }
        }
    }

    /// The kernel refused a share for good.
    pub(super) fn refused(&mut self, share: &Share, too_big: bool) {
        self.pending -= 1;
        self.spoiled = Some(share.datagram);
        self.too_big |= too_big;
    }

    /// Whether its sender is to be told that it was too big.
    pub(super) fn is_too_big(&self) -> bool {
        self.too_big
    }

    /// Whether nothing of it was sent, once it is done: it is counted as dropped.
    pub(super) fn is_lost(&self) -> bool {
        self.sent == 0
    }

    /// Counts what became of the packet, once.
    pub(super) fn account(&self, stats: &WorkerStats) {
        let encap = stats.direction(Direction::Encap);
        if self.is_lost() {
            let reason = if self.too_big {
                DropReason::TooBig
            } else {
                DropReason::SendError
            };
            return encap.drops(reason).bump();
        }
        encap.delivered.bump();
        if self.count == 1 {
            return encap.bytes.add(self.outgoing.inner_len as u64);
        }
        encap.bytes.add(self.sent_bytes as u64);
        encap.superpackets.bump();
        encap.segments.add(self.sent as u64);
        stats
            .event(LoopEvent::SegmentLost)
            .add((self.count - self.sent) as u64);
    }

    /// Counts it at the end, done or not.
    pub(super) fn abandon(&self, stats: &WorkerStats) {
        if self.sent > 0 {
            self.account(stats);
        } else {
            stats
                .direction(Direction::Encap)
                .drops(DropReason::Shutdown)
                .bump();
        }
    }
}
