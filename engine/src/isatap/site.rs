//! What the rules need to know about the site; the Rulebook answers.
//!
//! The rules stand left of the tables in the module order: they name the questions, `fib` answers them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Questions the ISATAP rules ask about the site as it is known right now.
pub trait SiteKnowledge {
    /// Whether `addr` is one of our locators.
    fn is_locator(&self, addr: Ipv4Addr) -> bool;
    /// Whether `addr` is the directed broadcast address of a connected network.
    fn is_broadcast(&self, addr: Ipv4Addr) -> bool;
    /// Whether `addr` is a router of the PRL or a configured peer router.
    fn is_router(&self, addr: Ipv4Addr) -> bool;
    /// Whether `addr` is in the PRL itself (RFC 5214 8.3.3).
    fn is_prl_member(&self, addr: Ipv4Addr) -> bool;
    /// Whether `addr` lies in a network whose hosts may use the tunnel.
    fn is_site_host(&self, addr: Ipv4Addr) -> bool;
    /// Whether `addr` is an IPv6 address of our ISATAP interface.
    fn is_own(&self, addr: &Ipv6Addr) -> bool;
    /// Whether one of those addresses embeds an IPv4 address that is no locator of ours.
    fn owns_foreign(&self) -> bool;
    /// Whether `group`, a solicited-node group, is that of one of these addresses (RFC 4291 2.7.1).
    fn is_own_group(&self, group: &Ipv6Addr) -> bool;
    /// Whether we are a router on this link (RFC 5214 3, "advertising ISATAP interface").
    fn is_router_here(&self) -> bool;
    /// Whether `addr` is under an on-link prefix of the ISATAP interface.
    fn is_on_link(&self, addr: &Ipv6Addr) -> bool;
    /// Whether `addr` is under the /64 of an ISATAP address of ours: its host is on this link, even where the prefix is not
    /// on-link and packets to it go to a router (RFC 4861 6.3.4).
    fn shares_prefix(&self, addr: &Ipv6Addr) -> bool;
    /// Whether packets for `addr` are routed to the IPv4 address `gateway` (RFC 6324 3.2.4.2).
    fn is_routed_via(&self, addr: &Ipv6Addr, gateway: Ipv4Addr) -> bool;
    /// Whether this machine has the 6to4 prefix of `addr` in use (RFC 3056): what is under it has arrived.
    fn is_own_6to4(&self, addr: Ipv4Addr) -> bool;
    /// Whether packets for `addr` go to `sender`, or, when `sender` is a router, to any router (RFC 6324 3.2.3).
    fn leads_back(&self, addr: &Ipv6Addr, sender: Ipv4Addr) -> bool;
}
