//! A lane without a kernel: packets appear in slots, and what is sent or written disappears at once.
//!
//! With it a whole worker turn runs as in the daemon (verdict, headers, split, merge, counters), and nothing else is timed.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use isatap_engine::buf::{Packet, Pool};
use isatap_engine::capture::{Capture, CaptureConfig, switchboard};
use isatap_engine::fib::Rulebook;
use isatap_engine::io::lane::{
    Form, Inbox, Lane, LaneFault, Outgoing, RAW_SLOTS, REPLY_SLOT_LEN, REPLY_SLOTS, SLOT_LEN, TUN_SLOTS,
    Turn, Written,
};
use isatap_engine::offload::split::MAX_SEGMENT_HEADERS;
use isatap_engine::stats::{Direction, WorkerStats};
use isatap_engine::worker::Carriage;

/// What disappeared into the lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Writes to the TUN.
    pub writes: u64,
}

/// The lane, with the slots that a worker has.
#[derive(Debug)]
pub struct SimLane {
    tun: Rc<Pool>,
    raw: Rc<Pool>,
    reply: Rc<Pool>,
    /// What disappeared.
    pub gone: Gone,
    headers: [u8; MAX_SEGMENT_HEADERS],
}

impl SimLane {
    /// A lane with all its slots free.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            tun: Pool::new(TUN_SLOTS, SLOT_LEN)?,
            raw: Pool::new(RAW_SLOTS, SLOT_LEN)?,
            reply: Pool::new(REPLY_SLOTS, REPLY_SLOT_LEN)?,
            gone: Gone::default(),
            headers: [0; MAX_SEGMENT_HEADERS],
        })
    }

    /// Puts a frame into the inbox as the TUN queue would; false when every slot is in use.
    pub fn from_tun(&self, inbox: &mut Inbox, bytes: &[u8]) -> bool {
        receive(&self.tun, &mut inbox.tun, bytes)
    }

    /// Puts a packet into the inbox as the raw socket would; false when every slot is in use.
    pub fn from_raw(&self, inbox: &mut Inbox, bytes: &[u8]) -> bool {
        receive(&self.raw, &mut inbox.raw, bytes)
    }
}

fn receive(pool: &Rc<Pool>, packets: &mut Vec<Packet>, bytes: &[u8]) -> bool {
    match crate::carry::receive(pool, bytes) {
        Some(packet) => {
            packets.push(packet);
            true
        }
        None => false,
    }
}

impl Lane for SimLane {
    fn turn(&mut self, _: &mut Inbox, _: Option<Duration>, _: &WorkerStats) -> Result<Turn, LaneFault> {
        Ok(Turn::AtOnce)
    }

    fn hand_over(&mut self, _: &WorkerStats) -> Result<(), LaneFault> {
        Ok(())
    }

    fn send(&mut self, outgoing: Outgoing, stats: &WorkerStats) {
        let encap = stats.direction(Direction::Encap);
        match outgoing.form {
            Form::Whole => self.gone.datagrams += 1,
            Form::Segments(plan) => {
                for index in 0..plan.count {
                    std::hint::black_box(plan.segment(outgoing.packet.bytes(), index, &mut self.headers));
                    self.gone.datagrams += 1;
                }
                encap.superpackets.bump();
            }
        }
        encap.delivered.bump();
    }

    fn write(&mut self, _: Packet, tails: &mut Vec<Packet>, written: Written, stats: &WorkerStats) {
        tails.clear();
        if let Written::Decap { packets, bytes, .. } = written {
            let decap = stats.direction(Direction::Decap);
            decap.delivered.add(packets as u64);
            decap.bytes.add(bytes as u64);
        }
        self.gone.writes += 1;
    }

    fn reply_pool(&self) -> &Rc<Pool> {
        &self.reply
    }

    fn quiesce(&mut self) {}

    fn is_quiet(&self) -> bool {
        true
    }

    fn abandon(self, _: &WorkerStats) {}
}

/// A worker with its simulated lane.
#[derive(Debug)]
pub struct SimWorker {
    /// The lane.
    pub lane: SimLane,
    /// What the next turn carries.
    pub inbox: Inbox,
    /// The counters.
    pub stats: WorkerStats,
    /// Nanoseconds of the worker's clock.
    pub now: u64,
    carriage: Carriage,
}

impl SimWorker {
    /// A worker at rest.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            lane: SimLane::new()?,
            inbox: Inbox::new(),
            stats: WorkerStats::default(),
            now: 0,
            carriage: Carriage::new()?.0,
        })
    }

    /// A worker at rest with a capture under way.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn captured(config: &CaptureConfig) -> io::Result<(Self, Capture)> {
        let mut worker = Self::new()?;
        let (board, mut taps) = switchboard(1);
        let capture = board.start(config, &[]).map_err(io::Error::other)?;
        if let Some(mut taps) = taps.pop() {
            taps.refresh(Instant::now());
            worker.carriage = worker.carriage.tapped(taps);
        }
        Ok((worker, capture))
    }

    /// One turn: everything in the inbox is carried.
    pub fn turn(&mut self, rules: &Rulebook) {
        self.carriage
            .carry(&mut self.lane, &mut self.inbox, rules, self.now, &self.stats);
    }
}
