//! Descriptors of the engine in the control loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor that belongs to the watcher from now on.
///
/// # Errors
/// When the kernel cannot watch it.
#[allow(
    deprecated,
    reason = "its sound replacement is an unsafe function that asks for a type whose descriptor never changes; \
              OwnedFd is one, and this crate has no unsafe code"
)]
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
