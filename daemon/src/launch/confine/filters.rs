//! Filters of system calls: made once from the lists, entered by each thread (seccomp(2); FAULTS 43, 71).
//!
//! ```text
//!  process, before its second thread:  deadly calls end it | what any thread needs, and a start
//!  each thread, when it is set up:     deadly: another ring | what threads of its kind need
//! ```
//!
//! A call passes when every filter in force lets it. What is on no list fails with ENOSYS, as on a kernel that does not
//! have it: the C library and the standard library have ways round calls that are missing, and none round calls
//! that are forbidden, so that a newer one of them finds the way that an older one took. What an intruder alone would try
//! ends the process instead, with SIGSYS: the monitor starts another one, and says why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::calls::{
    Call, DEADLY, DEADLY_FOR_EVER, DEADLY_LATER, EVERY, MISSING_FOR_EVER, MISSING_WITHOUT_PROGRAMS,
    OF_CONTROL, OF_START, OF_SYSCALL_LANE, OF_URING_LANE, OF_WATCH, Test, Value,
};

/// What the filters tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// Control, and the helpers it starts.
    Control,
    /// A worker with a ring.
    UringWorker,
    /// A worker without.
    SyscallWorker,
    /// The watch of the monitor.
    Watch,
}

impl ThreadKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Control, Self::UringWorker, Self::SyscallWorker, Self::Watch];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::UringWorker => "worker (uring)",
            Self::SyscallWorker => "worker (syscall)",
            Self::Watch => "monitor-watch",
        }
    }

    fn calls(self) -> impl Iterator<Item = &'static Call> {
        let own = match self {
            Self::Control => OF_CONTROL,
            Self::UringWorker => OF_URING_LANE,
            Self::SyscallWorker => OF_SYSCALL_LANE,
            Self::Watch => OF_WATCH,
        };
        EVERY.iter().chain(own)
    }

    /// The names of the calls that it may make, some only with certain arguments.
    pub fn allowed(self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.calls().map(Call::name).collect();
        names.sort_unstable();
        names
    }
}

/// Why there are no filters.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel refuses.
    #[error("{0}")]
    Kernel(#[from] std::io::Error),
    /// They cannot be made: this processor has no lists.
    #[error("{0}")]
    Unavailable(String),
}

