//! The identification of packets with DF: the same for all packets to one peer, and known to nobody else.
//!
//! A packet that is never fragmented may have any identification (RFC 6864 4.1, M9). Ours is a keyed hash of its addresses, and
//! an ICMPv4 error quotes it: who has not seen a packet of ours to that peer has one chance in 65535 to invent a quote that
//! counts (N8, FAULTS 25). No state per peer is needed to recognise it.

use std::net::Ipv4Addr;

/// The secret behind the identifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark([u64; 2]);

impl Mark {
    /// From two random numbers.
    pub const fn new(secret: [u64; 2]) -> Self {
        Self(secret)
    }

    /// The two numbers, for whoever computes the same elsewhere.
    pub const fn secret(&self) -> [u64; 2] {
        self.0
    }

    /// The identification of packets with DF from `src` to `dst`; never 0, which the kernel would replace.
    #[inline]
    pub fn identification(&self, src: Ipv4Addr, dst: Ipv4Addr) -> u16 {
        let pair = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
        let mixed = fold(fold(pair ^ self.0[0], self.0[1] | 1), 0x9e37_79b9_7f4a_7c15);
        let [a, b, c, d, ..] = mixed.to_be_bytes();
        let id = u16::from_be_bytes([a, b]) ^ u16::from_be_bytes([c, d]);
        id.max(1)
    }
}

/// Both halves of the product, so that each bit of the result depends on each bit of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = (u128::from(a) * u128::from(b)).to_be_bytes();
    let [high, low] = [product.first_chunk(), product.last_chunk()];
    u64::from_be_bytes(high.copied().unwrap_or_default())
        ^ u64::from_be_bytes(low.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miri::cases;
    use std::collections::BTreeSet;

    const PEERS: u32 = cases(10_000, 200);

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    /// M9, N8: always the same for one peer, spread over the peers, another with another secret, never 0.
    #[test]
    fn m9_marks_are_steady_and_spread() {
        let mark = Mark::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        let ids = |mark: Mark| {
            (0..PEERS).map(move |n| mark.identification(US, Ipv4Addr::from_bits(0x0a00_0000 + n)))
        };
        assert!(ids(mark).eq(ids(mark)));
        assert!(ids(mark).all(|id| id != 0));
        let distinct: BTreeSet<_> = ids(mark).collect();
        assert!(
            distinct.len() > PEERS as usize * 85 / 100,
            "{} of {PEERS} distinct",
            distinct.len()
        );
        let other = Mark::new([0x0123_4567_89ab_cdee, 0xfedc_ba98_7654_3210]);
        let same = ids(mark).zip(ids(other)).filter(|(a, b)| a == b).count();
        assert!(same < 20, "{same} agree under another secret");
    }
}
