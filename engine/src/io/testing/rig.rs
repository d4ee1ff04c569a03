//! A worker in a test: it carries what the lane brings as a worker does, keeps some of it for a while, and checks the accounts
//! after every turn.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use super::dice::Odds;
use super::fake::{Fake, Subject};
use super::faults::{Faults, Trap};
use super::world::{self, GSO_SIZE};
use crate::buf::Packet;
use crate::io::lane::{Form, Inbox, LaneFault, Outgoing, RAW_SLOTS, REPLY_SLOTS, TUN_SLOTS, Turn, Written};
use crate::offload::split::SplitPlan;
use crate::reason::DropReason;
use crate::stats::{Direction, LoopEvent, WorkerStats};
use crate::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use crate::wire::vnet::{GsoType, VnetHeader};

/// Turns a lane may take to become idle once nothing goes wrong any more.
const TURNS_TO_REST: usize = 4000;

/// A lane over a kernel that fails, and its worker.
pub(crate) struct Rig<L: Subject> {
    lane: L,
    pub(crate) kernel: Rc<RefCell<L::Kernel>>,
    pub(crate) stats: WorkerStats,
    inbox: Inbox,
    /// Packets the worker keeps, oldest first: TUN, raw.
    kept: [VecDeque<Packet>; 2],
    /// Serials of the last packets brought.
    last: [Option<u32>; 2],
    /// Packets the lane brought.
    received: [u64; 2],
    /// Packets given to the lane to be sent.
    sent: u64,
    /// Packets given to it to be written, those of one write counted one by one; and our own.
    written: u64,
    replies: u64,
    dropped: [u64; 2],
    tails: Vec<Packet>,
}

impl<L: Subject> std::fmt::Debug for Rig<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig")
            .field("lane", &self.lane)
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}

impl<L: Subject> Rig<L> {
    /// A worker for this lane over this kernel.
    pub(crate) fn over(lane: L, kernel: Rc<RefCell<L::Kernel>>) -> Self {
        Self {
            lane,
            kernel,
            stats: WorkerStats::default(),
            inbox: Inbox::new(),
            kept: [VecDeque::new(), VecDeque::new()],
            last: [None; 2],
            received: [0; 2],
            sent: 0,
            written: 0,
            replies: 0,
            dropped: [0; 2],
            tails: Vec::new(),
        }
    }

    fn roll(&self, odds: Odds) -> bool {
        self.kernel.borrow_mut().common_mut().dice.roll(odds)
    }

    fn below(&self, bound: usize) -> usize {
        self.kernel.borrow_mut().common_mut().dice.below(bound)
    }

    /// One turn of the worker's loop. A fault ends the lane: only [`Rig::abandon`] may follow.
    ///
    /// # Errors
    /// What the lane says.
    pub(crate) fn turn(&mut self) -> Result<(), LaneFault> {
        let flowing = self.kernel.borrow().common().flowing;
        self.kernel.borrow_mut().common_mut().begin_turn();
        // A worker sleeps until something happens. Nothing will when no packet comes.
        let patience = (!flowing).then_some(Duration::from_millis(1));
        let turn = self.lane.turn(&mut self.inbox, patience, &self.stats);
        self.look_at_refused();
        self.check();
        if turn? == Turn::Waited {
            assert!(self.kernel.borrow().common().calls > 0, "nobody was asked");
        }
        self.verify_inbox();
        self.carry();
        let handed_over = self.lane.hand_over(&self.stats);
        self.look_at_refused();
        self.check();
        handed_over
    }

    /// Whose the packets are that came: in order, none left out, each byte its own.
    fn verify_inbox(&mut self) {
        let sprung = self.kernel.borrow().common().sprung;
        for (at, packets) in [&self.inbox.tun, &self.inbox.raw].into_iter().enumerate() {
            for packet in packets {
                let serial = world::verify(packet.bytes());
                let expected = self.last[at].map_or(0, |last| last + 1);
                assert!(serial == expected || sprung, "{serial} instead of {expected}");
                self.last[at] = Some(serial);
                self.received[at] += 1;
            }
        }
    }

