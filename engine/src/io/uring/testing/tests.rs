//! Runs of the lane over a kernel that fails, and each way to fail by itself.

use nix::libc;

use super::*;
use crate::io::lane::LaneFault;
use crate::io::testing::{Faults, Seed, Trap, run};
use crate::reason::DropReason;
use crate::stats::{Direction, IoOperation, LoopEvent};

/// FAULTS 37, 38, 39, 40, 42: completions late, short, failed and cancelled, receives that end, pools that run dry, queues that
/// overflow and calls that are refused or half taken: no slot, no packet and no order is lost, the lane rests when the faults do,
/// and ends when it is told.
#[test]
fn ring_faults_lose_nothing() {
    run(rig, &Trap::SUDDEN);
}

/// FAULTS 39, 56: what a sound kernel never does, and what no worker survives, ends the lane with its fault and a counter; each
/// packet is counted once, and no memory is freed that the kernel may still use.
#[test]
fn ring_faults_that_end_a_lane() {
    let fall = |trap: Trap, seed: u64| {
        let _shown = Seed(seed);
        let mut rig = rig(Dice::seeded(seed));
        // Some of everything is under way.
        rig.suffer(
            Faults {
                late: 8000,
                ..Faults::default()
            },
            20,
        )
        .unwrap();
        let fault = rig.fall_into(trap);
        let strays = rig.stats.event(LoopEvent::StrayCompletion).get();
        assert_eq!(strays > 0, trap.is_stray(), "{trap:?}: {fault}");
        let expected = match trap {
            trap if trap.is_stray() => matches!(fault, LaneFault::StrayCompletion),
            Trap::ReadGone | Trap::WriteGone => matches!(fault, LaneFault::TunGone(_)),
            Trap::CompletionLost => matches!(fault, LaneFault::CompletionLost),
            Trap::FailingReceive | Trap::EmptyReceive | Trap::DeafBell => {
                matches!(fault, LaneFault::Persistent { .. })
            }
            _ => matches!(fault, LaneFault::Wait(_)),
        };
        assert!(expected, "{trap:?}: {fault}");
        let counted = match trap {
            Trap::WaitFails => Some((IoOperation::Wait, libc::ENOMEM)),
            Trap::DeafBell => Some((IoOperation::Wait, libc::EINVAL)),
            Trap::WriteGone => Some((IoOperation::TunWrite, libc::EBADFD)),
            _ => None,
        };
        if let Some((operation, errno)) = counted {
            assert!(rig.stats.error(operation, errno).get() > 0, "{trap:?}");
        }
        rig.abandon();
    };
    for trap in Trap::SUDDEN {
        (0..4).for_each(|seed| fall(trap, seed));
    }
}

/// FAULTS 29, 40: a kernel that takes no requests for want of memory is asked again after a pause, never in a loop; a queue that
/// stays full ends the lane, one with room waits for better times.
#[test]
fn ring_faults_of_a_kernel_that_takes_nothing() {
    let mut rig = with_queues(Dice::seeded(1), (4, 8));
    let fault = rig.fall_into(Trap::TakesNothing);
    assert!(matches!(fault, LaneFault::Wait(_)), "{fault}");
    rig.abandon();

    let mut rig = with_queues(Dice::seeded(2), (512, 1024));
    rig.suffer(Faults::default(), 10).unwrap();
    rig.kernel.borrow_mut().common.trap = Some(Trap::TakesNothing);
    for _ in 0..100 {
        rig.turn().unwrap();
        assert!(
            rig.kernel.borrow().common.calls <= 4,
            "a call and a pause, in turn and hand-over"
        );
    }
    {
        let mut kernel = rig.kernel.borrow_mut();
        (kernel.common.trap, kernel.common.sprung) = (None, false);
    }
    rig.rest();
    rig.quiesce();
}

/// FAULTS 39, 42: completions that never come cost their packets, which are counted, and the memory, which is not freed.
#[test]
fn ring_faults_that_swallow_completions() {
    let mut rig = with_queues(Dice::seeded(3), (512, 1024));
    rig.suffer(Faults::default(), 10).unwrap();
    rig.kernel.borrow_mut().swallows = true;
    rig.suffer(Faults::default(), 10).unwrap();
    let stats = rig.abandon();
    for direction in Direction::ALL {
        assert!(
            stats.direction(direction).drops(DropReason::Shutdown).get() > 0,
            "{direction:?}"
        );
    }
}
