//! The router's side of router discovery: who is told what, and when (RFC 4861 6.2, RFC 5214 8.2, RFC 6964 3.3-3.5).
//!
//! ```text
//!  solicitation --> machine (delays, limits, rounds) --> message --> the one host who asked
//!                     |-- clients: who solicited lately; order: who of them is forgotten first; record: what is
//!                     |            remembered of each, also by the next engine
//!                     `-- withdrawn: what a reload took back, item by item
//!  a peer router's advertisement --> consistency --> log and counter
//!  configuration --> own --> addresses and routes of this router's interface
//! ```
//!
//! Pure: time comes in as an argument, packets go out as values. The link has no multicast, so that "all hosts" are those
//! that solicited lately. There are no periodic advertisements: a host solicits before anything it was told ends (RFC 5214
//! 8.3.4), so that a refresh nobody asked for would tell nothing and cost a packet for each host.

mod clients;
pub mod consistency;
mod item;
mod machine;
pub mod message;
mod order;
pub mod own;
mod record;
mod withdrawn;

pub use clients::{Known, MAX_CLIENTS, MEMORY_LEN};
pub use machine::{
    Advertiser, FINAL_ROUNDS, HEARD_RESULTS, Heard, Kind, MAX_PER_TURN, Outgoing, SENT_RESULTS, Solicitation,
};
pub use withdrawn::TakenBack;
