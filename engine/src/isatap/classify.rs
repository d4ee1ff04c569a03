//! Kinds of addresses, by the address alone (RFC 4213 3.6, RFC 1122 3.2.1.3, RFC 4291 2.4-2.7).
//!
//! What is forbidden *here* only, such as our own addresses or the broadcast address of a connected network, is the
//! Rulebook's business.

use super::iid::is_link_local_64;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether no host can have sent from this IPv4 address: 0/8, 127/8, 224/4 and 240/4 with the limited broadcast (D5, FAULTS 8).
#[inline]
pub fn invalid_outer_source(v4: Ipv4Addr) -> bool {
    let first = v4.octets()[0];
    first == 0 || first == 127 || first >= 224
}

/// Whether no tunnel packet may go to this IPv4 address: the same blocks, seen from the other side (E7, FAULTS 22).
#[inline]
pub fn invalid_next_hop(v4: Ipv4Addr) -> bool {
    invalid_outer_source(v4)
}

/// What an inner source address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerSource {
    /// `::`, the source of a host that has no address yet.
    Unspecified,
    /// Never valid as a source: multicast, `::1`, IPv4-compatible, IPv4-mapped, `fe80::/10` outside `fe80::/64`.
    Forbidden,
    /// In `fe80::/64`: on-link, not to be forwarded.
    LinkLocal,
    /// Any other unicast address, unique local ones included.
    Global,
}

/// What an inner destination address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerDest {
    /// A unicast address that may be beyond this link.
    Unicast,
    /// In `fe80::/64`: a node on this link.
    LinkLocal,
    /// `ff02::1`.
    AllNodes,
    /// `ff02::2`.
    AllRouters,
    /// `ff02::1:ff00:0/104`.
    SolicitedNode,
    /// Every other group; an ISATAP link carries none (RFC 5214 6.3).
    OtherMulticast,
    /// Never valid as a destination: `::`, `::1`, IPv4-compatible, IPv4-mapped, `fe80::/10` outside `fe80::/64`.
    Forbidden,
}

const ALL_NODES: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0001;
const ALL_ROUTERS: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0002;
const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;

/// Classifies an inner source (D7, D12, FAULTS 6).
#[inline]
pub fn inner_source(addr: &Ipv6Addr) -> InnerSource {
    let bits = addr.to_bits();
    if is_global_unicast(bits) {
        InnerSource::Global
    } else if bits == 0 {
        InnerSource::Unspecified
    } else if bits >> 120 == 0xff || never_unicast(bits) {
        InnerSource::Forbidden
    } else {
        match link_local_scope(addr) {
            Some(true) => InnerSource::LinkLocal,
            Some(false) => InnerSource::Forbidden,
            None => InnerSource::Global,
        }
    }
}

/// Classifies an inner destination (FAULTS 7).
#[inline]
pub fn inner_dest(addr: &Ipv6Addr) -> InnerDest {
    let bits = addr.to_bits();
    if is_global_unicast(bits) {
        return InnerDest::Unicast;
    }
    if bits >> 120 == 0xff {
        return match bits {
            ALL_NODES => InnerDest::AllNodes,
            ALL_ROUTERS => InnerDest::AllRouters,
            _ if bits >> 24 == SOLICITED_NODE >> 24 => InnerDest::SolicitedNode,
            _ => InnerDest::OtherMulticast,
        };
    }
    if never_unicast(bits) {
        return InnerDest::Forbidden;
    }
    match link_local_scope(addr) {
        Some(true) => InnerDest::LinkLocal,
        Some(false) => InnerDest::Forbidden,
        None => InnerDest::Unicast,
    }
}

/// `2000::/3`, from which every global unicast address of today comes (RFC 4291 2.4, IANA): nearly all packets need no
/// other question, for all that is special lies outside.
#[inline]
fn is_global_unicast(bits: u128) -> bool {
    bits >> 125 == 0b001
}

