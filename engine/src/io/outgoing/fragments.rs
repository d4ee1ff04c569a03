//! Tests of what our own link does not take whole: fragments, their order, their numbers, and what bounces (FAULTS 28).

use std::net::Ipv4Addr;
use std::rc::Rc;

use super::*;
use crate::buf::{Packet, Pool};
use crate::io::lane::Form;
use crate::offload::split::SplitPlan;
use crate::wire::ipv4::{Ipv4View, MIN_HEADER_LEN, OuterHeader};
use crate::wire::vnet::{GsoType, VnetHeader};

const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

struct Bench {
    pool: Rc<Pool>,
    queue: SendQueue,
    stats: WorkerStats,
    /// What the queue is told of the link.
    known: u16,
    dont_fragment: bool,
    /// Payloads of the datagrams pushed, in order.
    pushed: Vec<Vec<u8>>,
    /// What the link took, in order.
    wire: Vec<Vec<u8>>,
}

impl Bench {
    fn new(known: u16) -> Self {
        Self {
            pool: Pool::new(TUN_SLOTS, 68 << 10).unwrap(),
            queue: SendQueue::new(CHAIN_LEN),
            stats: WorkerStats::default(),
            known,
            dont_fragment: false,
            pushed: Vec::new(),
            wire: Vec::new(),
        }
    }

    fn outer(&self, payload_len: usize) -> OuterHeader {
        OuterHeader {
            src: Ipv4Addr::new(10, 0, 0, 1),
            dst: PEER,
            tos: 0xb8,
            ttl: 9,
            dont_fragment: self.dont_fragment,
            id: if self.dont_fragment { 0x1234 } else { 0 },
            payload_len: u16::try_from(payload_len).unwrap(),
        }
    }

    fn push(&mut self, packet: Packet, form: Form, payload_len: usize) {
        let inner_len = packet.bytes().len();
        let outgoing = Outgoing {
            packet,
            outer: self.outer(payload_len),
            link_mtu: self.known,
            inner_len,
            form,
        };
        self.queue.push(outgoing, &self.stats);
    }

    /// A packet of `len` bytes in IPv4.
    fn push_whole(&mut self, len: usize) {
        let mut packet = Packet::received(self.pool.take().unwrap(), len + MIN_HEADER_LEN);
        let (header, payload) = packet.bytes_mut().split_first_chunk_mut().unwrap();
        payload
            .iter_mut()
            .zip((self.pushed.len()..).flat_map(|n| n.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        self.outer(len).emit(header);
        self.pushed.push(payload.to_vec());
        self.push(packet, Form::Whole, len);
    }

    /// A UDP superpacket with segments of `gso_size` bytes of data.
    fn push_segments(&mut self, data_len: usize, gso_size: u16) {
        const HEADERS: usize = 48;
        let len = HEADERS + data_len;
        let mut packet = Packet::received(self.pool.take().unwrap(), len);
        let bytes = packet.bytes_mut();
        bytes[..HEADERS].fill(0);
        (bytes[0], bytes[6]) = (0x60, 17);
        let payload_len = u16::try_from(len - 40).unwrap().to_be_bytes();
        bytes[4..6].copy_from_slice(&payload_len);
        bytes[44..46].copy_from_slice(&payload_len);
        let data = (0..len).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]);
        bytes[HEADERS..]
            .iter_mut()
            .zip(data)
            .for_each(|(to, from)| *to = from);
        let vnet = VnetHeader {
            needs_csum: true,
            gso: GsoType::UdpL4,
            gso_size,
            csum_start: 40,
            csum_offset: 6,
            ..VnetHeader::NONE
        };
        let plan = SplitPlan::new(&vnet, bytes).unwrap();
        for index in 0..plan.count {
            let mut segment = vec![0; HEADERS];
            let payload = plan.segment(bytes, index, &mut segment);
            segment.extend_from_slice(&bytes[payload]);
            self.pushed.push(segment);
        }
        self.push(packet, Form::Segments(plan), 0);
    }

    /// Sends everything over a link that takes `mtu` bytes. As with the kernel, what is behind a refused frame in its
    /// chain is cancelled.
    fn send_over(&mut self, mtu: usize) {
        let mut chains = 0;
        while self.queue.next_chain() > 0 {
            let mut refused = false;
            for frame in self.queue.chain().collect::<Vec<_>>() {
                let bytes = self.queue.frames[frame].gathered();
                let result = match bytes.len() {
                    _ if refused => Err(libc::ECANCELED),
                    len if len > mtu => Err(libc::EMSGSIZE),
                    len => Ok(len),
                };
                refused = result.is_err();
                if result.is_ok() {
                    self.wire.push(bytes);
                }
                self.queue.done(frame, result, &self.stats);
            }
            chains += 1;
            assert!(chains < 10_000, "no end");
        }
        assert!(self.queue.is_empty());
    }

