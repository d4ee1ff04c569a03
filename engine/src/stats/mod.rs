//! What has happened: counters that belong to one worker each, written plainly, summed by readers.
//!
//! A counter is written by its worker alone: relaxed load and store, no read-modify-write, no shared cache line
//! (STYLE, principle 10). At rest `received = delivered + punted + drops` holds in each direction, exactly.

mod counter;
mod events;
mod latency;
mod snapshot;
mod worker;

pub use counter::Counter;
pub use events::{ERRNO_SLOTS, IoOperation, LoopEvent};
pub use latency::{Harvest, Latencies};
pub(crate) use latency::{LatencyCollector, LatencyRecorder, latency_channels};
pub use snapshot::{DirectionSnapshot, IoErrorCount, WorkerSnapshot};
pub use worker::{BATCH_BUCKETS, Direction, DirectionStats, EngineStats, WorkerStats};
