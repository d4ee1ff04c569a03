//! The live stream of the dashboard: one sample a second while somebody looks, the same for everybody.
//!
//! ```text
//!  control --Moment--> sampler --Sample as JSON--> history (bounded) --> /api/v1/live, any number of viewers
//! ```
//!
//! Without viewers nothing is sampled and no worker is woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use isatap_engine::stats::{Direction, Latencies};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior};

use super::query::Ask;
use super::status::Status;

/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Viewers at once; each holds one of the server's connections.
pub const MAX_VIEWERS: usize = 16;
/// Samples kept for a viewer who comes later, as long as somebody looks.
const HISTORY: usize = 600;
/// The same in bytes: a sample grows with the number of workers.
const HISTORY_BYTES: usize = 4 << 20;
/// Sampling goes on so long without a viewer, so that a reconnection finds no gap.
const LINGER: Duration = Duration::from_secs(30);
/// Samples a slow viewer may be behind before it loses some.
const BACKLOG: usize = 64;

/// The heat map's lowest bound in nanoseconds; what is faster counts there, too.
pub const HEAT_FROM_NANOS: u64 = 1_000;
/// Rows of the heat map per power of ten.
pub const HEAT_PER_DECADE: u32 = 5;
/// Rows of the heat map: up to 1 s.
pub const HEAT_ROWS: usize = 6 * HEAT_PER_DECADE as usize;

/// What control knows at one moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Everything shown.
    pub status: Status,
    /// Latencies of all workers since the start.
    pub latencies: Latencies,
    /// Those of the kernel's programs, where they are loaded.
    pub of_kernel: Option<Latencies>,
}

/// What a viewer gets once a second.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    /// Seconds since 1970.
    at: f64,
    status: &'a Status,
    latency: LatencySample,
    /// Of packets in the kernel's programs, one in 256.
    kernel_latency: Option<LatencySample>,
    heat_from_nanos: u64,
    heat_per_decade: u32,
}

#[derive(Debug, Serialize)]
struct LatencySample {
    encap: DirectionLatency,
    decap: DirectionLatency,
}

/// Latencies of the packets since the last sample, in nanoseconds.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct DirectionLatency {
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
    /// Packets per row of the heat map, the fastest first.
    heat: Vec<u64>,
}

/// A sample on its way, numbered without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveEvent {
    /// Its number.
    pub id: u64,
    /// JSON, one line.
    pub data: Arc<str>,
}

/// The hub; clones share it.
#[derive(Clone, Debug)]
pub struct Live {
    ask: Ask,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    history: VecDeque<LiveEvent>,
    bytes: usize,
    next_id: u64,
    sender: broadcast::Sender<LiveEvent>,
    sampling: bool,
}

impl Shared {
    fn push(&mut self, data: Arc<str>) {
        let event = LiveEvent {
            id: self.next_id,
            data,
        };
        self.next_id += 1;
        self.bytes += event.data.len();
        self.history.push_back(event.clone());
        while self.history.len() > HISTORY || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.bytes -= oldest.data.len();
        }
        // Nobody may be listening just now.
        let _ = self.sender.send(event);
    }

    /// What a viewer has not seen who saw `after` last. A larger number is another process's.
    fn since(&self, after: Option<u64>) -> Vec<LiveEvent> {
        let seen = after.filter(|after| *after < self.next_id);
        let unseen = |event: &&LiveEvent| seen.is_none_or(|seen| event.id > seen);
        self.history.iter().filter(unseen).cloned().collect()
    }
}

impl Live {
    /// A hub that asks control.
    pub fn new(ask: Ask) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        Self {
            ask,
            shared: Arc::new(Mutex::new(Shared {
                history: VecDeque::new(),
                bytes: 0,
                next_id: 0,
                sender,
                sampling: false,
            })),
        }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What happened since `after`, and what will happen; `None` when too many look already. Must be called within
    /// a runtime.
    pub fn watch(&self, after: Option<u64>) -> Option<(Vec<LiveEvent>, broadcast::Receiver<LiveEvent>)> {
        let (seen, start) = self.locked(|shared| {
            if shared.sender.receiver_count() >= MAX_VIEWERS {
                return (None, false);
            }
            let start = !std::mem::replace(&mut shared.sampling, true);
            (Some((shared.since(after), shared.sender.subscribe())), start)
        });
        if start {
            tokio::spawn(self.clone().sample());
        }
        seen
    }

    /// Samples while somebody looks.
    async fn sample(self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<(Latencies, Option<Latencies>)> = None;
        let mut looked_at = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let ended = self.locked(|shared| {
                if shared.sender.receiver_count() > 0 {
                    looked_at = now;
                }
                shared.sampling = now - looked_at < LINGER;
                if !shared.sampling {
                    shared.history.clear();
                    shared.bytes = 0;
                }
                !shared.sampling
            });
            if ended {
                return;
            }
            // A daemon too busy to answer shows as a gap.
            let Ok(moment) = self.ask.moment().await else {
                continue;
            };
            if let Some(before) = &before {
                let data = sample(&moment, before);
                self.locked(|shared| shared.push(data.into()));
            }
            before = Some((moment.latencies, moment.of_kernel));
        }
    }
}

