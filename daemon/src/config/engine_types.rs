//! The engine's vocabulary as the configuration speaks it, in one place.
//!
//! Everything in the daemon imports these names from here, so that a type has one origin.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Which half of RFC 5214 this daemon plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Solicits the routers of its potential router list.
    Host,
    /// Carries packets between the site and everything else the kernel routes.
    Router,
}

/// How packets are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneChoice {
    /// The best that works on this machine.
    Auto,
    /// io_uring, or refuse to start.
    Uring,
    /// epoll with `recvmmsg` and `sendmmsg`.
    Syscall,
}

/// Where the outer TTL comes from (RFC 4213 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlPolicy {
    /// The inner hop limit.
    Inherit,
    /// Always this.
    Fixed(u8),
}

/// Where the outer DSCP comes from (RFC 2983).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DscpPolicy {
    /// The inner one.
    Inherit,
    /// Always this, 0..=63.
    Fixed(u8),
}

/// How ECN goes into the outer header (RFC 6040).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnMode {
    /// Copied.
    Normal,
    /// Cleared.
    Compat,
}

/// An IPv4 prefix such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Prefix {
    addr: Ipv4Addr,
    len: u8,
}

impl Ipv4Prefix {
    /// The first address of the prefix.
    pub const fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    /// The length in bits.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a prefix length, not a count of items"
    )]
    pub const fn len(&self) -> u8 {
        self.len
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// The part before the slash is no address of this family.
    Address,
    /// The part after the slash is no number, or larger than this.
    Length(u8),
    /// Bits after the prefix are set.
    HostBits,
}

impl FromStr for Ipv4Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, len.parse().map_err(|_| PrefixError::Length(32))?),
            None => (text, 32u8),
        };
        let addr: Ipv4Addr = addr.parse().map_err(|_| PrefixError::Address)?;
        let mask = match len {
            0..=32 => u32::MAX.checked_shl(u32::from(32 - len)).unwrap_or(0),
            _ => return Err(PrefixError::Length(32)),
        };
        if addr.to_bits() & !mask != 0 {
            return Err(PrefixError::HostBits);
        }
        Ok(Self { addr, len })
    }
}
