//! One big packet and many small ones: what the kernel's segmentation and checksum offloads ask of us (DESIGN D3, D4).
//!
//! | module | direction | does |
//! |---|---|---|
//! | [`split`] | encap | superpackets from the TUN into segments, payload in place |
//! | [`fragment`] | encap | datagrams that our own link does not take whole into IPv4 fragments, payload in place |
//! | [`csum`] | encap | completes the checksum of a single packet from the TUN |
//! | [`merge`] | decap | runs of segments into superpackets: GRO of our own |
//! | [`merged`] | decap | tells the TUN about packets that GRO merged, or whose checksum was left to hardware |
//!
//! Everything is computed from the packet itself; the vnet header is checked against it, never believed.

pub mod csum;
pub mod fragment;
pub mod merge;
pub mod merged;
pub mod split;

#[cfg(test)]
mod testing;
