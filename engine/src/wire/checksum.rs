//! The Internet checksum (RFC 1071) and the IPv6 pseudo-header (RFC 8200 8.1).
//!
//! The ones'-complement sum does not depend on byte order (RFC 1071 2(B)), so words are added as they lie in
//! memory, four bytes at a time into 64-bit lanes that cannot overflow, and swapped once at the end. The loop
//! is plain code in a shape that the compiler turns into vector instructions; the 16-bit loop of the RFC is
//! the oracle in the tests.

/// Bytes per turn of the inner loop: eight 64-bit lanes, two 32-bit words each.
const BLOCK_LEN: usize = 64;
const LANES: usize = 8;

/// A ones'-complement sum under construction. All `add_*` calls commute.
///
/// The accumulator holds words in memory order; only [`fold`](Sum::fold) and [`finish`](Sum::finish) yield
/// numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[inline]
    pub const fn new() -> Self {
        Sum(0)
    }

    /// Adds bytes that start at an even offset of the checksummed data. Only the last chunk may have an odd
    /// length; it is padded with a zero byte as the RFC asks.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        self.add_lanes(sum_words(bytes))
    }

    /// Adds a 16-bit number as it would lie in the packet.
    #[inline]
    #[must_use]
    pub const fn add_u16(self, value: u16) -> Self {
        self.add_lanes(value.to_be() as u64)
    }

    /// Adds a 32-bit number as it would lie in the packet.
    #[inline]
    #[must_use]
    pub const fn add_u32(self, value: u32) -> Self {
        self.add_lanes(value.to_be() as u64)
    }

    /// Adds an IPv6 address: two additions, where a loop over bytes of unknown length would take many.
    #[inline]
    #[must_use]
    const fn add_address(self, address: &[u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, low @ ..] = *address;
        self.add_lanes(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
            .add_lanes(u64::from_ne_bytes(low))
    }

    /// Adds another sum, e.g. that of a payload computed once for several headers.
    #[inline]
    #[must_use]
    pub const fn add_sum(self, other: Sum) -> Self {
        self.add_lanes(other.0)
    }

    /// Folds to 16 bits, *not* complemented: what the kernel leaves in the checksum field of a packet whose
    /// checksum is still to be completed, when only the pseudo-header was added.
    #[inline]
    pub const fn fold(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        let [.., high, low] = sum.to_be_bytes();
        // Sum is in memory order: as an integer of this host its bytes are already those of the packet.
        u16::from_be(u16::from_be_bytes([high, low]))
    }

    /// Folds and complements: the value to write into the checksum field (or 0 over data whose checksum is
    /// right).
    #[inline]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// Whether data summed together with its own checksum field is intact.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    #[inline]
    const fn add_lanes(self, value: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(value);
        Sum(sum + carry as u64)
    }
}

/// The checksum field's value for `bytes` alone, without a pseudo-header: complemented.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).finish()
}

/// The sum of the IPv6 pseudo-header (RFC 8200 8.1).
///
/// ```text
///  +-- 16 --+-- 16 --+-- 4 --+-- 3 --+-- 1 ---+
///  |  src   |  dst   |  len  |   0   | next h |
///  +--------+--------+-------+-------+--------+
/// ```
/// `len` is the upper-layer length: header of the transport and its payload, in bytes.
#[inline]
pub fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], len: u32, next_header: u8) -> Sum {
    Sum::new()
        .add_address(src)
        .add_address(dst)
        .add_u32(len)
        .add_u32(u32::from(next_header))
}

#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK_LEN>();
    let (words, tail) = rest.as_chunks::<4>();
    let mut sum = if blocks.is_empty() { 0 } else { sum_blocks(blocks) };
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    if !tail.is_empty() {
        let mut last = [0u8; 4];
        last[..tail.len()].copy_from_slice(tail);
        sum += u64::from(u32::from_ne_bytes(last));
    }
    sum
}

/// No lane can overflow: it would take 2^32 words, and a slice that long is no packet.
fn sum_blocks(blocks: &[[u8; BLOCK_LEN]]) -> u64 {
    let mut lanes = [0u64; LANES];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
        for (lane, word) in lanes.iter_mut().zip(&words[LANES..]) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miri::cases;
    use proptest::prelude::*;

    /// RFC 1071 4.1, word by word: the oracle.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add_bytes(&bytes).fold(), 0xddf2);
        assert_eq!(sum(&bytes), !0xddf2);
    }

    #[test]
    fn every_length_up_to_three_blocks_and_the_largest_packet_agree_with_the_plain_loop() {
        const LARGEST: usize = cases(65_535, 2001);
        let bytes: Vec<u8> = (0..u32::try_from(LARGEST).unwrap())
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for len in (0..=3 * BLOCK_LEN + 5).chain([1280, 1500, LARGEST - 1, LARGEST]) {
            assert_eq!(
                Sum::new().add_bytes(&bytes[..len]).fold(),
                plain(&bytes[..len]),
                "length {len}"
            );
        }
        let ones = vec![0xff; LARGEST];
        assert_eq!(Sum::new().add_bytes(&ones).fold(), plain(&ones));
    }

    #[test]
    fn numbers_count_as_the_bytes_they_become() {
        let sum = Sum::new().add_u16(0x1234).add_u32(0x89ab_cdef);
        assert_eq!(sum.fold(), plain(&[0x12, 0x34, 0x89, 0xab, 0xcd, 0xef]));
        assert_eq!(Sum::new().fold(), 0);
        assert_eq!(Sum::new().finish(), 0xffff);
    }

    #[test]
    fn carries_out_of_64_bits_are_kept() {
        let sum = Sum(u64::MAX).add_u16(1);
        assert_eq!(sum.fold(), Sum::new().add_u16(0xffff).add_u16(1).fold());
    }

    #[test]
    fn pseudo_header_is_its_forty_bytes() {
        let (src, dst) = ([0xfe; 16], [0x20; 16]);
        let mut bytes = [src, dst].concat();
        bytes.extend_from_slice(&70_000u32.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 58]);
        assert_eq!(pseudo_v6(&src, &dst, 70_000, 58).fold(), plain(&bytes));
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_loop(bytes in proptest::collection::vec(any::<u8>(), 0..cases(2000, 200))) {
            prop_assert_eq!(Sum::new().add_bytes(&bytes).fold(), plain(&bytes));
        }

        #[test]
        fn may_be_cut_at_any_even_offset(
            bytes in proptest::collection::vec(any::<u8>(), 0..cases(600, 200)),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1) & !1;
            let parts = Sum::new().add_bytes(&bytes[cut..]).add_bytes(&bytes[..cut]);
            prop_assert_eq!(parts.fold(), plain(&bytes));
            let joined = Sum::new().add_bytes(&bytes[..cut]).add_sum(Sum::new().add_bytes(&bytes[cut..]));
            prop_assert_eq!(joined, parts);
        }

        #[test]
        fn data_with_its_checksum_is_valid(mut bytes in proptest::collection::vec(any::<u8>(), 2..200)) {
            bytes[..2].fill(0);
            let value = sum(&bytes);
            bytes[..2].copy_from_slice(&value.to_be_bytes());
            prop_assert!(Sum::new().add_bytes(&bytes).is_valid());
        }
    }
}