/// `::/96`, which holds `::`, `::1` and the IPv4-compatible addresses, and `::ffff:0:0/96`, the IPv4-mapped ones.
#[inline]
fn never_unicast(bits: u128) -> bool {
    matches!(bits >> 32, 0 | 0xffff)
}

/// For an address in `fe80::/10`, whether it is a proper one in `fe80::/64`.
#[inline]
fn link_local_scope(addr: &Ipv6Addr) -> Option<bool> {
    if addr.is_unicast_link_local() {
        Some(is_link_local_64(addr))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D5, E7, FAULTS 8 and 22.
    #[test]
    fn outer_addresses_of_no_host() {
        let forbidden = [
            "0.0.0.0",
            "0.1.2.3",
            "0.255.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.0.0.1",
            "255.255.255.255",
        ];
        let allowed = [
            "1.0.0.0",
            "10.0.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.254.1.1",
            "192.168.1.255",
            "223.255.255.255",
        ];
        for text in forbidden {
            let v4 = text.parse().unwrap();
            assert!(invalid_outer_source(v4) && invalid_next_hop(v4), "{text}");
        }
        for text in allowed {
            let v4 = text.parse().unwrap();
            assert!(!invalid_outer_source(v4) && !invalid_next_hop(v4), "{text}");
        }
    }

    /// D7, D12, FAULTS 6.
    #[test]
    fn inner_sources() {
        use InnerSource::*;
        let table = [
            ("::", Unspecified),
            ("::1", Forbidden),
            ("::2", Forbidden),
            ("::10.0.0.1", Forbidden),
            ("::ffff:ffff", Forbidden),
            ("::ffff:10.0.0.1", Forbidden),
            ("::ffff:255.255.255.255", Forbidden),
            ("ff00::", Forbidden),
            ("ff02::1", Forbidden),
            ("ff0e::5efe:10.0.0.1", Forbidden),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Forbidden),
            ("fe80:0:0:1:0:5efe:a00:1", Forbidden),
            ("febf::1", Forbidden),
            ("fe80::", LinkLocal),
            ("fe80::5efe:10.0.0.1", LinkLocal),
            ("fe80::200:5efe:8.8.8.8", LinkLocal),
            ("::1:0:0", Global),
            ("::fffe:a00:1", Global),
            ("::1:ffff:a00:1", Global),
            ("64:ff9b::10.0.0.1", Global),
            ("2001:db8::5efe:10.0.0.1", Global),
            ("2002:a00:1::1", Global),
            ("fd00::1", Global),
            ("fe7f::1", Global),
            ("fec0::1", Global),
        ];
        for (text, kind) in table {
            assert_eq!(inner_source(&text.parse().unwrap()), kind, "{text}");
        }
    }

    /// FAULTS 7, A9.
    #[test]
    fn inner_destinations() {
        use InnerDest::*;
        let table = [
            ("::", Forbidden),
            ("::1", Forbidden),
            ("::10.0.0.1", Forbidden),
            ("::ffff:10.0.0.1", Forbidden),
            ("fe80:1::1", Forbidden),
            ("fe80::5efe:10.0.0.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("2001:db8::5efe:10.0.0.1", Unicast),
            ("2606:4700::1", Unicast),
            ("fd00::1", Unicast),
            ("ff02::1", AllNodes),
            ("ff02::2", AllRouters),
            ("ff02::1:ff00:0", SolicitedNode),
            ("ff02::1:ffff:ffff", SolicitedNode),
            ("ff02::1:fe00:0", OtherMulticast),
            ("ff02::2:ff00:0", OtherMulticast),
            ("ff01::1", OtherMulticast),
            ("ff05::2", OtherMulticast),
            ("ff02::16", OtherMulticast),
            ("ff0e::1", OtherMulticast),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", OtherMulticast),
        ];
        for (text, kind) in table {
            assert_eq!(inner_dest(&text.parse().unwrap()), kind, "{text}");
        }
    }
}
