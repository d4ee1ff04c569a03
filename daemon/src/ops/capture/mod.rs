//! `isatapctl capture`: from a request to a stream of pcapng, over the control socket.
//!
//! ```text
//!  client: request line  ->  Plan: what the engine is asked for  ->  workers copy
//!  client: chunks of whole pcapng blocks  <-  Session  <-  records, oldest first
//! ```
//!
//! After the response line the daemon sends chunks: the number of bytes and the number of packets in it, four bytes each, the
//! high one first, then the bytes. A chunk of 0 bytes is followed by a last response line, the [`Summary`]. The client ends the
//! capture by closing its sending side.

mod pcapng;
mod plan;
mod session;
mod words;

pub use plan::{CaptureRequest, DEFAULT_RATE, DEFAULT_SNAPLEN, MAX_RATE, MAX_SNAPLEN, MIN_SNAPLEN, Plan};
pub use session::{CHUNK_HEADER_LEN, Running, Started, Summary, serve};
