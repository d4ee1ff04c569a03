//! Carries verdicts out: moves the window of a packet, writes the headers, hands it to the lane, and counts.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use crossbeam_channel::Receiver;

use crate::buf::Packet;
use crate::capture::{Fate, Taps};
use crate::fib::Rulebook;
use crate::io::gso_sizes::GsoSizes;
use crate::io::lane::{Bounced, Form, Inbox, Lane, Outgoing, Written};
use crate::io::wake::Bell;
use crate::isatap::mtu::{MtuVerdict, PathMtuMode, TUNNEL_MTU_MIN};
use crate::offload::csum;
use crate::path::limit::{ReplyLimit, TokenBucket};
use crate::path::solicit_limit::SolicitationLimit;
use crate::path::{self, DecapVerdict, Delivery, EncapVerdict, Route};
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent, WorkerStats};
use crate::wire::icmpv6::ErrorMessage;
use crate::wire::ipv4::MIN_HEADER_LEN;
use crate::wire::ipv6;
use crate::wire::vnet::{self, GsoType, VnetHeader};

use super::gather::Gatherer;
use super::preview;
use super::punt::{Punt, PuntSender};

/// Packets with ECN fields that make no sense that one worker shows to control, to be logged.
const ECN_ALARMS_PER_SECOND: u32 = 1;

/// A worker's work on packets, without thread, clock or kernel: its loop calls it, and so do benches and simulations.
pub struct Carriage {
    punts: PuntSender,
    replies: ReplyLimit,
    solicitations: Box<SolicitationLimit>,
    alarms: TokenBucket,
    gatherer: Gatherer,
    pub(super) taps: Taps,
    pub(super) gso_sizes: GsoSizes,
    pub(super) udp_offload: bool,
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
        Ok((
            Self::with(punts, Taps::default(), GsoSizes::default(), true),
            receiver,
        ))
    }

    /// The same with taps of a switchboard, which have been refreshed already.
    #[must_use]
    pub fn tapped(mut self, taps: Taps) -> Self {
        self.taps = taps;
        self
    }

    pub(super) fn with(punts: PuntSender, taps: Taps, gso_sizes: GsoSizes, udp_offload: bool) -> Self {
        Self {
            punts,
            replies: ReplyLimit::default(),
            // The standard library keys each RandomState from the kernel's random numbers.
            solicitations: Box::new(SolicitationLimit::new(
                RandomState::new().hash_one("solicitations"),
            )),
            alarms: TokenBucket::new(1, ECN_ALARMS_PER_SECOND),
            gatherer: Gatherer::new(udp_offload),
            taps,
            gso_sizes,
            udp_offload,
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
        // Looked at once per batch: the code for packets knows nothing of captures.
        if !self.taps.is_empty() {
            self.preview(inbox, rules, now);
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
            let mut carrier = self.carrier(lane, rules, now, stats);
            carrier.reply(message, inner);
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
            taps: &mut self.taps,
            gso_sizes: &self.gso_sizes,
            udp_offload: self.udp_offload,
            now,
        }
    }
}

/// One batch being carried.
pub(super) struct Carrier<'a, L> {
    lane: &'a mut L,
    pub(super) rules: &'a Rulebook,
    pub(super) stats: &'a WorkerStats,
    pub(super) punts: &'a PuntSender,
    replies: &'a mut ReplyLimit,
    pub(super) solicitations: &'a mut SolicitationLimit,
    pub(super) alarms: &'a mut TokenBucket,
    gatherer: &'a mut Gatherer,
    taps: &'a mut Taps,
    gso_sizes: &'a GsoSizes,
    udp_offload: bool,
    pub(super) now: u64,
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
        let gso_size = || self.gso_sizes.of(packet.bytes());
        match path::decap::decide_merged(self.rules, packet.bytes(), self.udp_offload, gso_size) {
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

    /// Counts a packet that is dropped after its verdict was another one, and shows it to those who capture.
    #[cold]
    pub(super) fn dropped(&mut self, direction: Direction, reason: DropReason, packet: &[u8]) {
        self.stats.direction(direction).drops(reason).bump();
        self.show(direction, &Fate::Dropped { reason, told: None }, packet);
    }

    /// Shows those who capture what became of a packet that the preview left out.
    pub(super) fn show(&mut self, direction: Direction, fate: &Fate, packet: &[u8]) {
        self.taps.offer(direction, fate, packet, packet.len(), self.now);
    }

    fn send(&mut self, mut packet: Packet, route: &Route) {
        packet.strip(vnet::LEN);
        packet.truncate(route.inner_len);
        if let Some(vnet) = &route.complete_checksum
            && csum::complete(vnet, packet.bytes_mut()).is_err()
        {
            return self.dropped(Direction::Encap, DropReason::BadOffload, packet.bytes());
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
        if let Some(kind) = delivery.copy {
            if !self.tell(kind, packet.bytes(), delivery) {
                return self.dropped(Direction::Decap, DropReason::RateLimited, packet.bytes());
            }
            self.show(Direction::Decap, &preview::delivered(delivery), packet.bytes());
        }
        if delivery.ecn_dangerous {
            self.ecn_alarm(packet.bytes());
        }
        packet.strip(delivery.outer_len);
        packet.truncate(delivery.inner_len);
        if let Some(mark) = delivery.set_ecn {
            ipv6::set_ecn(packet.bytes_mut(), mark);
        }
        if delivery.vnet.gso != GsoType::None {
            csum::begin(&delivery.vnet, packet.bytes_mut());
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
        if !self.replies.take(message, self.now) {
            return self.stats.event(LoopEvent::ReplyLimited).bump();
        }
        reply.truncate(vnet::LEN + len);
        self.lane
            .write(reply, &mut Vec::new(), Written::Reply, self.stats);
    }
}
