//! The monitor's filters of system calls: what neither it nor anything it starts or becomes has a reason to try (seccomp(2);
//! FAULTS 43, 72).
//!
//! ```text
//!  start -> powers given up -> these filters -> monitor::serve --+-- engines, with narrower ones of their own
//!                                                                +-- trial of an upgrade, and the program it becomes
//! ```
//!
//! A filter is inherited and outlives the execution of another program, so that a list of what the monitor does would be one of
//! what every version to come may do. These list what must not be instead, and nothing that an engine, a C library or a
//! program loader takes. Who needs such a call one day finds it out in the trial of an upgrade, which
//! is refused then, and a restart is without. The parent of helpers for name servers was started before, since those run programs
//! of others.
//!
//! A call that is deadly ends the process instead of failing: no error of ours leads to one, the kernel's log names it (audit,
//! type=1326), the service manager starts the daemon again, and who made it has to come in once more. For calls of
//! other processors' kinds it is the same. A call that is missing fails with ENOSYS. So does one that came to the kernel
//! after the lists were made: a list of what must not be says nothing about it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem::offset_of;

use nix::libc;
use seccompiler::{BpfProgram, sock_filter};

use super::calls::{DEADLY_FOR_EVER, LAST_LOOKED_AT, MISSING_FOR_EVER, MISSING_WITHOUT_PROGRAMS};
use super::filters::{FilterError, deadly, missing};

/// Calls of x32 have this bit, and are calls of the same processor to whoever asks for that alone.
const X32: u32 = 0x4000_0000;

/// Both filters, ready to be entered.
#[derive(Debug)]
pub struct MonitorFilters {
    programs: [BpfProgram; 2],
}

impl MonitorFilters {
    /// Makes them for a monitor that has programs in the kernel to look after, or for one that has none.
    ///
    /// # Errors
    /// This processor's calls are not known.
    pub fn new(has_programs: bool) -> Result<Self, FilterError> {
        let unused = if has_programs {
            &[]
        } else {
            MISSING_WITHOUT_PROGRAMS
        };
        let mut first = bounds();
        first.extend(deadly(DEADLY_FOR_EVER.iter())?);
        Ok(Self {
            programs: [first, missing(MISSING_FOR_EVER.iter().chain(unused))?],
        })
    }

    /// Filters this thread, which must be the only one, and all that it starts or becomes from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(&self) -> Result<(), FilterError> {
        self.programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
            .map_err(FilterError::from)
    }

    /// Tells these filters from any others, and from none, which is 0: a program that another one has become need not enter
    /// once more what it is under. The kernel takes no more than some dozens of them.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for step in self.programs.iter().flatten() {
            (step.code, step.jt, step.jf, step.k).hash(&mut hasher);
        }
        hasher.finish().max(1)
    }
}

/// What goes before a filter: the ends of what its list was made from.
fn bounds() -> BpfProgram {
    let step = |code: u32, jt, jf, k| sock_filter {
        // Codes have 16 bits; the headers have them as int.
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let number = u32::try_from(offset_of!(libc::seccomp_data, nr)).unwrap_or_default();
    let last = u32::try_from(LAST_LOOKED_AT).unwrap_or_default();
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let (if_at_least, if_more) = (
        libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
        libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K,
    );
    let answer = libc::BPF_RET | libc::BPF_K;
    let failure = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        step(load, 0, 0, number),
        step(if_at_least, 0, 1, X32),
        step(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(if_more, 0, 1, last),
        step(answer, 0, 0, failure),
    ]
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
