//! What a worker asks of a lane: bring packets, take packets, say what became of them.
//!
//! A lane keeps the order of what it is given, in each direction, whatever fails in between; it counts errors per
//! operation and errno, and accounts for every packet handed to it exactly once. It never looks into a packet.

use std::io;
use std::time::Duration;

use crate::buf::{Packet, Pool};
use crate::offload::split::SplitPlan;
use crate::reason::DropReason;
use crate::stats::WorkerStats;
use crate::wire::ipv4::OuterHeader;

/// How many packets of one direction a worker takes in one turn, at most.
pub const BURST: usize = 128;

/// Receive slots for the TUN side: each may hold a 64 KiB superpacket that is being sent.
pub const TUN_SLOTS: u16 = 64;
/// Receive slots for the raw side.
pub const RAW_SLOTS: u16 = 128;
/// Slots for packets the worker makes itself.
pub const REPLY_SLOTS: u16 = 32;
/// Bytes of a receive slot: head room, vnet header, and the largest IPv6 packet without jumbo option, in whole pages.
pub const SLOT_LEN: usize = 68 << 10;
/// Bytes of a reply slot: head room, vnet header, and an ICMPv6 error of at most 1280 bytes.
pub const REPLY_SLOT_LEN: usize = 2 << 10;

/// Which lane carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LaneChoice {
    /// The best that works on this machine.
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// epoll with `recvmmsg` and `sendmmsg`.
    Syscall,
}

/// The lane in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// io_uring.
    Uring,
    /// epoll with `recvmmsg` and `sendmmsg`.
    Syscall,
}

impl LaneKind {
    /// The name on command line and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            LaneKind::Uring => "uring",
            LaneKind::Syscall => "syscall",
        }
    }
}

/// What a lane has brought.
#[derive(Debug)]
pub struct Inbox {
    /// From the TUN queue: vnet header, then the inner packet.
    pub tun: Vec<Packet>,
    /// From the raw socket: outer header, then the inner packet.
    pub raw: Vec<Packet>,
}

impl Inbox {
    /// An empty inbox that never grows: a lane brings no more than its pools hold.
    pub fn new() -> Self {
        Self {
            tun: Vec::with_capacity(usize::from(TUN_SLOTS)),
            raw: Vec::with_capacity(usize::from(RAW_SLOTS)),
        }
    }

    /// Whether nothing was brought.
    pub fn is_empty(&self) -> bool {
        self.tun.is_empty() && self.raw.is_empty()
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

/// A packet to be sent to the IPv4 network.
#[derive(Debug)]
pub struct Outgoing {
    /// Whole: the outer packet. Segments: the inner superpacket.
    pub packet: Packet,
    /// The outer header, whose destination is the IPv4 next hop; of a superpacket, that of each segment but for its length.
    pub outer: OuterHeader,
    /// The largest IPv4 packet our own link takes: without DF, what is larger leaves in fragments. `u16::MAX` until known.
    pub link_mtu: u16,
    /// Inner bytes, for the byte counter.
    pub inner_len: usize,
    /// One packet or many.
    pub form: Form,
}

/// How an outgoing packet lies in its slot.
#[derive(Debug)]
pub enum Form {
    /// Outer header in front, ready to send.
    Whole,
    /// An inner superpacket: every segment gets the outer header and its own copy of the inner headers.
    Segments(SplitPlan),
}

/// What a packet written to the TUN interface counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Decapsulated packets: as many as were received, as one packet that stands for so many segments.
    Decap {
        /// Packets as they were received: what the packet counters count.
        packets: usize,
        /// Inner bytes.
        bytes: usize,
        /// Segments; 1 for an ordinary packet.
        segments: usize,
    },
    /// An ICMPv6 error of our own: counted apart.
    Reply,
}

/// A packet that the link refused for its size, with DF set; it is counted already.
#[derive(Debug)]
pub struct Bounced {
    /// The packet.
    pub outgoing: Outgoing,
    /// Nothing of it was sent: it is counted as dropped.
    pub lost: bool,
}

/// A packet that the kernel refused for good, kept for those who capture; it is counted already.
#[derive(Debug)]
pub enum Refused {
    /// By the send socket, as [`DropReason::SendError`].
    Send(Outgoing),
    /// By the TUN interface.
    Write {
        /// As which reason it is counted.
        reason: DropReason,
        /// The vnet header and the packet, or the first of those that were merged.
        head: Packet,
        /// Bytes of the whole write.
        len: usize,
        /// Packets as they were received.
        packets: usize,
    },
}

/// Why a worker cannot go on. Each ends the worker with a message, never silently.
#[derive(Debug, thiserror::Error)]
pub enum LaneFault {
    /// The TUN device was deleted.
    #[error("the TUN interface is gone ({0}): it was deleted by somebody else")]
    TunGone(io::Error),
    /// An operation fails again and again.
    #[error("{operation} fails again and again: {source}")]
    Persistent {
        /// Which.
        operation: &'static str,
        /// The last error.
        source: io::Error,
    },
    /// The kernel dropped a completion (EBADR): slots and packets can no longer be accounted for.
    #[error("the kernel was out of memory and lost a completion of the ring: give the machine more memory")]
    CompletionLost,
    /// The kernel answered what was not asked, or twice, or what cannot be: it may also write to memory that is not its own.
    #[error(
        "the ring gave an answer that no request explains: it cannot be trusted any more; a fault of the kernel, or of ours"
    )]
    StrayCompletion,
    /// The ring or the poller itself failed.
    #[error("cannot wait for packets: {0}")]
    Wait(io::Error),
}

