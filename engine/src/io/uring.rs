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

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;

use super::bufring::BufRing;
use super::lane::{
    Bounced, Inbox, Lane, LaneFault, Outgoing, PERSISTENT_ERRORS, RAW_SLOTS, REPLY_SLOT_LEN, REPLY_SLOTS,
    Refused, SLOT_LEN, TUN_SLOTS, Turn, Written,
};
use super::outgoing::{CHAIN_LEN, SendQueue};
use super::raw::{RawReceiver, RawSender};
use super::restrict::RingScope;
use super::wake::Bell;
use super::writes::WriteTable;
use crate::buf::{Packet, Pool};
use crate::stats::{IoOperation, LoopEvent, WorkerStats};

const TUN: Fixed = Fixed(0);
const RAW_RX: Fixed = Fixed(1);
const RAW_TX: Fixed = Fixed(2);
const BELL: Fixed = Fixed(3);

const TUN_GROUP: u16 = 0;
const RAW_GROUP: u16 = 1;

/// A chain, every write a raw slot or reply can cause, and the receives.
const SQ_ENTRIES: u32 = 512;
/// Every slot filled at once, every frame and write done: no overflow in any order of events.
const CQ_ENTRIES: u32 = 1024;

/// How long one call waits for sends that the socket has no room for, before it looks at the other direction again.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(1);

/// What a completion belongs to; travels through the kernel as the 64-bit user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    TunRead,
    RawReceive,
    Bell,
    Cancel,
    Write(u32),
    Send(u32),
}

impl Token {
    fn pack(self) -> u64 {
        match self {
            Token::TunRead => 1 << 32,
            Token::RawReceive => 2 << 32,
            Token::Bell => 3 << 32,
            Token::Cancel => 4 << 32,
            Token::Write(index) => 5 << 32 | u64::from(index),
            Token::Send(index) => 6 << 32 | u64::from(index),
        }
    }

    fn unpack(data: u64) -> Option<Self> {
        let index = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        match data >> 32 {
            1 => Some(Token::TunRead),
            2 => Some(Token::RawReceive),
            3 => Some(Token::Bell),
            4 => Some(Token::Cancel),
            5 => Some(Token::Write(index)),
            6 => Some(Token::Send(index)),
            _ => None,
        }
    }
}

/// A multishot receive: armed or not, and how often in a row it failed.
#[derive(Debug, Default)]
struct Arming {
    armed: bool,
    failures: u32,
}

/// The io_uring lane of one worker. Field order is drop order: the ring closes before the memory it knows is freed.
pub struct UringLane {
    ring: IoUring,
    tun_ring: BufRing,
    raw_ring: BufRing,
    reply_pool: Rc<Pool>,
    sends: SendQueue,
    writes: WriteTable,
    completions: Vec<cqueue::Entry>,
    tun: Arming,
    raw: Arming,
    bell_armed: bool,
    quiescing: bool,
    bell: Bell,
    _descriptors: (OwnedFd, RawReceiver, RawSender),
}

