//! The fallback lane: epoll with `recvmmsg` and `sendmmsg`, for machines that refuse io_uring.
//!
//! Same order, same back-pressure, same counters as [`super::uring`]; only slower: a TUN queue gives and takes one
//! packet per system call.

mod batch;
mod calls;
#[cfg(test)]
mod testing;

use std::io;
use std::mem::zeroed;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::lane::{
    BURST, Bounced, Inbox, Lane, LaneFault, Outgoing, PERSISTENT_ERRORS, RAW_SLOTS, REPLY_SLOT_LEN,
    REPLY_SLOTS, Refused, SLOT_LEN, TUN_SLOTS, Turn, Written,
};
use super::outgoing::{CHAIN_LEN, SendQueue};
use super::raw::{RawReceiver, RawSender};
use super::wake::Bell;
use super::writes::WriteTable;
use crate::buf::{HEAD_ROOM, Packet, Pool};
use crate::stats::{IoOperation, LoopEvent, WorkerStats};
use batch::ReceiveBatch;
pub use calls::{Calls, KernelCalls, Ready};

/// The system-call lane of one worker.
#[derive(Debug)]
pub struct SyscallLane<C = KernelCalls> {
    calls: C,
    bell: Bell,
    tun_pool: Rc<Pool>,
    raw_pool: Rc<Pool>,
    reply_pool: Rc<Pool>,
    sends: SendQueue,
    writes: WriteTable,
    batch: ReceiveBatch,
    /// The send socket was full: nothing is sent until it is writable.
    blocked: bool,
    /// Whether the TUN queue is watched now.
    watching_tun: bool,
    quiescing: bool,
    tun_failures: u32,
    raw_failures: u32,
    fault: Option<LaneFault>,
}

impl SyscallLane {
    /// Sets the lane up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(tun: OwnedFd, receiver: RawReceiver, sender: RawSender, bell: Bell) -> io::Result<Self> {
        Self::over(KernelCalls::new(tun, receiver, sender, &bell)?, bell)
    }
}

impl<C: Calls> SyscallLane<C> {
    fn over(calls: C, bell: Bell) -> io::Result<Self> {
        Ok(Self {
            calls,
            bell,
            tun_pool: Pool::new(TUN_SLOTS, SLOT_LEN)?,
            raw_pool: Pool::new(RAW_SLOTS, SLOT_LEN)?,
            reply_pool: Pool::new(REPLY_SLOTS, REPLY_SLOT_LEN)?,
            sends: SendQueue::new(CHAIN_LEN),
            writes: WriteTable::new(),
            batch: ReceiveBatch::new(),
            blocked: false,
            watching_tun: true,
            quiescing: false,
            tun_failures: 0,
            raw_failures: 0,
            fault: None,
        })
    }

    /// Sends chain after chain until all is sent or the socket is full.
    fn flush(&mut self, stats: &WorkerStats) -> io::Result<()> {
        while !self.blocked {
            if self.sends.chain_head().is_none() && self.sends.next_chain() == 0 {
                return Ok(());
            }
            self.send_chain(stats)?;
        }
        Ok(())
    }

    fn send_chain(&mut self, stats: &WorkerStats) -> io::Result<()> {
        // SAFETY: `mmsghdr` is plain data for which all zeroes is a valid value.
        let mut messages: [libc::mmsghdr; CHAIN_LEN] = unsafe { zeroed() };
        let mut frames = [0usize; CHAIN_LEN];
        let mut count = 0;
        frames.iter_mut().zip(self.sends.chain()).for_each(|(to, from)| {
            *to = from;
            count += 1;
        });
        for (message, frame) in messages.iter_mut().zip(frames).take(count) {
            // SAFETY: a frame's message is valid until the frame is done.
            message.msg_hdr = unsafe { self.sends.message(frame).read() };
        }
        stats.syscalls.bump();
        // SAFETY: names, parts and bytes of these messages live in frames and slots until the frames are done.
        let sent = unsafe { self.calls.send(&mut messages[..count]) };
        let sent = match sent {
            // Never, of messages that are there; it must not be asked again for ever.
            Ok(0) => return self.refused(frames[0], Errno::EIO, stats),
            Ok(sent) => sent,
            Err(errno) => return self.refused(frames[0], errno, stats),
        };
        for (frame, message) in frames.iter().zip(&messages).take(sent) {
            self.sends.done(*frame, Ok(message.msg_len as usize), stats);
        }
        Ok(())
    }

    /// The first frame of a chain was refused: wait for room, or account for it and go on with the next.
    fn refused(&mut self, frame: usize, errno: Errno, stats: &WorkerStats) -> io::Result<()> {
        match errno {
            Errno::EINTR => {}
            Errno::EAGAIN => {
                stats.event(LoopEvent::SendBlocked).bump();
                // Watched only while full: an unread error queue would otherwise make epoll return at once, always.
                self.calls.watch_room(true)?;
                self.blocked = true;
            }
            errno => {
                self.sends.done(frame, Err(errno as i32), stats);
                // Those behind it keep their order: everything not sent is cancelled and comes again behind a retry.
                while let Some(next) = self.sends.chain_head() {
                    self.sends.done(next, Err(libc::ECANCELED), stats);
                }
            }
        }
        Ok(())
    }

    fn unblock(&mut self) -> io::Result<()> {
        if self.blocked {
            self.calls.watch_room(false)?;
            self.blocked = false;
        }
        Ok(())
    }

