//! From a command typed by root to a daemon without privilege.
//!
//! ```text
//!  launcher ---- starts itself again, waits ----+
//!     |                                         v
//!     |  ready / failed + status            daemon: session of its own, pid file locked, log opened,
//!     +<------------------------------------        descriptors opened, chroot, user, capabilities dropped
//!     v                                         |
//!  exit status                                  +-- janitor: removes pid file and socket when the daemon is gone
//! ```
//!
//! Nothing here forks without executing: a copy of a process with threads, or of half a start, never runs.

pub mod detach;
pub mod janitor;
pub mod listen;
pub mod log;
pub mod notify;
pub mod pidfile;
pub mod privilege;
pub mod ready;
pub mod require;
pub mod start;

pub use ready::Ready;
