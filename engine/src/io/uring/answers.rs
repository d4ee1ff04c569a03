//! What the kernel answers, and what it means; answers that cannot be.

use std::io;

use nix::libc;

use super::UringLane;
use super::token::Token;
use crate::buf::Packet;
use crate::io::lane::{Inbox, LaneFault, PERSISTENT_ERRORS};
use crate::io::ring::{Completion, Ring};
use crate::io::ticket::Uses;
use crate::stats::{IoOperation, LoopEvent, WorkerStats};

/// A request that goes on until it ends: armed or not, how often it was, and how often in a row it failed.
#[derive(Debug, Default)]
pub(super) struct Arming {
    pub(super) armed: bool,
    uses: Uses,
    failures: u32,
}

impl Arming {
    /// Armed from now on; the ticket for it.
    pub(super) fn arm(&mut self) -> u32 {
        self.armed = true;
        self.uses.count();
        self.ticket()
    }

    pub(super) fn ticket(&self) -> u32 {
        self.uses.ticket(0)
    }

    /// An answer has come; false when there can be none. Without `more` it was the last one.
    fn answered(&mut self, ticket: u32, more: bool) -> bool {
        let ours = self.armed && ticket == self.ticket();
        self.armed &= more || !ours;
        ours
    }

    /// It failed once more.
    fn failed(&mut self, operation: IoOperation, source: io::Error) -> Result<(), LaneFault> {
        self.failures += 1;
        if self.failures < PERSISTENT_ERRORS {
            return Ok(());
        }
        Err(LaneFault::Persistent {
            operation: operation.name(),
            source,
        })
    }
}

impl<R: Ring> UringLane<R> {
    /// Copies completions out of the ring.
    pub(super) fn gather(&mut self) {
        self.ring.take(&mut self.completions);
    }

    fn received(
        &mut self,
        operation: IoOperation,
        ticket: u32,
        completion: &Completion,
        inbox: &mut Inbox,
        stats: &WorkerStats,
    ) -> Result<(), LaneFault> {
        let (arming, ring, packets) = match operation {
            IoOperation::TunRead => (&mut self.tun, &self.tun_ring, &mut inbox.tun),
            _ => (&mut self.raw, &self.raw_ring, &mut inbox.raw),
        };
        if !arming.answered(ticket, completion.has_more()) {
            return Err(stray(stats));
        }
        if !arming.armed && !self.quiescing {
            stats.event(LoopEvent::Rearmed).bump();
        }
        let slot = match completion.buffer().map(|id| ring.reclaim(id)) {
            None => None,
            Some(Some(slot)) => Some(slot),
            Some(None) => return Err(stray(stats)),
        };
        let Ok(len) = usize::try_from(completion.result) else {
            let errno = -completion.result;
            match errno {
                libc::ENOBUFS => {
                    stats.event(LoopEvent::BuffersEmpty).bump();
                    return Ok(());
                }
                libc::ECANCELED if self.quiescing => return Ok(()),
                _ => stats.error(operation, errno).bump(),
            }
            let source = io::Error::from_raw_os_error(errno);
            if operation == IoOperation::TunRead
                && matches!(errno, libc::EBADFD | libc::EFAULT | libc::ENODEV)
            {
                return Err(LaneFault::TunGone(source));
            }
            return arming.failed(operation, source);
        };
        match slot {
            Some(slot) if len <= ring.buffer_len() => {
                arming.failures = 0;
                packets.push(Packet::received(slot, len));
                Ok(())
            }
            // The end of a stream, which neither file is.
            None if len == 0 => {
                stats.error(operation, 0).bump();
                arming.failed(operation, io::ErrorKind::UnexpectedEof.into())
            }
            _ => Err(stray(stats)),
        }
    }

    /// The bell rang, or cannot be heard.
    fn heard(&mut self, ticket: u32, completion: &Completion, stats: &WorkerStats) -> Result<(), LaneFault> {
        if !self.hearing.answered(ticket, completion.has_more()) {
            return Err(stray(stats));
        }
        self.bell.silence();
        if completion.result >= 0 {
            self.hearing.failures = 0;
            return Ok(());
        }
        let errno = -completion.result;
        stats.error(IoOperation::Wait, errno).bump();
        self.hearing
            .failed(IoOperation::Wait, io::Error::from_raw_os_error(errno))
    }

    fn complete(
        &mut self,
        completion: &Completion,
        inbox: &mut Inbox,
        stats: &WorkerStats,
    ) -> Result<(), LaneFault> {
        let result = usize::try_from(completion.result).map_err(|_| -completion.result);
        match Token::unpack(completion.user_data) {
            Some(Token::TunRead(ticket)) => {
                self.received(IoOperation::TunRead, ticket, completion, inbox, stats)
            }
            Some(Token::RawReceive(ticket)) => {
                self.received(IoOperation::RawReceive, ticket, completion, inbox, stats)
            }
            Some(Token::Send(ticket)) => match self.sends.redeem(ticket) {
                Some(frame) => {
                    self.sends.done(frame, result, stats);
                    Ok(())
                }
                None => Err(stray(stats)),
            },
            Some(Token::Write(ticket)) => self
                .writes
                .settle(ticket, result, stats)
                .unwrap_or_else(|| Err(stray(stats))),
            Some(Token::Bell(ticket)) => self.heard(ticket, completion, stats),
            Some(Token::Cancel) => Ok(()),
            None => Err(stray(stats)),
        }
    }

    /// Accounts for every completion that was gathered; the first fault counts.
    pub(super) fn settle(&mut self, inbox: &mut Inbox, stats: &WorkerStats) -> Result<(), LaneFault> {
        let mut completions = std::mem::take(&mut self.completions);
        let mut outcome = Ok(());
        for completion in completions.drain(..) {
            let settled = self.complete(&completion, inbox, stats);
            outcome = outcome.and(settled);
        }
        self.completions = completions;
        outcome
    }
}

/// Counts a completion that no request of ours explains.
#[cold]
fn stray(stats: &WorkerStats) -> LaneFault {
    stats.event(LoopEvent::StrayCompletion).bump();
    LaneFault::StrayCompletion
}
