//! IPv4 and IPv6 prefixes: an address whose host bits are zero, and a length that fits its family.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is no address of this family.
    #[error("not an address of this family")]
    Address,
    /// The part after the slash is no number, or larger than the address.
    #[error("the prefix length must be a number from 0 to {0}")]
    Length(u8),
    /// Bits after the prefix are set: the writer probably meant another length.
    #[error("bits after the prefix length are set")]
    HostBits,
}

macro_rules! prefix_type {
    ($(#[$doc:meta])* $name:ident, $addr:ty, $bits:ty, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            addr: $addr,
            len: u8,
        }

        impl $name {
            /// The longest possible length in bits.
            pub const MAX_LEN: u8 = $max;

            /// The prefix of `len` bits that contains `addr`: host bits are cleared.
            ///
            /// # Errors
            /// [`PrefixError::Length`] when `len` is larger than the address.
            pub fn containing(addr: $addr, len: u8) -> Result<Self, PrefixError> {
                if len > $max {
                    return Err(PrefixError::Length($max));
                }
                Ok(Self { addr: <$addr>::from_bits(addr.to_bits() & Self::mask(len)), len })
            }

            /// The first address of the prefix.
            pub const fn addr(&self) -> $addr {
                self.addr
            }

            /// The length in bits.
            #[allow(clippy::len_without_is_empty, reason = "a prefix length, not a count of items")]
            pub const fn len(&self) -> u8 {
                self.len
            }

            /// Whether `addr` lies inside.
            pub fn contains(&self, addr: $addr) -> bool {
                addr.to_bits() & Self::mask(self.len) == self.addr.to_bits()
            }

            fn mask(len: u8) -> $bits {
                <$bits>::MAX.checked_shl(u32::from($max - len)).unwrap_or(0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.addr, self.len)
            }
        }

        impl FromStr for $name {
            type Err = PrefixError;

            /// `addr/len`; a bare address is a prefix of full length.
            fn from_str(text: &str) -> Result<Self, PrefixError> {
                let (addr, len) = match text.split_once('/') {
                    Some((addr, len)) => (addr, len.parse().map_err(|_| PrefixError::Length($max))?),
                    None => (text, $max),
                };
                let addr: $addr = addr.parse().map_err(|_| PrefixError::Address)?;
                let prefix = Self::containing(addr, len)?;
                if prefix.addr != addr {
                    return Err(PrefixError::HostBits);
                }
                Ok(prefix)
            }
        }
    };
}

prefix_type!(
    /// An IPv4 prefix such as `10.0.0.0/8`.
    Ipv4Prefix, Ipv4Addr, u32, 32
);
prefix_type!(
    /// An IPv6 prefix such as `2001:db8::/32`.
    Ipv6Prefix, Ipv6Addr, u128, 128
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32"] {
            assert_eq!(text.parse::<Ipv4Prefix>().unwrap().to_string(), text);
        }
        for text in ["2001:db8::/32", "::/0", "fe80::5efe:a00:1/128"] {
            assert_eq!(text.parse::<Ipv6Prefix>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10.1.2.3".parse::<Ipv4Prefix>().unwrap().to_string(),
            "10.1.2.3/32"
        );
    }

    #[test]
    fn wrong_texts_say_what_is_wrong() {
        assert_eq!("10.0.0.0/33".parse::<Ipv4Prefix>(), Err(PrefixError::Length(32)));
        assert_eq!("10.0.0.1/8".parse::<Ipv4Prefix>(), Err(PrefixError::HostBits));
        assert_eq!("ten/8".parse::<Ipv4Prefix>(), Err(PrefixError::Address));
        assert_eq!(
            "2001:db8::/x".parse::<Ipv6Prefix>(),
            Err(PrefixError::Length(128))
        );
    }

    #[test]
    fn the_edges_contain_what_they_should() {
        let all: Ipv4Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST));
        let one: Ipv6Prefix = "2001:db8::1/128".parse().unwrap();
        assert!(one.contains("2001:db8::1".parse().unwrap()));
        assert!(!one.contains("2001:db8::".parse().unwrap()));
    }
}
