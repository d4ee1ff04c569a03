//! The kernel's share: what the programs of the `ebpf` lane have counted, and whether they carry now, as plain numbers.

use isatap_engine::io::ebpf::Shared;
use isatap_engine::stats::{Direction, DirectionSnapshot, Latencies};

/// Both directions.
#[derive(Clone, Debug, Default)]
pub struct KernelShare {
    /// TUN to IPv4.
    pub encap: DirectionShare,
    /// IPv4 to TUN.
    pub decap: DirectionShare,
    /// How long packets took in the programs, of one in 256, since these were loaded.
    pub latencies: Latencies,
    /// Which generation of the rules is in force; 0 before the first.
    pub generation: u32,
    /// Which generation of the neighbours is in force.
    pub neighbour_generation: u32,
    /// Neighbours that the programs send frames to themselves.
    pub neighbours: usize,
    /// Names of the devices where packets from the IPv4 network come to the programs.
    pub devices: Vec<String>,
    /// Why packets are left to the workers, one sentence each.
    pub obstacles: Vec<String>,
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub struct DirectionShare {
    /// What was carried and dropped.
    pub traffic: DirectionSnapshot,
    /// What was left to workers, by cause in the order of [`isatap_engine::ebpf::Cause::ALL`].
    pub left: Vec<u64>,
    /// The kernel carries by the rules in force.
    pub carries: bool,
}

impl KernelShare {
    /// What the maps say; devices and obstacles are for others to add.
    pub fn read(shared: &Shared) -> Self {
        let read = |direction| DirectionShare {
            traffic: shared.snapshot(direction),
            left: shared.left(direction),
            carries: shared.carries(direction),
        };
        Self {
            encap: read(Direction::Encap),
            decap: read(Direction::Decap),
            latencies: shared.latencies(),
            generation: shared.generation(),
            neighbour_generation: shared.neighbour_generation(),
            neighbours: shared.neighbours(),
            ..Self::default()
        }
    }

    /// One direction.
    pub fn direction(&self, direction: Direction) -> &DirectionShare {
        match direction {
            Direction::Encap => &self.encap,
            Direction::Decap => &self.decap,
        }
    }
}