fn sample(moment: &Moment, (before, of_kernel): &(Latencies, Option<Latencies>)) -> String {
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let sample = Sample {
        at,
        status: &moment.status,
        latency: LatencySample::new(&moment.latencies, before),
        kernel_latency: moment
            .of_kernel
            .as_ref()
            .zip(of_kernel.as_ref())
            .map(|(now, before)| LatencySample::new(now, before)),
        heat_from_nanos: HEAT_FROM_NANOS,
        heat_per_decade: HEAT_PER_DECADE,
    };
    // Plain data with text keys: cannot fail.
    serde_json::to_string(&sample).unwrap_or_default()
}

impl LatencySample {
    fn new(now: &Latencies, before: &Latencies) -> Self {
        let since = |direction| DirectionLatency::new(now.direction(direction), before.direction(direction));
        Self {
            encap: since(Direction::Encap),
            decap: since(Direction::Decap),
        }
    }
}

impl DirectionLatency {
    fn new(now: &Histogram<u64>, before: &Histogram<u64>) -> Self {
        let mut interval = now.clone();
        // Both have the same bounds and counts only grow.
        let _ = interval.subtract(before);
        let at = |quantile: f64| {
            if interval.is_empty() {
                0
            } else {
                interval.value_at_quantile(quantile)
            }
        };
        let mut heat = vec![0; HEAT_ROWS];
        for value in interval.iter_recorded() {
            heat[row(value.value_iterated_to())] += value.count_since_last_iteration();
        }
        Self {
            count: interval.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            heat,
        }
    }
}

/// The row of the heat map a latency belongs to.
fn row(nanos: u64) -> usize {
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds are far below 2^53")]
    let decades = (nanos as f64 / HEAT_FROM_NANOS as f64).max(1.0).log10();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of decades, not negative"
    )]
    let row = (decades * f64::from(HEAT_PER_DECADE)) as usize;
    row.min(HEAT_ROWS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::query::{self, Query};
    use crate::ops::status::tests::example;

    #[test]
    fn rows_of_the_heat_map_are_logarithmic() {
        for (nanos, expected) in [
            (0, 0),
            (1_000, 0),
            (1_599, 1),
            (10_000, 5),
            (1_000_000, 15),
            (999_000_000, 29),
            (u64::MAX, 29),
        ] {
            assert_eq!(row(nanos), expected, "{nanos}");
        }
    }

    #[test]
    fn an_interval_is_a_difference() {
        let mut now = Histogram::new_with_bounds(100, 10_000_000_000, 2).unwrap();
        now.record_n(5_000_000, 7).unwrap();
        let before = now.clone();
        now.record_n(20_000, 98).unwrap();
        now.record_n(900_000, 2).unwrap();
        let sample = DirectionLatency::new(&now, &before);
        assert_eq!(sample.count, 100);
        assert!((20_000..20_400).contains(&sample.p50), "{sample:?}");
        assert!((900_000..910_000).contains(&sample.p999), "{sample:?}");
        assert_eq!(sample.heat.iter().sum::<u64>(), 100);
        assert_eq!(sample.heat[6], 98);
        let idle = DirectionLatency::new(&now, &now);
        assert_eq!((idle.count, idle.p99, idle.max), (0, 0, 0));
    }

    /// Answers questions as control would.
    fn hub() -> Live {
        let (ask, mut queries) = query::channel();
        tokio::spawn(async move {
            while let Some(query) = queries.next().await {
                if let Query::Moment(reply) = query {
                    let _ = reply.send(Moment {
                        status: example(),
                        latencies: Latencies::default(),
                        of_kernel: Some(Latencies::default()),
                    });
                }
            }
        });
        Live::new(ask)
    }

    #[tokio::test(start_paused = true)]
    async fn samples_are_made_while_somebody_looks() {
        let live = hub();
        let (seen, mut receiver) = live.watch(None).unwrap();
        assert_eq!(seen, []);
        let first = receiver.recv().await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&first.data).unwrap();
        assert_eq!(value["status"]["total"]["encap"]["received"], 24);
        assert_eq!(
            value["latency"]["decap"]["heat"].as_array().unwrap().len(),
            HEAT_ROWS
        );
        let second = receiver.recv().await.unwrap();
        assert_eq!((first.id, second.id), (0, 1));
        // Who comes back gets what was missed; who comes anew everything; so does who comes from another process.
        assert_eq!(live.watch(Some(0)).unwrap().0, [second]);
        assert_eq!(live.watch(None).unwrap().0.len(), 2);
        assert_eq!(live.watch(Some(99)).unwrap().0.len(), 2);
        drop(receiver);
        tokio::time::sleep(LINGER + 3 * INTERVAL).await;
        assert!(!live.locked(|shared| shared.sampling), "nobody looks");
        assert_eq!(live.watch(None).unwrap().0, [], "and nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn viewers_and_history_are_bounded() {
        let live = hub();
        let viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| live.watch(None).unwrap()).collect();
        assert!(live.watch(None).is_none());
        drop(viewers);
        assert!(live.watch(None).is_some());
        live.locked(|shared| {
            (0..HISTORY + 5).for_each(|_| shared.push("x".into()));
            assert_eq!((shared.history.len(), shared.bytes), (HISTORY, HISTORY));
            shared.push("y".repeat(HISTORY_BYTES).into());
            assert_eq!((shared.history.len(), shared.bytes), (1, HISTORY_BYTES));
        });
    }
}
