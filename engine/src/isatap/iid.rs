//! ISATAP interface identifiers: an IPv4 address in the low half of an IPv6 address (RFC 5214 6.1, 6.2).
//!
//! ```text
//!  0              15 16             31 32                             63
//! +-----------------+-----------------+---------------------------------+
//! | 0000 00u0  0x00 |    0x5e 0xfe    |          IPv4 address           |
//! +-----------------+-----------------+---------------------------------+
//! ```
//!
//! `u` is 1 when the IPv4 address is known to be globally unique. We generate the right value and accept both (A1, A2):
//! a peer may know less, or more, about its address than we do.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The IANA organisation with the ISATAP type: bytes 2 and 3 of the identifier.
const ISATAP_TYPE: u32 = 0x0000_5efe;
/// The universal/local bit of the modified EUI-64, in the identifier's first 32 bits.
const UNIVERSAL: u32 = 0x0200_0000;

/// First address and prefix length of the IPv4 blocks that are not globally unique: what Linux lists for its own ISATAP device
/// (`__ipv6_isatap_ifid`), completed from the IANA special-purpose registry (RFC 6890).
const NOT_UNIQUE: [(u32, u32); 15] = [
    (0x0000_0000, 8),  // this network
    (0x0a00_0000, 8),  // 10: private, RFC 1918
    (0x6440_0000, 10), // 100.64: carrier-grade NAT, RFC 6598
    (0x7f00_0000, 8),  // 127: loopback
    (0xa9fe_0000, 16), // 169.254: link-local
    (0xac10_0000, 12), // 172.16: private
    (0xc000_0000, 24), // 192.0.0: protocol assignments, used by many at once (DS-Lite)
    (0xc000_0200, 24), // 192.0.2: documentation
    (0xc058_6300, 24), // 192.88.99: 6to4 relay anycast
    (0xc0a8_0000, 16), // 192.168: private
    (0xc612_0000, 15), // 198.18: benchmarks
    (0xc633_6400, 24), // 198.51.100: documentation
    (0xcb00_7100, 24), // 203.0.113: documentation
    (0xe000_0000, 4),  // multicast
    (0xf000_0000, 4),  // reserved, and 255.255.255.255
];

/// Whether nobody else in the world may use this address: what the `u` bit says.
pub fn is_globally_unique(v4: Ipv4Addr) -> bool {
    let bits = v4.to_bits();
    !NOT_UNIQUE
        .iter()
        .any(|&(first, len)| (bits ^ first) >> (32 - len) == 0)
}

/// The interface identifier for a locator.
pub fn interface_identifier(v4: Ipv4Addr) -> [u8; 8] {
    let universal = if is_globally_unique(v4) { UNIVERSAL } else { 0 };
    (u64::from(ISATAP_TYPE | universal) << 32 | u64::from(v4.to_bits())).to_be_bytes()
}

/// The IPv4 address embedded in an ISATAP address, whatever its prefix and `u` bit; `None` for every other address.
#[inline]
pub fn embedded(addr: &Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d, e, f, g, h] = addr.octets();
    if u32::from_be_bytes([a, b, c, d]) & !UNIVERSAL == ISATAP_TYPE {
        Some(Ipv4Addr::new(e, f, g, h))
    } else {
        None
    }
}

/// The link-local address of a locator: `fe80::[0|200]:5efe:a.b.c.d` (A4).
pub fn link_local(v4: Ipv4Addr) -> Ipv6Addr {
    address(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), v4)
}

/// The ISATAP address of a locator under a /64. The low half of `prefix` is ignored.
pub fn address(prefix: &Ipv6Addr, v4: Ipv4Addr) -> Ipv6Addr {
    let mut octets = prefix.octets();
    octets[8..].copy_from_slice(&interface_identifier(v4));
    Ipv6Addr::from(octets)
}

/// Whether the address is in `fe80::/64`, which is on-link on every ISATAP interface (V9). The rest of `fe80::/10` is no
/// link-local unicast address: its 54 middle bits must be zero (RFC 4291 2.5.6).
#[inline]
pub fn is_link_local_64(addr: &Ipv6Addr) -> bool {
    addr.to_bits() >> 64 == 0xfe80_0000_0000_0000
}

/// The locator whose link-local address this is, with either `u` bit; `None` for every other address.
pub fn link_local_locator(addr: &Ipv6Addr) -> Option<Ipv4Addr> {
    is_link_local_64(addr).then(|| embedded(addr)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    /// A1, FAULTS 23: both ends of each block, and the neighbours outside.
    #[test]
    fn u_bit_is_set_exactly_for_globally_unique_locators() {
        let not_unique = [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.0",
            "192.0.2.255",
            "192.88.99.0",
            "192.88.99.255",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let unique = [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
        ];
        for text in not_unique {
            assert_eq!(interface_identifier(v4(text))[..4], [0, 0, 0x5e, 0xfe], "{text}");
        }
        for text in unique {
            assert_eq!(interface_identifier(v4(text))[..4], [2, 0, 0x5e, 0xfe], "{text}");
        }
    }

    #[test]
    fn addresses_as_rfc_5214_writes_them() {
        assert_eq!(link_local(v4("10.1.2.3")), v6("fe80::5efe:10.1.2.3"));
        assert_eq!(link_local(v4("8.8.4.4")), v6("fe80::200:5efe:8.8.4.4"));
        let prefix = v6("2001:db8:1:2:ffff:ffff:ffff:ffff");
        assert_eq!(
            address(&prefix, v4("10.1.2.3")),
            v6("2001:db8:1:2:0:5efe:10.1.2.3")
        );
    }

    /// A2, FAULTS 23: both u values; every other bit of the identifier's type is exact.
    #[test]
    fn both_u_values_are_read_and_nothing_else() {
        for text in [
            "fe80::5efe:a01:203",
            "fe80::200:5efe:a01:203",
            "2001:db8::5efe:a01:203",
        ] {
            assert_eq!(embedded(&v6(text)), Some(v4("10.1.2.3")), "{text}");
        }
        let isatap = v6("2001:db8::5efe:a01:203").to_bits();
        for bit in (32..64).filter(|&bit| bit != 57) {
            assert_eq!(
                embedded(&Ipv6Addr::from_bits(isatap ^ 1 << bit)),
                None,
                "bit {bit}"
            );
        }
        for bit in (64..128).chain([57]) {
            assert_eq!(
                embedded(&Ipv6Addr::from_bits(isatap ^ 1 << bit)),
                Some(v4("10.1.2.3"))
            );
        }
    }

    #[test]
    fn link_local_is_the_64_only() {
        assert!(is_link_local_64(&v6("fe80::1")));
        assert!(is_link_local_64(&v6("fe80::ffff:ffff:ffff:ffff")));
        for text in [
            "fe80:0:0:1::1",
            "fe90::1",
            "fec0::1",
            "febf:ffff::1",
            "::1",
            "2001:db8::1",
        ] {
            assert!(!is_link_local_64(&v6(text)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_embedded_is_found_again(prefix in any::<u128>(), locator in any::<u32>()) {
            let locator = Ipv4Addr::from_bits(locator);
            let addr = address(&Ipv6Addr::from_bits(prefix), locator);
            prop_assert_eq!(embedded(&addr), Some(locator));
            prop_assert_eq!(addr.to_bits() >> 64, prefix >> 64);
        }
    }
}
