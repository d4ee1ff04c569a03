//! The publisher of Rulebooks: whoever loads sees no older one than before, and no worker ever frees one.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the engine's module, of which a model uses a part"
)]
#[path = "../../../engine/src/fib/publish.rs"]
mod publish;

use loom::thread::{self, ThreadId};

use crate::sync::{Arc, ArcSwap};
use crate::{Seen, explore};
use publish::Publisher;

/// Stands for the million routes that only control may free.
#[derive(Debug)]
struct Rulebook {
    version: usize,
    control: ThreadId,
    freed_by_worker: Seen,
}

impl Rulebook {
    fn new(version: usize, freed_by_worker: &Seen) -> Self {
        Self {
            version,
            control: thread::current().id(),
            freed_by_worker: freed_by_worker.clone(),
        }
    }
}

impl Drop for Rulebook {
    fn drop(&mut self) {
        if thread::current().id() != self.control {
            self.freed_by_worker.note();
        }
    }
}

/// Two workers carry batches while control publishes and collects.
pub fn control_frees_what_workers_held() {
    let freed_by_worker = Seen::default();
    explore(5, move || {
        let mut publisher = Publisher::new(Rulebook::new(0, &freed_by_worker));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let reader = publisher.reader();
                thread::spawn(move || {
                    let mut seen = 0;
                    for _ in 0..2 {
                        let batch = reader.load();
                        assert!(batch.version >= seen, "{} after {seen}", batch.version);
                        seen = batch.version;
                    }
                    reader
                })
            })
            .collect();
        publisher.publish(Rulebook::new(1, &freed_by_worker));
        publisher.publish(Rulebook::new(2, &freed_by_worker));
        assert!(publisher.collect() <= 2, "each worker holds one");
        for worker in workers {
            let reader = worker.join().expect("a worker");
            assert_eq!(reader.load().version, 2, "a batch from now on");
        }
        assert_eq!(publisher.collect(), 0, "nobody holds an old one");
        assert!(!freed_by_worker.is_noted());
    });
}

/// What the publisher is for: whether without it a worker that lets go last may have to free.
pub fn a_worker_frees_without_a_publisher() -> bool {
    let freed_by_worker = Seen::default();
    let note = freed_by_worker.clone();
    explore(5, move || {
        let current = Arc::new(ArcSwap::from_pointee(Rulebook::new(0, &note)));
        let worker = thread::spawn({
            let current = Arc::clone(&current);
            move || {
                drop(current.load());
                current
            }
        });
        drop(current.swap(Arc::new(Rulebook::new(1, &note))));
        drop(worker.join());
    });
    freed_by_worker.is_noted()
}
