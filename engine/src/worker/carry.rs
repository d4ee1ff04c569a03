//! Carries verdicts out: moves the window of a packet, writes the headers, hands it to the lane, and counts.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use crossbeam_channel::Receiver;

use crate::buf::Packet;
use crate::capture::{Fate, Taps};
use crate::fib::Rulebook;
use crate::io::lane::{Bounced, Form, Inbox, Lane, Outgoing, Written};
use crate::io::wake::Bell;
use crate::isatap::mtu::{MtuVerdict, PathMtuMode, TUNNEL_MTU_MIN};
use crate::offload::csum;
use crate::path::limit::{REPLIES_PER_SECOND, REPLY_BURST, TokenBucket};
use crate::path::solicit_limit::SolicitationLimit;
use crate::path::{self, DecapVerdict, Delivery, EncapVerdict, Route};
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent, WorkerStats};
use crate::wire::icmpv6::ErrorMessage;
use crate::wire::ipv4::MIN_HEADER_LEN;
use crate::wire::ipv6;
use crate::wire::vnet::{self, VnetHeader};

use super::gather::Gatherer;
use super::punt::{Punt, PuntSender};

/// Packets with ECN fields that make no sense that one worker shows to control, to be logged.
const ECN_ALARMS_PER_SECOND: u32 = 1;

/// A worker's work on packets, without thread, clock or kernel: its loop calls it, and so do benches and simulations.
pub struct Carriage {
    punts: PuntSender,
    replies: TokenBucket,
    solicitations: Box<SolicitationLimit>,
    alarms: TokenBucket,
    gatherer: Gatherer,
    pub(super) taps: Taps,
}

impl std::fmt::Debug for Carriage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carriage")
            .field("replies", &self.replies)
            .finish_non_exhaustive()
    }
}

impl Carriage {
    /// A carriage of its own, with the far end of its punts.
    ///
    /// # Errors
    /// When no descriptor is left for the bell.
    pub fn new() -> std::io::Result<(Self, Receiver<Punt>)> {
        let (punts, receiver) = PuntSender::new(Bell::new()?);
        Ok((Self::with(punts, Taps::default()), receiver))
    }

    /// The same with taps of a switchboard, which have been refreshed already.
    #[must_use]
    pub fn tapped(mut self, taps: Taps) -> Self {
        self.taps = taps;
        self
    }

    pub(super) fn with(punts: PuntSender, taps: Taps) -> Self {
        Self {
            punts,
            replies: TokenBucket::new(REPLY_BURST, REPLIES_PER_SECOND),
            // The standard library keys each RandomState from the kernel's random numbers.
            solicitations: Box::new(SolicitationLimit::new(
                RandomState::new().hash_one("solicitations"),
            )),
            alarms: TokenBucket::new(1, ECN_ALARMS_PER_SECOND),
            gatherer: Gatherer::new(),
            taps,
        }
    }

    /// Carries the whole inbox by one Rulebook: afterwards every packet is queued with the lane, or counted. `now` is in
    /// nanoseconds of a clock that never steps back.
    pub fn carry<L: Lane>(
        &mut self,
        lane: &mut L,
        inbox: &mut Inbox,
        rules: &Rulebook,
        now: u64,
        stats: &WorkerStats,
    ) {
        if rules.is_large() {
            black_box(path::read_ahead::encap(
                rules,
                inbox.tun.iter().map(Packet::bytes),
            ));
            black_box(path::read_ahead::decap(
                rules,
                inbox.raw.iter().map(Packet::bytes),
            ));
        }
        // Decided once per batch: without a capture the code for packets knows of none.
        if self.taps.is_empty() {
            self.carrier::<L, false>(lane, rules, now, stats).carry(inbox);
        } else {
            self.carrier::<L, true>(lane, rules, now, stats).carry(inbox);
        }
    }

