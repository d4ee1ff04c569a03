//! Packets that would go round between tunnels (RFC 6324, REQUIREMENTS L1, L2; FAULTS 14).
//!
//! Two routers whose routes point at each other carry one packet 255 times; so do a router and an address that looks like
//! its own in another tunnel's format. What came in from the site is refused when it would go back to where it came
//! from, and what goes out when its source pretends to be behind ourselves. Switched off by `LoopChecks no`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ingress::Voucher;
use super::{SiteKnowledge, iid};
use crate::reason::DropReason;

/// Checks a packet that came in from `outer_src` (RFC 6324 3.2.3, 3.3). Link-local packets are never forwarded, and so
/// exempt; what is for ourselves has arrived. A host's own packets are let pass by a look at the destination alone: of
/// those that it forwards for others, the source check stops all but the ones a route vouches for.
///
/// # Errors
/// [`DropReason::Loop`].
#[inline]
pub fn check_received(
    site: &impl SiteKnowledge,
    voucher: Voucher,
    outer_src: Ipv4Addr,
    inner_dst: &Ipv6Addr,
) -> Result<(), DropReason> {
    let to_tunnel_end = embeds(inner_dst, |end| end == outer_src || site.is_locator(end));
    if !to_tunnel_end && voucher == Voucher::Embedded {
        return Ok(());
    }
    check_suspect(site, voucher, outer_src, inner_dst)
}

/// The whole rule, kept out of the way of ordinary packets.
#[inline(never)]
fn check_suspect(
    site: &impl SiteKnowledge,
    voucher: Voucher,
    outer_src: Ipv4Addr,
    inner_dst: &Ipv6Addr,
) -> Result<(), DropReason> {
    if inner_dst.is_unicast_link_local() || inner_dst.is_multicast() || site.is_own(inner_dst) {
        return Ok(());
    }
    if embeds_ours(site, inner_dst) && !site.is_on_link(inner_dst)
        || goes_back(site, voucher, outer_src, inner_dst)
    {
        return Err(DropReason::Loop);
    }
    Ok(())
}

/// Whether the way on leads to the sender, or from one router of the link to another (L1).
fn goes_back(site: &impl SiteKnowledge, voucher: Voucher, outer_src: Ipv4Addr, inner_dst: &Ipv6Addr) -> bool {
    if iid::embedded(inner_dst) == Some(outer_src) && site.is_on_link(inner_dst) {
        return true;
    }
    voucher != Voucher::Embedded && site.leads_back(inner_dst, outer_src)
}

/// Checks a packet that is to go out (RFC 6324 3.3): a source that embeds an address of ours without being ours, under a
/// prefix that is not of this link, belongs to a tunnel that we are not.
///
/// # Errors
/// [`DropReason::Loop`].
#[inline]
pub fn check_sent(site: &impl SiteKnowledge, inner_src: &Ipv6Addr) -> Result<(), DropReason> {
    if embeds_ours(site, inner_src) && !site.is_own(inner_src) && !site.is_on_link(inner_src) {
        return Err(DropReason::Loop);
    }
    Ok(())
}

/// Whether an address embeds one of our locators in a tunnel's format: ISATAP's, or that of 6to4 unless this machine is
/// the 6to4 router that it names (RFC 3056 2).
#[inline]
fn embeds_ours(site: &impl SiteKnowledge, addr: &Ipv6Addr) -> bool {
    iid::embedded(addr).is_some_and(|end| site.is_locator(end))
        || of_6to4(addr).is_some_and(|end| site.is_locator(end) && !site.is_own_6to4(end))
}

/// Whether an address names such a tunnel end. It may name two: an ISATAP link can have a prefix of 6to4.
#[inline]
fn embeds(addr: &Ipv6Addr, is_such: impl Fn(Ipv4Addr) -> bool) -> bool {
    iid::embedded(addr).is_some_and(&is_such) || of_6to4(addr).is_some_and(is_such)
}

/// The 6to4 router that an address names (RFC 3056 2).
#[inline]
fn of_6to4(addr: &Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, a, b, c, d, ..] = addr.octets();
    is_6to4(addr).then(|| Ipv4Addr::new(a, b, c, d))
}