impl std::fmt::Debug for UringLane {
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
        [submissions, completions]: [u32; 2],
    ) -> io::Result<Self> {
        let ring = build_ring(submissions, completions, scope)?;
        let files = [
            tun.as_raw_fd(),
            receiver.as_fd().as_raw_fd(),
            sender.as_fd().as_raw_fd(),
            bell.as_fd().as_raw_fd(),
        ];
        ring.submitter().register_files(&files)?;
        let tun_ring = BufRing::register(&ring.submitter(), Pool::new(TUN_SLOTS, SLOT_LEN)?, TUN_GROUP)?;
        let raw_ring = BufRing::register(&ring.submitter(), Pool::new(RAW_SLOTS, SLOT_LEN)?, RAW_GROUP)?;
        scope.close(&ring)?;
        Ok(Self {
            tun_ring,
            raw_ring,
            reply_pool: Pool::new(REPLY_SLOTS, REPLY_SLOT_LEN)?,
            sends: SendQueue::new(ring.params().sq_entries() as usize),
            writes: WriteTable::new(),
            completions: Vec::with_capacity(ring.params().cq_entries() as usize),
            tun: Arming::default(),
            raw: Arming::default(),
            bell_armed: false,
            quiescing: false,
            bell,
            ring,
            _descriptors: (tun, receiver, sender),
        })
    }

    /// Queues a request; a full submission queue is handed to the kernel first.
    fn push(&mut self, entry: &squeue::Entry, stats: &WorkerStats) {
        // SAFETY: every address in an entry is of a slot, frame or ring that this lane keeps until its completion.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            stats.event(LoopEvent::SubmissionFull).bump();
            if !self.submit(stats) {
                self.gather();
            }
        }
    }

    /// Hands the submission queue over without waiting; says whether the kernel took it.
    fn submit(&mut self, stats: &WorkerStats) -> bool {
        stats.syscalls.bump();
        let submitted = self.ring.submit();
        self.note_overflow(stats);
        if let Err(error) = &submitted {
            stats
                .error(IoOperation::Wait, error.raw_os_error().unwrap_or_default())
                .bump();
        }
        submitted.is_ok()
    }

    /// Counts the calls that left completions behind for want of room in the queue. The kernel keeps them in a list of
    /// its own (NODROP) and hands them over in the next calls, in order (FAULTS 37).
    fn note_overflow(&mut self, stats: &WorkerStats) {
        if self.ring.submission().cq_overflow() {
            stats.event(LoopEvent::CompletionOverflow).bump();
        }
    }

    fn arm(&mut self, stats: &WorkerStats) {
        if !self.bell_armed {
            let events = u32::try_from(libc::POLLIN).unwrap_or_default();
            let entry = opcode::PollAdd::new(BELL, events)
                .multi(true)
                .build()
                .user_data(Token::Bell.pack());
            self.push(&entry, stats);
            self.bell_armed = true;
        }
        if self.quiescing {
            return self.cancel(stats);
        }
        self.tun_ring.replenish();
        self.raw_ring.replenish();
        if !self.tun.armed && self.tun_ring.pool().census_kernel() > 0 {
            let entry = opcode::ReadMulti::new(TUN, 0, self.tun_ring.group())
                .build()
                .user_data(Token::TunRead.pack());
            self.push(&entry, stats);
            self.tun.armed = true;
        }
        if !self.raw.armed && self.raw_ring.pool().census_kernel() > 0 {
            let entry = opcode::RecvMulti::new(RAW_RX, self.raw_ring.group()).build();
            self.push(&entry.user_data(Token::RawReceive.pack()), stats);
            self.raw.armed = true;
        }
    }

    /// Takes the receives back. Asked again in every turn until they have ended, since one that is just being carried out
    /// cannot be cancelled at that moment.
    fn cancel(&mut self, stats: &WorkerStats) {
        for (armed, token) in [
            (self.tun.armed, Token::TunRead),
            (self.raw.armed, Token::RawReceive),
        ] {
            if armed {
                // It names no file, but every request of a restricted ring must say that its file is registered.
                let entry = opcode::AsyncCancel::new(token.pack())
                    .build()
                    .flags(Flags::FIXED_FILE);
                self.push(&entry.user_data(Token::Cancel.pack()), stats);
            }
        }
    }

    /// Hands the next chain over once the last one is done; all but its last frame are linked to their successor.
    fn launch(&mut self, stats: &WorkerStats) {
        let count = self.sends.next_chain();
        if count == 0 {
            return;
        }
        let queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < count {
            // A chain must lie in one submission.
            self.submit(stats);
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
            let token = Token::Send(u32::try_from(frame).unwrap_or(u32::MAX));
            let mut entry = opcode::SendMsg::new(RAW_TX, self.sends.message(frame))
                .build()
                .user_data(token.pack());
            if index + 1 < count {
                entry = entry.flags(Flags::IO_LINK);
            }
            self.push(&entry, stats);
        }
    }

    /// Sends and writes that the kernel has not answered.
    fn in_flight(&self) -> usize {
        self.sends.chain_len() + self.writes.len()
    }

    fn enter(&mut self, patience: Option<Duration>, stats: &WorkerStats) -> Result<(), LaneFault> {
        stats.syscalls.bump();
        // Sends and writes complete within the call that submits them: wait for all, so that the next call can sleep. Only
        // a full socket makes that wait long; the other direction must not starve meanwhile.
        let (want, patience) = match self.in_flight() {
            0 => (1, patience),
            some => (
                some,
                Some(patience.unwrap_or(COMPLETION_PATIENCE).min(COMPLETION_PATIENCE)),
            ),
        };
        let entered = match patience {
            None => self.ring.submit_and_wait(want),
            Some(patience) => {
                let timespec = Timespec::from(patience);
                self.ring
                    .submitter()
                    .submit_with_args(want, &SubmitArgs::new().timespec(&timespec))
            }
        };
        self.note_overflow(stats);
        let Err(error) = entered else { return Ok(()) };
        let errno = error.raw_os_error().unwrap_or_default();
        match errno {
            libc::ETIME => Ok(()),
            // Interrupted; or completions must be reaped before the kernel takes more.
            libc::EINTR | libc::EBUSY | libc::EAGAIN => {
                stats.error(IoOperation::Wait, errno).bump();
                Ok(())
            }
            // The kernel had no memory to keep a completion that did not fit: what it belonged to is not known.
            libc::EBADR => Err(LaneFault::CompletionLost),
            _ => Err(LaneFault::Wait(error)),
        }
    }

    /// Copies completions out of the ring.
    fn gather(&mut self) {
        let mut queue = self.ring.completion();
        queue.sync();
        let room = self.completions.capacity() - self.completions.len();
        self.completions.extend((&mut queue).take(room));
    }

    fn received(
        &mut self,
        operation: IoOperation,
        entry: &cqueue::Entry,
        inbox: &mut Inbox,
        stats: &WorkerStats,
    ) -> Result<(), LaneFault> {
        let (arming, ring, packets) = match operation {
            IoOperation::TunRead => (&mut self.tun, &self.tun_ring, &mut inbox.tun),
            _ => (&mut self.raw, &self.raw_ring, &mut inbox.raw),
        };
        if !cqueue::more(entry.flags()) {
            arming.armed = false;
            if !self.quiescing {
                stats.event(LoopEvent::Rearmed).bump();
            }
        }
        let slot = cqueue::buffer_select(entry.flags()).and_then(|id| ring.reclaim(id));
        if let Ok(len) = usize::try_from(entry.result()) {
            arming.failures = 0;
            match slot {
                Some(slot) => packets.push(Packet::received(slot, len)),
                None => stats.event(LoopEvent::StrayCompletion).bump(),
            }
            return Ok(());
        }
        let errno = -entry.result();
        match errno {
            libc::ENOBUFS => {
                stats.event(LoopEvent::BuffersEmpty).bump();
                return Ok(());
            }
            libc::ECANCELED if self.quiescing => return Ok(()),
            _ => stats.error(operation, errno).bump(),
        }
        if operation == IoOperation::TunRead && matches!(errno, libc::EBADFD | libc::EFAULT | libc::ENODEV) {
            return Err(LaneFault::TunGone(io::Error::from_raw_os_error(errno)));
        }
        arming.failures += 1;
        if arming.failures >= PERSISTENT_ERRORS {
            let source = io::Error::from_raw_os_error(errno);
            return Err(LaneFault::Persistent {
                operation: operation.name(),
                source,
            });
        }
        Ok(())
    }

    fn complete(
        &mut self,
        entry: &cqueue::Entry,
        inbox: &mut Inbox,
        stats: &WorkerStats,
    ) -> Result<(), LaneFault> {
        let result = usize::try_from(entry.result()).map_err(|_| -entry.result());
        match Token::unpack(entry.user_data()) {
            Some(Token::TunRead) => self.received(IoOperation::TunRead, entry, inbox, stats)?,
            Some(Token::RawReceive) => self.received(IoOperation::RawReceive, entry, inbox, stats)?,
            Some(Token::Send(frame)) => self.sends.done(frame as usize, result, stats),
            Some(Token::Write(index)) => match self.writes.settle(index, result, stats) {
                Some(settled) => settled?,
                None => stats.event(LoopEvent::StrayCompletion).bump(),
            },
            Some(Token::Bell) => {
                self.bell.silence();
                self.bell_armed &= cqueue::more(entry.flags());
            }
            Some(Token::Cancel) => {}
            None => stats.event(LoopEvent::StrayCompletion).bump(),
        }
        Ok(())
    }
}

