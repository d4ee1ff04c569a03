//! The outer TOS octet and TTL (C5, E5; RFC 2983 3, RFC 4213 3.3, 3.5).
//!
//! The DSCP is either the operator's (pipe model, 0 by default as RFC 4213 3.5 asks) or the inner packet's (uniform model). The
//! ECN field follows [`ecn`] in either case.

use super::ecn::{self, EcnMode};

/// Where the outer DSCP comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DscpPolicy {
    /// The inner packet's.
    Inherit,
    /// Always this, 0..=63.
    Fixed(u8),
}

/// Where the outer TTL comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlPolicy {
    /// The inner packet's hop limit.
    Inherit,
    /// Always this, 1..=255.
    Fixed(u8),
}

impl Default for DscpPolicy {
    fn default() -> Self {
        DscpPolicy::Fixed(0)
    }
}

impl Default for TtlPolicy {
    fn default() -> Self {
        TtlPolicy::Fixed(64)
    }
}

/// The outer TOS octet for an inner traffic class.
#[inline]
pub const fn outer_tos(dscp: DscpPolicy, mode: EcnMode, inner_traffic_class: u8) -> u8 {
    let dscp = match dscp {
        DscpPolicy::Inherit => inner_traffic_class & 0xfc,
        DscpPolicy::Fixed(dscp) => dscp << 2,
    };
    dscp | ecn::encap(mode, inner_traffic_class)
}

/// The outer TTL for an inner hop limit; never 0, which no packet may be sent with (RFC 1122 3.2.1.7).
#[inline]
pub const fn outer_ttl(policy: TtlPolicy, inner_hop_limit: u8) -> u8 {
    let ttl = match policy {
        TtlPolicy::Inherit => inner_hop_limit,
        TtlPolicy::Fixed(ttl) => ttl,
    };
    if ttl == 0 { 1 } else { ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C5, with C1 and C2: every DSCP and ECN, fixed and inherited.
    #[test]
    fn dscp_is_fixed_or_inherited_and_ecn_is_independent() {
        for class in 0..=255u8 {
            let (dscp, ecn) = (class & 0xfc, class & 3);
            assert_eq!(outer_tos(DscpPolicy::default(), EcnMode::Normal, class), ecn);
            assert_eq!(outer_tos(DscpPolicy::default(), EcnMode::Compat, class), 0);
            assert_eq!(
                outer_tos(DscpPolicy::Fixed(46), EcnMode::Normal, class),
                46 << 2 | ecn
            );
            assert_eq!(outer_tos(DscpPolicy::Fixed(63), EcnMode::Compat, class), 63 << 2);
            assert_eq!(outer_tos(DscpPolicy::Inherit, EcnMode::Normal, class), class);
            assert_eq!(outer_tos(DscpPolicy::Inherit, EcnMode::Compat, class), dscp);
        }
    }

    /// E5, E6.
    #[test]
    fn ttl_is_fixed_or_inherited() {
        assert_eq!(outer_ttl(TtlPolicy::default(), 1), 64);
        assert_eq!(outer_ttl(TtlPolicy::Fixed(17), 255), 17);
        assert_eq!(outer_ttl(TtlPolicy::Inherit, 255), 255);
        assert_eq!(outer_ttl(TtlPolicy::Inherit, 0), 1);
    }
}
