//! The gate for neighbour discovery: what fails RFC 4861's validity rules, or claims to be a router without being one,
//! never reaches the kernel (REQUIREMENTS V1, V11, N4, P4; FAULTS 4, 5).

use std::net::Ipv4Addr;

use super::verdict::PuntKind;
use crate::fib::{Role, Rulebook};
use crate::isatap::{SiteKnowledge, iid};
use crate::reason::DropReason;
use crate::wire::ext::{self, Upper};
use crate::wire::ipv6::Ipv6View;
use crate::wire::nd::{self, NdError, NdKind};

/// Checks one inner packet; says what control should see of it.
///
/// # Errors
/// The reason to drop.
#[inline]
pub fn check(
    rules: &Rulebook,
    outer_src: Ipv4Addr,
    inner: &Ipv6View<'_>,
    upper: &Upper,
) -> Result<Option<PuntKind>, DropReason> {
    if upper.protocol != ext::ICMPV6 || upper.is_later_fragment() {
        return Ok(None);
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
) -> Result<Option<PuntKind>, DropReason> {
    let message = match nd::parse(inner.packet(), upper) {
        None => return Ok(None),
        Some(Err(error)) => return Err(refusal(error)),
        Some(Ok(message)) => message,
    };
    match message.kind() {
        NdKind::RouterSolicitation | NdKind::NeighborSolicitation => Ok(None),
        NdKind::NeighborAdvertisement => {
            Ok(is_from_router(rules, outer_src, inner).then_some(PuntKind::NeighborAdvertisement))
        }
        _ if !is_from_router(rules, outer_src, inner) => Err(DropReason::NdNotRouter),
        NdKind::RouterAdvertisement => Ok(Some(PuntKind::RouterAdvertisement)),
        NdKind::Redirect => Ok(None),
    }
}

/// RFC 5214 8.3.3: from the link-local ISATAP address of a router in the PRL, and from no other machine.
fn is_from_router(rules: &Rulebook, outer_src: Ipv4Addr, inner: &Ipv6View<'_>) -> bool {
    rules.role() == Role::Host
        && rules.is_prl_member(outer_src)
        && inner.src().is_unicast_link_local()
        && iid::embedded(&inner.src()) == Some(outer_src)
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