    /// Tells the senders of packets that the link refused for their size, DF being set. `now` as in [`Carriage::carry`].
    pub fn answer_bounced<L: Lane>(&mut self, lane: &mut L, rules: &Rulebook, now: u64, stats: &WorkerStats) {
        while let Some(Bounced { outgoing, lost }) = lane.bounced() {
            let (inner, len) = match &outgoing.form {
                Form::Whole => {
                    let inner = outgoing.packet.bytes().get(MIN_HEADER_LEN..).unwrap_or_default();
                    (inner, inner.len())
                }
                Form::Segments(plan) => (outgoing.packet.bytes(), plan.segment_len()),
            };
            let path = rules.path(outgoing.outer.dst).path();
            let mtu = rules.tunnel().mtu.with_mode(PathMtuMode::Dynamic);
            let report = match mtu.decide_on_path(len, Some(path)) {
                MtuVerdict::TooBig { report } => report,
                // Control does not know the link's MTU yet: what every path takes.
                MtuVerdict::Fits { .. } => u32::from(TUNNEL_MTU_MIN),
            };
            let message = ErrorMessage::PacketTooBig { mtu: report };
            if lost {
                let fate = Fate::Dropped {
                    reason: DropReason::TooBig,
                    told: Some(message),
                };
                self.taps.offer(Direction::Encap, &fate, inner, inner.len(), now);
            }
            let mut carrier = self.carrier::<L, false>(lane, rules, now, stats);
            carrier.reply(message, inner);
        }
    }

    fn carrier<'a, L, const TAPPED: bool>(
        &'a mut self,
        lane: &'a mut L,
        rules: &'a Rulebook,
        now: u64,
        stats: &'a WorkerStats,
    ) -> Carrier<'a, L, TAPPED> {
        Carrier {
            lane,
            rules,
            stats,
            punts: &self.punts,
            replies: &mut self.replies,
            solicitations: &mut self.solicitations,
            alarms: &mut self.alarms,
            gatherer: &mut self.gatherer,
            taps: &mut self.taps,
            now,
        }
    }
}

/// One batch being carried; somebody captures if it is `TAPPED`.
pub(super) struct Carrier<'a, L, const TAPPED: bool> {
    lane: &'a mut L,
    pub(super) rules: &'a Rulebook,
    pub(super) stats: &'a WorkerStats,
    pub(super) punts: &'a PuntSender,
    replies: &'a mut TokenBucket,
    pub(super) solicitations: &'a mut SolicitationLimit,
    pub(super) alarms: &'a mut TokenBucket,
    gatherer: &'a mut Gatherer,
    taps: &'a mut Taps,
    pub(super) now: u64,
}

