//! What the kernel and the resolver should have, as the machine sees it now.

use std::net::Ipv6Addr;

use isatap_engine::fib::Ipv6Prefix;

use super::Lifetime;

/// Name servers handed on; resolvers use three (RFC 8106 5.3.1 asks for at least three).
pub const MAX_NAME_SERVERS: usize = 8;
/// Search domains handed on.
pub const MAX_SEARCH_DOMAINS: usize = 8;

/// Why the kernel has something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A router advertised it.
    #[default]
    Advertised,
    /// This router advertises it, and takes part.
    Own,
}

/// An address formed from an advertised prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedAddress {
    /// The address.
    pub addr: Ipv6Addr,
    /// 128: the prefix is on-link only if an advertisement says so, by a route of its own (V8).
    pub prefix_len: u8,
    /// Until when it may be used at all.
    pub valid: Lifetime,
    /// Until when new connections may begin from it; over means deprecated (V7).
    pub preferred: Lifetime,
    /// Whose prefix it is.
    pub origin: Origin,
}

/// A route out of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedRoute {
    /// Where to.
    pub prefix: Ipv6Prefix,
    /// The router's link-local address; `None` for a prefix on the link.
    pub via: Option<Ipv6Addr>,
    /// The kernel's metric.
    pub metric: u32,
    /// RFC 4191: -1, 0 or 1.
    pub preference: i8,
    /// Until when.
    pub lifetime: Lifetime,
    /// Who said so.
    pub origin: Origin,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One for each prefix and locator.
    pub addresses: Vec<WantedAddress>,
    /// Default routes, advertised routes, on-link prefixes; no two with the same prefix, metric and next hop.
    pub routes: Vec<WantedRoute>,
    /// The smallest MTU a router advertised, if any did.
    pub mtu: Option<u16>,
    /// The hop limit last advertised, if any was.
    pub hop_limit: Option<u8>,
    /// Name servers, those of the most preferred router first.
    pub dns: Vec<Ipv6Addr>,
    /// Search domains in the same order, in lower case.
    pub search: Vec<String>,
}
