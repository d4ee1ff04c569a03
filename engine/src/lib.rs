//! The packet engine of `isatapd`.

pub mod buf;
pub mod fib;
pub mod io;
pub mod isatap;
pub mod offload;
pub mod path;
pub mod reason;
pub mod stats;
pub mod wire;
pub mod worker;
