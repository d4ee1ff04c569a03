//! The hosts that a router knows, as the control socket tells of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Its IPv4 address.
    pub addr: String,
    /// The address that it solicited from inside: its link-local one. `None`: it gave none, and is told by the group of all nodes.
    pub link_local: Option<String>,
    /// Our address that it solicited.
    pub locator: String,
    /// Seconds since it solicited last.
    pub solicited_seconds_ago: f64,
    /// It came back after it was served, as hosts do; the others are forgotten first when there are too many.
    pub came_back: bool,
}

/// All of them, or those of one network, in order of their addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hosts {
    /// They.
    pub hosts: Vec<HostStatus>,
    /// How many are known altogether.
    pub total: usize,
    /// How many there is room for.
    pub room: usize,
}
