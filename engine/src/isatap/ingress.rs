//! Who may send what into the site: the source and destination checks of decapsulation.
//!
//! RFC 5214 7.3 (the outer source is embedded in the inner source, or is a router of the PRL), RFC 4213 3.6 (addresses
//! no packet comes from), RFC 6324 3.2.4.2 (a forwarding entry vouches for its next hop). Nothing is answered: every
//! refusal is silent and counted.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::classify::{self, InnerDest, InnerSource};
use super::{SiteKnowledge, iid};
use crate::reason::DropReason;

/// Checks the outer addresses (REQUIREMENTS D2, D4, D5; FAULTS 8, 15).
///
/// # Errors
/// The reason to drop.
#[inline]
pub fn check_outer(site: &impl SiteKnowledge, src: Ipv4Addr, dst: Ipv4Addr) -> Result<(), DropReason> {
    if !site.is_locator(dst) {
        let to_many = classify::invalid_next_hop(dst) || site.is_broadcast(dst);
        return Err(if to_many {
            DropReason::OuterForbidden
        } else {
            DropReason::NotLocal
        });
    }
    if classify::invalid_outer_source(src) || site.is_locator(src) || site.is_broadcast(src) {
        return Err(DropReason::OuterForbidden);
    }
    if !site.is_site_host(src) && !site.is_router(src) {
        return Err(DropReason::NotSite);
    }
    Ok(())
}

/// Why an inner source is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voucher {
    /// It embeds the outer source: the packet is the sender's own.
    Embedded,
    /// A route leads back to it through the sender.
    Route,
    /// The sender is a router of the link, and speaks for everybody.
    Router,
}

/// Checks the inner source against the outer one (REQUIREMENTS D1, D7, D9, D11, D12; FAULTS 1-3, 6).
///
/// `strict` is `StrictIngress`: an ISATAP source must lie under a prefix of this link, one that is on-link or one that we
/// have an address in: a neighbour under such a prefix may have been told of the direct way (RFC 4861 8.3) before we were,
/// or we, who never send to it, are not told at all. The embedded address is compared in any case.
///
/// # Errors
/// The reason to drop.
#[inline]
pub fn check_source(
    site: &impl SiteKnowledge,
    strict: bool,
    outer_src: Ipv4Addr,
    inner_src: &Ipv6Addr,
) -> Result<Voucher, DropReason> {
    match classify::inner_source(inner_src) {
        InnerSource::Forbidden => return Err(DropReason::SrcForbidden),
        InnerSource::Unspecified if !site.is_router(outer_src) => return Err(DropReason::SrcForbidden),
        InnerSource::Unspecified | InnerSource::LinkLocal | InnerSource::Global => {}
    }
    // Three reasons to accept, each enough: the routes are asked before the PRL, which holds few of those who send much.
    let embedded = iid::embedded(inner_src) == Some(outer_src);
    // What embeds the sender is not ours, since the sender has no locator of ours: a look less for most packets.
    if (!embedded || site.owns_foreign()) && site.is_own(inner_src) {
        return Err(DropReason::SrcForbidden);
    }
    if embedded && (!strict || site.is_on_link(inner_src) || site.shares_prefix(inner_src)) {
        return Ok(Voucher::Embedded);
    }
    if site.is_routed_via(inner_src, outer_src) {
        return Ok(Voucher::Route);
    }
    if site.is_router(outer_src) {
        return Ok(Voucher::Router);
    }
    Err(if embedded {
        DropReason::SrcPrefix
    } else {
        DropReason::SrcMismatch
    })
}

