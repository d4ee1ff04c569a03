//! The send queue of a worker: packets in order, cut into frames, accounted for when their last frame is done.
//!
//! Both lanes share it. A *load* is one outgoing packet; a *frame* is one datagram of it with the structures the kernel
//! reads (message, parts, address, headers), at an address that never moves. Frames are handed to the kernel in chains:
//! a chain is taken whole before the next begins, so that order holds even when the socket is full for a while.

use std::collections::VecDeque;
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;

use nix::libc;

use super::lane::{Form, Outgoing, TUN_SLOTS};
use super::raw::socket_address;
use crate::offload::split::MAX_SEGMENT_HEADERS;
use crate::reason::DropReason;
use crate::stats::{Direction, IoOperation, LoopEvent, WorkerStats};
use crate::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};

/// Frames in one chain: what one enter of the kernel sends at most.
pub(crate) const CHAIN_LEN: usize = 128;

/// Frames in the next chain after the kernel refused one.
const CHAIN_AFTER_REFUSAL: usize = 4;

/// How often a send is tried that failed for another packet's ICMP error.
const MAX_ATTEMPTS: u8 = 4;

/// One datagram as the kernel reads it.
#[repr(C)]
struct Frame {
    message: libc::msghdr,
    parts: [libc::iovec; 2],
    name: libc::sockaddr_in,
    headers: [u8; MIN_HEADER_LEN + MAX_SEGMENT_HEADERS],
    load: usize,
    payload_len: usize,
    attempts: u8,
}

struct Load {
    outgoing: Outgoing,
    /// Datagrams it consists of.
    count: usize,
    /// The first one that has no frame yet.
    next: usize,
    /// Frames not done.
    pending: usize,
    sent: usize,
    sent_bytes: usize,
}

/// Packets on their way to the raw socket.
pub(crate) struct SendQueue {
    /// Stable addresses: the box is never reallocated.
    frames: Box<[Frame]>,
    loads: Box<[Option<Load>]>,
    free_frames: Vec<usize>,
    free_loads: Vec<usize>,
    /// Loads that still need frames, in order.
    waiting: VecDeque<usize>,
    /// Frames to be sent again before anything else.
    again: VecDeque<usize>,
    /// Frames of the chain in the kernel's hands, or about to be, in order.
    chain: VecDeque<usize>,
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
            chain: VecDeque::with_capacity(CHAIN_LEN),
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
        let count = match &outgoing.form {
            Form::Whole => 1,
            Form::Segments(plan, _) => plan.count,
        };
        self.loads[id] = Some(Load {
            outgoing,
            count,
            next: 0,
            pending: 0,
            sent: 0,
            sent_bytes: 0,
        });
        self.waiting.push_back(id);
    }

    /// Builds the next chain, if the last one is done and something waits; says how many frames it has.
    pub(crate) fn next_chain(&mut self) -> usize {
        if !self.chain.is_empty() {
            return 0;
        }
        while self.chain.len() < self.limit {
            let Some(frame) = self.again.pop_front() else {
                break;
            };
            self.chain.push_back(frame);
        }
        if !self.again.is_empty() {
            return self.chain.len();
        }
        while let Some(&id) = self.waiting.front() {
            let Some(load) = self.loads[id].as_mut() else {
                self.waiting.pop_front();
                continue;
            };
            while load.next < load.count {
                if self.chain.len() >= self.limit {
                    return self.chain.len();
                }
                let Some(frame) = self.free_frames.pop() else {
                    return self.chain.len();
                };
                self.frames[frame].fill(id, load, load.next);
                load.next += 1;
                load.pending += 1;
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
        self.frames[frame].wire();
        &raw mut self.frames[frame].message
    }

    /// Records what became of a frame of the chain: bytes sent, or an errno. A frame that was cancelled because one
    /// before it failed keeps its place and is sent again.
    pub(crate) fn done(&mut self, frame: usize, result: Result<usize, i32>, stats: &WorkerStats) {
        let Some(at) = self.chain.iter().position(|f| *f == frame) else {
            stats.event(LoopEvent::StrayCompletion).bump();
            return;
        };
        self.chain.remove(at);
        if result == Err(libc::ECANCELED) {
            self.again.push_back(frame);
            return;
        }
        self.limit = if result.is_ok() {
            (self.limit + 1).min(self.longest)
        } else {
            CHAIN_AFTER_REFUSAL.min(self.longest)
        };
        if let Err(errno) = result {
            stats.error(IoOperation::RawSend, errno).bump();
            if is_foreign(errno) && self.frames[frame].attempts < MAX_ATTEMPTS {
                self.frames[frame].attempts += 1;
                stats.event(LoopEvent::SendRetried).bump();
                self.again.push_back(frame);
                return;
            }
        }
        self.free_frames.push(frame);
        let (id, payload_len) = (self.frames[frame].load, self.frames[frame].payload_len);
        let Some(load) = self.loads.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        load.pending -= 1;
        if result.is_ok() {
            load.sent += 1;
            load.sent_bytes += payload_len;
        }
        if load.pending == 0 && load.next == load.count {
            account(load, stats);
            self.loads[id] = None;
            self.free_loads.push(id);
        }
    }

    /// Counts every load that is not done as dropped for shutdown. The queue must not be used (nor freed while the
    /// kernel may read frames) afterwards.
    pub(crate) fn abandon(&mut self, stats: &WorkerStats) {
        for load in self.loads.iter_mut().filter_map(Option::as_mut) {
            if load.sent > 0 {
                account(load, stats);
            } else {
                stats
                    .direction(Direction::Encap)
                    .drops(DropReason::Shutdown)
                    .bump();
            }
        }
    }
}

fn account(load: &Load, stats: &WorkerStats) {
    let encap = stats.direction(Direction::Encap);
    if load.sent == 0 {
        encap.drops(DropReason::SendError).bump();
        return;
    }
    encap.delivered.bump();
    if load.count == 1 {
        encap.bytes.add(load.outgoing.inner_len as u64);
        return;
    }
    encap.bytes.add(load.sent_bytes as u64);
    encap.superpackets.bump();
    encap.segments.add(load.sent as u64);
    stats
        .event(LoopEvent::SegmentLost)
        .add((load.count - load.sent) as u64);
}

/// Whether an errno may come from an ICMP error about an earlier packet, which the kernel reports on the next send of
/// the socket, whomever it goes to (ip(7), IP_RECVERR; FAULTS 26).
fn is_foreign(errno: i32) -> bool {
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
            | libc::EMSGSIZE
    )
}

