//! The send queue of a worker: packets in order, cut into frames, accounted for when their last frame is done.
//!
//! Both lanes share it. A *load* is one outgoing packet; a *frame* is one datagram of it, or a fragment of one, with the
//! structures the kernel reads (message, parts, address, headers), at an address that never moves. Frames are handed to the
//! kernel in chains: a chain is taken whole before the next begins, so that order holds even when the socket is full for a
//! while.
//!
//! A raw socket that writes its own headers never fragments: what our own link does not take we cut ourselves (FAULTS 28),
//! as the Rulebook says, or when the kernel has refused it. With DF set nothing is cut (M10). What is refused then goes again
//! without DF if every IPv6 link had to take it, and else bounces: the worker tells its sender (M4).

mod frame;
mod load;

use std::collections::VecDeque;

use nix::libc;

use super::lane::{Bounced, Outgoing, TUN_SLOTS};
use super::ticket;
use crate::reason::DropReason;
use crate::stats::{Direction, IoOperation, LoopEvent, WorkerStats};
use frame::Frame;
use load::Load;

/// Frames in one chain: what one enter of the kernel sends at most.
pub(crate) const CHAIN_LEN: usize = 128;
const _: () = assert!(CHAIN_LEN <= ticket::PLACES);

/// Frames in the next chain after the kernel refused one.
const CHAIN_AFTER_REFUSAL: usize = 4;

/// How often a send is tried that failed for another packet's ICMP error.
pub(super) const MAX_ATTEMPTS: u8 = 4;

/// Packets on their way to the raw socket.
pub(crate) struct SendQueue {
    /// Stable addresses: the box is never reallocated.
    frames: Box<[Frame]>,
    loads: Box<[Option<Load>]>,
    free_frames: Vec<usize>,
    free_loads: Vec<usize>,
    /// Loads that still need frames, in order.
    waiting: VecDeque<usize>,
    /// Frames to be sent again before anything else, in order.
    again: VecDeque<usize>,
    /// How many of them, at the front, come from the chain in the kernel's hands.
    returned: usize,
    /// Packets the link refused for their size, for the worker to take.
    bounced: VecDeque<Bounced>,
    /// Packets that were refused otherwise, for whoever captures; only while somebody does.
    refused: VecDeque<Outgoing>,
    keep_refused: bool,
    /// Frames of the chain in the kernel's hands, or about to be, in order.
    chain: VecDeque<usize>,
    /// A frame of the chain in the kernel's hands has failed by itself: those behind it are cancelled.
    broken: bool,
    /// How long the next chain may be: short after a refusal, since a refused frame holds up those behind it.
    limit: usize,
    /// How long a chain may ever be: a ring takes a chain in one submission or not as a chain.
    longest: usize,
}

