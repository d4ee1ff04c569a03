//! The programs of the `ebpf` lane in the monitor's hands: loaded at its start ([`super::loading`]), attached where the engine
//! asks, and there as long as the daemon is, whatever becomes of its engines.
//!
//! After an upgrade those of the monitor before are still there, and carry by the last rules of its engine. Ours are put into
//! their places when they have rules themselves, whoever of our engines comes to write some first.

use std::collections::BTreeMap;
use std::time::Duration;

use isatap_engine::io::device::name_of;
use isatap_engine::io::ebpf::{Attachment, Hook, LoadError, MapFds, Programs, filters_ingress};
use isatap_engine::stats::Direction;
use isatap_engine::worker::Shape;

use nix::libc;
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

/// How soon after programs are detached their memory is free: the kernel waits until nobody can be in them.
const LET_GO: Duration = Duration::from_millis(100);

/// Both programs. Dropping this detaches them.
#[derive(Debug)]
pub struct Held {
    programs: Programs,
    /// Index of the tunnel interface.
    tunnel: u32,
    at_tunnel: Option<Spot>,
    at_devices: BTreeMap<u32, Spot>,
    /// Of IPv4 addresses.
    word: Word,
}

/// Where a program is.
#[derive(Debug)]
enum Spot {
    /// One of ours.
    Ours(Attachment),
    /// One of the monitor before.
    Before(Attachment),
}

impl Spot {
    fn attachment(&self) -> &Attachment {
        match self {
            Self::Ours(attachment) | Self::Before(attachment) => attachment,
        }
    }
}

