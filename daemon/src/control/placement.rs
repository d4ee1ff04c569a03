//! Which worker runs where: the whole policy.
//!
//! As many workers as CPUs, or more: each is pinned, in turn, so that none shares a core by accident and caches stay warm.
//! Fewer workers than CPUs: none is pinned. The kernel then wakes a worker where its packets arrive, which is nearer than
//! any fixed choice, and two daemons on one machine do not meet on the first CPU.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The CPUs to deal out to workers, in turn; none where pinning gains nothing.
pub(super) fn cpus_for(workers: usize) -> Vec<usize> {
    choose(usable_cpus(), workers)
}

fn choose(usable: Vec<usize>, workers: usize) -> Vec<usize> {
    if usable.len() < 2 || workers < usable.len() {
        Vec::new()
    } else {
        usable
    }
}

/// From the process's mask: asked before any thread is pinned, whose mask is smaller.
fn usable_cpus() -> Vec<usize> {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FAULTS 35: also more workers than CPUs.
    #[test]
    fn workers_are_pinned_when_they_fill_the_machine() {
        for (usable, workers, pinned) in [
            (vec![0, 1], 2, vec![0, 1]),
            (vec![0, 1], 4, vec![0, 1]),
            (vec![4, 5, 6, 7], 4, vec![4, 5, 6, 7]),
            (vec![0, 1], 1, vec![]),
            (vec![3], 1, vec![]),
            (vec![], 2, vec![]),
        ] {
            assert_eq!(
                choose(usable.clone(), workers),
                pinned,
                "{workers} workers on {usable:?}"
            );
        }
    }
}
