//! Carries verdicts out: moves the window of a packet, writes the headers, hands it to the lane, and counts.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use crossbeam_channel::Receiver;

use crate::buf::Packet;
use crate::fib::Rulebook;
use crate::io::lane::{Form, Inbox, Lane, Outgoing, Written};
use crate::io::wake::Bell;
use crate::isatap::mtu::{MtuVerdict, PathMtuMode, TUNNEL_MTU_MIN};
use crate::offload::csum;
use crate::path::limit::{REPLIES_PER_SECOND, REPLY_BURST, TokenBucket};
use crate::path::solicit_limit::SolicitationLimit;
use crate::path::{self, DecapVerdict, Delivery, EncapVerdict, Handed, PuntKind, Route};
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent, WorkerStats};
use crate::wire::icmpv6::ErrorMessage;
use crate::wire::ipv4::{Ipv4View, MAX_HEADER_LEN, MIN_HEADER_LEN};
use crate::wire::ipv6::{self, Ipv6View};
use crate::wire::vnet::{self, VnetHeader};

use super::gather::Gatherer;
use super::punt::{OuterEnds, Punt, PuntSender};

/// Packets with ECN fields that make no sense that one worker shows to control, to be logged.
const ECN_ALARMS_PER_SECOND: u32 = 1;

/// A worker's work on packets, without thread, clock or kernel: its loop calls it, and so do benches and simulations.
pub struct Carriage {
    punts: PuntSender,
    replies: TokenBucket,
    solicitations: Box<SolicitationLimit>,
    alarms: TokenBucket,
    gatherer: Gatherer,
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
        Ok((Self::with(punts), receiver))
    }

    pub(super) fn with(punts: PuntSender) -> Self {
        Self {
            punts,
            replies: TokenBucket::new(REPLY_BURST, REPLIES_PER_SECOND),
            // The standard library keys each RandomState from the kernel's random numbers.
            solicitations: Box::new(SolicitationLimit::new(
                RandomState::new().hash_one("solicitations"),
            )),
            alarms: TokenBucket::new(1, ECN_ALARMS_PER_SECOND),
            gatherer: Gatherer::new(),
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
        let mut carrier = self.carrier(lane, rules, now, stats);
        for packet in inbox.tun.drain(..) {
            carrier.encap(packet);
        }
        for packet in inbox.raw.drain(..) {
            carrier.decap(packet);
        }
        // The batch is over: what waited to be merged is written.
        carrier.gatherer.flush(carrier.lane, stats);
    }

    /// Tells the senders of packets that the link refused for their size, DF being set. `now` as in [`Carriage::carry`].
    pub fn answer_bounced<L: Lane>(&mut self, lane: &mut L, rules: &Rulebook, now: u64, stats: &WorkerStats) {
        while let Some(outgoing) = lane.bounced() {
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
            let mut carrier = self.carrier(lane, rules, now, stats);
            carrier.reply(ErrorMessage::PacketTooBig { mtu: report }, inner);
        }
    }

    fn carrier<'a, L>(
        &'a mut self,
        lane: &'a mut L,
        rules: &'a Rulebook,
        now: u64,
        stats: &'a WorkerStats,
    ) -> Carrier<'a, L> {
        Carrier {
            lane,
            rules,
            stats,
            punts: &self.punts,
            replies: &mut self.replies,
            solicitations: &mut self.solicitations,
            alarms: &mut self.alarms,
            gatherer: &mut self.gatherer,
            now,
        }
    }
}

/// One batch being carried.
struct Carrier<'a, L> {
    lane: &'a mut L,
    rules: &'a Rulebook,
    stats: &'a WorkerStats,
    punts: &'a PuntSender,
    replies: &'a mut TokenBucket,
    solicitations: &'a mut SolicitationLimit,
    alarms: &'a mut TokenBucket,
    gatherer: &'a mut Gatherer,
    now: u64,
}

