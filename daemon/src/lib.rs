//! Control plane of `isatapd`.
#![forbid(unsafe_code)]

pub mod config;
pub mod exit;
pub mod prl;
