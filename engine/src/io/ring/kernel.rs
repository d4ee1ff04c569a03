//! The kernel's ring, by the `io-uring` crate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use nix::libc;

use super::{BELL, Completion, RAW_RX, RAW_TX, Request, Ring, TUN};
use crate::io::raw::{RawReceiver, RawSender};
use crate::io::restrict::RingScope;
use crate::io::wake::Bell;

/// What a ring reads, writes and hears.
#[derive(Debug)]
pub struct Files {
    /// The TUN queue.
    pub tun: OwnedFd,
    /// The receive socket.
    pub receiver: RawReceiver,
    /// The send socket.
    pub sender: RawSender,
    /// Rings when there is something to do besides packets.
    pub bell: Bell,
}

/// An io_uring of the kernel, with its files. Field order is drop order: the ring closes first.
pub struct KernelRing {
    ring: IoUring,
    /// What other threads and interrupts bring waits for a call (`IORING_SETUP_DEFER_TASKRUN`).
    deferred: bool,
    _files: Files,
}

impl std::fmt::Debug for KernelRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelRing").finish_non_exhaustive()
    }
}

impl KernelRing {
    /// A ring for these files, with queues of these lengths: submissions, completions. It takes requests after
    /// [`KernelRing::close`].
    ///
    /// # Errors
    /// What the kernel says when it refuses a ring, or the files.
    pub fn new(lengths: [u32; 2], files: Files, scope: RingScope) -> io::Result<Self> {
        let (ring, deferred) = build(lengths, scope)?;
        // At the places that requests name.
        let mut table = [-1; 4];
        table[TUN as usize] = files.tun.as_raw_fd();
        table[RAW_RX as usize] = files.receiver.as_fd().as_raw_fd();
        table[RAW_TX as usize] = files.sender.as_fd().as_raw_fd();
        table[BELL as usize] = files.bell.as_fd().as_raw_fd();
        ring.submitter().register_files(&table)?;
        Ok(Self {
            ring,
            deferred,
            _files: files,
        })
    }

    /// Everything has been registered: the ring takes what is in its scope from now on, from the calling thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn close(&self, scope: RingScope) -> io::Result<()> {
        scope.close(&self.ring)
    }
}

/// The fastest set-up this kernel has, and whether it defers; each step back costs some speed, and memory that is kept for longer.
fn build([submissions, completions]: [u32; 2], scope: RingScope) -> io::Result<(IoUring, bool)> {
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
    if let Ok(ring) = fastest.build(submissions) {
        return Ok((ring, true));
    }
    let mut faster = builder();
    faster.dontfork().setup_submit_all().setup_coop_taskrun();
    let ring = faster
        .build(submissions)
        .or_else(|_| builder().build(submissions))?;
    Ok((ring, false))
}

/// The request as the kernel reads it.
#[inline]
fn entry(request: &Request) -> squeue::Entry {
    match *request {
        Request::ReadTun { group } => opcode::ReadMulti::new(Fixed(TUN), 0, group).build(),
        Request::ReceiveRaw { group } => opcode::RecvMulti::new(Fixed(RAW_RX), group).build(),
        Request::HearBell => {
            let events = u32::try_from(libc::POLLIN).unwrap_or_default();
            opcode::PollAdd::new(Fixed(BELL), events).multi(true).build()
        }
        // It names no file, but every request of a restricted ring must say that its file is registered.
        Request::Cancel { user_data } => opcode::AsyncCancel::new(user_data)
            .build()
            .flags(Flags::FIXED_FILE),
        Request::Write { bytes, len } => opcode::Write::new(Fixed(TUN), bytes, len).build(),
        Request::WriteParts { parts, count } => opcode::Writev::new(Fixed(TUN), parts, count).build(),
        Request::Send { message, linked } => {
            let entry = opcode::SendMsg::new(Fixed(RAW_TX), message).build();
            if linked {
                entry.flags(Flags::IO_LINK)
            } else {
                entry
            }
        }
    }
}

impl Ring for KernelRing {
    fn lengths(&self) -> (usize, usize) {
        let params = self.ring.params();
        (params.sq_entries() as usize, params.cq_entries() as usize)
    }

    unsafe fn register_buffers(&self, entries: NonNull<u8>, count: u16, group: u16) -> io::Result<()> {
        let addr = entries.as_ptr() as u64;
        // SAFETY: the caller vouches for the memory.
        unsafe {
            self.ring
                .submitter()
                .register_buf_ring_with_flags(addr, count, group, 0)
        }
    }

    #[inline]
    fn room(&mut self) -> usize {
        let queue = self.ring.submission();
        queue.capacity() - queue.len()
    }

    #[inline]
    unsafe fn push(&mut self, request: &Request, user_data: u64) -> bool {
        let entry = entry(request).user_data(user_data);
        // SAFETY: the caller vouches for what the request points to.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    fn enter(&mut self, want: usize, patience: Option<Duration>) -> io::Result<usize> {
        match patience {
            None => self.ring.submit_and_wait(want),
            Some(patience) => {
                let timespec = Timespec::from(patience);
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(want, &args)
            }
        }
    }

    fn pause(&mut self, patience: Duration) -> io::Result<usize> {
        let timespec = Timespec::from(patience);
        let args = SubmitArgs::new().timespec(&timespec);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: nothing is submitted; the flags say what `args` is, and it lives through the call.
        unsafe { self.ring.submitter().enter(0, 1, flags.bits(), Some(&args)) }
    }

    #[inline]
    fn acts_in_calls(&self) -> bool {
        self.deferred
    }

    fn has_overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    #[inline]
    fn take(&mut self, into: &mut Vec<Completion>) {
        let mut queue = self.ring.completion();
        queue.sync();
        let room = into.capacity() - into.len();
        into.extend((&mut queue).take(room).map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}