impl<L: Lane> Carrier<'_, L> {
    /// One frame from the TUN queue.
    fn encap(&mut self, packet: Packet) {
        let encap = self.stats.direction(Direction::Encap);
        encap.received.bump();
        match path::encap::decide(self.rules, packet.bytes()) {
            EncapVerdict::Send(route) => self.send(packet, &route),
            EncapVerdict::Drop(reason) => encap.drops(reason).bump(),
            EncapVerdict::Reply(reason, message) => {
                encap.drops(reason).bump();
                self.reply(message, packet.bytes().get(vnet::LEN..).unwrap_or_default());
            }
            EncapVerdict::Punt(kind) => self.punt_sent(kind, packet),
        }
    }

    /// One packet from the raw socket.
    fn decap(&mut self, packet: Packet) {
        let decap = self.stats.direction(Direction::Decap);
        decap.received.bump();
        match path::decap::decide(self.rules, packet.bytes()) {
            DecapVerdict::Deliver(delivery) => self.deliver(packet, &delivery),
            DecapVerdict::Punt(handed) => self.hand_over(packet.bytes(), &handed),
            DecapVerdict::Drop(reason) => {
                decap.drops(reason).bump();
                if reason == DropReason::Ecn {
                    self.ecn_alarm(packet.bytes());
                }
            }
        }
    }

    /// Shows control the headers of an outer packet whose ECN fields make no sense, one now and then (RFC 6040 4.2).
    #[cold]
    fn ecn_alarm(&mut self, packet: &[u8]) {
        self.stats.event(LoopEvent::EcnDangerous).bump();
        if self.alarms.take(self.now) {
            let headers = &packet[..packet.len().min(MAX_HEADER_LEN + ipv6::HEADER_LEN)];
            self.punts.send(PuntKind::EcnAlarm, headers, ends(packet));
        }
    }

    /// Gives control what the kernel is not to see.
    fn hand_over(&mut self, packet: &[u8], handed: &Handed) {
        let decap = self.stats.direction(Direction::Decap);
        let inner = packet.get(handed.outer_len..handed.outer_len + handed.inner_len);
        let taken = self.may_tell(handed.kind, packet)
            && self
                .punts
                .send(handed.kind, inner.unwrap_or_default(), ends(packet));
        if taken {
            decap.punted.bump();
        } else {
            decap.drops(DropReason::RateLimited).bump();
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
    fn punt_sent(&mut self, kind: PuntKind, mut packet: Packet) {
        let header = packet.bytes().first_chunk().map(VnetHeader::parse);
        packet.strip(vnet::LEN);
        let inner_len = Ipv6View::new(packet.bytes()).map_or(0, |view| view.total_len());
        packet.truncate(inner_len);
        if let Some(Ok(vnet)) = header
            && vnet.needs_csum
            && csum::complete(&vnet, packet.bytes_mut()).is_err()
        {
            let encap = self.stats.direction(Direction::Encap);
            return encap.drops(DropReason::BadOffload).bump();
        }
        let encap = self.stats.direction(Direction::Encap);
        if self.punts.send(kind, packet.bytes(), None) {
            encap.punted.bump();
        } else {
            encap.drops(DropReason::RateLimited).bump();
        }
    }

    fn send(&mut self, mut packet: Packet, route: &Route) {
        packet.strip(vnet::LEN);
        packet.truncate(route.inner_len);
        if let Some(vnet) = &route.complete_checksum
            && csum::complete(vnet, packet.bytes_mut()).is_err()
        {
            self.stats
                .direction(Direction::Encap)
                .drops(DropReason::BadOffload)
                .bump();
            return;
        }
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
            let decap = self.stats.direction(Direction::Decap);
            return decap.drops(DropReason::RateLimited).bump();
        }
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

    /// Gives control a copy of what the kernel gets; false when the kernel is not to get it either.
    fn tell(&mut self, kind: PuntKind, packet: &[u8], delivery: &Delivery) -> bool {
        let within_limits = self.may_tell(kind, packet);
        let inner = packet.get(delivery.outer_len..delivery.outer_len + delivery.inner_len);
        if within_limits && !self.punts.send(kind, inner.unwrap_or_default(), ends(packet)) {
            self.stats.event(LoopEvent::PuntOverflow).bump();
        }
        within_limits
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

/// The addresses of an outer packet.
fn ends(packet: &[u8]) -> Option<OuterEnds> {
    let outer = Ipv4View::new(packet).ok()?;
    Some(OuterEnds {
        src: outer.src(),
        dst: outer.dst(),
    })
}
