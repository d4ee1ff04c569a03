//! The engine's lane: one io_uring per worker, multishot receives into buffer rings, one enter per burst.
//!
//! ```text
//!  TUN queue  --ReadMulti-->  slots  -- worker -->  SendMsg chain  -->  raw send socket
//!  raw socket --RecvMulti-->  slots  -- worker -->  Write          -->  TUN queue
//! ```
//!
//! Sends of one burst are linked: the kernel takes them in order, a full socket holds the chain up instead of dropping
//! or reordering it, and a refused packet cancels the rest, which is sent again in order. While the kernel holds TUN
//! slots nothing more is read from the TUN: its queue fills, and the sender's TCP notices. That is the back-pressure.
//!
//! An answer that no request of ours explains, or one that cannot be, ends the worker: whoever gives it may also write to
//! memory that is not his any more. The next worker begins with a ring and slots of its own.

mod answers;
mod calls;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzzing takes a part"))]
mod testing;
mod token;

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::bufring::BufRing;
use super::lane::{
    Bounced, Inbox, Lane, LaneFault, Outgoing, RAW_SLOTS, REPLY_SLOT_LEN, REPLY_SLOTS, Refused, SLOT_LEN,
    TUN_SLOTS, Turn, Written,
};
use super::outgoing::{CHAIN_LEN, SendQueue};
use super::raw::{RawReceiver, RawSender};
use super::restrict::RingScope;
use super::ring::{Completion, Files, KernelRing, Request, Ring};
use super::wake::Bell;
use super::writes::WriteTable;
use crate::buf::{Packet, Pool};
use crate::stats::WorkerStats;
use answers::Arming;
#[cfg(feature = "testing")]
pub(super) use testing::rig as rig_over_a_kernel_that_fails;
use token::Token;

const TUN_GROUP: u16 = 0;
const RAW_GROUP: u16 = 1;

/// A chain, every write a raw slot or reply can cause, and the receives.
const SQ_ENTRIES: u32 = 512;
/// Every slot filled at once, every frame and write done: no overflow in any order of events.
const CQ_ENTRIES: u32 = 1024;

/// How long one call waits for sends that the socket has no room for, before it looks at the other direction again; and how
/// long the worker waits when the kernel takes no requests.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(1);

/// The io_uring lane of one worker. Field order is drop order: the ring closes before the memory it knows is freed.
pub struct UringLane<R = KernelRing> {
    ring: R,
    tun_ring: BufRing,
    raw_ring: BufRing,
    reply_pool: Rc<Pool>,
    sends: SendQueue,
    writes: WriteTable,
    completions: Vec<Completion>,
    tun: Arming,
    raw: Arming,
    hearing: Arming,
    quiescing: bool,
    bell: Bell,
    /// What went wrong while requests were queued: the next call that may fail says it.
    fault: Option<LaneFault>,
}

impl<R> std::fmt::Debug for UringLane<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringLane")
            .field("sends", &self.sends)
            .field("tun", &self.tun)
            .field("raw", &self.raw)
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl UringLane {
    /// Sets the ring up on the calling thread, which alone may use it from now on.
    ///
    /// # Errors
    /// What the kernel says when it refuses a ring, a registration, or memory.
    pub fn new(
        tun: OwnedFd,
        receiver: RawReceiver,
        sender: RawSender,
        bell: Bell,
        scope: RingScope,
    ) -> io::Result<Self> {
        Self::with_queues(tun, receiver, sender, bell, scope, [SQ_ENTRIES, CQ_ENTRIES])
    }

    /// The same with queues of other lengths: short ones must cost speed and nothing else (FAULTS 37, 40).
    pub(super) fn with_queues(
        tun: OwnedFd,
        receiver: RawReceiver,
        sender: RawSender,
        bell: Bell,
        scope: RingScope,
        lengths: [u32; 2],
    ) -> io::Result<Self> {
        let files = Files {
            tun,
            receiver,
            sender,
            bell: bell.clone(),
        };
        let lane = Self::over(KernelRing::new(lengths, files, scope)?, bell)?;
        lane.ring.close(scope)?;
        Ok(lane)
    }
}

