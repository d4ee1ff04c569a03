//! In which order things happen: one thread per worker, each with its own queue, sockets and lane.
//!
//! [`Descriptors::open`] makes the interface and the sockets while a process is privileged; [`Engine::prepare`], in that
//! process or in another one, and [`Prepared::start`] put them to work. From then on control talks to workers through snapshots, bells and channels only.

mod carry;
mod descriptors;
mod engine;
#[cfg(debug_assertions)]
mod fault;
mod gather;
mod preview;
mod punt;
mod refused;
mod rest;
mod run;
mod to_control;

pub use crate::io::errors::SetupError;
pub use crate::io::lane::{LaneChoice, LaneKind};
pub use carry::Carriage;
pub use descriptors::{Descriptors, Shape, WorkerDescriptors};
pub use engine::{Engine, EngineConfig, MAX_WORKERS, Prepared, WorkerExit, WorkerHook};
#[cfg(debug_assertions)]
pub use fault::WorkerFault;
pub use punt::{MAX_PUNTS_WAITING, OuterEnds, Punt};
