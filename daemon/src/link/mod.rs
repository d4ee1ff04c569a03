//! The ISATAP interface as the kernel sees it: set up over netlink, and mirrored for the Rulebook.
//!
//! ```text
//!   netlink notifications --> notices, watch (shell) --> mirror, route, next_hops, policy (pure) --> rulebook (pure) --> fib::RulebookBuilder
//!   nexthop objects       --> objects (shell, pure reading): where routes lead that do not say so --^
//!   control's decisions   --> setup (shell) ----------------> change --> the monitor's process --> the kernel
//!   slaac's wishes        --> apply (pure plan, shell) ------^
//!   IPv4 neighbours       --> neighbours (shell), doubts (pure): whom programs in the kernel may send frames to
//!   IPv4 routing          --> ways (shell) --> underlay (pure): which device leads where, for programs in the kernel
//!   the monitor's questions --> plain (shell): netlink without a runtime, for `change::direct` and `monitor::others`
//!   a table of raw sockets --> raw_table (pure), for `monitor::others` and `isatapctl doctor`
//!   a table of IPv6 addresses --> inet6_table (pure), for a start that is not to be the second one
//!   a scrape              --> losses (shell): what the kernel dropped
//! ```

pub mod apply;
pub mod change;
pub mod dns;
mod doubts;
pub mod inet6_table;
pub mod losses;
pub mod mirror;
pub mod neighbours;
pub mod netlink;
pub mod next_hops;
mod notices;
mod objects;
pub mod plain;
mod policy;
pub mod raw_table;
mod route;
pub mod rulebook;
pub mod setup;
pub mod sysctl;
pub mod underlay;
pub mod watch;
pub mod ways;

pub use mirror::{Effect, MirrorState};
pub use neighbours::NeighboursWatch;
pub use netlink::{Netlink, NetlinkError};
pub use watch::Watch;
pub use ways::{Gone, Ways, WaysWatch};
