//! A packet generator and counter: many flows, numbered and stamped packets, as fast as a window, a flood or a rate allows.
//!
//! | module | answers the question |
//! |---|---|
//! | [`stamp`] | what does each packet carry? |
//! | [`imix`] | how large are packets? |
//! | [`outlet`] | how do they get into the kernel? |
//! | [`inlet`] | how are they counted? |
//! | [`ledger`] | which are lost, doubled, out of order? |
//! | [`search`] | what is the highest rate without loss? |

pub(crate) mod imix;
pub(crate) mod inlet;
pub(crate) mod ledger;
pub(crate) mod outlet;
pub(crate) mod search;
pub(crate) mod stamp;

use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use nix::sys::prctl::set_timerslack;

use inlet::{Inlet, Shared};
use ledger::Totals;
use outlet::{Outlet, Scratch};
use stamp::{Stamp, now_ns};

/// Without an arrival for so long, what is on the way is lost.
const STALL: Duration = Duration::from_millis(60);
/// How often a paced sender looks at the clock.
const TICK: Duration = Duration::from_micros(100);
/// Packets that are due are sent in groups of at most so many, each with its own time.
const PACED_GROUP: u64 = 16;

static RUN: AtomicU16 = AtomicU16::new(1);

/// When the next packet goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Never more packets on the way than this: nothing is lost to full queues, and each tunnel is offered what it carries.
    Window(u64),
    /// At once, whatever becomes of them.
    Flood,
    /// Packets a second, whatever becomes of them.
    Rate(u64),
}

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Bytes of data of one packet after the other, over all flows; repeats.
    pub(crate) sizes: Vec<usize>,
    pub(crate) pace: Pace,
    /// Not counted.
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Packets a second, while it was measured.
    pub(crate) delivered: f64,
    pub(crate) offered: f64,
    /// The whole run, warm-up included.
    pub(crate) totals: Totals,
    /// From sending to receiving, in nanoseconds, while it was measured.
    pub(crate) latency: Histogram<u64>,
    /// The longest time without an arrival, in nanoseconds.
    pub(crate) longest_gap_ns: u64,
    /// Calls that took what arrived, the whole run.
    pub(crate) receive_calls: u64,
}

/// Sends and counts.
///
/// # Errors
/// When a socket fails, or nothing at all arrives.
pub(crate) fn run(outlet: &mut Outlet, inlet: &Inlet, traffic: &Traffic) -> Result<Outcome> {
    ensure!(
        traffic.sizes.iter().all(|size| *size >= Stamp::LEN),
        "a packet needs {} bytes of data for its stamp",
        Stamp::LEN
    );
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let flows = outlet.flows();
    let shared = Shared::default();
    thread::scope(|scope| {
        let counter = scope.spawn(|| inlet.count(run, flows, &shared));
        let mut sender = Sender::new(outlet, traffic, run, &shared);
        let sent = sender.send_all();
        shared.done.store(true, Ordering::Relaxed);
        let arrivals = counter.join().map_err(|_| anyhow!("the counter panicked"))??;
        let rates = sent?;
        let totals = arrivals.ledger.totals(&sender.sequences);
        ensure!(totals.received > 0, "nothing arrived of {} packets", totals.sent);
        Ok(Outcome {
            delivered: rates.delivered,
            offered: rates.offered,
            totals,
            latency: arrivals.latency,
            longest_gap_ns: arrivals.longest_gap_ns,
            receive_calls: arrivals.calls,
        })
    })
}

struct Rates {
    delivered: f64,
    offered: f64,
}

struct Sender<'a> {
    outlet: &'a mut Outlet,
    traffic: &'a Traffic,
    run: u16,
    shared: &'a Shared,
    /// The next number of each flow.
    sequences: Vec<u32>,
    /// All packets so far; the flow and the size of the next follow from it.
    sent: u64,
    lost: u64,
    scratch: Scratch,
}

impl<'a> Sender<'a> {
    fn new(outlet: &'a mut Outlet, traffic: &'a Traffic, run: u16, shared: &'a Shared) -> Self {
        Self {
            sequences: vec![0; outlet.flows()],
            outlet,
            traffic,
            run,
            shared,
            sent: 0,
            lost: 0,
            scratch: Scratch::new(traffic.sizes.iter().copied().max().unwrap_or(0)),
        }
    }

    fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    fn send_all(&mut self) -> Result<Rates> {
        // Sleeps shall be as short as asked for.
        let _ = set_timerslack(1_000);
        self.send_for(self.traffic.warm_up)?;
        let (sent, arrived, from) = (self.sent, self.arrived(), Instant::now());
        self.shared.record_from_ns.store(now_ns(), Ordering::Relaxed);
        self.send_for(self.traffic.length)?;
        let elapsed = from.elapsed().as_secs_f64();
        let rates = Rates {
            delivered: (self.arrived() - arrived) as f64 / elapsed,
            offered: (self.sent - sent) as f64 / elapsed,
        };
        self.wait_below(1);
        Ok(rates)
    }

    fn send_for(&mut self, length: Duration) -> Result<()> {
        let (from, before) = (Instant::now(), self.sent);
        while from.elapsed() < length {
            let batch = self.outlet.batch();
            match self.traffic.pace {
                Pace::Flood => self.send(batch)?,
                Pace::Window(window) => {
                    self.lost += self.wait_below(window);
                    self.send(batch)?;
                }
                Pace::Rate(rate) => {
                    let due = from.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000;
                    let owed = u64::try_from(due)
                        .unwrap_or(u64::MAX)
                        .saturating_sub(self.sent - before);
                    match usize::try_from(owed.min(PACED_GROUP)) {
                        Ok(group @ 1..) => self.send(group)?,
                        _ => thread::sleep(TICK),
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends packets of as many flows in turn.
    fn send(&mut self, count: usize) -> Result<()> {
        let sent_ns = now_ns();
        let mut stamps = [Stamp {
            run: self.run,
            flow: 0,
            sequence: 0,
            sent_ns,
        }; outlet::SEND_BATCH];
        let mut sizes = [0; outlet::SEND_BATCH];
        let count = count.min(outlet::SEND_BATCH).min(self.sequences.len());
        for (stamp, size) in stamps.iter_mut().zip(&mut sizes).take(count) {
            let flow = usize::try_from(self.sent % self.sequences.len() as u64)?;
            stamp.flow = u16::try_from(flow)?;
            stamp.sequence = self.sequences[flow];
            self.sequences[flow] += 1;
            *size = self.traffic.sizes[usize::try_from(self.sent % self.traffic.sizes.len() as u64)?];
            self.sent += 1;
        }
        self.outlet
            .send(&stamps[..count], &sizes[..count], &mut self.scratch)
    }

    /// Waits until fewer than `window` packets are on the way; returns how many of them were given up.
    fn wait_below(&self, window: u64) -> u64 {
        let expected = self.sent - self.lost;
        let mut last = self.arrived();
        let mut since = Instant::now();
        loop {
            let now = self.arrived();
            let missing = expected.saturating_sub(now);
            if missing < window {
                return 0;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > STALL {
                return missing;
            }
            // On few CPUs the tunnel needs this one.
            thread::sleep(Duration::from_micros(20));
        }
    }
}
