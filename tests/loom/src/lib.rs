//! What threads of the engine share without a lock, tried under every order of events that the memory model allows.
//!
//! The modules are the engine's own, included by their path; the engine takes the types that threads share from its module
//! `sync`, and here that module has loom's in their place. Each model is a function that panics when a promise does not hold in
//! some order; `tests/models.rs` calls them.
//!
//! | module | model of |
//! |---|---|
//! | [`fib`] | Rulebooks that change hands while workers hold them |
//! | [`capture`] | the ring of records; how a worker lets go of a capture |
//! | [`stats`] | counters; histograms that change hands |
//! | [`worker`] | flags and bells: no word to a sleeping worker is lost |
//!
//! What is a library's is not tried here but taken as its documentation says: `arc-swap` hands out what was stored last,
//! `crossbeam-channel` keeps messages and their order, an eventfd keeps its count. Loom has loads see older stores than the
//! last, but no store that comes later in the program: an order that only such loads need is not tried.
#![forbid(unsafe_code)]
// The tests inside the included modules are the engine's.
#![cfg(not(test))]

pub mod capture;
pub mod fib;
pub mod stats;
mod sync;
pub mod worker;

/// Whether something was seen in some order of events.
#[derive(Clone, Debug, Default)]
struct Seen(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Seen {
    fn note(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Runs `model` in every order of events with at most so many preemptions: more of them find what fewer find, later.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
