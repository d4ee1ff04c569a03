//! Rules for files, ports, signals and sockets of the engine's process (landlock(7); FAULTS 71).
//!
//! The engine keeps directories open to read files in again: the configuration's, the hosts file's. A directory leads out
//! of the root; these rules let it lead to files below that are read, and nowhere else. Nothing is written, made or executed.
//! TCP goes to name servers only (Linux 6.7), signals and abstract sockets stay inside (6.12).

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, CreateRulesetError, LandlockStatus,
    NetPort, PathBeneath, RestrictSelfError, RestrictionStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// What is asked for is what was tried with this version; older kernels enforce what they know of it.
pub(super) const TRIED: ABI = ABI::V6;

/// Where name servers are asked over TCP.
const DNS_PORT: u16 = 53;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The kernel refuses.
    #[error("{0}")]
    Kernel(#[from] std::io::Error),
    /// This kernel has none.
    #[error("{0}")]
    Unavailable(&'static str),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<RulesetError> for FilesError {
    fn from(error: RulesetError) -> Self {
        match error {
            RulesetError::CreateRuleset(CreateRulesetError::CreateRulesetCall { source, .. })
            | RulesetError::RestrictSelf(
                RestrictSelfError::RestrictSelfCall { source, .. }
                | RestrictSelfError::SetNoNewPrivsCall { source, .. },
            ) => Self::Kernel(source),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Lets this thread, and all that it starts, read files below `directories` and no others; says which version of
/// Landlock that was.
///
/// # Errors
/// It cannot be; nothing is changed then.
pub fn enter(directories: &[BorrowedFd<'_>]) -> Result<String, FilesError> {
    // The rest follows the kernel; the rule about files is in every version.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?;
    let mut created = ruleset
        .create()?
        .add_rule(NetPort::new(DNS_PORT, AccessNet::ConnectTcp))?;
    for directory in directories {
        created = created.add_rule(PathBeneath::new(directory, AccessFs::ReadFile))?;
    }
    outcome(&created.restrict_self()?)
}

/// Whether this kernel has rules for files.
///
/// # Errors
/// It has none, or does not let us see.
pub fn available() -> Result<(), FilesError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::ReadFile)?;
    ruleset.create()?;
    Ok(())
}

/// Which version of Landlock a process is ruled by now.
pub(super) fn outcome(status: &RestrictionStatus) -> Result<String, FilesError> {
    match (&status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err(FilesError::Unavailable(
            "Landlock is not among the security modules of this kernel (lsm= of its command line)",
        )),
        (RulesetStatus::NotEnforced, _) => Err(FilesError::Unavailable(
            "this kernel has no Landlock (Linux 5.13), or it is withheld",
        )),
        (
            _,
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            },
        ) => Ok(match kernel_abi {
            Some(version) => format!("version {version}"),
            None => format!("version {effective_abi}"),
        }),
        _ => Err(FilesError::Unavailable(
            "this kernel does not say which Landlock it has",
        )),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