impl<R: Ring> UringLane<R> {
    /// A lane over this ring, which has not been used yet.
    fn over(ring: R, bell: Bell) -> io::Result<Self> {
        let tun_ring = BufRing::register(&ring, Pool::new(TUN_SLOTS, SLOT_LEN)?, TUN_GROUP)?;
        let raw_ring = BufRing::register(&ring, Pool::new(RAW_SLOTS, SLOT_LEN)?, RAW_GROUP)?;
        let (submissions, completions) = ring.lengths();
        Ok(Self {
            tun_ring,
            raw_ring,
            reply_pool: Pool::new(REPLY_SLOTS, REPLY_SLOT_LEN)?,
            sends: SendQueue::new(submissions),
            writes: WriteTable::new(),
            completions: Vec::with_capacity(completions),
            tun: Arming::default(),
            raw: Arming::default(),
            hearing: Arming::default(),
            quiescing: false,
            bell,
            fault: None,
            ring,
        })
    }

    fn arm(&mut self, stats: &WorkerStats) {
        if !self.hearing.armed {
            let token = Token::Bell(self.hearing.arm());
            self.push(&Request::HearBell, token, stats);
        }
        if self.quiescing {
            return self.cancel(stats);
        }
        self.tun_ring.replenish();
        self.raw_ring.replenish();
        if !self.tun.armed && self.tun_ring.pool().census_kernel() > 0 {
            let group = self.tun_ring.group();
            let token = Token::TunRead(self.tun.arm());
            self.push(&Request::ReadTun { group }, token, stats);
        }
        if !self.raw.armed && self.raw_ring.pool().census_kernel() > 0 {
            let group = self.raw_ring.group();
            let token = Token::RawReceive(self.raw.arm());
            self.push(&Request::ReceiveRaw { group }, token, stats);
        }
    }

    /// Takes the receives back. Asked again in every turn until they have ended, since one that is just being carried out
    /// cannot be cancelled at that moment.
    fn cancel(&mut self, stats: &WorkerStats) {
        for (armed, token) in [
            (self.tun.armed, Token::TunRead(self.tun.ticket())),
            (self.raw.armed, Token::RawReceive(self.raw.ticket())),
        ] {
            if armed {
                let user_data = token.pack();
                self.push(&Request::Cancel { user_data }, Token::Cancel, stats);
            }
        }
    }

    /// Hands the next chain over once the last one is done; all but its last frame are linked to their successor.
    fn launch(&mut self, stats: &WorkerStats) {
        let count = self.sends.next_chain();
        // A chain must lie in one submission.
        if count == 0 || !self.make_room(count, stats) {
            return;
        }
        let frames: [usize; CHAIN_LEN] = {
            let mut frames = [0; CHAIN_LEN];
            frames
                .iter_mut()
                .zip(self.sends.chain())
                .for_each(|(to, from)| *to = from);
            frames
        };
        for (index, frame) in frames.iter().copied().take(count).enumerate() {
            let token = Token::Send(self.sends.ticket(frame));
            let request = Request::Send {
                message: self.sends.message(frame),
                linked: index + 1 < count,
            };
            self.push(&request, token, stats);
        }
    }

    /// Sends and writes that the kernel has not answered.
    fn in_flight(&self) -> usize {
        self.sends.chain_len() + self.writes.len()
    }

    fn enter(&mut self, patience: Option<Duration>, stats: &WorkerStats) -> Result<(), LaneFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        // Sends and writes complete within the call that submits them: wait for all, so that the next call can sleep. Only
        // a full socket makes that wait long; the other direction must not starve meanwhile.
        let (want, patience) = match self.in_flight() {
            0 => (1, patience),
            some => (
                some,
                Some(patience.unwrap_or(COMPLETION_PATIENCE).min(COMPLETION_PATIENCE)),
            ),
        };
        self.call(want, patience, stats)
    }
}

