//! What operators see: metrics, status, HTTP and the control socket.
//!
//! The servers know nothing of the control loop: they send a [`Query`] and wait a bounded time for the answer.

pub mod capture;
#[cfg(debug_assertions)]
pub mod fault;
pub mod hosts;
pub mod http;
pub mod labels;
pub mod latency;
pub mod live;
pub mod metrics;
pub mod page;
pub mod protocol;
pub mod query;
pub mod schema;
pub mod share;
pub mod socket;
pub mod status;

pub use query::{Ask, Queries, Query};