    /// The datagrams on the wire as their receiver puts them together, each with its identification; fragments come one
    /// after the other and belong together.
    fn received(&self) -> Vec<(u16, Vec<u8>)> {
        let mut all: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut more = false;
        for packet in &self.wire {
            let view = Ipv4View::new(packet).unwrap();
            assert_eq!(view.total_len(), packet.len());
            assert_eq!((view.tos(), view.ttl(), view.dst()), (0xb8, 9, PEER));
            assert_eq!(
                crate::wire::checksum::Sum::new()
                    .add_bytes(&packet[..20])
                    .finish(),
                0
            );
            if more {
                let (id, sofar) = all.last_mut().unwrap();
                assert_eq!(view.id(), *id, "fragments of one datagram share its number");
                assert_eq!(usize::from(view.fragment_offset()), sofar.len());
                sofar.extend_from_slice(view.payload());
            } else {
                assert_eq!(view.fragment_offset(), 0);
                all.push((view.id(), view.payload().to_vec()));
            }
            more = view.more_fragments();
            assert!(!(view.is_fragment() && view.dont_fragment()), "M10");
        }
        assert!(!more, "the last datagram is whole");
        all
    }

    /// Everything pushed arrives, in order; the identifications.
    #[track_caller]
    fn assert_all_arrive(&self) -> Vec<u16> {
        let (ids, payloads): (Vec<_>, Vec<_>) = self.received().into_iter().unzip();
        assert_eq!(payloads.len(), self.pushed.len());
        assert!(payloads == self.pushed, "damaged or out of order");
        assert_eq!(self.pool.census().held, 0);
        ids
    }

    fn count(&self, event: LoopEvent) -> u64 {
        self.stats.event(event).get()
    }
}

/// FAULTS 28, M9: the Rulebook knows the link; large datagrams are cut, and all to this peer are numbered by us.
#[test]
fn a_known_link_is_never_refused() {
    for mtu in [68, 576, 600, 1280, 1299] {
        let mut bench = Bench::new(mtu);
        for len in [1280, 60, 1280, 41, 1000, 1279] {
            bench.push_whole(len);
        }
        bench.send_over(usize::from(mtu));
        let ids = bench.assert_all_arrive();
        assert!(
            ids.windows(2).all(|pair| pair[0] != pair[1]) && !ids.contains(&0),
            "{ids:?}"
        );
        assert_eq!(bench.stats.error(IoOperation::RawSend, libc::EMSGSIZE).get(), 0);
        let encap = bench.stats.direction(Direction::Encap);
        assert_eq!(
            (encap.delivered.get(), encap.drops(DropReason::SendError).get()),
            (6, 0)
        );
        let cut = bench
            .pushed
            .iter()
            .filter(|packet| packet.len() + 20 > usize::from(mtu));
        assert_eq!(bench.count(LoopEvent::Fragmented), cut.count() as u64);
    }
}

/// FAULTS 28: each segment of a superpacket in fragments, its headers and checksum its own; counted as without.
#[test]
fn segments_of_superpackets_are_cut() {
    for (known, mtu) in [
        (1300, 1300),
        (1299, 1299),
        (600, 600),
        (68, 68),
        (u16::MAX, 600),
        (u16::MAX, 70),
    ] {
        let mut bench = Bench::new(known);
        bench.push_segments(40 * 1232 + 100, 1232);
        bench.push_whole(70);
        bench.push_segments(1232 + 1, 1232);
        bench.send_over(mtu);
        bench.assert_all_arrive();
        let encap = bench.stats.direction(Direction::Encap);
        assert_eq!(
            (
                encap.delivered.get(),
                encap.superpackets.get(),
                encap.segments.get()
            ),
            (3, 2, 43)
        );
        assert_eq!(bench.count(LoopEvent::SegmentLost), 0);
        let inner: usize = bench.pushed.iter().map(Vec::len).sum();
        // A whole packet counts as it was read.
        assert_eq!(encap.bytes.get(), inner as u64 + 20);
    }
}

