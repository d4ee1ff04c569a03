//! How bytes get in and out: TUN queues, raw sockets, shard filters, and the two lanes that move bursts.
//!
//! Together with `buf` the only home of `unsafe` and of system calls. A [`lane::Lane`] reads packets into slots, and
//! sends or writes what the worker decided; it knows nothing of verdicts. [`uring`] is the engine's lane, [`syscall`] the
//! one for machines that refuse io_uring; both keep the same order, counters and outcomes.

pub mod bufring;
pub mod control;
pub mod device;
#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod errors;
pub mod errqueue;
pub mod gso_sizes;
mod ident;
pub mod lane;
#[cfg(test)]
mod lane_tests;
mod mapping;
mod message;
pub mod outgoing;
pub mod passing;
pub mod probe;
pub mod raw;
pub mod restrict;
pub mod ring;
pub mod steer;
pub mod syscall;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(not(test), allow(dead_code, unused_imports, reason = "fuzzing takes a part"))]
pub mod testing;
mod ticket;
pub mod tun;
pub mod uring;
pub mod wake;
mod writes;
