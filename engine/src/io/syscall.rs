//! The fallback lane: epoll with `recvmmsg` and `sendmmsg`, for machines that refuse io_uring.
//!
//! Same order, same back-pressure, same counters as [`super::uring`]; only slower: a TUN queue gives and takes one
//! packet per system call.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::lane::{
    BURST, Bounced, Inbox, Lane, LaneFault, Outgoing, PERSISTENT_ERRORS, RAW_SLOTS, REPLY_SLOT_LEN,
    REPLY_SLOTS, Refused, SLOT_LEN, TUN_SLOTS, Turn, Written,
};
use super::outgoing::{CHAIN_LEN, SendQueue};
use super::raw::{RawReceiver, RawSender};
use super::wake::Bell;
use super::writes::WriteTable;
use crate::buf::{HEAD_ROOM, Packet, Pool, Slot};
use crate::stats::{IoOperation, LoopEvent, WorkerStats};

const TOKEN_TUN: u64 = 0;
const TOKEN_RAW: u64 = 1;
const TOKEN_SEND: u64 = 2;
const TOKEN_BELL: u64 = 3;

/// The system-call lane of one worker.
#[derive(Debug)]
pub struct SyscallLane {
    epoll: Epoll,
    tun: OwnedFd,
    receiver: RawReceiver,
    sender: RawSender,
    bell: Bell,
    tun_pool: Rc<Pool>,
    raw_pool: Rc<Pool>,
    reply_pool: Rc<Pool>,
    sends: SendQueue,
    writes: WriteTable,
    batch: ReceiveBatch,
    /// The send socket was full: nothing is sent until it is writable.
    blocked: bool,
    /// Which descriptors epoll watches now.
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
        let flags = OFlag::from_bits_truncate(fcntl(&tun, FcntlArg::F_GETFL)?) | OFlag::O_NONBLOCK;
        fcntl(&tun, FcntlArg::F_SETFL(flags))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&tun, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_TUN))?;
        epoll.add(&receiver, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_RAW))?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_BELL))?;
        Ok(Self {
            epoll,
            tun,
            receiver,
            sender,
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
        let wanted = u32::try_from(count).unwrap_or_default();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: `messages` holds `count` messages whose parts and addresses live in frames and slots until done.
        let sent = unsafe {
            libc::sendmmsg(
                self.sender.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                wanted,
                flags,
            )
        };
        let Ok(sent) = usize::try_from(sent) else {
            return self.refused(frames[0], Errno::last(), stats);
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
                self.epoll
                    .add(&self.sender, EpollEvent::new(EpollFlags::EPOLLOUT, TOKEN_SEND))?;
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
            self.epoll.delete(&self.sender)?;
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
            match nix::unistd::read(&self.tun, &mut slot.bytes_mut()[HEAD_ROOM..]) {
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
                    return persistent(&mut self.tun_failures, IoOperation::TunRead, errno);
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
            match self.batch.receive(self.receiver.as_fd(), inbox) {
                Ok(received) => {
                    self.raw_failures = 0;
                    if received < wanted {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => {
                    stats.error(IoOperation::RawReceive, errno as i32).bump();
                    return persistent(&mut self.raw_failures, IoOperation::RawReceive, errno);
                }
            }
        }
        Ok(())
    }

    /// With every TUN slot waiting to be sent, watching the TUN would only spin: its queue fills instead.
    fn watch_tun(&mut self) -> io::Result<()> {
        let wanted = !self.quiescing && self.tun_pool.census_free() > 0;
        if wanted != self.watching_tun {
            let flags = if wanted {
                EpollFlags::EPOLLIN
            } else {
                EpollFlags::empty()
            };
            self.epoll
                .modify(&self.tun, &mut EpollEvent::new(flags, TOKEN_TUN))?;
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
        let mut events = [EpollEvent::empty(); 4];
        let timeout = match patience {
            None => EpollTimeout::NONE,
            Some(patience) => EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::MAX),
        };
        stats.syscalls.bump();
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(errno) => {
                stats.error(IoOperation::Wait, errno as i32).bump();
                return if errno == Errno::EINTR {
                    Ok(())
                } else {
                    Err(LaneFault::Wait(errno.into()))
                };
            }
        };
        for event in &events[..count] {
            match event.data() {
                TOKEN_TUN if !self.quiescing => self.read_tun(inbox, stats)?,
                TOKEN_RAW if !self.quiescing => self.receive_raw(inbox, stats)?,
                TOKEN_SEND => self.unblock().map_err(LaneFault::Wait)?,
                TOKEN_BELL => {
                    self.bell.silence();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn persistent(failures: &mut u32, operation: IoOperation, errno: Errno) -> Result<(), LaneFault> {
    *failures += 1;
    if *failures < PERSISTENT_ERRORS {
        return Ok(());
    }
    Err(LaneFault::Persistent {
        operation: operation.name(),
        source: errno.into(),
    })
}

impl Lane for SyscallLane {
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
        let parts = self.writes.parts(index);
        let count = libc::c_int::try_from(parts.len()).unwrap_or(libc::c_int::MAX);
        stats.syscalls.bump();
        // SAFETY: the parts point into slots that the table keeps until the write is settled, below.
        let taken = unsafe { libc::writev(self.tun.as_raw_fd(), parts.as_ptr(), count) };
        let result = usize::try_from(taken).map_err(|_| Errno::last() as i32);
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

    fn quiesce(&mut self) {
        if !self.quiescing {
            self.quiescing = true;
            // Level-triggered sources nobody reads any more would make every wait return at once.
            let _ = self.epoll.delete(&self.receiver);
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

/// The structures of one `recvmmsg`, with the slots it fills.
struct ReceiveBatch {
    messages: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveBatch")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// How many outer packets one `recvmmsg` takes.
const RECEIVE_BATCH: usize = 32;

impl ReceiveBatch {
    fn new() -> Self {
        // SAFETY: `mmsghdr` and `iovec` are plain data for which all zeroes is a valid value.
        let (message, part): (libc::mmsghdr, libc::iovec) = unsafe { (zeroed(), zeroed()) };
        Self {
            messages: vec![message; RECEIVE_BATCH],
            parts: vec![part; RECEIVE_BATCH],
            slots: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// Takes slots for the next call; slots left over from the last one are used first.
    fn load(&mut self, pool: &Rc<Pool>, room: usize) -> usize {
        let wanted = room.min(RECEIVE_BATCH);
        while self.slots.len() < wanted {
            let Some(slot) = pool.take() else { break };
            self.slots.push(slot);
        }
        self.slots.len().min(wanted)
    }

    fn receive(&mut self, fd: BorrowedFd<'_>, inbox: &mut Inbox) -> Result<usize, Errno> {
        for ((message, part), slot) in self.messages.iter_mut().zip(&mut self.parts).zip(&mut self.slots) {
            let bytes = &mut slot.bytes_mut()[HEAD_ROOM..];
            *part = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let wanted = u32::try_from(self.slots.len()).unwrap_or_default();
        // SAFETY: the first `wanted` messages point to parts, and those into slots, that we own through the call; no
        // names or ancillary data are asked for.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.messages.as_mut_ptr(),
                wanted,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| Errno::last())?;
        for (slot, message) in self.slots.drain(..received).zip(&self.messages) {
            inbox.raw.push(Packet::received(slot, message.msg_len as usize));
        }
        Ok(received)
    }
}

const _: () = assert!(BURST >= TUN_SLOTS as usize && BURST >= RAW_SLOTS as usize);
