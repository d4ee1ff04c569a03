//! How many files may be open: all that the machine allows, and enough to serve clients with (FAULTS 66).
//!
//! A daemon that starts with its last descriptor carries packets and answers nobody: it looks dead to those who watch
//! it, and cannot look a name up. So the start takes some more than it keeps.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::exit::{ExitError, ExitStatus};

/// What must be left at the start: a few clients of each socket, a name server, a netlink socket to start anew with.
pub const SPARE: usize = 16;

/// What a start takes at least besides, and for each worker: a little less than was counted of the leanest configuration (51 with one
/// worker, 75 with four, [`SPARE`] among them).
const LEAST: u64 = 40;
const LEAST_PER_WORKER: u64 = 8;

/// Lets this process, and those it starts, have as many as it is allowed to ask for, and as much locked memory, which rings
/// count as. Shells and service managers give 1024 descriptors for the sake of `select`, which nothing here uses.
pub fn raise_limits() {
    for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_MEMLOCK] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
        {
            // Where this is refused, what there is is left.
            let _ = setrlimit(resource, hard, hard);
        }
    }
}

/// Makes sure of what a start with so many workers cannot do without, before anything is opened: whichever call met the limit would
/// say it in words of its own.
///
/// # Errors
/// Status 69 with the limit in force and what to do.
pub fn require_least(workers: usize) -> Result<(), ExitError> {
    let least = LEAST + LEAST_PER_WORKER * workers as u64;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < least => {
            let error = io::Error::from_raw_os_error(nix::libc::EMFILE);
            let what = format!("{workers} worker(s) take {least} descriptors or more (limit {limit})");
            Err(ExitError::from_io(&error, ExitStatus::Unavailable, what))
        }
        _ => Ok(()),
    }
}

/// Makes sure that [`SPARE`] more can be had; `any` is one that can be made more of.
///
/// # Errors
/// Status 69 with the limit in force and what to do.
pub fn require_spare(any: impl AsFd) -> Result<(), ExitError> {
    let tried: io::Result<Vec<OwnedFd>> = (0..SPARE).map(|_| any.as_fd().try_clone_to_owned()).collect();
    let Err(error) = tried else { return Ok(()) };
    let limit =
        getrlimit(Resource::RLIMIT_NOFILE).map_or_else(|_| "?".to_owned(), |(soft, _)| soft.to_string());
    let what = format!("{SPARE} descriptors must be left for clients and name servers (limit {limit})");
    Err(ExitError::from_io(&error, ExitStatus::Unavailable, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_enough_and_given_back() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        assert_eq!(require_spare(io::stdin()), Ok(()));
        // Other tests of this process open and close some, too, but not for ever.
        assert!((0..1000).any(|_| open() <= before));
    }
}
