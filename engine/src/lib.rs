//! The packet engine of `isatapd`: IPv6 carried in IPv4 protocol 41 (ISATAP, RFC 5214), one worker per core.
//!
//! ```text
//!  out:  TUN queue  -> path::encap -> offload::split  -> raw socket (IPv4, protocol 41)
//!  in :  raw socket -> path::decap -> offload::merged -> TUN queue
//! ```
//!
//! | module | answers the question |
//! |---|---|
//! | [`reason`] | why was a packet dropped? |
//! | [`wire`] | what do the bytes mean? |
//! | [`isatap`] | what does the RFC allow, and where does it go? |
//! | [`fib`] | which routers and prefixes are known right now? |
//! | [`offload`] | how is one big packet many small ones, and back? |
//! | [`path`] | what happens to this packet, and why? |
//! | [`worker`] | in which order? |
//! | [`buf`], [`io`] | who owns the memory; how do bytes get in and out? |
//! | [`stats`] | what has happened? |
//! | [`ebpf`] | what may the kernel carry itself? |
//! | [`capture`] | what did a packet look like, and what became of it? |
//!
//! `reason <- wire <- isatap <- fib <- offload <- path <- worker`: a module knows only those to its left; `buf`, `io`,
//! `stats` and `capture` stand at the side. A test enforces it.
//!
//! # Invariants
//!
//! - Every packet read from the kernel is delivered, punted, or dropped for exactly one reason; at rest
//!   `received = delivered + punted + drops` in each direction.
//! - One Rulebook per batch; a sleeping worker holds none.
//! - A slot has one owner: pool, kernel or worker.
//! - Packets of one flow keep their order, whatever fails in between.
//!
//! # Absent on purpose
//!
//! `wire`, `isatap`, `fib`, `offload` and `path` have no lock, no clock, no log and no I/O, and allocate nothing per
//! packet. `unsafe` lives in `io` and `buf` alone. There is no state per host.
#![warn(missing_docs)]

pub mod buf;
pub mod capture;
pub mod ebpf;
pub mod fib;
pub mod io;
pub mod isatap;
#[cfg(test)]
mod miri;
pub mod offload;
pub mod path;
pub mod reason;
pub mod stats;
mod sync;
pub mod wire;
pub mod worker;