impl std::fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendQueue")
            .field("loads", &(self.loads.len() - self.free_loads.len()))
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl SendQueue {
    /// An empty queue whose chains have at most `longest` frames, and never more than [`CHAIN_LEN`].
    pub(crate) fn new(longest: usize) -> Self {
        let longest = longest.clamp(1, CHAIN_LEN);
        let loads = usize::from(TUN_SLOTS);
        Self {
            frames: (0..CHAIN_LEN).map(|_| Frame::empty()).collect(),
            loads: (0..loads).map(|_| None).collect(),
            free_frames: (0..CHAIN_LEN).rev().collect(),
            free_loads: (0..loads).rev().collect(),
            waiting: VecDeque::with_capacity(loads),
            again: VecDeque::with_capacity(CHAIN_LEN),
            returned: 0,
            bounced: VecDeque::with_capacity(loads),
            refused: VecDeque::with_capacity(loads),
            keep_refused: false,
            chain: VecDeque::with_capacity(CHAIN_LEN),
            broken: false,
            limit: longest,
            longest,
        }
    }

    /// Whether nothing is queued and nothing in the kernel's hands.
    pub(crate) fn is_empty(&self) -> bool {
        self.free_loads.len() == self.loads.len()
    }

    /// Appends a packet. Every load holds a slot of the TUN pool, of which there are as many as loads; should that ever
    /// not hold, the packet is counted as not sent.
    pub(crate) fn push(&mut self, outgoing: Outgoing, stats: &WorkerStats) {
        let Some(id) = self.free_loads.pop() else {
            stats
                .direction(Direction::Encap)
                .drops(DropReason::SendError)
                .bump();
            return;
        };
        self.loads[id] = Some(Load::new(outgoing));
        self.waiting.push_back(id);
    }

    /// Builds the next chain, if the last one is done and something waits; says how many frames it has.
    pub(crate) fn next_chain(&mut self) -> usize {
        if !self.chain.is_empty() {
            return 0;
        }
        self.returned = 0;
        self.broken = false;
        while self.chain.len() < self.limit {
            let Some(frame) = self.again.pop_front() else {
                break;
            };
            self.chain.push_back(frame);
            if self.frames[frame].has_more() {
                // Its next piece goes before those behind it.
                return self.chain.len();
            }
        }
        if !self.again.is_empty() {
            return self.chain.len();
        }
        while let Some(&id) = self.waiting.front() {
            let Some(load) = self.loads[id].as_mut() else {
                self.waiting.pop_front();
                continue;
            };
            while !load.is_given_out() {
                if self.chain.len() >= self.limit {
                    return self.chain.len();
                }
                let Some(frame) = self.free_frames.pop() else {
                    return self.chain.len();
                };
                let share = load.give_out();
                self.frames[frame].fill(id, share, &mut load.outgoing);
                self.chain.push_back(frame);
            }
            self.waiting.pop_front();
        }
        self.chain.len()
    }

    /// The frames of the chain that are not done, in order.
    pub(crate) fn chain(&self) -> impl Iterator<Item = usize> + '_ {
        self.chain.iter().copied()
    }

    /// How many frames of the chain are not done.
    pub(crate) fn chain_len(&self) -> usize {
        self.chain.len()
    }

    /// The first frame of the chain that is not done.
    pub(crate) fn chain_head(&self) -> Option<usize> {
        self.chain.front().copied()
    }

    /// What the kernel is to send for a frame. Valid until the frame is done.
    pub(crate) fn message(&mut self, frame: usize) -> *mut libc::msghdr {
        self.frames[frame].message()
    }

    /// By what an answer of the kernel finds the frame. Good until the frame is done.
    pub(crate) fn ticket(&self, frame: usize) -> u32 {
        self.frames[frame].uses.ticket(frame)
    }

    /// The frame of a ticket, if the kernel holds it by that ticket.
    pub(crate) fn redeem(&self, ticket: u32) -> Option<usize> {
        let place = ticket::place(ticket);
        let frame = self.frames.get(place)?;
        (frame.uses.ticket(place) == ticket).then_some(place)
    }

    /// Records what became of a frame of the chain: bytes sent, or an errno. A frame that was cancelled because one
    /// before it failed keeps its place and is sent again.
    pub(crate) fn done(&mut self, frame: usize, result: Result<usize, i32>, stats: &WorkerStats) {
        let Some(at) = self.chain.iter().position(|f| *f == frame) else {
            stats.event(LoopEvent::StrayCompletion).bump();
            return;
        };
        self.chain.remove(at);
        self.frames[frame].uses.count();
        if result == Err(libc::ECANCELED) && self.broken {
            return self.send_again(frame);
        }
        self.broken |= result.is_err();
        self.limit = if result.is_ok() {
            (self.limit + 1).min(self.longest)
        } else {
            CHAIN_AFTER_REFUSAL.min(self.longest)
        };
        let sending = &mut self.frames[frame];
        let id = sending.load;
        let Some(load) = self.loads.get_mut(id).and_then(Option::as_mut) else {
            return self.free_frames.push(frame);
        };
        match result {
            Ok(taken) if taken != sending.len() => {
                stats.event(LoopEvent::ShortSend).bump();
                load.refused(&sending.share, false);
            }
            Ok(_) if sending.has_more() => {
                sending.advance(&mut load.outgoing);
                return self.send_again(frame);
            }
            Ok(_) => load.sent(&sending.share, stats),
            Err(errno) => {
                stats.error(IoOperation::RawSend, errno).bump();
                if errno == libc::EMSGSIZE && sending.shrink(&mut load.outgoing) {
                    return self.send_again(frame);
                }
                if is_passing(errno) && sending.attempts < MAX_ATTEMPTS {
                    sending.attempts += 1;
                    stats.event(LoopEvent::SendRetried).bump();
                    return self.send_again(frame);
                }
                load.refused(&sending.share, errno == libc::EMSGSIZE);
            }
        }
        self.free_frames.push(frame);
        if load.is_done() {
            load.account(stats);
            if let Some(load) = self.loads[id].take() {
                self.set_aside(load);
            }
            self.free_loads.push(id);
        }
    }

    /// Keeps a packet that is done and was not taken whole, as far as somebody wants to know.
    fn set_aside(&mut self, load: Load) {
        let lost = load.is_lost();
        if load.is_too_big() {
            self.bounced.push_back(Bounced {
                outgoing: load.outgoing,
                lost,
            });
        } else if lost && self.keep_refused {
            self.refused.push_back(load.outgoing);
        }
    }

    /// Puts a frame of the chain where it belongs: behind those of the chain that came back before, before all others.
    fn send_again(&mut self, frame: usize) {
        self.again.insert(self.returned.min(self.again.len()), frame);
        self.returned += 1;
    }

    /// Whether [`SendQueue::bounced`] has something.
    pub(crate) fn has_bounced(&self) -> bool {
        !self.bounced.is_empty()
    }

    /// Takes a packet that the link refused for its size though DF is set; it is counted already.
    pub(crate) fn bounced(&mut self) -> Option<Bounced> {
        self.bounced.pop_front()
    }

    /// Whether packets that the kernel refuses are kept from now on.
    pub(crate) fn keep_refused(&mut self, keep: bool) {
        self.keep_refused = keep;
        if !keep {
            self.refused.clear();
        }
    }

    /// Takes a packet that the kernel refused otherwise; it is counted already.
    pub(crate) fn refused(&mut self) -> Option<Outgoing> {
        self.refused.pop_front()
    }

    /// Counts every load that is not done as dropped for shutdown. The queue must not be used (nor freed while the
    /// kernel may read frames) afterwards.
    pub(crate) fn abandon(&mut self, stats: &WorkerStats) {
        for load in self.loads.iter().flatten() {
            load.abandon(stats);
        }
    }
}

/// Whether an errno may come from an ICMP error about an earlier packet, which the kernel reports on the next send of
/// the socket, whomever it goes to (ip(7), IP_RECVERR; FAULTS 26).
pub(super) fn is_foreign(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENONET
            | libc::EPROTO
    )
}

/// Whether the same send may well succeed when it is tried again: the error is another packet's, or the kernel was
/// interrupted, or cancelled the send though nothing before it had failed.
fn is_passing(errno: i32) -> bool {
    is_foreign(errno) || matches!(errno, libc::EINTR | libc::EAGAIN | libc::ECANCELED)
}

#[cfg(test)]
mod fragments;
#[cfg(test)]
mod tests;
