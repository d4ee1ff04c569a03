//! What a worker's ring may be asked for: the operations of its lane on the files of its lane, as long as it lives
//! (FAULTS 43).
//!
//! ```text
//!  disabled ring -> files, buffer rings registered -> restrictions -> enabled by the thread that submits
//! ```
//!
//! A ring carries operations past the filter of system calls, which sees one call whatever is asked for by it. A
//! restricted ring (IORING_REGISTER_RESTRICTIONS, Linux 5.10) opens no file, makes no socket and connects to nobody; and
//! since every request must name a registered file, it reaches the four files of the lane and no other descriptor.

use std::io;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};

/// Everything the lane asks of its ring, with what it is for, or the first kernel that has it.
pub const OPERATIONS: [(&str, u8); 7] = [
    ("multishot read (Linux 6.7)", opcode::ReadMulti::CODE),
    ("receive", opcode::RecvMulti::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("write", opcode::Write::CODE),
    ("writev", opcode::Writev::CODE),
    ("poll", opcode::PollAdd::CODE),
    ("cancel", opcode::AsyncCancel::CODE),
];

/// Every request names a registered file.
const REQUIRED: Flags = Flags::FIXED_FILE;
/// Sends of a burst are linked, receives choose their buffer.
const ALLOWED: Flags = REQUIRED.union(Flags::IO_LINK).union(Flags::BUFFER_SELECT);

/// `IORING_REGISTER_ENABLE_RINGS`, which an enabled ring refuses. Kernels that keep restrictions of registrations apart
/// restrict nothing unless at least one is named.
const REGISTRATION_WITHOUT_USE: u8 = 12;

/// What a ring may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingScope {
    /// What the lane uses, on its own files.
    Lane,
    /// Whatever the kernel has: for who has to do without the restriction.
    Anything,
}

impl RingScope {
    /// Prepares a ring for [`RingScope::close`].
    pub(super) fn begin(self, builder: &mut Builder<squeue::Entry, cqueue::Entry>) {
        if self == Self::Lane {
            builder.setup_r_disabled();
        }
    }

    /// Restricts the ring and enables it. Everything has been registered by now; the calling thread alone submits.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn close(self, ring: &IoUring) -> io::Result<()> {
        if self == Self::Anything {
            return Ok(());
        }
        let mut restrictions: Vec<_> = OPERATIONS
            .iter()
            .map(|(_, code)| Restriction::sqe_op(*code))
            .chain([
                Restriction::register_op(REGISTRATION_WITHOUT_USE),
                Restriction::sqe_flags_allowed(ALLOWED.bits()),
                Restriction::sqe_flags_required(REQUIRED.bits()),
            ])
            .collect();
        ring.submitter().register_restrictions(&mut restrictions)?;
        ring.submitter().register_enable_rings()
    }
}

#[cfg(test)]
#[path = "restrict_tests.rs"]
mod tests;
