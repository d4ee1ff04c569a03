//! The programs of the `ebpf` lane in the monitor's hands: loaded before power is given up, attached where the engine asks,
//! and there as long as the daemon is, whatever becomes of its engines.

use std::collections::BTreeMap;

use isatap_engine::io::ebpf::{Attachment, LoadError, MapFds, Programs};
use isatap_engine::stats::Direction;
use nix::net::if_::if_indextoname;
use tracing::{info, warn};

use crate::link::change::Devices;

/// Entries of a generation: a quarter of them is used, by routes, routers, networks of the site and paths to peers
/// together. Two generations take 6 MiB of the kernel's memory.
const SLOTS: u32 = 1 << 16;

/// Both programs. Dropping this detaches them.
#[derive(Debug)]
pub struct Held {
    programs: Programs,
    _at_tunnel: Attachment,
    at_devices: BTreeMap<u32, Attachment>,
}

impl Held {
    /// Loads both, tries them, and attaches the one for packets of the tunnel interface; without rules it leaves them all. Takes
    /// CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What is missing: clang when this was built, a privilege, a feature of the kernel.
    pub fn load(interface: &str) -> Result<Self, LoadError> {
        let mut programs = Programs::load(SLOTS, interface)?;
        programs.features()?.complete()?;
        let at_tunnel = programs.attach(Direction::Encap, interface)?;
        Ok(Self {
            programs,
            _at_tunnel: at_tunnel,
            at_devices: BTreeMap::new(),
        })
    }

    /// The maps, for engines.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn maps(&self) -> Result<MapFds, LoadError> {
        self.programs.maps()
    }

    /// Attaches the program that takes outer headers off to `devices`, and to no others. Where it is already it stays.
    ///
    /// # Errors
    /// The devices where it cannot be, in words; it is at the others.
    pub fn attach_to(&mut self, devices: &Devices) -> Result<(), String> {
        let wanted = || devices.iter().copied().filter(|index| *index != 0);
        self.at_devices.retain(|index, _| wanted().any(|it| it == *index));
        let mut failures = Vec::new();
        for index in wanted() {
            if self.at_devices.contains_key(&index) {
                continue;
            }
            match attach(&mut self.programs, index) {
                Ok(attachment) => drop(self.at_devices.insert(index, attachment)),
                Err(why) => failures.push(why),
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures.join("; "))
        }
    }
}

/// Takes away what a monitor that was killed has left attached for this tunnel (only where the kernel has no TCX), so that
/// workers read what comes in.
pub fn sweep(interface: &str) {
    match isatap_engine::io::ebpf::sweep(interface) {
        Ok(devices) if devices.is_empty() => {}
        Ok(devices) => info!(
            "filters of a daemon that was killed are taken away: {}",
            devices.join(", ")
        ),
        Err(error) => warn!("filters of a daemon that was killed may be left: {error}"),
    }
}

fn attach(programs: &mut Programs, index: u32) -> Result<Attachment, String> {
    let name = if_indextoname(index).map_err(|errno| format!("device {index}: {}", errno.desc()))?;
    let name = name.to_string_lossy();
    let attached = programs.attach(Direction::Decap, &name);
    attached.map_err(|error| format!("device {name}: {error}"))
}