impl Held {
    /// Loads both, tries them, and attaches the one for packets of the tunnel interface, unless that of the monitor `before` is there;
    /// without rules it leaves them all. Takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What is missing: clang when this was built, a privilege, a feature of the kernel. Those of before are detached then.
    pub fn load(shape: &Shape, mut before: Vec<Attachment>) -> Result<Self, LoadError> {
        let mut programs = load(slots(memory_of_machine()), shape, &mut before)?;
        programs.features()?.complete()?;
        let (mut at_tunnel, mut at_devices) = (None, BTreeMap::new());
        for attachment in before {
            match attachment.direction() {
                Direction::Encap => at_tunnel = Some(Spot::Before(attachment)),
                Direction::Decap => {
                    at_devices.insert(attachment.device(), Spot::Before(attachment));
                }
            }
        }
        if at_tunnel.is_none() {
            at_tunnel = Some(Spot::Ours(attach(
                &mut programs,
                Direction::Encap,
                shape.if_index,
            )?));
        }
        Ok(Self {
            programs,
            tunnel: shape.if_index,
            at_tunnel,
            at_devices,
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

    /// Where programs are, for the monitor that takes over.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        let spots = self.at_tunnel.iter().chain(self.at_devices.values());
        spots.map(Spot::attachment)
    }

    /// The devices of the IPv4 network where a program is.
    pub fn devices(&self) -> Devices {
        let mut devices = Devices::default();
        for (place, index) in devices.iter_mut().zip(self.at_devices.keys()) {
            *place = *index;
        }
        devices
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

    /// The engine is gone, and with it who would have them step back: all packets wait for the next one.
    pub fn revoke_rules(&self) {
        if let Err(error) = self.programs.revoke_rules() {
            warn!("programs in the kernel carry by rules of before: {error}");
        }
    }

    /// Attaches the program that takes outer headers off to `devices`, and to no others. Where it is already it stays.
    ///
    /// # Errors
    /// The devices where it cannot be, in words; it is at the others.
    pub fn attach_to(&mut self, devices: &Devices) -> Result<(), String> {
        let wanted = || devices.iter().copied().filter(|index| *index != 0);
        self.at_devices.retain(|index, _| wanted().any(|it| it == *index));
        self.exchange();
        let mut failures = Vec::new();
        if self.at_tunnel.is_none() {
            match attach(&mut self.programs, Direction::Encap, self.tunnel) {
                Ok(attachment) => self.at_tunnel = Some(Spot::Ours(attachment)),
                Err(error) => failures.push(format!("{}: {error}", shown(self.tunnel))),
            }
        }
        for index in wanted() {
            if self.is_at(index) {
                continue;
            }
            match attach(&mut self.programs, Direction::Decap, index) {
                Ok(attachment) => drop(self.at_devices.insert(index, Spot::Ours(attachment))),
                Err(error) => failures.push(format!("{}: {error}", shown(index))),
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures.join("; "))
        }
    }

    /// Puts programs behind the filters of others at their devices, which TCX comes before; whether all that are there are ours, or else
    /// it is to be asked for again.
    pub fn go_behind_filters(&mut self) -> bool {
        let is_before = |spot: &Spot| spot.attachment().hook() == Hook::Tcx;
        let behind = self.at_devices.iter().filter(|(index, spot)| {
            matches!(spot, Spot::Ours(_)) && is_before(spot) && filters_ingress(**index).unwrap_or(false)
        });
        for index in behind.map(|(index, _)| *index).collect::<Vec<_>>() {
            // The one of before goes when the other is there: no packet passes between the two.
            match attach(&mut self.programs, Direction::Decap, index) {
                Ok(attachment) => {
                    self.at_devices.insert(index, Spot::Ours(attachment));
                    info!("the program at {} goes behind the filters there", shown(index));
                }
                Err(error) => {
                    warn!(
                        "the program at {} stays before the filters of others: {error}",
                        shown(index)
                    );
                }
            }
        }
        self.at_devices.values().all(|spot| matches!(spot, Spot::Ours(_)))
    }

    /// Puts our programs into the places of those of the monitor before, if an engine has written rules for them. Where that
    /// fails there is none afterwards, so that whoever asks for one has it attached.
    pub fn exchange(&mut self) {
        let spots = || self.at_tunnel.iter().chain(self.at_devices.values());
        let of_before = spots().filter(|spot| matches!(spot, Spot::Before(_))).count();
        if of_before == 0 || !self.programs.have_rules().unwrap_or(true) {
            return;
        }
        let programs = &mut self.programs;
        let mut ours = |spot| match spot {
            Spot::Before(old) => match programs.replace(old) {
                Ok(new) => Some(Spot::Ours(new)),
                Err(error) => {
                    warn!("a program of before is taken away, and none put into its place: {error}");
                    None
                }
            },
            Spot::Ours(_) => Some(spot),
        };
        self.at_tunnel = self.at_tunnel.take().and_then(&mut ours);
        let at_devices = std::mem::take(&mut self.at_devices).into_iter();
        self.at_devices = at_devices
            .filter_map(|(index, spot)| Some((index, ours(spot)?)))
            .collect();
        info!("programs in the kernel are exchanged, at {of_before} device(s)");
    }
}

/// With so many slots, or with fewer when there is no memory for as many; sooner without those of before.
fn load(slots: u32, shape: &Shape, before: &mut Vec<Attachment>) -> Result<Programs, LoadError> {
    match Programs::load_for(slots, &shape.interface, shape.if_index) {
        Err(error) if error.is_memory() && !before.is_empty() => {
            info!(
                "there is no memory for programs beside those of before: workers carry until these have rules"
            );
            before.clear();
            std::thread::sleep(LET_GO);
            load(slots, shape, before)
        }
        Err(error) if error.is_memory() && slots > FEWER_SLOTS => {
            let programs = Programs::load_for(FEWER_SLOTS, &shape.interface, shape.if_index)?;
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

fn attach(programs: &mut Programs, direction: Direction, index: u32) -> Result<Attachment, LoadError> {
    let name = name_of(index).map_err(|error| LoadError::Device(index.to_string(), error))?;
    programs.attach(direction, &name)
}

fn shown(index: u32) -> String {
    name_of(index).unwrap_or_else(|_| format!("device {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn a_small_machine_has_a_small_table() {
        assert_eq!(slots(Some(256 << 20)), FEWER_SLOTS);
        assert_eq!(slots(Some(2 << 30)), SLOTS);
        assert_eq!(slots(None), SLOTS);
        assert!(memory_of_machine().is_some_and(|bytes| bytes > 16 << 20));
    }

    /// As many as can be asked for: both generations are 64 GiB.
    const TOO_MANY: u32 = 1 << 30;

    fn made_as(interface: &str, if_index: u32) -> Shape {
        Shape {
            interface: interface.to_owned(),
            if_index,
            key: 0,
            udp_offload: false,
            steered: false,
        }
    }

    fn might_have_room() -> bool {
        let might = memory_of_machine().is_none_or(|bytes| bytes >= 64 << 30);
        if might {
            eprintln!("not tried: this machine might have room for them");
        }
        might
    }

    /// FAULTS 67: the kernel says that there is no memory, and a smaller table does.
    #[test]
    fn what_there_is_no_memory_for_is_made_smaller() {
        if might_have_room() {
            return;
        }
        let refused = Programs::load(TOO_MANY, "is0").map(|_| ());
        assert!(refused.as_ref().is_err_and(LoadError::is_memory), "{refused:?}");
        let loaded = load(TOO_MANY, &made_as("is0", 0), &mut Vec::new()).and_then(|programs| programs.maps());
        assert_eq!(loaded.unwrap().slots_per_table, FEWER_SLOTS as usize);
    }

    /// FAULTS 67: where there is no memory for both, those of a monitor before make room; where there is they stay.
    #[test]
    fn those_of_before_go_where_there_is_no_memory_for_both() {
        if might_have_room() {
            return;
        }
        // A loopback device that nobody else uses.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let shape = made_as("lo", nix::net::if_::if_nametoindex("lo").unwrap());
        let mut old = Programs::load(64, "lo").unwrap();
        let mut before = vec![old.attach(Direction::Encap, "lo").unwrap()];
        let loaded = load(64, &shape, &mut before).unwrap();
        assert_eq!(loaded.maps().unwrap().slots_per_table, 64);
        assert_eq!(before.len(), 1);
        let loaded = load(TOO_MANY, &shape, &mut before).unwrap();
        assert_eq!(loaded.maps().unwrap().slots_per_table, FEWER_SLOTS as usize);
        assert!(before.is_empty());
    }
}
