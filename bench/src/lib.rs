//! What the benches and the allocation test share: a Rulebook of any size, realistic packets, and the work a worker
//! does on them between the two system calls.
//!
//! | module | answers the question |
//! |---|---|
//! | [`scene`] | what is known: routers, routes, site, hosts? |
//! | [`packets`] | which packets arrive? |
//! | [`carry`] | what is done to each, as `engine/src/worker/carry.rs` does it? |
//! | [`sim`] | how does a whole worker turn run without a kernel? |
//! | [`costs`] | what does the kernel charge for a packet, by way of sending and receiving? |
//! | [`measure`] | how long may a bench run, and what is timed? |

pub mod carry;
pub mod costs;
pub mod measure;
pub mod packets;
pub mod scene;
pub mod sim;
