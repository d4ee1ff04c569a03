//! Rules for what the monitor may change of the machine's files, and whom it may signal (landlock(7); FAULTS 72).
//!
//! ```text
//!  reads, executes    what its user may: an engine is this program, an upgrade any other
//!  writes             the tunnel interface's sysctls, /dev/null
//!  removes            where the pid file is, where the control socket is: its own, at the end
//!  makes, renames     nothing
//!  signals            what it has started (Linux 6.12)
//! ```
//!
//! What is open already stays as it is: descriptors are no way to another file. Rules are inherited for ever, as the filters are, by
//! engines, which have narrower ones, and by what an upgrade brings. The kernel stacks no more than 16 layers of them, so that a program
//! which another one has become enters them only if they are others.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope,
};

use super::files::{FilesError, TRIED, outcome};
use crate::link::sysctl;

/// Changes with what is ruled, so that a program that rules otherwise enters its own.
const EDITION: u32 = 1;

/// The rules, ready to be entered.
#[derive(Debug)]
pub struct Changes {
    removes_in: Vec<PathBuf>,
}

impl Changes {
    /// Those of a monitor that removes `files` at its end.
    pub fn new(files: &[&Path]) -> Self {
        let parents = files.iter().filter_map(|file| file.parent());
        Self {
            removes_in: parents.map(Path::to_owned).collect(),
        }
    }

    /// Rules this thread, which must be the only one, and all that it starts or becomes from now on. The directory of the sysctls
    /// must be open, and stay so: the kernel may make another one of it otherwise, of which no rule speaks.
    ///
    /// # Errors
    /// It cannot be; nothing is changed then.
    pub fn enter(&self) -> Result<(), FilesError> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_write(TRIED))?
            .scope(Scope::Signal)?;
        let mut created = ruleset.create()?;
        let writes: BitFlags<AccessFs> = AccessFs::WriteFile.into();
        let writes = ["/dev/null", sysctl::CONF].map(|path| (Path::new(path), writes));
        let removes: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
        let removes = self.removes_in.iter().map(|path| (path.as_path(), removes));
        for (path, access) in writes.into_iter().chain(removes) {
            // Where nothing is, nothing will be changed.
            if let Ok(place) = PathFd::new(path) {
                created = created.add_rule(PathBeneath::new(place, access))?;
            }
        }
        outcome(&created.restrict_self()?).map(drop)
    }

    /// Tells these rules from any others, and from none, which is 0.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (EDITION, &self.removes_in).hash(&mut hasher);
        hasher.finish().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_apart() {
        let mark = |files: &[&str]| {
            let files: Vec<_> = files.iter().map(Path::new).collect();
            Changes::new(&files).mark()
        };
        assert_eq!(
            mark(&["/run/a/pid", "/run/b/socket"]),
            mark(&["/run/a/x", "/run/b/y"])
        );
        assert_ne!(mark(&["/run/a/pid"]), mark(&["/run/b/pid"]));
        assert_ne!(mark(&[]), 0);
    }
}
