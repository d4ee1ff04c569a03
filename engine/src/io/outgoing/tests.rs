//! Tests of the send queue: order, refusals, retries, superpackets, and what is left at the end.

use std::net::Ipv4Addr;

use super::*;
use crate::buf::{Packet, Pool};
use crate::io::lane::Form;
use crate::offload::split::SplitPlan;
use crate::wire::ipv4::OuterHeader;
use crate::wire::vnet::{GsoType, VnetHeader};
use std::rc::Rc;

const OUTER: OuterHeader = OuterHeader {
    src: Ipv4Addr::new(10, 0, 0, 1),
    dst: Ipv4Addr::new(10, 0, 0, 2),
    tos: 0,
    ttl: 1,
    dont_fragment: false,
    id: 0,
    payload_len: 0,
};

struct Bench {
    pool: Rc<Pool>,
    queue: SendQueue,
    stats: WorkerStats,
}

impl Bench {
    fn new() -> Self {
        Self {
            pool: Pool::new(TUN_SLOTS, 16384).unwrap(),
            queue: SendQueue::new(CHAIN_LEN),
            stats: WorkerStats::default(),
        }
    }

    fn push_whole(&mut self, len: usize) {
        let packet = Packet::received(self.pool.take().unwrap(), len);
        self.queue.push(
            Outgoing {
                packet,
                outer: OUTER,
                link_mtu: u16::MAX,
                inner_len: len - 20,
                form: Form::Whole,
            },
            &self.stats,
        );
    }

    /// A UDP superpacket of `count` segments of 100 bytes.
    fn push_segments(&mut self, count: usize) {
        let len = 48 + 100 * count;
        let mut packet = Packet::received(self.pool.take().unwrap(), len);
        let bytes = packet.bytes_mut();
        bytes.fill(0);
        bytes[0] = 0x60;
        let payload_len = u16::try_from(len - 40).unwrap().to_be_bytes();
        bytes[4..6].copy_from_slice(&payload_len);
        bytes[6] = 17;
        bytes[44..46].copy_from_slice(&payload_len);
        let vnet = VnetHeader {
            needs_csum: true,
            gso: GsoType::UdpL4,
            gso_size: 100,
            csum_start: 40,
            csum_offset: 6,
            ..VnetHeader::NONE
        };
        let plan = SplitPlan::new(&vnet, bytes).unwrap();
        self.queue.push(
            Outgoing {
                packet,
                outer: OUTER,
                link_mtu: u16::MAX,
                inner_len: len,
                form: Form::Segments(plan),
            },
            &self.stats,
        );
    }

    /// Answers every frame of the chain in order, as the kernel would.
    fn answer(&mut self, mut result: impl FnMut(usize) -> Result<usize, i32>) -> Vec<usize> {
        let frames: Vec<_> = self.queue.chain().collect();
        for (at, frame) in frames.iter().enumerate() {
            self.queue.done(*frame, result(at), &self.stats);
        }
        frames
    }

    fn delivered(&self) -> u64 {
        self.stats.direction(Direction::Encap).delivered.get()
    }

    fn refused(&self) -> u64 {
        self.stats
            .direction(Direction::Encap)
            .drops(DropReason::SendError)
            .get()
    }
}

#[test]
fn a_chain_is_done_before_the_next_begins() {
    let mut bench = Bench::new();
    (0..3).for_each(|_| bench.push_whole(100));
    assert_eq!(bench.queue.next_chain(), 3);
    bench.push_whole(100);
    assert_eq!(
        bench.queue.next_chain(),
        0,
        "the first chain is still in the kernel's hands"
    );
    bench.answer(|_| Ok(100));
    assert_eq!(bench.queue.next_chain(), 1);
    bench.answer(|_| Ok(100));
    assert!(bench.queue.is_empty());
    assert_eq!((bench.delivered(), bench.pool.census().held), (4, 0));
    assert_eq!(bench.stats.direction(Direction::Encap).bytes.get(), 4 * 80);
}

/// FAULTS 27, 29: a refusal is counted by its errno, and those behind it come again in their order.
#[test]
fn a_refused_frame_holds_up_those_behind_it_without_reordering() {
    let mut bench = Bench::new();
    (0..6).for_each(|_| bench.push_whole(100));
    assert_eq!(bench.queue.next_chain(), 6);
    let cancelled = |at| match at {
        0 => Ok(100),
        1 => Err(libc::ENOBUFS),
        _ => Err(libc::ECANCELED),
    };
    let first = bench.answer(cancelled);
    assert_eq!(
        bench.queue.next_chain(),
        CHAIN_AFTER_REFUSAL,
        "short chains after a refusal"
    );
    assert_eq!(bench.queue.chain().collect::<Vec<_>>(), first[2..]);
    bench.answer(|_| Ok(100));
    assert_eq!((bench.delivered(), bench.refused()), (5, 1));
    assert_eq!(bench.stats.error(IoOperation::RawSend, libc::ENOBUFS).get(), 1);
    assert_eq!(
        bench.stats.error(IoOperation::RawSend, libc::ECANCELED).get(),
        0,
        "our own doing is no error"
    );
    assert!(bench.queue.is_empty());
}

