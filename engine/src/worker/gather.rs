//! Runs in the making: received segments of one batch that will be one write to the TUN interface.
//!
//! A run lives within one batch, so that merging never delays a packet. Packets of one flow keep their order: whatever cannot
//! join the run of its flow ends it first.

use crate::buf::Packet;
use crate::io::lane::{Lane, Written};
use crate::offload::merge::{self, Run, Segment};
use crate::stats::WorkerStats;
use crate::wire::ext;
use crate::wire::vnet::{self, VnetHeader};

/// Offset within the IPv6 header.
const NEXT_HEADER_AT: usize = 6;

/// Flows that can have a run at the same time; a further one ends the oldest run.
const MAX_RUNS: usize = 16;

struct OpenRun {
    /// Tells most flows apart at a glance.
    tag: u32,
    run: Run,
    /// The inner packet whose headers speak for all.
    head: Packet,
    /// Payloads of the others.
    tails: Vec<Packet>,
    /// Inner bytes as they were received: every packet with its own headers.
    bytes: usize,
}

/// The runs of the batch in hand. Keeps its memory from batch to batch.
pub(super) struct Gatherer {
    open: Vec<OpenRun>,
    /// The kernel takes datagrams merged (Linux 6.2).
    udp: bool,
    spare: Vec<Vec<Packet>>,
}

impl Gatherer {
    pub(super) fn new(udp: bool) -> Self {
        let tails = || Vec::with_capacity(merge::MAX_RUN_SEGMENTS);
        Self {
            open: Vec::with_capacity(MAX_RUNS),
            udp,
            spare: (0..MAX_RUNS).map(|_| tails()).collect(),
        }
    }

    /// Takes an inner packet that needs nothing said about it: it joins the run of its flow, begins one, or is written.
    pub(super) fn offer<L: Lane>(&mut self, packet: Packet, lane: &mut L, stats: &WorkerStats) {
        let inner = packet.bytes();
        let tag = flow_tag(inner);
        let segment = if self.udp || inner.get(NEXT_HEADER_AT) != Some(&ext::UDP) {
            Segment::new(inner)
        } else {
            None
        };
        let mine = self
            .open
            .iter()
            .position(|open| open.tag == tag && merge::same_flow(open.head.bytes(), inner));
        if let (Some(at), Some(segment)) = (mine, segment) {
            let open = &mut self.open[at];
            if open.run.append(open.head.bytes(), segment, inner).is_ok() {
                let payload = segment.payload();
                open.bytes += packet.len();
                let mut tail = packet;
                tail.truncate(payload.end);
                tail.strip(payload.start);
                open.tails.push(tail);
                if open.run.has_ended() {
                    self.end(at, lane, stats);
                }
                return;
            }
        }
        if let Some(at) = mine {
            self.end(at, lane, stats);
        }
        match segment {
            Some(segment) => self.begin(tag, packet, segment, lane, stats),
            None => write_alone(packet, &VnetHeader::NONE, 1, lane, stats),
        }
    }

    /// Writes a packet that cannot join a run, after those of its flow that came before it.
    pub(super) fn bypass<L: Lane>(
        &mut self,
        packet: Packet,
        vnet: &VnetHeader,
        segments: usize,
        lane: &mut L,
        stats: &WorkerStats,
    ) {
        let inner = packet.bytes();
        if let Some(at) = self
            .open
            .iter()
            .position(|open| merge::same_flow(open.head.bytes(), inner))
        {
            self.end(at, lane, stats);
        }
        write_alone(packet, vnet, segments, lane, stats);
    }

    /// Writes every run: the batch is over.
    pub(super) fn flush<L: Lane>(&mut self, lane: &mut L, stats: &WorkerStats) {
        while !self.open.is_empty() {
            self.end(0, lane, stats);
        }
    }

    fn begin<L: Lane>(
        &mut self,
        tag: u32,
        head: Packet,
        segment: Segment,
        lane: &mut L,
        stats: &WorkerStats,
    ) {
        let run = Run::start(segment);
        if run.has_ended() {
            return write_alone(head, &VnetHeader::NONE, 1, lane, stats);
        }
        if self.open.len() == MAX_RUNS {
            self.end(0, lane, stats);
        }
        let tails = self.spare.pop().unwrap_or_default();
        let bytes = head.len();
        self.open.push(OpenRun {
            tag,
            run,
            head,
            tails,
            bytes,
        });
    }

    fn end<L: Lane>(&mut self, at: usize, lane: &mut L, stats: &WorkerStats) {
        let OpenRun {
            run,
            mut head,
            mut tails,
            bytes,
            ..
        } = self.open.remove(at);
        let vnet = run.finish(head.bytes_mut());
        let count = run.count();
        if let Ok(header) = head.prepend(vnet::LEN).try_into() {
            vnet.emit(header);
        }
        let written = Written::Decap {
            packets: count,
            bytes,
            segments: count,
        };
        lane.write(head, &mut tails, written, stats);
        self.spare.push(tails);
    }
}

fn write_alone<L: Lane>(
    mut packet: Packet,
    vnet: &VnetHeader,
    segments: usize,
    lane: &mut L,
    stats: &WorkerStats,
) {
    let bytes = packet.len();
    if let Ok(header) = packet.prepend(vnet::LEN).try_into() {
        vnet.emit(header);
    }
    lane.write(
        packet,
        &mut Vec::new(),
        Written::Decap {
            packets: 1,
            bytes,
            segments,
        },
        stats,
    );
}

/// The low words of both addresses and the ports; 0 for what is too short to have them.
fn flow_tag(inner: &[u8]) -> u32 {
    let word = |at: usize| {
        inner
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    };
    word(20) ^ word(36).rotate_left(8) ^ word(40).rotate_left(16)
}
