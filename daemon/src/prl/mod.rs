//! The potential router list of a host: who is solicited when, who answers, and whose advertisements count (RFC 5214 8.3).
//!
//! Pure but for `resolver`: events and the time go in, actions come out. Sending, receiving and sleeping is control's
//! business.

mod jitter;
pub mod names;
mod reach;
pub mod redirects;
pub mod resolver;
mod routers;
mod solicit;

pub use jitter::Jitter;
pub use reach::{Known, Probe, ReachView};
pub use routers::{Actions, Heard, RouterView, Routers};
pub use solicit::{Health, MAX_RTR_SOLICITATIONS, Schedule, SolicitConfig, UnknownRouter};