    fn carry(&mut self) {
        self.kept[0].extend(self.inbox.tun.drain(..));
        self.kept[1].extend(self.inbox.raw.drain(..));
        // A worker that keeps packets is one whose pools run dry.
        for at in 0..2 {
            let keep = if self.kernel.borrow().common().flowing && self.roll(6000) {
                self.below(usize::from(RAW_SLOTS))
            } else {
                0
            };
            while self.kept[at].len() > keep {
                if at == 0 { self.encap() } else { self.decap() }
            }
        }
        if self.kernel.borrow().common().flowing && self.roll(6000) {
            self.reply();
        }
    }

    fn encap(&mut self) {
        let Some(mut packet) = self.kept[0].pop_front() else {
            return;
        };
        world::verify(packet.bytes());
        if self.roll(3000) {
            self.dropped[0] += 1;
            return;
        }
        let dont_fragment = self.roll(Odds::MAX / 4);
        let link_mtu = [u16::MAX, u16::MAX, 1280, 600, 68][self.below(5)];
        let inner_len = packet.len();
        let mut outer = OuterHeader {
            src: Ipv4Addr::new(10, 0, 0, 1),
            dst: Ipv4Addr::new(10, 0, 0, 2),
            tos: 0,
            ttl: 64,
            dont_fragment,
            id: if dont_fragment { 0x1234 } else { 0 },
            payload_len: 0,
        };
        let form = if world::is_super(packet.bytes()) {
            let vnet = VnetHeader {
                needs_csum: true,
                gso: GsoType::UdpL4,
                gso_size: GSO_SIZE,
                csum_start: 40,
                csum_offset: 6,
                ..VnetHeader::NONE
            };
            Form::Segments(SplitPlan::new(&vnet, packet.bytes()).expect("a superpacket"))
        } else {
            outer.payload_len = u16::try_from(inner_len).expect("it fits IPv4");
            let header = packet.prepend(MIN_HEADER_LEN).try_into().expect("head room");
            outer.emit(header);
            Form::Whole
        };
        self.sent += 1;
        let outgoing = Outgoing {
            packet,
            outer,
            link_mtu,
            inner_len,
            form,
        };
        self.lane.send(outgoing, &self.stats);
    }

    fn decap(&mut self) {
        let Some(head) = self.kept[1].pop_front() else {
            return;
        };
        world::verify(head.bytes());
        if self.roll(3000) {
            self.dropped[1] += 1;
            return;
        }
        let merged = if self.roll(Odds::MAX / 4) {
            self.below(16)
        } else {
            0
        };
        let count = merged.min(self.kept[1].len());
        self.tails.extend(self.kept[1].drain(..count));
        self.written += 1 + count as u64;
        let written = Written::Decap {
            packets: 1 + count,
            bytes: head.len(),
            segments: 1 + count,
        };
        self.lane.write(head, &mut self.tails, written, &self.stats);
        assert!(self.tails.is_empty());
    }

    /// An ICMPv6 error of our own, or several.
    fn reply(&mut self) {
        for _ in 0..=self.below(usize::from(REPLY_SLOTS)) {
            let Some(slot) = self.lane.reply_pool().take() else {
                return;
            };
            let mut packet = Packet::received(slot, 8 * 12);
            world::fill(world::REPLY, packet.bytes_mut());
            self.replies += 1;
            self.lane
                .write(packet, &mut Vec::new(), Written::Reply, &self.stats);
        }
    }

    /// Bounced packets go back to their slots; refused ones are asked for now and then.
    fn look_at_refused(&mut self) {
        while self.lane.has_bounced() {
            assert!(self.lane.bounced().is_some());
        }
        if self.roll(600) {
            let keep = self.roll(Odds::MAX / 2);
            self.lane.keep_refused(keep);
        }
        while self.lane.take_refused().is_some() {}
    }

