//! Lives of lanes, one after the other: times in which things go wrong and times of rest, and an end.

use std::time::Instant;

use super::dice::Dice;
use super::fake::{Fake, Subject};
use super::faults::{Faults, Trap};
use super::rig::Rig;
#[cfg(feature = "testing")]
use crate::io::lane::LaneFault;

/// Answers of an ordinary run.
const ANSWERS: u64 = 200_000;

/// One lane in this many ends with a fault: its memory may be left to the end of the process.
const FALLEN: usize = 64;

/// What a run was made of.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Answers of the kernel.
    completions: u64,
    /// Lanes that were made.
    lanes: u64,
    /// Of those, lanes that ended with a fault, as they should.
    fallen: u64,
}

/// Says how to see a failure again.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this lane again: ISATAP_FAULT_SEED={}", self.0);
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Makes one lane after the other and lets it live, until there have been enough answers. `traps` are ways to end.
pub(crate) fn run<L: Subject>(make: impl Fn(Dice) -> Rig<L>, traps: &[Trap]) {
    let wanted = from_environment("ISATAP_FAULT_COMPLETIONS").unwrap_or(ANSWERS);
    let mut seed = from_environment("ISATAP_FAULT_SEED").unwrap_or(1);
    let (mut tally, began) = (Tally::default(), Instant::now());
    while tally.completions < wanted {
        let shown = Seed(seed);
        live(Dice::seeded(seed), &make, traps, &mut tally);
        seed = seed.wrapping_add(1);
        drop(shown);
    }
    let rate = tally.completions as f64 / began.elapsed().as_secs_f64();
    println!("{tally:?}, {rate:.0} completions a second, next seed {seed}");
}

/// One life, by what the bytes say of each choice: short, and without a fault on purpose, since memory that is left to the
/// end of a process adds up.
#[cfg(feature = "testing")]
pub(crate) fn live_by<L: Subject>(script: &[u8], make: impl Fn(Dice) -> Rig<L>) {
    let mut dice = Dice::scripted(0, script);
    let epochs = 1 + dice.below(3);
    let mut rig = make(dice);
    for _ in 0..epochs {
        let (faults, turns) = epoch(&rig, 64);
        if let Err(fault) = rig.suffer(faults, turns) {
            // Bytes may have one thing fail so often in a row that it counts as broken.
            assert!(
                matches!(fault, LaneFault::Wait(_) | LaneFault::Persistent { .. }),
                "{fault}"
            );
            rig.abandon();
            return;
        }
        rig.rest();
    }
    rig.suffer(Faults::default(), 8).expect("nothing happened");
    rig.quiesce();
}

/// What goes wrong next, and for how many turns.
fn epoch<L: Subject>(rig: &Rig<L>, most: usize) -> (Faults, usize) {
    let mut kernel = rig.kernel.borrow_mut();
    let dice = &mut kernel.common_mut().dice;
    (Faults::some(dice), dice.below(most))
}

fn live<L: Subject>(mut dice: Dice, make: &impl Fn(Dice) -> Rig<L>, traps: &[Trap], tally: &mut Tally) {
    let (epochs, falls) = (1 + dice.below(8), dice.below(FALLEN) == 0);
    let mut rig = make(dice);
    for _ in 0..epochs {
        let (faults, turns) = epoch(&rig, 400);
        rig.suffer(faults, turns)
            .expect("nothing happened that a lane does not survive");
        rig.rest();
        // And carries on.
        rig.suffer(Faults::default(), 8).expect("nothing happened");
    }
    tally.lanes += 1;
    tally.completions += rig.kernel.borrow().common().answered;
    if falls {
        tally.fallen += 1;
        let trap = rig.kernel.borrow_mut().common_mut().dice.pick(traps);
        rig.fall_into(trap);
        rig.abandon();
    } else {
        {
            let mut kernel = rig.kernel.borrow_mut();
            let common = kernel.common_mut();
            common.faults = Faults::some(&mut common.dice);
        }
        rig.quiesce();
    }
}
