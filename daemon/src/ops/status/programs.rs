//! The part of the status about the programs of the `ebpf` lane.

use std::collections::BTreeMap;

use isatap_engine::ebpf::Cause;
use isatap_engine::stats::Direction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Traffic;
use crate::ops::share::KernelShare;

/// The programs of the `ebpf` lane, and the kernel's share of the packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgramsStatus {
    /// They are in the kernel.
    pub loaded: bool,
    /// What is in the way of carrying packets by them, one sentence each: why there are none although the configuration would
    /// have them, or why some or all packets are left to the workers.
    pub obstacles: Vec<String>,
    /// By the rules in force, packets of the direction are carried by the kernel.
    pub carries: CarriesStatus,
    /// The devices where packets from the IPv4 network come to them.
    pub devices: Vec<String>,
    /// Which generation of the rules is in force; 0 before the first.
    pub generation: u32,
    /// Packets of the kernel's own: carried, or dropped. Counted since the programs were loaded, over restarts of the engine.
    pub traffic: Traffic,
    /// Packets that were left to a worker, which counts them as its own.
    pub left: LeftStatus,
}

/// Whether the kernel carries, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CarriesStatus {
    /// TUN to IPv4.
    pub encap: bool,
    /// IPv4 to TUN.
    pub decap: bool,
}

/// Packets left to workers, by cause; causes that never happened are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftStatus {
    /// TUN to IPv4.
    pub encap: BTreeMap<String, u64>,
    /// IPv4 to TUN.
    pub decap: BTreeMap<String, u64>,
}

impl ProgramsStatus {
    /// Without programs, and why if the configuration would have them.
    pub fn none(why: &str) -> Self {
        let obstacles = [why].into_iter().filter(|why| !why.is_empty());
        Self {
            obstacles: obstacles.map(str::to_owned).collect(),
            ..Self::default()
        }
    }
}

impl From<&KernelShare> for ProgramsStatus {
    fn from(share: &KernelShare) -> Self {
        let left = |direction| {
            let counts = Cause::ALL.iter().zip(&share.direction(direction).left);
            let counts = counts.map(|(cause, count)| (cause.name().to_owned(), *count));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            loaded: true,
            obstacles: share.obstacles.clone(),
            carries: CarriesStatus {
                encap: share.encap.carries,
                decap: share.decap.carries,
            },
            devices: share.devices.clone(),
            generation: share.generation,
            traffic: Traffic {
                encap: (&share.encap.traffic).into(),
                decap: (&share.decap.traffic).into(),
            },
            left: LeftStatus {
                encap: left(Direction::Encap),
                decap: left(Direction::Decap),
            },
        }
    }
}