    fn read_tun(&mut self, inbox: &mut Inbox, stats: &WorkerStats) -> Result<(), LaneFault> {
        while inbox.tun.len() < BURST {
            let Some(mut slot) = self.tun_pool.take() else {
                stats.event(LoopEvent::BuffersEmpty).bump();
                return Ok(());
            };
            stats.syscalls.bump();
            match self.calls.read(&mut slot.bytes_mut()[HEAD_ROOM..]) {
                // The end of a stream, which no TUN queue is.
                Ok(0) => {
                    stats.error(IoOperation::TunRead, 0).bump();
                    return persistent(
                        &mut self.tun_failures,
                        IoOperation::TunRead,
                        io::ErrorKind::UnexpectedEof.into(),
                    );
                }
                Ok(len) => {
                    self.tun_failures = 0;
                    inbox.tun.push(Packet::received(slot, len));
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => {
                    stats.error(IoOperation::TunRead, errno as i32).bump();
                    if matches!(errno, Errno::EBADFD | Errno::EFAULT | Errno::ENODEV) {
                        return Err(LaneFault::TunGone(errno.into()));
                    }
                    return persistent(&mut self.tun_failures, IoOperation::TunRead, errno.into());
                }
            }
        }
        Ok(())
    }

    fn receive_raw(&mut self, inbox: &mut Inbox, stats: &WorkerStats) -> Result<(), LaneFault> {
        while inbox.raw.len() < BURST {
            let wanted = self.batch.load(&self.raw_pool, BURST - inbox.raw.len());
            if wanted == 0 {
                stats.event(LoopEvent::BuffersEmpty).bump();
                return Ok(());
            }
            stats.syscalls.bump();
            match self.batch.receive(&mut self.calls, inbox) {
                Ok(received) => {
                    self.raw_failures = 0;
                    if received < wanted {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => {
                    stats.error(IoOperation::RawReceive, errno as i32).bump();
                    return persistent(&mut self.raw_failures, IoOperation::RawReceive, errno.into());
                }
            }
        }
        Ok(())
    }

    /// With every TUN slot waiting to be sent, watching the TUN would only spin: its queue fills instead.
    fn watch_tun(&mut self) -> io::Result<()> {
        let wanted = !self.quiescing && self.tun_pool.census_free() > 0;
        if wanted != self.watching_tun {
            self.calls.watch_tun(wanted)?;
            self.watching_tun = wanted;
        }
        Ok(())
    }

    fn wait(
        &mut self,
        patience: Option<Duration>,
        inbox: &mut Inbox,
        stats: &WorkerStats,
    ) -> Result<(), LaneFault> {
        stats.syscalls.bump();
        let ready = match self.calls.wait(patience) {
            Ok(ready) => ready,
            Err(errno) => {
                stats.error(IoOperation::Wait, errno as i32).bump();
                return if errno == Errno::EINTR {
                    Ok(())
                } else {
                    Err(LaneFault::Wait(errno.into()))
                };
            }
        };
        if ready.bell {
            self.bell.silence();
        }
        if ready.room {
            self.unblock().map_err(LaneFault::Wait)?;
        }
        if !self.quiescing {
            if ready.tun {
                self.read_tun(inbox, stats)?;
            }
            if ready.raw {
                self.receive_raw(inbox, stats)?;
            }
        }
        Ok(())
    }
}

fn persistent(failures: &mut u32, operation: IoOperation, source: io::Error) -> Result<(), LaneFault> {
    *failures += 1;
    if *failures < PERSISTENT_ERRORS {
        return Ok(());
    }
    Err(LaneFault::Persistent {
        operation: operation.name(),
        source,
    })
}

impl<C: Calls> Lane for SyscallLane<C> {
    fn turn(
        &mut self,
        inbox: &mut Inbox,
        patience: Option<Duration>,
        stats: &WorkerStats,
    ) -> Result<Turn, LaneFault> {
        // Whatever a socket that was full has room for again.
        self.hand_over(stats)?;
        if self.quiescing && self.sends.is_empty() {
            return Ok(Turn::AtOnce);
        }
        self.watch_tun().map_err(LaneFault::Wait)?;
        self.wait(patience, inbox, stats)?;
        Ok(Turn::Waited)
    }

    fn hand_over(&mut self, stats: &WorkerStats) -> Result<(), LaneFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.flush(stats).map_err(LaneFault::Wait)
    }

    fn send(&mut self, outgoing: Outgoing, stats: &WorkerStats) {
        self.sends.push(outgoing, stats);
    }

    fn write(&mut self, head: Packet, tails: &mut Vec<Packet>, written: Written, stats: &WorkerStats) {
        let index = match self.writes.insert(head, tails, written) {
            Ok(index) => index,
            Err(written) => {
                super::writes::refuse(written, stats);
                return;
            }
        };
        stats.syscalls.bump();
        // SAFETY: the parts point into slots that the table keeps until the write is settled, below.
        let taken = unsafe { self.calls.write(self.writes.parts(index)) };
        let result = taken.map_err(|errno| errno as i32);
        if let Some(Err(fault)) = self.writes.settle(index, result, stats) {
            self.fault = Some(fault);
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
        self.batch.unload();
        // SAFETY: the kernel writes to slots in calls of this thread alone, and is in none.
        let given_back = [&self.tun_pool, &self.raw_pool].map(|pool| unsafe { pool.discard() });
        given_back == [true; 2]
    }

    fn quiesce(&mut self) {
        if !self.quiescing {
            self.quiescing = true;
            // Level-triggered sources nobody reads any more would make every wait return at once.
            self.calls.forget_receiver();
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiescing && self.sends.is_empty()
    }

    fn abandon(mut self, stats: &WorkerStats) {
        // The kernel holds nothing between two system calls: memory can be freed.
        self.sends.abandon(stats);
    }
}

const _: () = assert!(BURST >= TUN_SLOTS as usize && BURST >= RAW_SLOTS as usize);
