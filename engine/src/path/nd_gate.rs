//! The gate for neighbour discovery: what fails RFC 4861's validity rules, or claims to be a router without being one,
//! never reaches the kernel (REQUIREMENTS V1, V11, N4, N10, P4; FAULTS 4, 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::verdict::PuntKind;
use crate::fib::{Role, Rulebook};
use crate::isatap::classify::{self, InnerDest};
use crate::isatap::{SiteKnowledge, egress, iid};
use crate::reason::DropReason;
use crate::wire::ext::{self, Upper};
use crate::wire::ipv6::Ipv6View;
use crate::wire::nd::{self, NdError, NdKind, NdMessage};

/// Where a packet that passed the gate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// To the kernel.
    Kernel,
    /// To the kernel; control gets a copy.
    Both(PuntKind),
    /// To control alone.
    Control(PuntKind),
}

/// Checks one inner packet; says who gets it.
///
/// # Errors
/// The reason to drop.
#[inline]
pub fn check(
    rules: &Rulebook,
    outer_src: Ipv4Addr,
    inner: &Ipv6View<'_>,
    upper: &Upper,
) -> Result<Passage, DropReason> {
    if upper.protocol != ext::ICMPV6 || upper.is_later_fragment() {
        return Ok(Passage::Kernel);
    }
    check_icmpv6(rules, outer_src, inner, upper)
}

/// Apart, so that packets of other protocols, nearly all, pay for one comparison alone.
#[inline(never)]
fn check_icmpv6(
    rules: &Rulebook,
    outer_src: Ipv4Addr,
    inner: &Ipv6View<'_>,
    upper: &Upper,
) -> Result<Passage, DropReason> {
    let message = match nd::parse(inner.packet(), upper) {
        None => return Ok(Passage::Kernel),
        Some(Err(error)) => return Err(refusal(error)),
        Some(Ok(message)) => message,
    };
    match (message.kind(), rules.role()) {
        (NdKind::RouterSolicitation, Role::Router) => Ok(solicitation(rules, &inner.dst())),
        (NdKind::RouterSolicitation | NdKind::NeighborSolicitation, _) => Ok(Passage::Kernel),
        (NdKind::NeighborAdvertisement, Role::Host) if is_from_router(rules, outer_src, inner) => {
            Ok(Passage::Both(PuntKind::NeighborAdvertisement))
        }
        (NdKind::NeighborAdvertisement, _) => Ok(Passage::Kernel),
        (NdKind::RouterAdvertisement, Role::Host) if is_from_router(rules, outer_src, inner) => {
            Ok(Passage::Both(PuntKind::RouterAdvertisement))
        }
        // RFC 4861 6.2.7: what peers say is compared with what we say, and never configures anything.
        (NdKind::RouterAdvertisement, Role::Router)
            if rules.advertises() && is_from_router(rules, outer_src, inner) =>
        {
            Ok(Passage::Control(PuntKind::RouterAdvertisement))
        }
        (NdKind::Redirect, Role::Host) if is_from_router(rules, outer_src, inner) => {
            redirect(rules, outer_src, &message)
        }
        (NdKind::Redirect, Role::Router) => Err(DropReason::NdRedirect),
        (NdKind::RouterAdvertisement | NdKind::Redirect, _) => Err(DropReason::NdNotRouter),
    }
}

/// RFC 4861 8.1 and 8.3, for a host: the sender is the first hop for the destination now, and the target a host of the
/// site that the destination does not lead to already. The kernel is not told: it follows no redirect of a link without
/// link-layer addresses, and control gives the workers a route.
fn redirect(rules: &Rulebook, router: Ipv4Addr, message: &NdMessage<'_>) -> Result<Passage, DropReason> {
    let (Some(target), Some(destination)) = (message.target(), message.redirected()) else {
        return Err(DropReason::NdRedirect);
    };
    let hop = iid::embedded(&target).filter(|hop| *hop != router);
    let is_followed = rules.is_first_hop(&destination, router)
        && !rules.is_own(&destination)
        && hop.is_some_and(|hop| egress::check_next_hop(rules, hop, false).is_ok());
    if is_followed {
        Ok(Passage::Control(PuntKind::Redirect))
    } else {
        Err(DropReason::NdRedirect)
    }
}

/// A solicitation to all routers, or to any of our own addresses, is ours to answer (REQUIREMENTS P7). The sender may not
/// know which `u` bit our link-local address has.
fn solicitation(rules: &Rulebook, dst: &Ipv6Addr) -> Passage {
    if !rules.advertises() {
        return Passage::Both(PuntKind::HostSolicitation);
    }
    let is_ours = match classify::inner_dest(dst) {
        InnerDest::AllRouters => true,
        InnerDest::LinkLocal => iid::embedded(dst).is_some_and(|embedded| rules.is_locator(embedded)),
        _ => rules.is_own(dst),
    };
    if is_ours {
        Passage::Control(PuntKind::HostSolicitation)
    } else {
        Passage::Kernel
    }
}

/// RFC 5214 8.3.3: from the link-local ISATAP address of a router in the list (on a router: of a peer), and from no other
/// machine.
fn is_from_router(rules: &Rulebook, outer_src: Ipv4Addr, inner: &Ipv6View<'_>) -> bool {
    let listed = match rules.role() {
        Role::Host => rules.is_prl_member(outer_src),
        Role::Router => rules.is_router(outer_src),
    };
    listed && inner.src().is_unicast_link_local() && iid::embedded(&inner.src()) == Some(outer_src)
}

fn refusal(error: NdError) -> DropReason {
    match error {
        NdError::HopLimit => DropReason::NdHopLimit,
        NdError::Checksum => DropReason::NdChecksum,
        NdError::Code => DropReason::NdCode,
        NdError::Length | NdError::OptionLen => DropReason::NdLength,
        NdError::Address => DropReason::NdAddress,
        NdError::Fragment => DropReason::NdFragment,
    }
}