/// FAULTS 28: nobody knew: what was refused is cut and sent all the same, before what is behind it.
#[test]
fn an_unknown_link_loses_and_reorders_nothing() {
    for mtu in [68, 600, 1006, 1280, 1299] {
        let mut bench = Bench::new(u16::MAX);
        for round in 0..20 {
            bench.push_whole(1280 - round);
            bench.push_whole(48);
        }
        bench.send_over(mtu);
        bench.assert_all_arrive();
        assert_eq!(
            bench.stats.direction(Direction::Encap).delivered.get(),
            40,
            "{mtu}"
        );
        assert!(bench.count(LoopEvent::Fragmented) > 0);
    }
}

/// A link that takes less than any IPv4 link must is given up on, and the packet counted.
#[test]
fn an_impossible_link_ends() {
    let mut bench = Bench::new(u16::MAX);
    bench.push_whole(1280);
    bench.push_whole(41);
    bench.send_over(64);
    let encap = bench.stats.direction(Direction::Encap);
    assert_eq!(
        (encap.delivered.get(), encap.drops(DropReason::TooBig).get()),
        (1, 1)
    );
}

/// M10, M4, FAULTS 28: with DF nothing is cut, whatever is known; the packet comes back for its sender to be told.
#[test]
fn m10_what_must_not_be_fragmented_bounces() {
    for known in [u16::MAX, 600] {
        let mut bench = Bench::new(known);
        bench.dont_fragment = true;
        for len in [1400, 41, 1281] {
            bench.push_whole(len);
        }
        bench.push_segments(3 * 1232 + 10, 1332);
        bench.push_segments(2 * 1332, 1332);
        bench.send_over(1300);
        let encap = bench.stats.direction(Direction::Encap);
        assert_eq!(encap.drops(DropReason::TooBig).get(), 3);
        assert_eq!(encap.delivered.get(), 2, "the short one, and the last segment");
        assert_eq!(
            (encap.segments.get(), bench.count(LoopEvent::SegmentLost)),
            (1, 2)
        );
        let bounced: Vec<_> = std::iter::from_fn(|| bench.queue.bounced()).collect();
        let lens = bounced
            .iter()
            .map(|bounced| bounced.outgoing.packet.bytes().len());
        assert_eq!(
            lens.collect::<Vec<_>>(),
            [1420, 1301, 48 + 3 * 1232 + 10, 48 + 2 * 1332]
        );
        assert!(!bench.queue.has_bounced());
        drop(bounced);
        assert_eq!(bench.pool.census().held, 0);
        for packet in &bench.wire {
            let view = Ipv4View::new(packet).unwrap();
            assert!(view.dont_fragment() && !view.is_fragment() && view.id() == 0x1234);
        }
    }
}

/// M4, FAULTS 28: what every IPv6 link must take goes again without DF, under a number of its own, in its place.
#[test]
fn m4_small_packets_go_without_df_instead() {
    let mut bench = Bench::new(u16::MAX);
    bench.dont_fragment = true;
    for len in [1280, 41, 1279] {
        bench.push_whole(len);
    }
    bench.push_segments(2 * 1232 + 10, 1232);
    bench.send_over(1290);
    let ids = bench.assert_all_arrive();
    let whole = bench
        .wire
        .iter()
        .filter(|packet| Ipv4View::new(packet).unwrap().dont_fragment());
    assert_eq!(whole.count(), 2, "those that fit keep DF");
    assert_eq!(ids.iter().filter(|id| **id == 0x1234).count(), 2, "{ids:?}");
    assert!(!bench.queue.has_bounced());
}

/// FAULTS 33: a refusal among frames that were cancelled before does not let later ones pass.
#[test]
fn cancelled_twice_and_still_in_order() {
    let mut bench = Bench::new(u16::MAX);
    for _ in 0..32 {
        bench.push_whole(100);
    }
    let mut seen = std::collections::BTreeSet::new();
    while bench.queue.next_chain() > 0 {
        let mut refused = false;
        for frame in bench.queue.chain().collect::<Vec<_>>() {
            let bytes = bench.queue.frames[frame].gathered();
            let result = match () {
                () if refused => Err(libc::ECANCELED),
                () if seen.insert(bytes.clone()) => Err(libc::EHOSTUNREACH),
                () => Ok(120),
            };
            refused = result.is_err();
            if result.is_ok() {
                bench.wire.push(bytes);
            }
            bench.queue.done(frame, result, &bench.stats);
        }
    }
    bench.assert_all_arrive();
}