/// FAULTS 26: another packet's ICMP error costs no packet; an address that is really unreachable ends.
#[test]
fn foreign_errors_are_tried_again_and_not_for_ever() {
    let mut bench = Bench::new();
    bench.push_whole(100);
    bench.queue.next_chain();
    bench.answer(|_| Err(libc::EHOSTUNREACH));
    assert_eq!(bench.queue.next_chain(), 1);
    bench.answer(|_| Ok(100));
    assert_eq!((bench.delivered(), bench.refused()), (1, 0));

    bench.push_whole(100);
    let mut attempts = 0;
    while bench.queue.next_chain() > 0 {
        bench.answer(|_| Err(libc::ENETUNREACH));
        attempts += 1;
    }
    assert_eq!((attempts, bench.refused()), (u64::from(MAX_ATTEMPTS) + 1, 1));
    assert!(bench.queue.is_empty());
}

/// A superpacket counts once; lost segments are counted apart; one longer than a chain is sent over several.
#[test]
fn superpackets_count_once() {
    let mut bench = Bench::new();
    bench.push_segments(150);
    assert_eq!(bench.queue.next_chain(), CHAIN_LEN);
    bench.answer(|at| if at == 3 { Err(libc::EPERM) } else { Ok(168) });
    while bench.queue.next_chain() > 0 {
        bench.answer(|_| Ok(168));
    }
    let encap = bench.stats.direction(Direction::Encap);
    assert_eq!(
        (bench.delivered(), encap.superpackets.get(), encap.segments.get()),
        (1, 1, 149)
    );
    assert_eq!(bench.stats.event(LoopEvent::SegmentLost).get(), 1);
    assert_eq!(encap.bytes.get(), 149 * 148);

    bench.push_segments(2);
    bench.queue.next_chain();
    bench.answer(|_| Err(libc::EPERM));
    while bench.queue.next_chain() > 0 {
        bench.answer(|_| Err(libc::EPERM));
    }
    assert_eq!(
        bench.refused(),
        1,
        "a superpacket of which nothing left is one drop"
    );
    assert_eq!(bench.pool.census().held, 0);
}

/// FAULTS 29, 39: what passes is tried again, a send that is cancelled though none before it failed included; a send that
/// was cut short is refused, and its superpacket goes on.
#[test]
fn interrupted_cancelled_and_short_sends() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
        let mut bench = Bench::new();
        (0..2).for_each(|_| bench.push_whole(100));
        bench.queue.next_chain();
        bench.answer(|at| Err(if at == 0 { errno } else { libc::ECANCELED }));
        assert_eq!(bench.stats.error(IoOperation::RawSend, errno).get(), 1);
        bench.queue.next_chain();
        bench.answer(|_| Ok(100));
        assert_eq!((bench.delivered(), bench.refused()), (2, 0));
        bench.push_whole(100);
        let mut chains = 0;
        while bench.queue.next_chain() > 0 {
            bench.answer(|_| Err(errno));
            chains += 1;
        }
        assert_eq!((chains, bench.refused()), (MAX_ATTEMPTS + 1, 1), "not for ever");
    }
    let mut bench = Bench::new();
    bench.push_whole(100);
    bench.push_segments(3);
    bench.queue.next_chain();
    bench.answer(|at| Ok([99, 168, 20, 169][at]));
    let encap = bench.stats.direction(Direction::Encap);
    assert_eq!(bench.stats.event(LoopEvent::ShortSend).get(), 3);
    assert_eq!(
        (bench.delivered(), bench.refused(), encap.segments.get()),
        (1, 1, 1)
    );
    assert!(bench.queue.is_empty());
}

/// FAULTS 39: a frame is answered once, also when its place is used again.
#[test]
fn a_ticket_is_good_for_one_answer() {
    let mut bench = Bench::new();
    let mut old = Vec::new();
    for _ in 0..3 {
        bench.push_whole(100);
        assert_eq!(bench.queue.next_chain(), 1);
        let frame = bench.queue.chain_head().unwrap();
        let ticket = bench.queue.ticket(frame);
        assert!(old.iter().all(|old| bench.queue.redeem(*old).is_none()));
        assert_eq!(bench.queue.redeem(ticket), Some(frame));
        bench.queue.done(frame, Ok(100), &bench.stats);
        assert_eq!(bench.queue.redeem(ticket), None);
        old.push(ticket);
    }
    assert_eq!(bench.queue.redeem(u32::MAX), None);
}

/// FAULTS 39: completions that belong to nothing change nothing.
#[test]
fn stray_completions_are_counted() {
    let mut bench = Bench::new();
    bench.push_whole(100);
    bench.queue.next_chain();
    let frames = bench.answer(|_| Ok(100));
    bench.queue.done(frames[0], Ok(100), &bench.stats);
    bench.queue.done(9999, Err(1), &bench.stats);
    assert_eq!(bench.stats.event(LoopEvent::StrayCompletion).get(), 2);
    assert_eq!(bench.delivered(), 1);
}

#[test]
fn what_is_abandoned_is_counted() {
    let mut bench = Bench::new();
    bench.push_whole(100);
    bench.push_segments(2);
    bench.queue.next_chain();
    let second = bench.queue.chain().nth(1).unwrap();
    bench.queue.done(second, Ok(168), &bench.stats);
    bench.queue.abandon(&bench.stats);
    let shutdown = bench
        .stats
        .direction(Direction::Encap)
        .drops(DropReason::Shutdown)
        .get();
    assert_eq!((shutdown, bench.delivered()), (1, 1));
}
