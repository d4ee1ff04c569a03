//! The workers' latencies, gathered by message and summed here: nothing waits for a worker longer than a moment.

use std::time::Duration;

use isatap_engine::stats::{Direction, Latencies};
use isatap_engine::worker::Engine;

use crate::ops::latency::LatencyRow;

/// How long one gathering waits. A worker answers at the end of its turn; one that does not answer now is read next time.
const PATIENCE: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_micros(250);

/// Latencies since the start, per worker.
#[derive(Debug, Default)]
pub(super) struct LatencyBook {
    workers: Vec<Latencies>,
}

impl LatencyBook {
    /// Asks every worker and takes what arrives in time.
    pub(super) async fn gather(&mut self, engine: &Engine, workers: usize) {
        self.make_room(workers);
        engine.request_latencies();
        let mut missing = workers;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while missing > 0 && tokio::time::Instant::now() < deadline {
            missing = missing.saturating_sub(self.take_in(engine));
            if missing > 0 {
                tokio::time::sleep(STEP).await;
            }
        }
    }

    fn make_room(&mut self, workers: usize) {
        let count = workers.max(self.workers.len());
        self.workers.resize_with(count, Latencies::default);
    }

    /// Takes the answers that are there; how many.
    fn take_in(&mut self, engine: &Engine) -> usize {
        let mut count = 0;
        while let Ok(harvest) = engine.latencies().try_recv() {
            if let Some(sum) = self.workers.get_mut(harvest.worker) {
                sum.merge(&harvest.latencies);
            }
            count += 1;
        }
        count
    }

    /// All workers together.
    pub(super) fn total(&self) -> Latencies {
        let mut total = Latencies::default();
        self.workers.iter().for_each(|worker| total.merge(worker));
        total
    }

    /// One row per worker and direction, then those of the kernel's programs.
    pub(super) fn rows(&self, kernel: Option<&Latencies>) -> Vec<LatencyRow> {
        let rows = self.workers.iter().enumerate().flat_map(|(number, latencies)| {
            Direction::ALL.map(|direction| {
                LatencyRow::new(Some(number), direction.name(), latencies.direction(direction))
            })
        });
        let kernel = kernel.into_iter().flat_map(|latencies| {
            Direction::ALL
                .map(|direction| LatencyRow::new(None, direction.name(), latencies.direction(direction)))
        });
        rows.chain(kernel).collect()
    }
}
