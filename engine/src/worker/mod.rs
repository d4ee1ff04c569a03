//! In which order things happen: one thread per worker, each with its own queue, sockets and lane.
//!
//! [`Engine::open`] makes the interface and the sockets while the process is privileged; [`Prepared::start`] puts them
//! to work. From then on control talks to workers through snapshots, bells and channels only.

mod carry;
mod engine;
mod gather;
mod punt;
mod refused;
mod run;
mod to_control;

pub use crate::io::errors::SetupError;
pub use crate::io::lane::{LaneChoice, LaneKind};
pub use carry::Carriage;
pub use engine::{Engine, EngineConfig, MAX_WORKERS, Prepared, WorkerExit};
pub use punt::{MAX_PUNTS_WAITING, OuterEnds, Punt};
