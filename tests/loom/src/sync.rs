//! Loom's types under the names of the engine's module `sync`, and what libraries promise, made of them.

use std::collections::VecDeque;
use std::ops::Deref;

use loom::sync::Mutex;

pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// `arc_swap::ArcSwap`: a load is one of the values stored, none older than one that is known to the thread; the guard holds it.
#[derive(Debug)]
pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

/// `arc_swap::Guard`.
#[derive(Debug)]
pub(crate) struct Guard<T>(T);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *self.0.lock().expect("a lock"), next)
    }

    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        Guard(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().expect("a lock"))
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// `crossbeam_channel::bounded`.
pub(crate) fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Mutex::new(VecDeque::new()));
    let sender = Sender {
        queue: Arc::clone(&queue),
        most,
    };
    (sender, Receiver { queue })
}

#[derive(Debug)]
pub(crate) struct Sender<T> {
    queue: Arc<Mutex<VecDeque<T>>>,
    most: usize,
}

#[derive(Debug)]
pub(crate) struct Receiver<T> {
    queue: Arc<Mutex<VecDeque<T>>>,
}

/// `crossbeam_channel::TrySendError`.
#[derive(Debug)]
pub(crate) struct Full<T>(T);

impl<T> Full<T> {
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            most: self.most,
        }
    }
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, message: T) -> Result<(), Full<T>> {
        let mut queue = self.queue.lock().expect("a lock");
        if queue.len() == self.most {
            return Err(Full(message));
        }
        queue.push_back(message);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().expect("a lock").is_empty()
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, ()> {
        self.queue.lock().expect("a lock").pop_front().ok_or(())
    }
}