    /// Packets whose fate is counted.
    fn accounted(&self, direction: Direction) -> u64 {
        accounted(&self.stats, direction)
    }

    /// Every slot has one owner, and every packet one fate.
    fn check(&self) {
        let kernel = self.kernel.borrow();
        let [tun, raw] = self.lane.pools().map(|pool| pool.census());
        let reply = self.lane.reply_pool().census();
        assert_eq!(tun.free + tun.kernel + tun.held, usize::from(TUN_SLOTS));
        assert_eq!(raw.free + raw.kernel + raw.held, usize::from(RAW_SLOTS));
        assert_eq!(reply.free + reply.held, usize::from(REPLY_SLOTS));
        self.lane.check(&kernel);
        if kernel.common().sprung {
            return;
        }
        assert_eq!(self.stats.event(LoopEvent::StrayCompletion).get(), 0);
        // What is neither kept nor accounted for waits in the lane, with its slots.
        let waiting = |at: usize, held: usize, inbox: &[Packet]| {
            u64::try_from(held - self.kept[at].len() - inbox.len()).unwrap_or(u64::MAX)
        };
        assert_eq!(
            self.sent,
            self.accounted(Direction::Encap) + waiting(0, tun.held, &self.inbox.tun),
            "packets to be sent"
        );
        assert_eq!(
            self.written,
            self.accounted(Direction::Decap) + waiting(1, raw.held - self.lane.spare(), &self.inbox.raw),
            "packets to be written"
        );
        let replies = answered_replies(&self.stats) + reply.held as u64;
        assert_eq!(self.replies, replies, "replies");
    }

    /// Turns with faults.
    ///
    /// # Errors
    /// What the lane says.
    pub(crate) fn suffer(&mut self, faults: Faults, turns: usize) -> Result<(), LaneFault> {
        self.kernel.borrow_mut().common_mut().faults = faults;
        (0..turns).try_for_each(|_| self.turn())
    }

    /// Nothing goes wrong any more and no packet comes: soon nothing is under way, every slot is where it belongs, every
    /// packet has arrived or is counted as a drop, and the lane waits without spinning (FAULTS 37-40).
    pub(crate) fn rest(&mut self) {
        self.kernel.borrow_mut().common_mut().faults = Faults::default();
        self.kernel.borrow_mut().common_mut().flowing = false;
        let mut turns = 0;
        while !self.is_idle() {
            self.turn().expect("a lane that survived");
            turns += 1;
            assert!(turns < TURNS_TO_REST, "no rest: {self:?}");
        }
        // Slots that have come back are lent again.
        for _ in 0..3 {
            self.turn().expect("a lane that survived");
            let kernel = self.kernel.borrow();
            // A bell that has just been armed, or a receive, makes no further call.
            assert_eq!(kernel.common().calls, 1, "one call, and asleep");
            self.lane.check_rest(&kernel);
        }
        self.compare();
        self.kernel.borrow_mut().common_mut().flowing = true;
    }

    fn is_idle(&self) -> bool {
        self.lane.is_idle(&self.kernel.borrow()) && self.kept.iter().all(VecDeque::is_empty)
    }

