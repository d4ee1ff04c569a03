//! What the bytes mean: one module per header, nothing about what to do with a packet.
//!
//! Every header is offered on two levels (the contract smoltcp's `wire` made popular):
//!
//! * a **view** borrows bytes. Its constructor proves every length the accessors rely on and returns a small
//!   `Copy` reason when it cannot; after that no read can fail. A view ends where the header's own length
//!   field says, so padding behind a packet cannot leak into decisions or onto the wire.
//! * a **plain value** owns its fields and has `emit`, which writes every byte of the header: no stale buffer
//!   content ever leaves the host.
//!
//! Parsers are total: any byte string gives a value or a reason, never a panic and never an endless loop.
//! Nothing here allocates, formats, reads a clock or keeps state. Byte order on the wire is big-endian except
//! for [`vnet`], which is the host's.

pub mod checksum;
pub mod ext;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod transport;
pub mod vnet;

/// The two bytes at `at`, read as a big-endian number.
///
/// # Panics
/// When `bytes` is shorter than `at + 2`; callers have proven the length.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The four bytes at `at`, read as a big-endian number.
///
/// # Panics
/// When `bytes` is shorter than `at + 4`; callers have proven the length.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
