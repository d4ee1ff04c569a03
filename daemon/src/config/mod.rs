//! Configuration: parsed, then resolved, then planned.

pub mod engine_types;
pub mod resolved;

pub use resolved::Settings;
