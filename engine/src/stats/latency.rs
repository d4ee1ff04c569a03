//! How long packets stay with a worker: from their arrival in user space to their hand-over to the kernel.
//!
//! All packets of a batch share one value: they arrive together and are handed over together. The histogram belongs to its worker; control asks for it by message and gets it in exchange for an empty
//! one, so that nobody shares, locks or waits (DESIGN D11, D12).

use std::time::Duration;

use hdrhistogram::Histogram;

use super::worker::Direction;
use crate::sync::{Receiver, Sender, bounded};

/// Values are kept to two significant digits within these bounds, in nanoseconds; what lies outside counts as the bound.
const LOWEST: u64 = 10;
const HIGHEST: u64 = 10_000_000_000;
const DIGITS: u8 = 2;

/// The latencies of one worker since they were last asked for, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    encap: Histogram<u64>,
    decap: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            encap: empty(),
            decap: empty(),
        }
    }
}

/// An empty histogram of our bounds; they are valid, and any other would be as well.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS).unwrap_or_else(|_| unreachable!("constant bounds"))
}

impl Latencies {
    /// One direction.
    pub fn direction(&self, direction: Direction) -> &Histogram<u64> {
        match direction {
            Direction::Encap => &self.encap,
            Direction::Decap => &self.decap,
        }
    }

    /// Counts `packets` that stayed for `stay`. Never allocates: the bounds are fixed.
    #[inline]
    pub(crate) fn record(&mut self, direction: Direction, stay: Duration, packets: usize) {
        let nanos = u64::try_from(stay.as_nanos()).unwrap_or(HIGHEST);
        let histogram = match direction {
            Direction::Encap => &mut self.encap,
            Direction::Decap => &mut self.decap,
        };
        histogram.saturating_record_n(nanos.max(LOWEST), packets as u64);
    }

    /// Adds another worker's, or another interval's, latencies.
    pub fn merge(&mut self, other: &Latencies) {
        for (into, from) in [(&mut self.encap, &other.encap), (&mut self.decap, &other.decap)] {
            // Equal bounds: nothing can be refused.
            let added = into.add(from);
            debug_assert!(added.is_ok(), "{added:?}");
        }
    }
}

/// One worker's latencies, on their way to control.
#[derive(Debug)]
pub struct Harvest {
    /// Whose.
    pub worker: usize,
    /// Since the last harvest.
    pub latencies: Box<Latencies>,
}

/// The worker's end: its histogram, and the requests for it.
#[derive(Debug)]
pub(crate) struct LatencyRecorder {
    worker: usize,
    current: Box<Latencies>,
    requests: Receiver<Box<Latencies>>,
    answers: Sender<Harvest>,
}

/// Control's end.
#[derive(Debug)]
pub(crate) struct LatencyCollector {
    requests: Vec<Sender<Box<Latencies>>>,
    answers: Receiver<Harvest>,
}

/// Both ends for so many workers.
pub(crate) fn latency_channels(workers: usize) -> (LatencyCollector, Vec<LatencyRecorder>) {
    // One request per worker can be under way, and its answer; that of a worker that was late may still wait beside it.
    let (answer, answers) = bounded(2 * workers);
    let (requests, recorders) = (0..workers)
        .map(|worker| {
            let (request, requests) = bounded(1);
            (
                request,
                LatencyRecorder {
                    worker,
                    current: Box::default(),
                    requests,
                    answers: answer.clone(),
                },
            )
        })
        .unzip();
    (LatencyCollector { requests, answers }, recorders)
}

impl LatencyRecorder {
    /// The histogram to record to.
    #[inline]
    pub(crate) fn current(&mut self) -> &mut Latencies {
        &mut self.current
    }

    /// Hands the histogram over if somebody asked for it, and keeps it if nobody takes it.
    #[inline]
    pub(crate) fn answer(&mut self) {
        if let Ok(empty) = self.requests.try_recv() {
            let harvest = Harvest {
                worker: self.worker,
                latencies: std::mem::replace(&mut self.current, empty),
            };
            if let Err(refused) = self.answers.try_send(harvest) {
                self.current = refused.into_inner().latencies;
            }
        }
    }
}

impl LatencyCollector {
    /// Asks every worker that has no request under way.
    pub(crate) fn request(&self) {
        for request in &self.requests {
            if request.is_empty() {
                let _ = request.try_send(Box::default());
            }
        }
    }

    /// What has been answered.
    pub(crate) fn answers(&self) -> &Receiver<Harvest> {
        &self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_find_no_room_are_kept() {
        let (collector, mut recorders) = latency_channels(1);
        let recorder = &mut recorders[0];
        for _ in 0..5 {
            let stay = Duration::from_micros(50);
            recorder.current().record(Direction::Encap, stay, 1);
            collector.request();
            recorder.answer();
        }
        let taken: u64 = collector
            .answers()
            .try_iter()
            .map(|harvest| harvest.latencies.direction(Direction::Encap).len())
            .sum();
        assert_eq!(taken, 2);
        assert_eq!(recorder.current().direction(Direction::Encap).len(), 3);
    }

    #[test]
    fn a_histogram_changes_hands_and_no_value_is_lost_or_doubled() {
        let (collector, mut recorders) = latency_channels(2);
        recorders[1]
            .current()
            .record(Direction::Decap, Duration::from_micros(50), 3);
        recorders[1].answer();
        assert!(collector.answers().is_empty(), "nobody asked");
        collector.request();
        collector.request();
        recorders[1].answer();
        recorders[1]
            .current()
            .record(Direction::Decap, Duration::from_secs(100), 1);
        let harvest = collector.answers().try_recv().unwrap();
        assert_eq!(
            (
                harvest.worker,
                harvest.latencies.direction(Direction::Decap).len()
            ),
            (1, 3)
        );
        assert_eq!(harvest.latencies.direction(Direction::Encap).len(), 0);
        collector.request();
        recorders.iter_mut().for_each(LatencyRecorder::answer);
        let mut total = harvest.latencies;
        collector
            .answers()
            .try_iter()
            .for_each(|harvest| total.merge(&harvest.latencies));
        let decap = total.direction(Direction::Decap);
        assert_eq!(decap.len(), 4);
        assert!(decap.max() >= HIGHEST, "beyond the bounds counts as the bound");
        assert!((49_000..=51_000).contains(&decap.value_at_quantile(0.5)));
    }
}
