//! Likely MTUs: what is tried when a router says that a packet is too big and not which would fit, and when a path that
//! was narrow once may have become wider (RFC 1191 5, 6.3, 7.1).

/// The least MTU of an IPv4 link (RFC 791 3.2): nothing less is believed (RFC 1191 3).
pub const MIN: u16 = 68;

/// The table of RFC 1191 7.1 from large to small, and three sizes more: jumbo frames, Ethernet, and a tunnel that carries
/// 1280 bytes of IPv6 in IPv4.
const PLATEAUS: [u16; 14] = [
    65_535, 32_000, 17_914, 9000, 8166, 4352, 2002, 1500, 1492, 1300, 1006, 508, 296, MIN,
];

/// The largest plateau below `len` bytes, but no less than [`MIN`].
pub fn below(len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(MIN)
}

/// The smallest plateau above `mtu` bytes, if there is one.
pub fn above(mtu: u16) -> Option<u16> {
    PLATEAUS.into_iter().rev().find(|plateau| *plateau > mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M6: a step down is a step, and ends at 68; upwards it ends above everything.
    #[test]
    fn m6_steps() {
        assert!(PLATEAUS.is_sorted_by(|a, b| a > b));
        for (len, next) in [
            (1500, 1492),
            (1492, 1300),
            (1300, 1006),
            (600, 508),
            (69, MIN),
            (0, MIN),
        ] {
            assert_eq!(below(len), next, "below {len}");
        }
        for (mtu, next) in [
            (0, Some(MIN)),
            (600, Some(1006)),
            (1300, Some(1492)),
            (u16::MAX, None),
        ] {
            assert_eq!(above(mtu), next, "above {mtu}");
        }
    }
}