impl Lane for UringLane {
    fn turn(
        &mut self,
        inbox: &mut Inbox,
        patience: Option<Duration>,
        stats: &WorkerStats,
    ) -> Result<Turn, LaneFault> {
        self.arm(stats);
        self.launch(stats);
        let turn = if self.completions.is_empty() {
            self.enter(patience, stats)?;
            Turn::Waited
        } else {
            Turn::AtOnce
        };
        self.gather();
        let mut completions = std::mem::take(&mut self.completions);
        let mut outcome = Ok(());
        for entry in completions.drain(..) {
            // Every completion is accounted for, also after a fault.
            outcome = outcome.and(self.complete(&entry, inbox, stats));
        }
        self.completions = completions;
        outcome.map(|()| turn)
    }

    fn hand_over(&mut self, stats: &WorkerStats) -> Result<(), LaneFault> {
        self.launch(stats);
        if self.in_flight() > 0 {
            self.enter(None, stats)?;
            self.gather();
        }
        Ok(())
    }

    fn send(&mut self, outgoing: Outgoing, stats: &WorkerStats) {
        self.sends.push(outgoing, stats);
    }

    fn write(&mut self, head: Packet, tails: &mut Vec<Packet>, written: Written, stats: &WorkerStats) {
        match self.writes.insert(head, tails, written) {
            Ok(index) => {
                let entry = match self.writes.parts(index) {
                    [only] => {
                        let len = u32::try_from(only.iov_len).unwrap_or(u32::MAX);
                        opcode::Write::new(TUN, only.iov_base.cast(), len).build()
                    }
                    parts => {
                        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                        opcode::Writev::new(TUN, parts.as_ptr(), count).build()
                    }
                };
                self.push(&entry.user_data(Token::Write(index).pack()), stats);
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
            self.sends.abandon(stats);
            self.writes.abandon(stats);
            // The kernel may still write to slots and read frames: the memory goes with the process.
            std::mem::forget(self);
        }
    }
}

/// The fastest set-up this kernel has; each step back costs some speed and nothing else.
fn build_ring(submissions: u32, completions: u32, scope: RingScope) -> io::Result<IoUring> {
    let builder = || {
        let mut builder = IoUring::builder();
        scope.begin(&mut builder);
        builder.setup_cqsize(completions);
        builder
    };
    let mut fastest = builder();
    fastest
        .dontfork()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun();
    fastest.build(submissions).or_else(|_| {
        let mut faster = builder();
        faster.dontfork().setup_submit_all().setup_coop_taskrun();
        faster
            .build(submissions)
            .or_else(|_| builder().build(submissions))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::TunRead,
            Token::RawReceive,
            Token::Bell,
            Token::Cancel,
            Token::Write(0),
            Token::Send(u32::MAX),
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(0), None);
    }
}
