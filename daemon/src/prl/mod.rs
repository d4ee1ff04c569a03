//! The potential router list of a host: who is solicited when, and whose advertisements count (RFC 5214 8.3).
//!
//! Pure: events and the time go in, actions come out. Sending, receiving and sleeping is control's business.

mod jitter;
pub mod reach;
mod solicit;

pub use jitter::Jitter;
pub use solicit::{
    Advertisement, Health, MAX_RTR_SOLICITATIONS, RouterView, SolicitConfig, Solicitor, UnknownRouter,
};
