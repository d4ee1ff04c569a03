//! A worker that sleeps: what is said before its bell is rung is heard, in the order in which `worker::run` looks.
//!
//! The loop is the engine's, reduced to its waits; the bell is an eventfd, which counts until it is read.

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crate::{Seen, explore};

#[derive(Default)]
struct Bell {
    rings: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rings.lock().expect("a lock") = true;
        self.heard.notify_one();
    }

    /// Sleeps until it rings, and silences it.
    fn wait(&self) {
        let mut rings = self.rings.lock().expect("a lock");
        while !*rings {
            rings = self.heard.wait(rings).expect("a lock");
        }
        *rings = false;
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Counts starts and ends of captures.
    changes: AtomicU64,
    bell: Bell,
}

/// Control starts a capture, then stops the worker, which ends: had a word been lost it would sleep for ever, which loom sees.
pub fn no_word_is_lost() {
    explore(5, || {
        let shared = Arc::new(Shared::default());
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut seen = 0;
                while !shared.stop.load(Ordering::Acquire) {
                    shared.bell.wait();
                    seen = shared.changes.load(Ordering::Acquire);
                }
                seen
            }
        });
        shared.changes.fetch_add(1, Ordering::AcqRel);
        shared.bell.ring();
        shared.stop.store(true, Ordering::Release);
        shared.bell.ring();
        worker.join().expect("a worker");
    });
}

/// What the order is for: whether a worker that looks first and silences its bell then may sleep for ever.
pub fn a_word_is_lost_when_silenced_late() -> bool {
    let lost = Seen::default();
    let note = lost.clone();
    explore(5, move || {
        let shared = Arc::new(Shared::default());
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let stopped = shared.stop.load(Ordering::Acquire);
                *shared.bell.rings.lock().expect("a lock") = false;
                stopped
            }
        });
        shared.stop.store(true, Ordering::Release);
        shared.bell.ring();
        let goes_to_sleep = !worker.join().expect("a worker");
        // Everything has been said.
        if goes_to_sleep && !*shared.bell.rings.lock().expect("a lock") {
            note.note();
        }
    });
    lost.is_noted()
}
