//! Hands Rulebooks from control to the workers without a lock, and frees old ones on the control thread.
//!
//! `arc-swap` makes the load cheap, but the last holder of an `Arc` frees it: a worker that let go last would pay for a
//! million routes. So the publisher keeps every retired snapshot until it is the only holder left (STYLE, principle 6).

use super::Rulebook;
use crate::sync::{Arc, ArcSwap, Guard};

/// A Rulebook as a worker holds it for one batch.
pub type Snapshot = Guard<Arc<Rulebook>>;

/// The control side: publishes, and frees what no worker holds any more.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Rulebook>>,
    retired: Vec<Arc<Rulebook>>,
}

/// The worker side: loads the newest Rulebook.
#[derive(Clone, Debug)]
pub struct Reader {
    current: Arc<ArcSwap<Rulebook>>,
}

impl Publisher {
    /// Starts with a first Rulebook.
    pub fn new(first: Rulebook) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(first)),
            retired: Vec::new(),
        }
    }

    /// A handle for a worker.
    pub fn reader(&self) -> Reader {
        Reader {
            current: Arc::clone(&self.current),
        }
    }

    /// Makes `next` the Rulebook of every batch that starts from now on.
    pub fn publish(&mut self, next: Rulebook) {
        self.retired.push(self.current.swap(Arc::new(next)));
        self.collect();
    }

    /// Frees retired Rulebooks that no worker holds; returns how many are still held.
    pub fn collect(&mut self) -> usize {
        self.retired.retain(|old| Arc::strong_count(old) > 1);
        self.retired.len()
    }

    /// The Rulebook in force.
    pub fn current(&self) -> Arc<Rulebook> {
        self.current.load_full()
    }
}

impl Reader {
    /// The newest Rulebook. Load once per batch, drop before going to sleep.
    #[inline]
    pub fn load(&self) -> Snapshot {
        self.current.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::RulebookBuilder;

    fn book(mtu: u16) -> Rulebook {
        RulebookBuilder {
            mtu,
            ..RulebookBuilder::default()
        }
        .build()
        .unwrap()
    }

    #[test]
    fn a_held_snapshot_stays_and_is_freed_by_the_publisher() {
        let mut publisher = Publisher::new(book(1280));
        let reader = publisher.reader();
        let held = Arc::clone(&reader.load());
        publisher.publish(book(1400));
        assert_eq!(held.tunnel().mtu.tunnel_mtu(), 1280);
        assert_eq!(reader.load().tunnel().mtu.tunnel_mtu(), 1400);
        assert_eq!(publisher.collect(), 1);
        drop(held);
        assert_eq!(publisher.collect(), 0);
    }
}
