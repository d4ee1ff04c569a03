//! The io_uring lane over a kernel that fails: late, short, with any errno, out of buffers, twice (FAULTS 37-40, 42).
//!
//! | module | is |
//! |---|---|
//! | [`dice`] | where choices come from: a seed |
//! | [`faults`] | what goes wrong, and how often |
//! | [`kernel`] | the other end of the ring |
//! | [`world`] | where packets come from and go to |
//! | [`rig`] | the worker, and the accounts |
//!
//! `ISATAP_FAULT_SEED=n cargo test -p isatap-engine --lib ring_faults` begins with the lane whose seed a failure named;
//! `ISATAP_FAULT_COMPLETIONS=n` goes on for so many completions.

mod dice;
mod faults;
mod kernel;
mod rig;
#[cfg(test)]
mod tests;
mod world;

use dice::Dice;
use faults::{Faults, Trap};
use rig::Rig;

/// What a run was made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Answers of the kernel.
    pub(crate) completions: u64,
    /// Lanes that were made.
    pub(crate) lanes: u64,
    /// Of those, lanes that ended with a fault, as they should.
    pub(crate) fallen: u64,
}

/// One lane in this many ends with a fault: its memory is left to the end of the process.
const FALLEN: usize = 64;

/// The life of one lane: times in which things go wrong and times of rest, and an end.
pub(crate) fn live(mut dice: Dice, tally: &mut Tally) {
    let (epochs, falls) = (1 + dice.below(8), dice.below(FALLEN) == 0);
    let mut rig = Rig::new(dice);
    for _ in 0..epochs {
        let (faults, turns) = {
            let dice = &mut rig.kernel.borrow_mut().dice;
            (Faults::some(dice), dice.below(400))
        };
        rig.suffer(faults, turns)
            .expect("nothing happened that a lane does not survive");
        rig.rest();
        // And carries on.
        rig.suffer(Faults::default(), 8).expect("nothing happened");
    }
    tally.lanes += 1;
    tally.completions += rig.kernel.borrow().answered;
    if falls {
        tally.fallen += 1;
        let trap = rig.kernel.borrow_mut().dice.pick(&Trap::SUDDEN);
        rig.fall_into(trap);
        rig.abandon();
    } else {
        let faults = Faults::some(&mut rig.kernel.borrow_mut().dice);
        rig.kernel.borrow_mut().faults = faults;
        rig.quiesce();
    }
}
