//! Runs of the lane over a kernel that fails, and each way to fail by itself.

use std::time::Instant;

use nix::libc;

use super::*;
use crate::io::lane::LaneFault;
use crate::reason::DropReason;
use crate::stats::{Direction, IoOperation, LoopEvent};

/// Completions of an ordinary run.
const COMPLETIONS: u64 = 200_000;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Says how to see a failure again.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this lane again: ISATAP_FAULT_SEED={}", self.0);
        }
    }
}

/// FAULTS 37, 38, 39, 40, 42: completions late, short, failed and cancelled, receives that end, pools that run dry, queues that
/// overflow and calls that are refused or half taken: no slot, no packet and no order is lost, the lane rests when the faults do,
/// and ends when it is told.
#[test]
fn ring_faults_lose_nothing() {
    let wanted = from_environment("ISATAP_FAULT_COMPLETIONS").unwrap_or(COMPLETIONS);
    let mut seed = from_environment("ISATAP_FAULT_SEED").unwrap_or(1);
    let (mut tally, began) = (Tally::default(), Instant::now());
    while tally.completions < wanted {
        let shown = Seed(seed);
        live(Dice::seeded(seed), &mut tally);
        seed = seed.wrapping_add(1);
        drop(shown);
    }
    let rate = tally.completions as f64 / began.elapsed().as_secs_f64();
    println!("{tally:?}, {rate:.0} completions a second, next seed {seed}");
}

/// FAULTS 39, 56: what a sound kernel never does, and what no worker survives, ends the lane with its fault and a counter; each
/// packet is counted once, and no memory is freed that the kernel may still use.
#[test]
fn ring_faults_that_end_a_lane() {
    let fall = |trap: Trap, seed: u64| {
        let _shown = Seed(seed);
        let mut rig = Rig::new(Dice::seeded(seed));
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
    let mut rig = Rig::with_queues(Dice::seeded(1), (4, 8));
    let fault = rig.fall_into(Trap::TakesNothing);
    assert!(matches!(fault, LaneFault::Wait(_)), "{fault}");
    rig.abandon();

    let mut rig = Rig::with_queues(Dice::seeded(2), (512, 1024));
    rig.suffer(Faults::default(), 10).unwrap();
    rig.kernel.borrow_mut().trap = Some(Trap::TakesNothing);
    for _ in 0..100 {
        rig.turn().unwrap();
        assert!(
            rig.kernel.borrow().calls() <= 4,
            "a call and a pause, in turn and hand-over"
        );
    }
    {
        let mut kernel = rig.kernel.borrow_mut();
        (kernel.trap, kernel.sprung) = (None, false);
    }
    rig.rest();
    rig.quiesce();
}

/// FAULTS 39, 42: completions that never come cost their packets, which are counted, and the memory, which is not freed.
#[test]
fn ring_faults_that_swallow_completions() {
    let mut rig = Rig::with_queues(Dice::seeded(3), (512, 1024));
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
