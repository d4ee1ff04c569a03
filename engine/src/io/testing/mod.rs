//! Lanes over kernels that fail: late, short, with any errno, out of buffers, twice (FAULTS 29, 33, 37-40, 42).
//!
//! | module | is |
//! |---|---|
//! | [`dice`] | where choices come from: a seed |
//! | [`faults`] | what goes wrong, and how often |
//! | [`world`] | where packets come from and go to |
//! | [`fake`] | what every kernel of the tests has in common |
//! | [`rig`] | the worker, and the accounts |
//! | [`run`] | lives of lanes, one after the other |
//!
//! The kernels themselves are with their lanes. `ISATAP_FAULT_SEED=n cargo test -p isatap-engine --lib ring_faults` (or
//! `call_faults`) begins with the lane whose seed a failure named; `ISATAP_FAULT_COMPLETIONS=n` goes on for so many answers.

mod dice;
mod fake;
pub(crate) mod faults;
mod rig;
mod run;
mod world;

pub(crate) use dice::{Dice, Odds};
pub(crate) use fake::{Common, Fake, Subject};
pub(crate) use faults::{Faults, Trap};
pub(crate) use rig::Rig;
pub(crate) use run::{Seed, run};

/// The ring lane over a kernel whose choices these bytes are: nothing is lost, held twice or let go too early, and it rests when the
/// faults do (FAULTS 37-40, 42).
///
/// # Panics
/// A promise is broken.
#[cfg(feature = "testing")]
pub fn ring(script: &[u8]) {
    run::live_by(script, super::uring::rig_over_a_kernel_that_fails);
}
