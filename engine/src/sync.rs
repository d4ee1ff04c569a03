//! What threads share, by the names that lock-free modules use: `tests/loom` includes these modules with loom's types in the
//! place of this one's, and tries every order of events.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) use arc_swap::{ArcSwap, Guard};
pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};