#[inline]
fn is_6to4(addr: &Ipv6Addr) -> bool {
    addr.to_bits() >> 112 == 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    /// A second locator, which is a 6to4 router as well.
    const OWN_6TO4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 8), Ipv4Addr::new(10, 0, 0, 9)];

    /// On-link 2001:db8:1::/64; default route via the first router, 2001:db8:9::/48 via the second, 2001:db8:7::/48 via a
    /// host that routes.
    struct Site;

    impl Site {
        fn gateway(addr: &Ipv6Addr) -> Option<Ipv4Addr> {
            match addr.segments()[..3] {
                [0x2001, 0xdb8, 1] | [0xfe80, ..] => None,
                [0x2001, 0xdb8, 9] => Some(ROUTERS[1]),
                [0x2001, 0xdb8, 7] => Some(HOST),
                _ => Some(ROUTERS[0]),
            }
        }
    }

    impl SiteKnowledge for Site {
        fn is_locator(&self, addr: Ipv4Addr) -> bool {
            [OWN, OWN_6TO4].contains(&addr)
        }
        fn is_broadcast(&self, _: Ipv4Addr) -> bool {
            false
        }
        fn is_router(&self, addr: Ipv4Addr) -> bool {
            ROUTERS.contains(&addr)
        }
        fn is_prl_member(&self, addr: Ipv4Addr) -> bool {
            self.is_router(addr)
        }
        fn is_site_host(&self, _: Ipv4Addr) -> bool {
            true
        }
        fn is_own(&self, addr: &Ipv6Addr) -> bool {
            *addr == "2001:db8:1::5efe:10.0.0.1".parse::<Ipv6Addr>().unwrap()
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
            Self::gateway(addr).is_none()
        }
        fn shares_prefix(&self, _: &Ipv6Addr) -> bool {
            false
        }
        fn is_routed_via(&self, addr: &Ipv6Addr, gateway: Ipv4Addr) -> bool {
            Self::gateway(addr) == Some(gateway)
        }
        fn is_own_6to4(&self, addr: Ipv4Addr) -> bool {
            addr == OWN_6TO4
        }
        fn leads_back(&self, addr: &Ipv6Addr, sender: Ipv4Addr) -> bool {
            Self::gateway(addr)
                .is_some_and(|gateway| gateway == sender || self.is_router(gateway) && self.is_router(sender))
        }
    }

    /// L1, FAULTS 14: nothing returns to its sender, nor goes from one router to another; hosts may use every way.
    #[test]
    fn l1_nothing_goes_back() {
        let received = |from, to: &str| {
            let voucher = if from == HOST {
                Voucher::Route
            } else {
                Voucher::Router
            };
            check_received(&Site, voucher, from, &to.parse().unwrap()).is_ok()
        };
        for (from, to, passes) in [
            (ROUTERS[0], "2001:db8:ffff::1", false),
            (ROUTERS[1], "2001:db8:ffff::1", false),
            (ROUTERS[0], "2001:db8:9::1", false),
            (ROUTERS[0], "2001:db8:7::1", true),
            (ROUTERS[0], "2001:db8:1::5efe:10.0.0.2", true),
            (ROUTERS[0], "2001:db8:1::5efe:10.0.0.1", true),
            (ROUTERS[0], "fe80::5efe:10.0.0.9", true),
            (HOST, "2001:db8:ffff::1", true),
            (HOST, "2001:db8:7::1", false),
            (HOST, "2001:db8:1::5efe:10.0.0.2", false),
            (HOST, "2001:db8:1::200:5efe:10.0.0.2", false),
            (HOST, "2001:db8:1::5efe:10.0.0.3", true),
            (HOST, "ff02::1", true),
        ] {
            assert_eq!(received(from, to), passes, "{to} from {from}");
        }
    }

    /// L2: an address in a tunnel's format that embeds one of ours without being ours.
    #[test]
    fn l2_what_embeds_ourselves() {
        for (addr, received, sent) in [
            ("2001:db8:5::5efe:10.0.0.1", false, false),
            ("2001:db8:5::200:5efe:10.0.0.1", false, false),
            ("2002:a00:1::1", false, false),
            ("2002:a00:2::1", true, true),
            ("2002:a00:6::1", true, true),
            ("2001:db8:5::5efe:10.0.0.2", true, true),
            // An ISATAP link with a prefix of 6to4: either name may be ours.
            ("2002:db8:1::5efe:10.0.0.1", false, false),
            ("2002:a00:1::5efe:10.0.0.2", false, false),
            ("2002:db8:1::5efe:10.0.0.2", true, true),
            // Of this link, and perhaps ours in a moment.
            ("2001:db8:1::200:5efe:10.0.0.1", true, true),
            ("2001:db8:1::5efe:10.0.0.1", true, true),
        ] {
            let addr = addr.parse().unwrap();
            for voucher in [Voucher::Embedded, Voucher::Router] {
                let passed = check_received(&Site, voucher, HOST, &addr).is_ok();
                assert_eq!(passed, received, "to {addr}, {voucher:?}");
            }
            assert_eq!(check_sent(&Site, &addr).is_ok(), sent, "from {addr}");
        }
    }
}