/// After so many errors of one receive operation without one success, the worker gives up.
pub const PERSISTENT_ERRORS: u32 = 64;

/// Whether a turn asked the kernel for more, and may have slept, or found that there was more already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing was asked: no time has passed.
    AtOnce,
    /// The kernel was asked.
    Waited,
}

/// A way to carry bursts between the TUN queue and the raw sockets.
pub trait Lane {
    /// Waits for packets, completions, the bell, or `patience` (for ever if `None`); fills `inbox`, which the caller has
    /// emptied.
    ///
    /// # Errors
    /// [`LaneFault`] when the worker cannot go on.
    fn turn(
        &mut self,
        inbox: &mut Inbox,
        patience: Option<Duration>,
        stats: &WorkerStats,
    ) -> Result<Turn, LaneFault>;

    /// Hands over what was queued, and returns when the kernel has taken it, or the send socket has been full for a moment:
    /// the other direction must not starve.
    ///
    /// # Errors
    /// [`LaneFault`] when the worker cannot go on.
    fn hand_over(&mut self, stats: &WorkerStats) -> Result<(), LaneFault>;

    /// Queues a packet for the IPv4 network. It is accounted for as encap when the kernel has taken or refused it.
    fn send(&mut self, outgoing: Outgoing, stats: &WorkerStats);

    /// Queues one packet for the TUN interface: `head` with the vnet header in front, then the bytes of `tails`, which is
    /// emptied. Accounted for as `written`.
    fn write(&mut self, head: Packet, tails: &mut Vec<Packet>, written: Written, stats: &WorkerStats);

    /// Whether [`Lane::bounced`] has something.
    fn has_bounced(&self) -> bool {
        false
    }

    /// Takes a packet that the link refused for its size, with DF set, so that its sender can be told.
    fn bounced(&mut self) -> Option<Bounced> {
        None
    }

    /// Whether packets that the kernel refuses are kept for [`Lane::take_refused`] from now on. Whoever asks takes them in every
    /// turn, since each holds its slot.
    fn keep_refused(&mut self, _keep: bool) {}

    /// Takes a packet that the kernel refused.
    fn take_refused(&mut self) -> Option<Refused> {
        None
    }

    /// The pool for packets the worker makes itself.
    fn reply_pool(&self) -> &std::rc::Rc<Pool>;

    /// Gives back the memory of receive slots, which take it again as they are filled; only while no packet is in one, and right after
    /// a turn that brought none. Says whether it did.
    fn rest(&mut self) -> bool {
        false
    }

    /// Stops bringing packets; what is in hand is still carried.
    fn quiesce(&mut self);

    /// Whether, after [`Lane::quiesce`], the kernel holds nothing of ours any more.
    fn is_quiet(&self) -> bool;

    /// Gives up on what is still in the kernel's hands: counts it as dropped for shutdown, and never frees memory that
    /// the kernel may still write to.
    fn abandon(self, stats: &WorkerStats)
    where
        Self: Sized;
}
