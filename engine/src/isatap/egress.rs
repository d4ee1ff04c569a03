//! Which IPv4 address a packet may be sent to: RFC 5214 7.1 (static mapping), RFC 1122 3.2.1.3 (addresses of no host).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{SiteKnowledge, classify, iid};
use crate::reason::DropReason;

/// The link-layer address of an on-link destination: the last four octets of its interface identifier, whatever its
/// u bit (REQUIREMENTS A2, A8).
///
/// # Errors
/// [`DropReason::Unresolvable`] when `dst` has no ISATAP interface identifier.
#[inline]
pub fn on_link(dst: &Ipv6Addr) -> Result<Ipv4Addr, DropReason> {
    iid::embedded(dst).ok_or(DropReason::Unresolvable)
}

/// Whether an IPv4 next hop may be sent to (REQUIREMENTS A9, E7; FAULTS 22). `configured` next hops come from a route
/// or the PRL: an administrator chose them, so that they need not be site hosts.
///
/// # Errors
/// The reason to drop.
#[inline]
pub fn check_next_hop(site: &impl SiteKnowledge, hop: Ipv4Addr, configured: bool) -> Result<(), DropReason> {
    if classify::invalid_next_hop(hop) || site.is_locator(hop) || site.is_broadcast(hop) {
        return Err(DropReason::DstForbidden);
    }
    if configured || site.is_site_host(hop) || site.is_router(hop) {
        Ok(())
    } else {
        Err(DropReason::NotSite)
    }
}
