//! How requests reach the kernel: queued, handed over, and what happens when it takes none.

use std::io;
use std::time::Duration;

use nix::libc;

use super::token::Token;
use super::{COMPLETION_PATIENCE, UringLane};
use crate::io::lane::{LaneFault, PERSISTENT_ERRORS};
use crate::io::ring::{Request, Ring};
use crate::stats::{IoOperation, LoopEvent, WorkerStats};

impl<R: Ring> UringLane<R> {
    /// Queues a request; a full submission queue is handed to the kernel first.
    pub(super) fn push(&mut self, request: &Request, token: Token, stats: &WorkerStats) {
        if !self.make_room(1, stats) {
            return;
        }
        // SAFETY: every address in a request is of a slot, frame or ring that this lane keeps until its completion.
        let pushed = unsafe { self.ring.push(request, token.pack()) };
        debug_assert!(pushed, "there was room");
    }

    /// Makes room for so many requests, by handing over those that wait. When the kernel takes none again and again, the lane
    /// has a fault, and nothing more is queued: what waits for the request is accounted for at the end.
    #[inline]
    pub(super) fn make_room(&mut self, count: usize, stats: &WorkerStats) -> bool {
        self.fault.is_none() && (self.ring.room() >= count || self.hand_over_queue(count, stats))
    }

    #[cold]
    fn hand_over_queue(&mut self, count: usize, stats: &WorkerStats) -> bool {
        for _ in 0..PERSISTENT_ERRORS {
            stats.event(LoopEvent::SubmissionFull).bump();
            if let Err(fault) = self.call(0, None, stats) {
                self.fault = Some(fault);
                return false;
            }
            if self.ring.room() >= count {
                return true;
            }
            self.gather();
        }
        self.fault = Some(LaneFault::Wait(io::Error::from_raw_os_error(libc::EAGAIN)));
        false
    }

    /// Hands the submission queue over, and waits for `want` completions.
    pub(super) fn call(
        &mut self,
        want: usize,
        patience: Option<Duration>,
        stats: &WorkerStats,
    ) -> Result<(), LaneFault> {
        stats.syscalls.bump();
        let entered = self.ring.enter(want, patience);
        // The kernel keeps completions that found their queue full (NODROP), and hands them over in the next calls, in
        // order (FAULTS 37).
        if self.ring.has_overflowed() {
            stats.event(LoopEvent::CompletionOverflow).bump();
        }
        entered.map_or_else(|error| self.refused(error, stats), |_| Ok(()))
    }

    /// The kernel did not take the submission queue, or did not wait.
    #[cold]
    fn refused(&mut self, error: io::Error, stats: &WorkerStats) -> Result<(), LaneFault> {
        let errno = error.raw_os_error().unwrap_or_default();
        if errno == libc::ETIME {
            return Ok(());
        }
        stats.error(IoOperation::Wait, errno).bump();
        match errno {
            libc::EINTR => Ok(()),
            // It has no memory for requests, or wants completions to be reaped first. It is not asked again at once.
            libc::EBUSY | libc::EAGAIN => {
                let before = self.completions.len();
                self.gather();
                if self.completions.len() > before {
                    return Ok(());
                }
                stats.syscalls.bump();
                match self.ring.pause(COMPLETION_PATIENCE) {
                    Err(error) if error.raw_os_error() == Some(libc::EBADR) => Err(LaneFault::CompletionLost),
                    // Anything else the next call says again.
                    _ => Ok(()),
                }
            }
            // The kernel had no memory to keep a completion that did not fit: what it belonged to is not known. Said once.
            libc::EBADR => Err(LaneFault::CompletionLost),
            _ => Err(LaneFault::Wait(error)),
        }
    }
}