impl<L: Lane, const TAPPED: bool> Carrier<'_, L, TAPPED> {
    /// The whole inbox.
    fn carry(mut self, inbox: &mut Inbox) {
        for packet in inbox.tun.drain(..) {
            self.encap(packet);
        }
        for packet in inbox.raw.drain(..) {
            self.decap(packet);
        }
        // The batch is over: what waited to be merged is written.
        self.gatherer.flush(self.lane, self.stats);
    }

    /// One frame from the TUN queue.
    fn encap(&mut self, packet: Packet) {
        self.stats.direction(Direction::Encap).received.bump();
        match path::encap::decide(self.rules, packet.bytes()) {
            EncapVerdict::Send(route) => self.send(packet, &route),
            EncapVerdict::Drop(reason) => self.dropped(Direction::Encap, reason, None, inner_of(&packet)),
            EncapVerdict::Reply(reason, message) => {
                self.dropped(Direction::Encap, reason, Some(message), inner_of(&packet));
                self.reply(message, inner_of(&packet));
            }
            EncapVerdict::Punt(kind) => self.punt_sent(kind, packet),
        }
    }

    /// Counts a dropped packet, and shows it to those who capture.
    #[inline]
    pub(super) fn dropped(
        &mut self,
        direction: Direction,
        reason: DropReason,
        told: Option<ErrorMessage>,
        packet: &[u8],
    ) {
        self.stats.direction(direction).drops(reason).bump();
        self.show(direction, || Fate::Dropped { reason, told }, packet);
    }

    /// Shows a packet to those who capture; nothing at all when nobody does.
    #[inline]
    pub(super) fn show(&mut self, direction: Direction, fate: impl FnOnce() -> Fate, packet: &[u8]) {
        if TAPPED {
            self.taps
                .offer(direction, &fate(), packet, packet.len(), self.now);
        }
    }

    /// One packet from the raw socket.
    fn decap(&mut self, packet: Packet) {
        self.stats.direction(Direction::Decap).received.bump();
        match path::decap::decide(self.rules, packet.bytes()) {
            DecapVerdict::Deliver(delivery) => self.deliver(packet, &delivery),
            DecapVerdict::Punt(handed) => self.hand_over(packet.bytes(), &handed),
            DecapVerdict::Drop(reason) => {
                self.dropped(Direction::Decap, reason, None, packet.bytes());
                if reason == DropReason::Ecn {
                    self.ecn_alarm(packet.bytes());
                }
            }
        }
    }

    fn send(&mut self, mut packet: Packet, route: &Route) {
        packet.strip(vnet::LEN);
        packet.truncate(route.inner_len);
        if let Some(vnet) = &route.complete_checksum
            && csum::complete(vnet, packet.bytes_mut()).is_err()
        {
            return self.dropped(Direction::Encap, DropReason::BadOffload, None, packet.bytes());
        }
        self.show(Direction::Encap, || sent(route), packet.bytes());
        let form = match route.split {
            Some(plan) => Form::Segments(plan),
            None => {
                if let Ok(header) = packet.prepend(MIN_HEADER_LEN).try_into() {
                    route.outer.emit(header);
                }
                Form::Whole
            }
        };
        self.lane.send(
            Outgoing {
                packet,
                outer: route.outer,
                link_mtu: route.link_mtu,
                inner_len: route.inner_len,
                form,
            },
            self.stats,
        );
    }

    fn deliver(&mut self, mut packet: Packet, delivery: &Delivery) {
        if let Some(kind) = delivery.copy
            && !self.tell(kind, packet.bytes(), delivery)
        {
            return self.dropped(Direction::Decap, DropReason::RateLimited, None, packet.bytes());
        }
        self.show(Direction::Decap, || delivered(delivery), packet.bytes());
        if delivery.ecn_dangerous {
            self.ecn_alarm(packet.bytes());
        }
        packet.strip(delivery.outer_len);
        packet.truncate(delivery.inner_len);
        if let Some(mark) = delivery.set_ecn {
            ipv6::set_ecn(packet.bytes_mut(), mark);
        }
        if delivery.vnet == VnetHeader::NONE {
            self.gatherer.offer(packet, self.lane, self.stats);
        } else {
            self.gatherer
                .bypass(packet, &delivery.vnet, delivery.segments, self.lane, self.stats);
        }
    }

    /// Tells the sender of `offending` why it was dropped, within the limits of RFC 4443 2.4 (f).
    fn reply(&mut self, message: ErrorMessage, offending: &[u8]) {
        let Some(slot) = self.lane.reply_pool().take() else {
            return self.stats.event(LoopEvent::ReplyFailed).bump();
        };
        let mut reply = Packet::received(slot, vnet::LEN + path::reply::MAX_REPLY_LEN);
        let Some((header, body)) = reply.bytes_mut().split_first_chunk_mut::<{ vnet::LEN }>() else {
            return;
        };
        VnetHeader::NONE.emit(header);
        let Ok(body) = body.try_into() else { return };
        let built = path::reply::build(self.rules, message, offending, body);
        let Some(len) = built else { return };
        if !self.replies.take(self.now) {
            return self.stats.event(LoopEvent::ReplyLimited).bump();
        }
        reply.truncate(vnet::LEN + len);
        self.lane
            .write(reply, &mut Vec::new(), Written::Reply, self.stats);
    }
}

/// The inner packet of a frame from the TUN queue.
fn inner_of(frame: &Packet) -> &[u8] {
    frame.bytes().get(vnet::LEN..).unwrap_or_default()
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
fn delivered(delivery: &Delivery) -> Fate {
    Fate::Delivered {
        segments: small(delivery.segments),
        gso_size: delivery.vnet.gso_size,
    }
}

/// Lengths and numbers within one packet.
pub(super) fn small(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
