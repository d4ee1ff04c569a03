//! What routers advertise, and what follows for this host: addresses, routes, MTU, name servers (RFC 4862, 4191, 8106).
//!
//! ```text
//!  packet --> advert (what it says) --> machine --> wanted (what the kernel should have) --> link::apply
//!                                        |-- prefixes: the link's, with the two-hour rule
//!                                        `-- router: what each router of the PRL promised
//! ```
//!
//! Pure: time comes in as an argument. Nothing here asks who may speak; that is the gate's and the PRL's decision (P4).

pub mod advert;
pub(crate) mod dnssl;
mod lifetime;
mod machine;
mod prefixes;
mod router;
mod wanted;

pub use advert::{Advert, AdvertPrefix, AdvertRoute, Ignored};
pub use lifetime::Lifetime;
pub use machine::{KnownAddress, KnownRoute, MAX_ROUTERS, Refused, RouterFacts, Slaac, SlaacConfig};
pub use prefixes::{MAX_PREFIXES, MAX_PREFIXES_PER_ROUTER, ON_LINK_METRIC};
pub use router::{MAX_ROUTES_PER_ROUTER, MAX_SEARCH_PER_ROUTER, MAX_SERVERS_PER_ROUTER, ROUTE_METRIC};
pub use wanted::{MAX_NAME_SERVERS, MAX_SEARCH_DOMAINS, Origin, Wanted, WantedAddress, WantedRoute};

#[cfg(test)]
mod tests;
