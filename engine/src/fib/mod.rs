//! Which routers, prefixes and routes are known right now? The Rulebook: one immutable snapshot per batch.
//!
//! Control fills a [`RulebookBuilder`] from configuration, PRL and route mirror, builds a [`Rulebook`], and hands it to
//! the [`Publisher`]. Workers load it once per loop turn (DESIGN D11) and never lock, allocate or free for it.

mod builder;
mod flat;
pub mod group;
mod prefix;
mod publish;
mod rulebook;
mod table;

pub use builder::{BuildError, Locator, MAX_LOCATORS, NextHop, PeerPolicy, Role, RulebookBuilder};
pub use flat::READ_AHEAD;
pub use group::HopGroup;
pub use prefix::{Ipv4Prefix, Ipv6Prefix, PrefixError};
pub use publish::{Publisher, Reader, Snapshot};
pub use rulebook::{Rulebook, Tunnel};
pub use table::PrefixTable;
