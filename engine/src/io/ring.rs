//! What the io_uring lane asks of a ring: requests in, completions out, and nothing else of io_uring.
//!
//! The lane is written against [`Ring`]. [`KernelRing`] is the kernel's; tests put a kernel of their own in its place, which
//! answers late, short, with any errno, out of buffers, twice, or not at all (FAULTS 37-40, 42). The choice is made at compile
//! time and costs nothing.

mod kernel;

use std::io;
use std::ptr::NonNull;
use std::time::Duration;

use nix::libc;

pub use kernel::{Files, KernelRing};

/// The TUN queue, as requests name it.
pub const TUN: u32 = 0;
/// The receive socket.
pub const RAW_RX: u32 = 1;
/// The send socket.
pub const RAW_TX: u32 = 2;
/// The bell.
pub const BELL: u32 = 3;

/// Something the kernel is to do. Every operation the engine uses, and no other; files are named by their place in the ring's
/// own table.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// Reads packets of the TUN queue into buffers of `group` until it ends.
    ReadTun {
        /// The buffer group.
        group: u16,
    },
    /// Receives packets of the raw socket into buffers of `group` until it ends.
    ReceiveRaw {
        /// The buffer group.
        group: u16,
    },
    /// Says each time that the bell rings.
    HearBell,
    /// Ends the request with this user data.
    Cancel {
        /// What the request was queued with.
        user_data: u64,
    },
    /// Writes a packet to the TUN queue.
    Write {
        /// Its bytes.
        bytes: *const u8,
        /// How many.
        len: u32,
    },
    /// Writes a packet that lies in several parts to the TUN queue.
    WriteParts {
        /// The parts.
        parts: *const libc::iovec,
        /// How many.
        count: u32,
    },
    /// Sends a datagram.
    Send {
        /// Destination and parts.
        message: *const libc::msghdr,
        /// The next request waits for this one, and is cancelled if it fails.
        linked: bool,
    },
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the request was queued with.
    pub user_data: u64,
    /// Bytes, or a negative errno.
    pub result: i32,
    /// `IORING_CQE_F_*`, with the buffer's number in the upper half.
    pub flags: u32,
}

impl Completion {
    /// Whether the request goes on and will be answered again.
    #[inline]
    pub fn has_more(&self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The buffer that was filled.
    #[inline]
    pub fn buffer(&self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// A submission queue and a completion queue, used by one thread.
pub trait Ring {
    /// Places in the submission queue, and in the completion queue.
    fn lengths(&self) -> (usize, usize);

    /// Makes `count` buffer entries at `entries` the buffer group `group`.
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Safety
    /// The entries are a whole number of pages long, belong to nobody else, and outlive the ring.
    unsafe fn register_buffers(&self, entries: NonNull<u8>, count: u16, group: u16) -> io::Result<()>;

    /// Whether the kernel does something for this ring in calls of its thread alone: memory that it was lent stays as it is between them.
    fn acts_in_calls(&self) -> bool;

    /// Free places in the submission queue.
    fn room(&mut self) -> usize;

    /// Queues a request; false when the submission queue is full.
    ///
    /// # Safety
    /// What the request points to stays where it is, unchanged, until its (last) completion.
    unsafe fn push(&mut self, request: &Request, user_data: u64) -> bool;

    /// Hands the submission queue over and waits for `want` completions, for `patience` at most (for ever if `None`); says how
    /// many requests the kernel took.
    ///
    /// # Errors
    /// What the kernel says, `ETIME` included.
    fn enter(&mut self, want: usize, patience: Option<Duration>) -> io::Result<usize>;

    /// Hands nothing over, and waits for one completion, for `patience` at most.
    ///
    /// # Errors
    /// As [`Ring::enter`].
    fn pause(&mut self, patience: Duration) -> io::Result<usize>;

    /// Whether completions wait with the kernel because their queue was full.
    fn has_overflowed(&mut self) -> bool;

    /// Moves completions to `into`, as many as it has room for.
    fn take(&mut self, into: &mut Vec<Completion>);
}
