//! What the RFCs allow and where a packet goes: pure rules over addresses and header fields, nothing about how packets move.
//!
//! | module | answers | source |
//! |---|---|---|
//! | [`iid`] | which IPv4 address does this IPv6 address embed, and back? | RFC 5214 6.1, 6.2 |
//! | [`classify`] | what kind of address is this, as outer source, next hop, inner source, inner destination? | RFC 4213 3.6, RFC 1122 3.2.1.3 |
//! | [`ingress`] | may this sender send this, to this destination? | RFC 5214 7.3, RFC 4213 3.6 |
//! | [`egress`] | may this next hop be sent to? | RFC 5214 7.1, RFC 1122 3.2.1.3 |
//! | [`loops`] | would this packet go round between tunnels? | RFC 6324 |
//! | [`ecn`] | which ECN field goes out, which comes in? | RFC 6040 |
//! | [`tos`] | which outer DSCP and TTL? | RFC 2983, RFC 4213 3.3 |
//! | [`mtu`] | does it fit, with or without DF? | RFC 4213 3.2 |
//! | [`plateau`] | which size is tried next when nobody says what fits? | RFC 1191 7.1 |
//! | [`mark`] | is a quoted packet one that we sent? | RFC 6864 4.1 |
//!
//! What the rules must know of this machine (own locators, routers, prefixes, site networks) they ask through
//! [`SiteKnowledge`]; [`fib`](crate::fib) answers.

pub mod classify;
pub mod ecn;
pub mod egress;
pub mod iid;
pub mod ingress;
pub mod loops;
pub mod mark;
pub mod mtu;
pub mod plateau;
mod site;
pub mod tos;

pub use site::SiteKnowledge;
