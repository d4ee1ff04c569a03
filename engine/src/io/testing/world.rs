//! What lies beyond the kernel: where packets come from, and a record of those that came through.
//!
//! Every packet is a row of 8-byte words that say whose it is and where in it they stand. Bytes of another packet, or of
//! another place, are seen at once: a slot with two owners cannot hide.
//!
//! ```text
//!  whole        | serial, 0 | serial, 1 | serial, 2 | ...
//!  superpacket  | IPv6 and UDP, serial in the source | serial, D+0 | serial, D+1 | ...        D: the highest bit
//! ```

use crate::wire::ipv4::{Ipv4View, MIN_HEADER_LEN};

/// IPv6 and UDP headers of a superpacket.
pub(crate) const HEADERS: usize = 48;
/// Bytes of data in a segment.
pub(crate) const GSO_SIZE: u16 = 96;
/// Marks words of a superpacket's data. Serials stay below 2^28, so that a word is told from an IPv6 header.
const DATA: u32 = 1 << 31;

/// Fills `packet` with the words of `serial`.
pub(crate) fn fill(serial: u32, packet: &mut [u8]) {
    words(serial, 0, packet);
}

/// Fills `packet` with a UDP superpacket.
pub(crate) fn fill_super(serial: u32, packet: &mut [u8]) {
    let payload_len = u16::try_from(packet.len() - 40).unwrap_or(u16::MAX).to_be_bytes();
    let (headers, data) = packet.split_at_mut(HEADERS);
    headers.fill(0);
    headers[0] = 0x60;
    headers[4..6].copy_from_slice(&payload_len);
    headers[6] = 17;
    headers[8..12].copy_from_slice(&serial.to_be_bytes());
    headers[44..46].copy_from_slice(&payload_len);
    words(serial, DATA, data);
}

fn words(serial: u32, first: u32, bytes: &mut [u8]) {
    for (at, word) in (first..).zip(bytes.as_chunks_mut::<8>().0) {
        word[..4].copy_from_slice(&serial.to_be_bytes());
        word[4..].copy_from_slice(&at.to_be_bytes());
    }
}

/// Whose a packet is, every word of which must be its own.
#[track_caller]
pub(crate) fn verify(packet: &[u8]) -> u32 {
    let (serial, first) = if is_super(packet) {
        (be32(packet, 8), DATA)
    } else {
        (be32(packet, 0), 0)
    };
    let data = if first == DATA { &packet[HEADERS..] } else { packet };
    verify_words(serial, first, data);
    serial
}

/// Whether a packet is a superpacket.
pub(crate) fn is_super(packet: &[u8]) -> bool {
    packet.first() == Some(&0x60)
}

#[track_caller]
fn verify_words(serial: u32, first: u32, bytes: &[u8]) {
    for (at, word) in (first..).zip(bytes.as_chunks::<8>().0) {
        assert_eq!(
            (be32(word, 0), be32(word, 4)),
            (serial, at),
            "bytes of another packet, or of another place"
        );
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_be_bytes)
}

/// What came through.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// Datagrams that left whole, in one piece or as fragments that their receiver can put together.
    pub(crate) datagrams: u64,
    /// Serial of the last datagram or fragment, and its first word.
    last_sent: Option<(u32, u32)>,
    /// The datagram whose fragments are coming: its identification, and the next one's place.
    fragmented: Option<(u16, usize)>,
    /// Chains were cut: what is sent may pass what waits.
    pub(crate) disorder: bool,
    /// Packets written to the TUN interface, those that were merged counted one by one.
    pub(crate) written: u64,
    last_written: Option<u32>,
    /// ICMPv6 errors of our own.
    pub(crate) replies: u64,
}

impl World {
    /// A message left; only `taken` bytes of it if it was cut short.
    pub(crate) fn sent(&mut self, message: &[u8], taken: usize) {
        let view = Ipv4View::new(message).expect("an IPv4 packet");
        assert_eq!(view.total_len(), message.len());
        let place = usize::from(view.fragment_offset());
        let (payload, is_first) = (view.payload(), place == 0);
        let key = if is_first && is_super(payload) {
            let serial = be32(payload, 8);
            let data = &payload[HEADERS..];
            let first = if data.is_empty() { DATA - 1 } else { be32(data, 4) };
            verify_words(serial, first, data);
            (serial, first)
        } else {
            let key = (be32(payload, 0), be32(payload, 4));
            verify_words(key.0, key.1, payload);
            key
        };
        // The first fragment of a segment may hold its headers alone: its place among the segments is not known.
        let vague = payload.len() == HEADERS && is_super(payload);
        if !self.disorder {
            assert!(
                self.last_sent < Some(key) || vague && self.last_sent.is_none_or(|last| last.0 <= key.0),
                "{key:x?} after {:x?}",
                self.last_sent
            );
        }
        self.last_sent = self.last_sent.max(Some(key));
        let more = view.more_fragments();
        let follows = is_first || self.fragmented == Some((view.id(), place));
        let whole = taken == message.len();
        if follows && whole && !more {
            self.datagrams += 1;
        }
        self.fragmented =
            (follows && whole && more).then(|| (view.id(), place + message.len() - MIN_HEADER_LEN));
    }

    /// A packet was written to the TUN interface: one, or several that were merged, or one of our own.
    pub(crate) fn wrote(&mut self, parts: &[&[u8]]) {
        for part in parts {
            let serial = verify(part);
            if serial == REPLY {
                self.replies += 1;
                continue;
            }
            assert!(
                self.disorder || self.last_written < Some(serial),
                "{serial} after {:?}",
                self.last_written
            );
            self.last_written = self.last_written.max(Some(serial));
            self.written += 1;
        }
    }
}

/// The serial of ICMPv6 errors of our own.
pub(crate) const REPLY: u32 = (1 << 28) - 1;
