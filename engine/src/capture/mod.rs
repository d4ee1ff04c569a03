//! Copies of packets for somebody who wants to see them: what the worker decided, and the bytes it decided about.
//!
//! ```text
//!  control: Switchboard --Tap--> Taps: filter, limit, copy --Ring--> Capture: records, oldest first
//!                                     (one per worker)
//! ```
//!
//! A worker without taps pays one comparison per turn and nothing per packet. With taps it filters first, copies what is
//! wanted into a ring that was allocated before, and never waits: what finds no room, or exceeds the limit, is missed and
//! counted. At the end `matched = captured + missed`, exactly.

mod fate;
mod filter;
mod reader;
mod ring;
mod state;
mod tap;

pub use fate::Fate;
pub use filter::{Filter, MAX_HOSTS, ReasonSet};
pub use reader::{
    Capture, CaptureConfig, CaptureRefused, Counts, MAX_CAPTURES, Record, Switchboard, switchboard,
};
pub use tap::Taps;
