//! What may the kernel carry itself? The rules as the programs of the `ebpf` lane read them, and the numbers of both.
//!
//! Two classifiers (`ebpf/isatap.bpf.c`) carry what needs no answer and no closer look; everything else they leave, as it
//! came, to the workers. This module makes their tables from a Rulebook and knows no system call; `io::ebpf` loads the
//! programs and writes the tables.
//!
//! | module | answers the question |
//! |---|---|
//! | [`numbers`], [`cause`] | what do the programs and the engine agree on? |
//! | [`layout`] | what do the maps hold? |
//! | [`table`] | where is an entry found? |
//! | [`mod@compile`] | what does a Rulebook become? |
//! | [`forecast`] | would the programs carry this packet? |

pub mod cause;
#[cfg(test)]
#[path = "../../build/clang.rs"]
#[allow(unreachable_pub, reason = "the build script reads it as well")]
mod clang;
pub mod compile;
pub mod forecast;
pub mod layout;
pub mod numbers;
pub mod table;

pub use cause::Cause;
pub use compile::{Egress, Image, Segmenters, Surroundings, Unfit, compile, leave_all};