impl Frame {
    fn empty() -> Self {
        // SAFETY: `msghdr` and `iovec` are plain data for which all zeroes is a valid value.
        let (message, parts) = unsafe { (zeroed(), zeroed()) };
        Self {
            message,
            parts,
            name: socket_address(Ipv4Addr::UNSPECIFIED),
            headers: [0; MIN_HEADER_LEN + MAX_SEGMENT_HEADERS],
            load: 0,
            payload_len: 0,
            attempts: 0,
        }
    }

    /// Fills the frame with datagram `index` of a load. The parts point into the load's slot, which stays where it is
    /// until the load is done.
    fn fill(&mut self, id: usize, load: &mut Load, index: usize) {
        self.load = id;
        self.attempts = 0;
        self.name.sin_addr.s_addr = load.outgoing.to.to_bits().to_be();
        let bytes = load.outgoing.packet.bytes_mut();
        match &load.outgoing.form {
            Form::Whole => {
                self.payload_len = bytes.len();
                self.parts[0] = part(bytes);
                self.message.msg_iovlen = 1;
            }
            Form::Segments(plan, outer) => {
                let headers_len = MIN_HEADER_LEN + plan.header_len;
                let (outer_out, inner_out) = self.headers[..headers_len].split_at_mut(MIN_HEADER_LEN);
                let payload = plan.segment(bytes, index, inner_out);
                self.payload_len = plan.header_len + payload.len();
                if let Ok(outer_out) = outer_out.try_into() {
                    let payload_len = u16::try_from(self.payload_len).unwrap_or(u16::MAX);
                    OuterHeader {
                        payload_len,
                        ..*outer
                    }
                    .emit(outer_out);
                }
                self.parts[0] = part(&mut self.headers[..headers_len]);
                self.parts[1] = part(&mut bytes[payload]);
                self.message.msg_iovlen = 2;
            }
        }
    }

    /// Points the message at this frame's own parts and address, which do not move: frames live in a box.
    fn wire(&mut self) {
        self.message.msg_name = (&raw mut self.name).cast();
        self.message.msg_namelen =
            libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or_default();
        self.message.msg_iov = self.parts.as_mut_ptr();
    }
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

#[cfg(test)]
mod tests;
