//! Control plane of `isatapd`.
#![forbid(unsafe_code)]

pub mod advertise;
pub mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod exit;
pub mod launch;
pub mod link;
pub mod monitor;
pub mod ops;
pub mod pmtu;
pub mod prl;
pub mod slaac;
pub mod version;
