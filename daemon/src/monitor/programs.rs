//! The programs of the `ebpf` lane in the monitor's hands: loaded before power is given up, attached where the engine asks,
//! and there as long as the daemon is, whatever becomes of its engines.

use std::collections::BTreeMap;

use isatap_engine::io::ebpf::{Attachment, LoadError, MapFds, Programs};
use isatap_engine::stats::Direction;
use nix::libc;
use nix::net::if_::if_indextoname;
use nix::unistd::{SysconfVar, sysconf};
use tracing::{info, warn};

use crate::link::change::Devices;
use crate::link::plain::Word;

/// Entries of a generation: a quarter of them is used, by routes, routers, networks of the site and paths to peers
/// together. Two generations take 16 MiB of the kernel's memory ...
const SLOTS: u32 = 1 << 18;
/// ... or 4 MiB, on a machine with little memory, or in a group that is given little.
const FEWER_SLOTS: u32 = 1 << 16;
/// The memory of a machine that has enough for the larger table, in bytes.
const ENOUGH_MEMORY: u64 = 1 << 30;

/// Both programs. Dropping this detaches them.
#[derive(Debug)]
pub struct Held {
    programs: Programs,
    _at_tunnel: Attachment,
    at_devices: BTreeMap<u32, Attachment>,
    /// Of IPv4 addresses.
    word: Word,
}

impl Held {
    /// Loads both, tries them, and attaches the one for packets of the tunnel interface; without rules it leaves them all. Takes
    /// CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What is missing: clang when this was built, a privilege, a feature of the kernel.
    pub fn load(interface: &str) -> Result<Self, LoadError> {
        let mut programs = load(slots(memory_of_machine()), interface)?;
        programs.features()?.complete()?;
        let at_tunnel = programs.attach(Direction::Encap, interface)?;
        Ok(Self {
            programs,
            _at_tunnel: at_tunnel,
            at_devices: BTreeMap::new(),
            word: Word::of(libc::RTMGRP_IPV4_IFADDR).map_err(LoadError::Descriptor)?,
        })
    }

    /// The maps, for engines.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn maps(&self) -> Result<MapFds, LoadError> {
        self.programs.maps()
    }

    /// Whether it is at this device.
    pub fn is_at(&self, index: u32) -> bool {
        self.at_devices.contains_key(&index)
    }

    /// Word of IPv4 addresses, by which devices get and lose their right to programs.
    pub fn word(&self) -> &Word {
        &self.word
    }

    /// The engine is gone, and with it who listens to the kernel about neighbours: packets go on, by the kernel's own tables.
    pub fn revoke_neighbours(&self) {
        if let Err(error) = self.programs.revoke_neighbours() {
            warn!("programs in the kernel may send to neighbours of before: {error}");
        }
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
            if self.is_at(index) {
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

/// With so many slots, or with fewer when there is no memory for as many.
fn load(slots: u32, interface: &str) -> Result<Programs, LoadError> {
    match Programs::load(slots, interface) {
        Err(error) if error.is_memory() && slots > FEWER_SLOTS => {
            let programs = Programs::load(FEWER_SLOTS, interface)?;
            info!(
                "the ebpf lane has room for {} entries: there is no memory for {}",
                FEWER_SLOTS / 4,
                slots / 4
            );
            Ok(programs)
        }
        loaded => loaded,
    }
}

/// How many for a machine with so many bytes of memory; unknown ones are enough.
fn slots(memory: Option<u64>) -> u32 {
    if memory.is_some_and(|bytes| bytes < ENOUGH_MEMORY) {
        FEWER_SLOTS
    } else {
        SLOTS
    }
}

fn memory_of_machine() -> Option<u64> {
    let value = |name| u64::try_from(sysconf(name).ok()??).ok();
    Some(value(SysconfVar::_PHYS_PAGES)? * value(SysconfVar::PAGE_SIZE)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_has_a_small_table() {
        assert_eq!(slots(Some(256 << 20)), FEWER_SLOTS);
        assert_eq!(slots(Some(2 << 30)), SLOTS);
        assert_eq!(slots(None), SLOTS);
        assert!(memory_of_machine().is_some_and(|bytes| bytes > 16 << 20));
    }

    /// FAULTS 67: the kernel says that there is no memory, and a smaller table does.
    #[test]
    fn what_there_is_no_memory_for_is_made_smaller() {
        /// As many as can be asked for: both generations are 64 GiB.
        const TOO_MANY: u32 = 1 << 30;
        if memory_of_machine().is_none_or(|bytes| bytes >= 64 << 30) {
            eprintln!("not tried: this machine might have room for them");
            return;
        }
        let refused = Programs::load(TOO_MANY, "is0").map(|_| ());
        assert!(refused.as_ref().is_err_and(LoadError::is_memory), "{refused:?}");
        let loaded = load(TOO_MANY, "is0").and_then(|programs| programs.maps());
        assert_eq!(loaded.unwrap().slots_per_table, FEWER_SLOTS as usize);
    }
}