impl<R: Ring> Lane for UringLane<R> {
    fn turn(
        &mut self,
        inbox: &mut Inbox,
        patience: Option<Duration>,
        stats: &WorkerStats,
    ) -> Result<Turn, LaneFault> {
        self.arm(stats);
        self.launch(stats);
        let (turn, entered) = if self.completions.is_empty() {
            (Turn::Waited, self.enter(patience, stats))
        } else {
            (Turn::AtOnce, self.fault.take().map_or(Ok(()), Err))
        };
        self.gather();
        // Every completion is accounted for, also after a fault.
        let settled = self.settle(inbox, stats);
        entered.and(settled).map(|()| turn)
    }

    fn hand_over(&mut self, stats: &WorkerStats) -> Result<(), LaneFault> {
        self.launch(stats);
        if self.in_flight() > 0 {
            let entered = self.enter(None, stats);
            self.gather();
            return entered;
        }
        Ok(())
    }

    fn send(&mut self, outgoing: Outgoing, stats: &WorkerStats) {
        self.sends.push(outgoing, stats);
    }

    fn write(&mut self, head: Packet, tails: &mut Vec<Packet>, written: Written, stats: &WorkerStats) {
        match self.writes.insert(head, tails, written) {
            Ok(ticket) => {
                let request = match self.writes.parts(ticket) {
                    [only] => Request::Write {
                        bytes: only.iov_base.cast(),
                        len: u32::try_from(only.iov_len).unwrap_or(u32::MAX),
                    },
                    parts => Request::WriteParts {
                        parts: parts.as_ptr(),
                        count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
                    },
                };
                self.push(&request, Token::Write(ticket), stats);
            }
            Err(written) => {
                super::writes::refuse(written, stats);
            }
        }
    }

    fn has_bounced(&self) -> bool {
        self.sends.has_bounced()
    }

    fn bounced(&mut self) -> Option<Bounced> {
        self.sends.bounced()
    }

    fn keep_refused(&mut self, keep: bool) {
        self.sends.keep_refused(keep);
        self.writes.keep_refused(keep);
    }

    fn take_refused(&mut self) -> Option<Refused> {
        let sent = self.sends.refused().map(Refused::Send);
        sent.or_else(|| self.writes.take_refused())
    }

    fn reply_pool(&self) -> &Rc<Pool> {
        &self.reply_pool
    }

    fn rest(&mut self) -> bool {
        // A kernel that acts whenever it likes may have written what it has not said yet.
        if !self.ring.acts_in_calls() || self.ring.has_overflowed() || !self.completions.is_empty() {
            return false;
        }
        // SAFETY: the kernel acts for this ring in calls of this thread alone. What it said in the last one was gathered and settled in
        // the same turn, and there was no call since: no slot that it was lent has anything that was not brought.
        let given_back = [&self.tun_ring, &self.raw_ring].map(|ring| unsafe { ring.pool().discard() });
        given_back == [true; 2]
    }

    fn quiesce(&mut self) {
        self.quiescing = true;
    }

    fn is_quiet(&self) -> bool {
        self.quiescing
            && !self.tun.armed
            && !self.raw.armed
            && self.sends.is_empty()
            && self.writes.is_empty()
    }

    fn abandon(mut self, stats: &WorkerStats) {
        if !self.is_quiet() {
            // What the kernel has said is heard; packets it brought go back to their slots.
            let _ = self.settle(&mut Inbox::new(), stats);
            self.sends.abandon(stats);
            self.writes.abandon(stats);
            // The kernel may still write to slots and read frames: the memory goes with the process.
            std::mem::forget(self);
        }
    }
}