impl From<seccompiler::Error> for FilterError {
    fn from(error: seccompiler::Error) -> Self {
        match error {
            seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => Self::Kernel(error),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<seccompiler::BackendError> for FilterError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Every filter, ready to be entered.
#[derive(Debug)]
pub struct Filters {
    process: [BpfProgram; 2],
    deadly_later: BpfProgram,
    of_kind: [BpfProgram; ThreadKind::ALL.len()],
}

impl Filters {
    /// Makes them for this process.
    ///
    /// # Errors
    /// This processor's calls are not known.
    pub fn new() -> Result<Self, FilterError> {
        let kinds = ThreadKind::ALL.into_iter().flat_map(ThreadKind::calls);
        let of_kind = |kind: ThreadKind| allow(kind.calls());
        let [control, uring, syscall, watch] = ThreadKind::ALL.map(of_kind);
        Ok(Self {
            // What is deadly for ever is so already, unless whoever started this process is no monitor.
            process: [
                deadly(DEADLY_FOR_EVER.iter().chain(DEADLY))?,
                allow(kinds.chain(OF_START))?,
            ],
            deadly_later: deadly(DEADLY_LATER.iter())?,
            of_kind: [control?, uring?, syscall?, watch?],
        })
    }

    /// Filters this thread and all that it starts from now on: what every kind of them needs, and a start.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter_process(&self) -> Result<(), FilterError> {
        self.process
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
            .map_err(FilterError::from)
    }

    /// Filters this thread, and all that it starts, down to what its kind needs. No ring is made here any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(&self, kind: ThreadKind) -> Result<(), FilterError> {
        // The second one lets no further filter be installed.
        self.of_kind(kind)
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
            .map_err(FilterError::from)
    }

    fn of_kind(&self, kind: ThreadKind) -> [&BpfProgram; 2] {
        let [control, uring, syscall, watch] = &self.of_kind;
        let own = match kind {
            ThreadKind::Control => control,
            ThreadKind::UringWorker => uring,
            ThreadKind::SyscallWorker => syscall,
            ThreadKind::Watch => watch,
        };
        [&self.deadly_later, own]
    }
}

/// Whether this kernel has what the filters answer with.
///
/// # Errors
/// It has not, or this processor has no lists.
pub fn available() -> Result<(), FilterError> {
    const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";
    TargetArch::try_from(std::env::consts::ARCH)?;
    let actions = std::fs::read_to_string(ACTIONS)?;
    if actions.split_whitespace().any(|action| action == "kill_process") {
        Ok(())
    } else {
        Err(FilterError::Unavailable(
            "the kernel ends no process for a call (Linux 4.14)".into(),
        ))
    }
}

fn allow(calls: impl Iterator<Item = &'static Call>) -> Result<BpfProgram, FilterError> {
    let otherwise = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    program(calls, SeccompAction::Allow, otherwise)
}

/// A filter under which `calls` end the process.
pub(super) fn deadly(calls: impl Iterator<Item = &'static Call>) -> Result<BpfProgram, FilterError> {
    program(calls, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// A filter under which `calls` fail as on a kernel that does not have them.
pub(super) fn missing(calls: impl Iterator<Item = &'static Call>) -> Result<BpfProgram, FilterError> {
    let failure = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    program(calls, failure, SeccompAction::Allow)
}

fn program(
    calls: impl Iterator<Item = &'static Call>,
    then: SeccompAction,
    otherwise: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for call in calls {
        if call.when.is_empty() {
            always.push(call.number);
        }
        let of_call = rules.entry(call.number).or_default();
        for tests in call.when {
            let tests: Result<Vec<_>, _> = tests.iter().map(condition).collect();
            let rule = SeccompRule::new(tests?)?;
            if !of_call.contains(&rule) {
                of_call.push(rule);
            }
        }
    }
    // On one list with conditions, on another one without: then without.
    for number in always {
        rules.insert(number, Vec::new());
    }
    let filter = SeccompFilter::new(rules, otherwise, then, arch)?;
    Ok(filter.try_into()?)
}

fn condition(test: &Test) -> Result<SeccompCondition, seccompiler::BackendError> {
    let value = match test.value {
        Value::Is(value) | Value::IsNot(value) => value,
        Value::ThisProcess => std::process::id(),
    };
    let operator = match (test.mask, test.value) {
        (_, Value::IsNot(_)) => SeccompCmpOp::Ne,
        (u32::MAX, _) => SeccompCmpOp::Eq,
        (mask, _) => SeccompCmpOp::MaskedEq(mask.into()),
    };
    SeccompCondition::new(test.argument, SeccompCmpArgLen::Dword, operator, value.into())
}

/// The lists as a table, for the documentation: written by a test, which also checks that it is up to date.
pub fn table(ring_operations: usize) -> String {
    let mut text =
        String::from("| threads | system calls | operations of a ring | which calls |\n|---|---|---|---|\n");
    for kind in ThreadKind::ALL {
        let allowed = kind.allowed();
        let operations = if kind == ThreadKind::UringWorker {
            ring_operations
        } else {
            0
        };
        let _ = writeln!(
            text,
            "| {} | {} | {operations} | {} |",
            kind.name(),
            allowed.len(),
            allowed.join(", ")
        );
    }
    let mut row = |title: &str, calls: &[&'static [Call]]| {
        let names: BTreeSet<_> = calls.iter().copied().flatten().map(Call::name).collect();
        let count = names.len();
        let names: Vec<_> = names.into_iter().collect();
        let _ = writeln!(text, "| {title} | {count} | | {} |", names.join(", "));
    };
    row(
        "any of the engine: ends the process",
        &[DEADLY_FOR_EVER, DEADLY, DEADLY_LATER],
    );
    row(
        "the monitor, and all that it starts: ends the process",
        &[DEADLY_FOR_EVER],
    );
    row("the same: is missing", &[MISSING_FOR_EVER]);
    row(
        "the same without programs: is missing",
        &[MISSING_WITHOUT_PROGRAMS],
    );
    text
}

#[cfg(test)]
#[path = "filters_tests.rs"]
mod tests;
