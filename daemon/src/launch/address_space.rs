//! Where the address space of a process is limited (`LimitAS=`, `ulimit -v`): what little there is goes to what is needed, and who
//! raises the limit is said.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The variable by which glibc is told of how many places to allocate from, and how many where space is limited. It keeps 64 MiB
/// ready for each thread that allocates, so that buffers may find no room beside them; packets are carried without allocation.
pub const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// The limit in force, in bytes; `None` when there is none.
pub fn limit() -> Option<u64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_AS).ok()?;
    (limit != RLIM_INFINITY).then_some(limit)
}

/// What to do about it, in the words of every message that is about it.
pub const REMEDY: &str = "raise LimitAS= of the unit, or ulimit -v";