    /// At rest: what the world has seen is what the counters say.
    fn compare(&self) {
        let mut kernel = self.kernel.borrow_mut();
        let kernel = kernel.common_mut();
        let stats = |direction| self.stats.direction(direction);
        let (encap, decap) = (stats(Direction::Encap), stats(Direction::Decap));
        assert_eq!(self.received, kernel.brought.map(u64::from), "packets brought");
        assert_eq!(self.received[0], self.sent + self.dropped[0]);
        assert_eq!(self.received[1], self.written + self.dropped[1]);
        assert_eq!(self.sent, self.accounted(Direction::Encap));
        assert_eq!(self.written, self.accounted(Direction::Decap));
        assert_eq!(decap.delivered.get(), kernel.world.written, "written packets");
        let replies = self.stats.event(LoopEvent::ReplySent).get();
        assert_eq!(replies, kernel.world.replies, "written replies");
        let datagrams = encap.delivered.get() - encap.superpackets.get() + encap.segments.get();
        if kernel.world.disorder {
            // Fragments may have come between those of another datagram.
            kernel.world.datagrams = datagrams;
            kernel.world.disorder = false;
        }
        assert_eq!(datagrams, kernel.world.datagrams, "datagrams that left whole");
    }

    /// The end as a worker makes it: nothing new is taken, and soon nothing is with the kernel, also when things go wrong
    /// meanwhile (FAULTS 42).
    pub(crate) fn quiesce(mut self) {
        self.lane.quiesce();
        for turn in 0..TURNS_TO_REST {
            if self.lane.is_quiet() {
                break;
            }
            if turn == TURNS_TO_REST / 2 {
                self.kernel.borrow_mut().common_mut().faults = Faults::default();
            }
            self.turn().expect("a lane that survived");
        }
        assert!(self.lane.is_quiet(), "{self:?}");
        self.lane.check_quiet(&self.kernel.borrow());
        let [tun, raw] = self.lane.pools().map(Rc::clone);
        self.kept.iter_mut().for_each(VecDeque::clear);
        self.lane.abandon(&self.stats);
        assert_eq!((Rc::strong_count(&tun), Rc::strong_count(&raw)), (1, 1), "freed");
        assert_eq!((tun.census().held, raw.census().held), (0, 0));
    }

    /// The end after a fault: what the kernel may still write to is never freed, and each packet is counted once all the same
    /// (FAULTS 39, 42).
    pub(crate) fn abandon(mut self) -> WorkerStats {
        let [tun, raw] = self.lane.pools().map(Rc::clone);
        self.inbox.tun.clear();
        self.inbox.raw.clear();
        self.kept.iter_mut().for_each(VecDeque::clear);
        self.lane.abandon(&self.stats);
        let left = [tun, raw].map(|pool| Rc::strong_count(&pool) > 1);
        assert_eq!(left, [L::LEAVES_MEMORY; 2], "memory that is left");
        let stats = &self.stats;
        assert_eq!(
            self.sent,
            accounted(stats, Direction::Encap),
            "packets to be sent"
        );
        assert_eq!(
            self.written,
            accounted(stats, Direction::Decap),
            "packets to be written"
        );
        assert_eq!(self.replies, answered_replies(stats), "replies");
        self.stats
    }

    /// Has the kernel do this until the lane gives up; says how.
    pub(crate) fn fall_into(&mut self, trap: Trap) -> LaneFault {
        self.kernel.borrow_mut().common_mut().faults = Faults::default();
        self.kernel.borrow_mut().common_mut().trap = Some(trap);
        for _ in 0..TURNS_TO_REST {
            if let Err(fault) = self.turn() {
                assert!(self.kernel.borrow().common().sprung, "{fault} before {trap:?}");
                return fault;
            }
            if trap == Trap::TakesNothing {
                self.reply();
            }
        }
        panic!("{trap:?} went unnoticed: {self:?}");
    }
}

/// Packets of one direction whose fate is counted.
fn accounted(stats: &WorkerStats, direction: Direction) -> u64 {
    let stats = stats.direction(direction);
    let drops = DropReason::ALL.iter().map(|reason| stats.drops(*reason).get());
    stats.delivered.get() + drops.sum::<u64>()
}

/// Our own ICMPv6 errors whose fate is counted.
fn answered_replies(stats: &WorkerStats) -> u64 {
    stats.event(LoopEvent::ReplySent).get() + stats.event(LoopEvent::ReplyFailed).get()
}
