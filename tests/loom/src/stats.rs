//! Counters and histograms: nothing is lost, doubled or torn.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the engine's module, of which a model uses a part"
)]
#[path = "../../../engine/src/stats/counter.rs"]
mod counter;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the engine's module, of which a model uses a part"
)]
#[path = "../../../engine/src/stats/latency.rs"]
mod latency;

mod worker {
    //! What the included modules expect here.

    /// As the engine's.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Direction {
        /// From the TUN interface to the IPv4 network.
        Encap,
        /// From the IPv4 network to the TUN interface.
        Decap,
    }

    impl Direction {
        /// Both.
        pub(crate) const ALL: [Direction; 2] = [Direction::Encap, Direction::Decap];
    }
}

use std::time::Duration;

use loom::thread;

use crate::explore;
use crate::sync::Arc;
pub(crate) use counter::Counter;
use latency::{LatencyRecorder, latency_channels};
pub(crate) use worker::Direction;

/// A reader sees a counter grow and never shrink, by whole steps; at rest it is exact.
pub fn counters_grow() {
    explore(5, || {
        let counter = Arc::new(Counter::default());
        let worker = thread::spawn({
            let counter = Arc::clone(&counter);
            move || {
                counter.bump();
                counter.add(1 << 32);
                counter.bump();
            }
        });
        let steps = [0, 1, (1 << 32) + 1, (1 << 32) + 2];
        let [first, second] = [counter.get(), counter.get()];
        assert!(steps.contains(&first) && steps.contains(&second));
        assert!(first <= second);
        worker.join().expect("a worker");
        assert_eq!(counter.get(), steps[3]);
    });
}

/// Two workers hand histograms over while control gathers twice, without waiting for those who are late: each value is handed
/// over once, or is still with its worker.
pub fn histograms_change_hands() {
    explore(4, || {
        let (collector, recorders) = latency_channels(2);
        let work = |mut recorder: LatencyRecorder| {
            for _ in 0..2 {
                let packet = Duration::from_micros(1);
                recorder.current().record(Direction::Encap, packet, 1);
                recorder.answer();
            }
            recorder
        };
        let workers: Vec<_> = recorders
            .into_iter()
            .map(|recorder| thread::spawn(move || work(recorder)))
            .collect();
        let mut gathered = 0;
        let mut take_in = || {
            while let Ok(harvest) = collector.answers().try_recv() {
                gathered += harvest.latencies.direction(Direction::Encap).len();
            }
        };
        for _ in 0..2 {
            collector.request();
            take_in();
        }
        let mut kept = 0;
        for worker in workers {
            let mut recorder = worker.join().expect("a worker");
            kept += recorder.current().direction(Direction::Encap).len();
        }
        take_in();
        assert_eq!(gathered + kept, 4);
    });
}
