//! What happens to this packet, and why? Verdicts over bytes and a Rulebook, nothing else.
//!
//! No lock, no allocation, no log, no clock, no I/O: a verdict is a value, and the worker carries it out.

pub mod decap;
pub mod encap;
pub mod flow;
pub mod limit;
pub mod multicast;
pub mod nd_gate;
pub mod quoted;
pub mod read_ahead;
pub mod reply;
pub mod solicit_limit;
pub mod verdict;

pub use verdict::{DecapVerdict, Delivery, EncapVerdict, Handed, PuntKind, Route};
