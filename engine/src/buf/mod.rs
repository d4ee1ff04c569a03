//! Who owns the memory a packet lies in: the pool, the kernel, or the worker, and the type says which.
//!
//! ```text
//!  slot of a pool (one packet each)
//!  +-------------+--------------------------------------------------+
//!  |  head room  | what the kernel wrote                            |
//!  +-------------+--------------------------------------------------+
//!  0             HEAD_ROOM                                    slot_len
//!
//!  TUN read:     [vnet 10 | IPv6 ...]     the outer header goes over the vnet header and 10 bytes of head room
//!  raw receive:  [IPv4 20.. | IPv6 ...]   the vnet header goes over the last 10 bytes of the outer header
//! ```
//!
//! Prepending and stripping move an offset; no payload byte is copied (DESIGN D5).

mod packet;
mod pool;
mod region;

pub use packet::Packet;
pub use pool::{Census, HEAD_ROOM, Pool, Slot, SlotId};
pub(crate) use region::Region;
