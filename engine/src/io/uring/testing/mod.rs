//! The lane over a ring whose kernel fails (FAULTS 37-40, 42).

mod kernel;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use super::UringLane;
use crate::buf::Pool;
use crate::io::lane::{RAW_SLOTS, TUN_SLOTS};
use crate::io::testing::{Dice, Fake, Rig, Subject};
use crate::io::wake::Bell;
use kernel::{FakeRing, Kernel};

/// Lengths of submission and completion queue that are tried.
const QUEUES: [(usize, usize); 4] = [(4, 8), (8, 16), (64, 128), (512, 1024)];

/// A lane with queues of some length.
pub(in crate::io) fn rig(mut dice: Dice) -> Rig<UringLane<FakeRing>> {
    let queues = dice.pick(&QUEUES);
    with_queues(dice, queues)
}

/// The same with queues of this length: submissions, completions.
fn with_queues(dice: Dice, queues: (usize, usize)) -> Rig<UringLane<FakeRing>> {
    let kernel = Rc::new(RefCell::new(Kernel::new(dice, queues.0, queues.1)));
    let bell = Bell::new().expect("a bell");
    let lane = UringLane::over(FakeRing(Rc::clone(&kernel)), bell).expect("a lane");
    Rig::over(lane, kernel)
}

impl Subject for UringLane<FakeRing> {
    type Kernel = Kernel;
    const LEAVES_MEMORY: bool = true;

    fn pools(&self) -> [&Rc<Pool>; 2] {
        [self.tun_ring.pool(), self.raw_ring.pool()]
    }

    fn check(&self, kernel: &Kernel) {
        let (sends, writes) = kernel.pending();
        assert!(
            self.sends.chain_len() >= sends && self.writes.len() >= writes,
            "let go of what the kernel still reads"
        );
        if kernel.common().sprung {
            return;
        }
        let gathered = self.completions.iter();
        let gathered = gathered.filter(|answer| answer.buffer().is_some()).count();
        let [tun, raw] = self.pools().map(|pool| pool.census().kernel);
        assert_eq!(
            tun + raw,
            kernel.available(0) + kernel.available(1) + kernel.filled() + gathered,
            "slots that the kernel has"
        );
    }

    fn is_idle(&self, kernel: &Kernel) -> bool {
        kernel.is_idle() && self.in_flight() == 0 && self.sends.is_empty() && self.completions.is_empty()
    }

    fn check_rest(&self, kernel: &Kernel) {
        assert!(kernel.is_armed(0) && kernel.is_armed(1), "silent for ever");
        assert_eq!(
            (kernel.available(0), kernel.available(1)),
            (usize::from(TUN_SLOTS), usize::from(RAW_SLOTS)),
            "slots lost"
        );
    }

    fn check_quiet(&self, kernel: &Kernel) {
        assert!(!kernel.is_armed(0) && !kernel.is_armed(1), "it may still write");
    }
}
