//! What the kernel charges for one packet, by way of sending and of receiving it: the figures the lanes were built by.
//!
//! | module | answers the question |
//! |---|---|
//! | [`link`] | between which namespaces, and who is at the far end? |
//! | [`burst`] | what is sent, and how does the kernel see it? |
//! | [`send`] | which ways to send are there? |
//! | [`tx_ring`] | how does a packet socket send from shared memory? |
//! | [`receive`] | which ways to receive are there? |
//! | [`segments`] | does the kernel cut a superpacket inside IPv4 itself? |
//! | [`table`] | what came out? |
//!
//! Apart from the engine's `io` and `buf` the only home of `unsafe`: ways that no lane uses do not belong there.

pub mod burst;
pub mod link;
pub mod receive;
pub mod segments;
pub mod send;
pub mod table;
pub mod tx_ring;

use std::io;

/// The error of the system call just made.
pub(crate) fn last<T>() -> io::Result<T> {
    Err(io::Error::last_os_error())
}

/// What a system call returned: a count, or its error.
pub(crate) fn counted(result: isize) -> io::Result<usize> {
    usize::try_from(result).or_else(|_| last())
}
