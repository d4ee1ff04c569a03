//! Workers that go wrong on demand, for tests of what follows. No release build has this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

/// What goes wrong in a worker at its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerFault {
    /// It panics.
    Panic,
    /// It makes no turn any more, and sleeps.
    Wedge,
    /// It makes no turn any more, and runs in circles.
    Spin,
}

/// A wish for one worker, shared with whoever utters it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish(Arc<AtomicU8>);

impl Wish {
    pub(super) fn utter(&self, fault: WorkerFault) {
        let number = match fault {
            WorkerFault::Panic => 1,
            WorkerFault::Wedge => 2,
            WorkerFault::Spin => 3,
        };
        self.0.store(number, Ordering::Release);
    }

    /// Called by the worker in each turn.
    pub(super) fn come_true(&self) {
        match self.0.load(Ordering::Acquire) {
            1 => panic!("as a test wished"),
            2 => loop {
                thread::park();
            },
            3 => loop {
                std::hint::spin_loop();
            },
            _ => {}
        }
    }
}
