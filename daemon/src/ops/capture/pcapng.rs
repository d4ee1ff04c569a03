//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), as far as a capture needs them: section, interface, packet, statistics.
//!
//! ```text
//!   | type | total length | body, filled up to 32 bits | options | total length |
//! ```
//!
//! The byte order is little-endian throughout: the section header tells.

/// LINKTYPE_RAW: the packet begins with its IPv4 or IPv6 header; its version says which.
const LINKTYPE_RAW: u16 = 101;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

const COMMENT: u16 = 1;
const SECTION_OS: u16 = 3;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const STARTED: u16 = 2;
const ENDED: u16 = 3;
const RECEIVED: u16 = 4;
const INTERFACE_DROPS: u16 = 5;
const ACCEPTED: u16 = 6;
const DELIVERED: u16 = 8;

/// Time stamps count 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// Interfaces are numbered from 0, and there is one.
const ONLY_INTERFACE: u32 = 0;

/// Longest option value: its length has 16 bits, and is filled up to 32.
const LONGEST_OPTION: usize = 0xfff0;

/// Which way a packet went, as `epb_flags` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Inbound = 1,
    Outbound = 2,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(super) at: u64,
    pub(super) way: Way,
    /// What was captured of it.
    pub(super) bytes: &'a [u8],
    /// How long it was.
    pub(super) len: u32,
    pub(super) comment: &'a str,
}

/// What happened on the interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics<'a> {
    /// Nanoseconds since 1970.
    pub(super) started: u64,
    /// Nanoseconds since 1970.
    pub(super) ended: u64,
    /// Packets that passed.
    pub(super) received: u64,
    /// Packets that the filter accepted.
    pub(super) accepted: u64,
    /// Of these, missed.
    pub(super) missed: u64,
    /// Of these, in the file.
    pub(super) captured: u64,
    pub(super) comment: &'a str,
}

/// Writes blocks one after the other into memory.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// What was written since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes not taken yet.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// The beginning of the file.
    pub(super) fn section(&mut self, os: &str, application: &str, comment: &str) {
        self.block(SECTION, |block| {
            block.u32(0x1a2b_3c4d);
            block.u16(1);
            block.u16(0);
            // The length of the section is not known beforehand.
            block.u64(u64::MAX);
            block.option(SECTION_OS, os.as_bytes());
            block.option(SECTION_APPLICATION, application.as_bytes());
            block.option(COMMENT, comment.as_bytes());
        });
    }

    /// The interface of all packets.
    pub(super) fn interface(&mut self, name: &str, description: &str, snaplen: u32) {
        self.block(INTERFACE, |block| {
            block.u16(LINKTYPE_RAW);
            block.u16(0);
            block.u32(snaplen);
            block.option(INTERFACE_NAME, name.as_bytes());
            block.option(INTERFACE_DESCRIPTION, description.as_bytes());
            block.option(INTERFACE_RESOLUTION, &[NANOSECONDS]);
        });
    }

    /// A packet.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) {
        self.block(PACKET, |block| {
            block.u32(ONLY_INTERFACE);
            block.time(packet.at);
            block.u32(u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX));
            block.u32(packet.len);
            block.padded(packet.bytes);
            block.option(PACKET_FLAGS, &(packet.way as u32).to_le_bytes());
            block.option(COMMENT, packet.comment.as_bytes());
        });
    }

    /// What happened on it.
    pub(super) fn statistics(&mut self, statistics: &Statistics<'_>) {
        self.block(STATISTICS, |block| {
            block.u32(ONLY_INTERFACE);
            block.time(statistics.ended);
            for (code, at) in [(STARTED, statistics.started), (ENDED, statistics.ended)] {
                block.option(code, &halves(at));
            }
            for (code, count) in [
                (RECEIVED, statistics.received),
                (INTERFACE_DROPS, statistics.missed),
                (ACCEPTED, statistics.accepted),
                (DELIVERED, statistics.captured),
            ] {
                block.option(code, &count.to_le_bytes());
            }
            block.option(COMMENT, statistics.comment.as_bytes());
        });
    }

    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Block<'_>)) {
        let start = self.out.len();
        let mut block = Block { out: &mut self.out };
        block.u32(kind);
        block.u32(0);
        body(&mut block);
        // The end of options.
        block.u32(0);
        let total = u32::try_from(self.out.len() - start + size_of::<u32>()).unwrap_or(u32::MAX);
        self.out[start + 4..start + 8].copy_from_slice(&total.to_le_bytes());
        self.out.extend_from_slice(&total.to_le_bytes());
    }
}

/// The high half of a time first, each half little-endian.
fn halves(at: u64) -> [u8; 8] {
    at.rotate_left(32).to_le_bytes()
}

/// A block being written.
struct Block<'a> {
    out: &'a mut Vec<u8>,
}

impl Block<'_> {
    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn time(&mut self, at: u64) {
        self.out.extend_from_slice(&halves(at));
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        let missing = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.extend_from_slice(&[0; 3][..missing]);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(LONGEST_OPTION)];
        self.u16(code);
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.padded(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_byte_by_byte() {
        let mut writer = Writer::default();
        writer.packet(&Packet {
            at: 0x0102_0304_0506_0708,
            way: Way::Inbound,
            bytes: &[0x45, 1, 2, 3, 4],
            len: 9,
            comment: "hi",
        });
        let expected: [&[u8]; 12] = [
            &[6, 0, 0, 0],
            &[60, 0, 0, 0],
            &[0, 0, 0, 0],
            &[4, 3, 2, 1, 8, 7, 6, 5],
            &[5, 0, 0, 0],
            &[9, 0, 0, 0],
            &[0x45, 1, 2, 3, 4, 0, 0, 0],
            &[2, 0, 4, 0, 1, 0, 0, 0],
            &[1, 0, 2, 0, b'h', b'i', 0, 0],
            &[0, 0, 0, 0],
            &[60, 0, 0, 0],
            &[],
        ];
        assert_eq!(writer.len(), 60);
        assert_eq!(writer.take(), expected.concat());
        assert_eq!(writer.len(), 0);
    }

    #[test]
    fn blocks_end_with_their_length_whatever_is_in_them() {
        let mut writer = Writer::default();
        writer.section("Linux", "isatapd", &"x".repeat(70_000));
        for name in ["", "a", "ab", "abc", "abcd"] {
            writer.interface(name, "", 100);
        }
        let bytes = writer.take();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (mut at, mut blocks) = (0, 0);
        while at < bytes.len() {
            let total = word(at + 4);
            assert_eq!((total % 4, word(at + total - 4)), (0, total));
            at += total;
            blocks += 1;
        }
        assert_eq!((at, blocks), (bytes.len(), 6));
    }
}
