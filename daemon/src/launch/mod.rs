//! From a command typed by root to a daemon of two processes, of which the one that meets the network has no privilege.
//!
//! ```text
//!  launcher ---- starts itself again, waits ----+
//!     |                                         v
//!     |  ready / failed + status            monitor (`start`): session of its own, pid file locked, log opened,
//!     +<------------------------------------        everything opened, then `crate::monitor`
//!     v                                         |
//!  exit status                                  +-- engine's process (`engine`): chroot, user, no capability
//!                                                   (`privilege`), files and system calls (`confine`), then
//!                                                   `crate::control`
//! ```
//!
//! Nothing here forks without executing: a copy of a process with threads, or of half a start, never runs.

pub mod address_space;
mod alone;
pub mod confine;
pub mod descriptors;
pub mod detach;
pub mod engine;
pub mod listen;
pub mod log;
pub mod notify;
pub mod pidfile;
pub mod privilege;
pub mod ready;
pub mod require;
pub mod start;

pub use ready::Ready;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

use crate::cli::{self, Command, Options};
use crate::config::Loader;
use crate::exit::{ExitError, ExitStatus};

/// Takes standard input over, and leaves nothing in its place.
fn stdin_descriptor() -> Result<OwnedFd, ExitError> {
    let failed = |error: std::io::Error| ExitError::other(format!("standard input: {error}"));
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    nix::unistd::dup2_stdin(null).map_err(|errno| failed(errno.into()))?;
    Ok(stdin)
}

/// Reads the daemon's arguments as another process of it has made them.
fn arguments(arguments: &[OsString]) -> Result<Options, ExitError> {
    let program = std::iter::once(OsString::from("isatapd"));
    match cli::parse(program.chain(arguments.iter().cloned())) {
        Ok(Command::Run(options)) => Ok(options),
        _ => Err(ExitError::new(
            ExitStatus::Usage,
            "these are no arguments of a daemon",
        )),
    }
}

/// A reader of the configuration file for a process that has the settings already: a file that is gone by now keeps
/// nobody from working by what it said.
fn loader(options: Options) -> Result<Loader, ExitError> {
    Loader::open(options.config, options.overrides.clone())
        .or_else(|_| Loader::open(None, options.overrides))
        .map_err(ExitError::from)
}

/// Whether this program could take over from a running one, as [`crate::monitor::upgrade`] asks it.
pub fn try_upgrade(rest: &[OsString]) -> ExitStatus {
    let tried = arguments(rest)
        .and_then(loader)
        .and_then(|loader| Ok((loader, stdin_descriptor()?)))
        .map_err(|error| error.to_string())
        .and_then(|(loader, kept)| crate::monitor::upgrade::trial(&loader, kept));
    let (answer, status) = match tried {
        Ok(answer) => (answer, ExitStatus::Ok),
        Err(why) => (why, ExitStatus::Other),
    };
    use std::io::Write as _;
    match std::io::stdout().write_all(answer.as_bytes()) {
        Ok(()) => status,
        Err(_) => ExitStatus::Other,
    }
}