/// Checks the inner destination (FAULTS 7): unicast, or a group that this link emulates (RFC 5214 6.3) and its members
/// hear: all nodes what a router says, routers what is for all routers, everybody what is for the solicited-node groups of
/// its own addresses.
///
/// # Errors
/// The reason to drop.
#[inline]
pub fn check_destination(
    site: &impl SiteKnowledge,
    outer_src: Ipv4Addr,
    inner_dst: &Ipv6Addr,
) -> Result<(), DropReason> {
    let heard = match classify::inner_dest(inner_dst) {
        InnerDest::Unicast | InnerDest::LinkLocal => return Ok(()),
        InnerDest::Forbidden => return Err(DropReason::DstForbidden),
        InnerDest::AllNodes => site.is_router(outer_src),
        InnerDest::AllRouters => site.is_router_here(),
        InnerDest::SolicitedNode => site.is_own_group(inner_dst),
        InnerDest::OtherMulticast => false,
    };
    if heard {
        Ok(())
    } else {
        Err(DropReason::DstMulticast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    /// A site 10/8 with the on-link prefix 2001:db8:1::/64, an address under 2001:db8:3::/64, a router, and 2001:db8:7::/48 routed to 10.0.0.7.
    struct Site;

    impl SiteKnowledge for Site {
        fn is_locator(&self, addr: Ipv4Addr) -> bool {
            addr == OWN
        }
        fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
            addr == Ipv4Addr::new(10, 0, 0, 255)
        }
        fn is_router(&self, addr: Ipv4Addr) -> bool {
            addr == ROUTER
        }
        fn is_prl_member(&self, addr: Ipv4Addr) -> bool {
            addr == ROUTER
        }
        fn is_site_host(&self, addr: Ipv4Addr) -> bool {
            addr.octets()[0] == 10
        }
        fn is_own(&self, addr: &Ipv6Addr) -> bool {
            *addr == iid::link_local(OWN)
        }
        fn owns_foreign(&self) -> bool {
            false
        }
        fn is_own_group(&self, group: &Ipv6Addr) -> bool {
            group.octets()[13..] == OWN.octets()[1..]
        }
        fn is_router_here(&self) -> bool {
            true
        }
        fn is_on_link(&self, addr: &Ipv6Addr) -> bool {
            addr.segments()[..4] == [0xfe80, 0, 0, 0] || addr.segments()[..4] == [0x2001, 0xdb8, 1, 0]
        }
        fn shares_prefix(&self, addr: &Ipv6Addr) -> bool {
            addr.segments()[..4] == [0x2001, 0xdb8, 3, 0]
        }
        fn is_routed_via(&self, addr: &Ipv6Addr, gateway: Ipv4Addr) -> bool {
            addr.segments()[..3] == [0x2001, 0xdb8, 7] && gateway == GATEWAY
        }
        fn is_own_6to4(&self, _: Ipv4Addr) -> bool {
            false
        }
        fn leads_back(&self, _: &Ipv6Addr, _: Ipv4Addr) -> bool {
            false
        }
    }

    fn source(outer: Ipv4Addr, inner: &str, strict: bool) -> Result<(), DropReason> {
        check_source(&Site, strict, outer, &inner.parse().unwrap()).map(|_| ())
    }

    #[test]
    fn who_vouches() {
        let voucher = |outer, inner: &str| check_source(&Site, true, outer, &inner.parse().unwrap());
        assert_eq!(voucher(HOST, "2001:db8:1::5efe:10.0.0.2"), Ok(Voucher::Embedded));
        assert_eq!(voucher(GATEWAY, "2001:db8:7::1"), Ok(Voucher::Route));
        assert_eq!(voucher(ROUTER, "2001:db8:7::1"), Ok(Voucher::Router));
        assert_eq!(voucher(ROUTER, "fe80::5efe:10.0.0.9"), Ok(Voucher::Embedded));
    }

    /// D1, D9 and A2: {link-local, on-link, off-link, of our own address} x {match, mismatch} x {u 0, 1} x {PRL, not}.
    #[test]
    fn the_source_matrix() {
        for u in ["0", "200"] {
            for (prefix, strict_result) in [
                ("fe80:", Ok(())),
                ("2001:db8:1:0", Ok(())),
                ("2001:db8:2:0", Err(DropReason::SrcPrefix)),
                ("2001:db8:3:0", Ok(())),
            ] {
                let matching = format!("{prefix}:{u}:5efe:10.0.0.2");
                let other = matching.replace("10.0.0.2", "10.0.0.3");
                assert_eq!(source(HOST, &matching, true), strict_result, "{matching}");
                assert_eq!(source(HOST, &matching, false), Ok(()), "{matching}");
                for strict in [true, false] {
                    assert_eq!(
                        source(HOST, &other, strict),
                        Err(DropReason::SrcMismatch),
                        "{other}"
                    );
                    assert_eq!(source(ROUTER, &matching, strict), Ok(()));
                    assert_eq!(source(ROUTER, &other, strict), Ok(()));
                }
            }
        }
    }

    /// D7, D12 and FAULTS 6: not even a router may use these, but for the unspecified address.
    #[test]
    fn forbidden_sources() {
        for text in [
            "ff02::1",
            "::1",
            "::10.0.0.9",
            "::ffff:10.0.0.9",
            "fe80::5efe:10.0.0.1",
        ] {
            assert_eq!(
                source(ROUTER, text, true),
                Err(DropReason::SrcForbidden),
                "{text}"
            );
        }
        assert_eq!(source(ROUTER, "::", true), Ok(()));
        assert_eq!(source(HOST, "::", true), Err(DropReason::SrcForbidden));
    }

    /// D11: a forwarding entry vouches for its next hop and for nobody else. FAULTS 3: Internet sources from hosts.
    #[test]
    fn a_route_vouches_for_its_gateway() {
        assert_eq!(source(GATEWAY, "2001:db8:7::1", true), Ok(()));
        assert_eq!(source(HOST, "2001:db8:7::1", true), Err(DropReason::SrcMismatch));
        assert_eq!(
            source(GATEWAY, "2001:db8:8::1", true),
            Err(DropReason::SrcMismatch)
        );
    }

    /// D2, D4, D5 and FAULTS 8, 15.
    #[test]
    fn outer_addresses() {
        let outer = |src: &str, dst: &str| check_outer(&Site, src.parse().unwrap(), dst.parse().unwrap());
        assert_eq!(outer("10.0.0.2", "10.0.0.1"), Ok(()));
        assert_eq!(outer("10.0.0.2", "10.0.0.3"), Err(DropReason::NotLocal));
        for dst in ["255.255.255.255", "224.0.0.1", "10.0.0.255"] {
            assert_eq!(outer("10.0.0.2", dst), Err(DropReason::OuterForbidden), "{dst}");
        }
        for src in [
            "0.0.0.1",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.0.1",
            "10.0.0.255",
        ] {
            assert_eq!(outer(src, "10.0.0.1"), Err(DropReason::OuterForbidden), "{src}");
        }
        assert_eq!(outer("192.0.2.1", "10.0.0.1"), Err(DropReason::NotSite));
    }

    #[test]
    fn destinations() {
        for (text, from_host, from_router) in [
            ("2001:db8::1", Ok(()), Ok(())),
            ("fe80::1", Ok(()), Ok(())),
            ("ff02::1", Err(DropReason::DstMulticast), Ok(())),
            ("ff02::2", Ok(()), Ok(())),
            ("ff02::1:ff00:1", Ok(()), Ok(())),
            (
                "ff02::1:ff00:2",
                Err(DropReason::DstMulticast),
                Err(DropReason::DstMulticast),
            ),
            (
                "ff02::16",
                Err(DropReason::DstMulticast),
                Err(DropReason::DstMulticast),
            ),
            (
                "ff05::1",
                Err(DropReason::DstMulticast),
                Err(DropReason::DstMulticast),
            ),
            ("::", Err(DropReason::DstForbidden), Err(DropReason::DstForbidden)),
            (
                "::1",
                Err(DropReason::DstForbidden),
                Err(DropReason::DstForbidden),
            ),
        ] {
            let dst = text.parse().unwrap();
            assert_eq!(check_destination(&Site, HOST, &dst), from_host, "{text}");
            assert_eq!(check_destination(&Site, ROUTER, &dst), from_router, "{text}");
        }
    }
}
