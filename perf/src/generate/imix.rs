//! Sizes of packets: one size, or the usual mix of the Internet.
//!
//! The simple IMIX is 64, 594 and 1518 bytes in the ratio 7 : 4 : 1. Here the sizes are those of the inner IPv6 packets, scaled so
//! that the largest is exactly the tunnel MTU; nothing is below 64 bytes, the smallest that carries our stamp.

use super::stamp::Stamp;

/// IPv6 and UDP headers.
const HEADERS: usize = 40 + 8;
const SMALL: usize = 64;
const MIDDLE: usize = 594;
const LARGE: usize = 1518;
/// 7 small, 4 middle, 1 large, spread so that no two middle ones are neighbours.
const ORDER: [usize; 12] = [
    SMALL, MIDDLE, SMALL, SMALL, MIDDLE, SMALL, LARGE, SMALL, MIDDLE, SMALL, MIDDLE, SMALL,
];

/// Bytes of UDP data of each packet of the mix, in order.
pub(crate) fn imix(mtu: u16) -> Vec<usize> {
    let scaled = |size: usize| (size * usize::from(mtu) / LARGE).max(HEADERS + Stamp::LEN) - HEADERS;
    ORDER.iter().map(|size| scaled(*size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_to_four_to_one_up_to_the_mtu() {
        let sizes = imix(1480);
        let count = |ip: usize| sizes.iter().filter(|size| **size + HEADERS == ip).count();
        assert_eq!((count(64), count(579), count(1480)), (7, 4, 1));
        assert!(imix(1280).iter().all(|size| (Stamp::LEN..=1232).contains(size)));
    }
}
