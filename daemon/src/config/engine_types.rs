//! The engine's vocabulary as the configuration speaks it, in one place.

pub use isatap_engine::fib::{Ipv4Prefix, Ipv6Prefix, PrefixError, Role};
pub use isatap_engine::isatap::ecn::EcnMode;
pub use isatap_engine::isatap::mtu::PathMtuMode;
pub use isatap_engine::isatap::tos::{DscpPolicy, TtlPolicy};
pub use isatap_engine::wire::nd::Preference;
pub use isatap_engine::worker::{LaneChoice, MAX_WORKERS};
