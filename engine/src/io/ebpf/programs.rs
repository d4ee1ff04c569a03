//! The programs in the kernel: loading, attaching, and trying a packet out on them. Takes CAP_BPF, CAP_PERFMON
//! and CAP_NET_ADMIN.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Map, MapData};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use nix::net::if_::if_nametoindex;

use super::attach::{self, Attachment, Hook};
use super::neighbours::Generations;
use super::shared::MapFds;
use super::{LoadError, OBJECT, features, handover};
use crate::ebpf::layout::{Config, Counter, Generation, NeighbourPlace, Slot};
use crate::ebpf::numbers::{DIRECTIONS, FLOWS};
use crate::stats::Direction;

/// How often a program is given to the kernel. It gives up with EAGAIN when the thread is to stop for a moment: in a group that is
/// frozen, on a machine that is suspended, under a tracer.
const ATTEMPTS: usize = 5;

/// Both programs and their maps. They go away with this, unless something still holds them: a descriptor of a map, an
/// [`Attachment`].
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    slots_per_table: usize,
    cpus: usize,
    tunnel: String,
}

/// What a program did with a packet that was tried out on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The verdict of the classifier.
    pub action: Action,
    /// The packet afterwards, with its link header.
    pub frame: Vec<u8>,
}

/// The verdict of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on as it is.
    Left,
    /// It is dropped.
    Dropped,
    /// It is carried.
    Carried,
}

impl Programs {
    /// Loads both, with room for `slots_per_table` entries in each of two generations, for the ISATAP interface of this name.
    ///
    /// # Errors
    /// [`LoadError`] says what is missing: clang when this was built, a privilege, a feature of the kernel.
    pub fn load(slots_per_table: u32, tunnel: &str) -> Result<Self, LoadError> {
        // Where there is no such interface packets are tried out at most.
        let index = if_nametoindex(tunnel).unwrap_or(0);
        Self::load_for(slots_per_table, tunnel, index)
    }

    /// The same for an interface of this index, which may have another name than `tunnel` by now: their filters go by that one.
    ///
    /// # Errors
    /// As [`Programs::load`].
    pub fn load_for(slots_per_table: u32, tunnel: &str, index: u32) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt(env!("ISATAP_BPF_MISSING")));
        }
        let cpus = possible_cpus()?;
        let slots = slots_per_table.next_power_of_two();
        let count = u32::try_from(cpus).unwrap_or(u32::MAX);
        let mut ebpf = EbpfLoader::new()
            // Nothing in the programs is to be fitted to this kernel's structures. (The loader has read what describes them by now, and
            // drops it here.)
            .btf(None)
            .override_global("tunnel", &index, true)
            .map_max_entries("isatap_slots", 2 * slots)
            .map_max_entries("isatap_counts", count)
            .map_max_entries("isatap_flows", count.saturating_mul(DIRECTIONS * FLOWS))
            .load(OBJECT)?;
        for name in Direction::ALL.map(name_of) {
            let loaded = verified(program(&mut ebpf, name)?);
            loaded.map_err(|error| features::explained(name, error))?;
        }
        let programs = Self {
            ebpf,
            slots_per_table: slots as usize,
            cpus,
            tunnel: tunnel.to_owned(),
        };
        programs.check_layout()?;
        programs.set_preemptible(is_preemptible())?;
        Ok(programs)
    }

    /// Descriptors of the maps, for whoever writes the rules and reads the counters.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn maps(&self) -> Result<MapFds, LoadError> {
        let fd = |name| -> Result<OwnedFd, LoadError> {
            let fd = self.map(name)?.fd().as_fd().try_clone_to_owned();
            fd.map_err(LoadError::Descriptor)
        };
        Ok(MapFds {
            generation: fd("isatap_gen")?,
            config: fd("isatap_config")?,
            slots: fd("isatap_slots")?,
            counters: fd("isatap_counts")?,
            neighbours: fd("isatap_neighbours")?,
            slots_per_table: self.slots_per_table,
            cpus: self.cpus,
        })
    }

    /// Whoever told the programs of neighbours is gone: they have the kernel find them, until somebody else tells of them.
    ///
    /// # Errors
    /// When the map cannot be mapped.
    pub fn revoke_neighbours(&self) -> Result<(), LoadError> {
        self.generations()?.revoke();
        Ok(())
    }

    /// Whoever wrote the rules is gone, and they hold no longer: all packets are left, until somebody else writes some.
    ///
    /// # Errors
    /// When the map cannot be mapped.
    pub fn revoke_rules(&self) -> Result<(), LoadError> {
        self.generations()?.begin(|now| now.active = 0);
        Ok(())
    }

    /// Says whether one packet may interrupt the work on another one. Whoever loads them knows that of the kernel; what they do then can be
    /// tried on any.
    ///
    /// # Errors
    /// When the map cannot be mapped.
    pub fn set_preemptible(&self, preemptible: bool) -> Result<(), LoadError> {
        self.generations()?.set_preemptible(preemptible);
        Ok(())
    }

    /// Whether somebody has written rules for the programs; until then they leave all packets.
    ///
    /// # Errors
    /// When the map cannot be mapped.
    pub fn have_rules(&self) -> Result<bool, LoadError> {
        Ok(self.generations()?.read().active != 0)
    }

    /// Puts the program of that direction into the place of one that was loaded before, in this process or another: each packet
    /// meets either, and none both.
    ///
    /// # Errors
    /// What the kernel says: that the device has gone, for one. The old program is detached then.
    pub fn replace(&mut self, old: Attachment) -> Result<Attachment, LoadError> {
        let program = program(&mut self.ebpf, name_of(old.direction()))?;
        handover::replace(program, old, &self.tunnel)
    }

    /// Attaches a program, behind those of others: decapsulation to the ingress of a device of the IPv4 network,
    /// encapsulation to the egress of the TUN interface.
    ///
    /// # Errors
    /// What the kernel says: no such device, for one.
    pub fn attach(&mut self, direction: Direction, device: &str) -> Result<Attachment, LoadError> {
        self.attach_by(attach::hook_at(direction, device)?, direction, device)
    }

    /// Attaches a program by a hook of the caller's choice.
    ///
    /// # Errors
    /// As [`Programs::attach`]; and the kernel may have no such hook.
    pub fn attach_by(
        &mut self,
        hook: Hook,
        direction: Direction,
        device: &str,
    ) -> Result<Attachment, LoadError> {
        let program = program(&mut self.ebpf, name_of(direction))?;
        attach::attach(program, hook, direction, device, &self.tunnel)
    }

    /// What a program does with a packet, without any device: `frame` begins with an Ethernet header to 00:00:00:00:00:00.
    /// Counters count it all the same.
    ///
    /// # Errors
    /// What the kernel says, of a frame shorter than that header for one.
    pub fn try_out(&mut self, direction: Direction, frame: &[u8]) -> Result<Tried, LoadError> {
        const TC_ACT_SHOT: u32 = 2;
        const TC_ACT_REDIRECT: u32 = 7;
        // Room for the headers that encapsulation adds.
        let mut out = vec![0; frame.len() + 64];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = program(&mut self.ebpf, name_of(direction))?.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            TC_ACT_SHOT => Action::Dropped,
            TC_ACT_REDIRECT => Action::Carried,
            _ => Action::Left,
        };
        Ok(Tried { action, frame: out })
    }

    fn generations(&self) -> Result<Generations, LoadError> {
        Generations::new(self.map("isatap_gen")?.fd().as_fd()).map_err(LoadError::Memory)
    }

    fn map(&self, name: &'static str) -> Result<&MapData, LoadError> {
        match self.ebpf.map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => Err(LoadError::Object(name)),
        }
    }

    /// The programs and we must mean the same bytes.
    fn check_layout(&self) -> Result<(), LoadError> {
        for (name, len) in [
            ("isatap_gen", size_of::<Generation>()),
            ("isatap_config", size_of::<Config>()),
            ("isatap_slots", size_of::<Slot>()),
            ("isatap_counts", Counter::ROW * 8),
            ("isatap_neighbours", size_of::<NeighbourPlace>()),
        ] {
            let info = self.map(name)?.info()?;
            if info.value_size() as usize != len {
                return Err(LoadError::Object(name));
            }
        }
        Ok(())
    }
}

pub(super) const fn name_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Decap => "isatap_decap",
        Direction::Encap => "isatap_encap",
    }
}

/// Has the kernel verify a program.
fn verified(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let is_interrupted = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error() == Some(libc::EAGAIN),
        _ => false,
    };
    let mut loaded = program.load();
    for _ in 1..ATTEMPTS {
        if !loaded.as_ref().is_err_and(is_interrupted) {
            break;
        }
        loaded = program.load();
    }
    loaded
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Object(name))?;
    Ok(program.try_into()?)
}

/// How many CPUs there may ever be; those that are configured, where a service manager hides what the kernel says of them.
fn possible_cpus() -> Result<usize, LoadError> {
    let configured = || {
        let count = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF).ok()??;
        usize::try_from(count).ok()
    };
    match aya::util::nr_cpus() {
        Ok(cpus) => Ok(cpus),
        Err((_, error)) => configured().ok_or(LoadError::Cpus(error)),
    }
}

/// Whether one packet may interrupt the work on another one (PREEMPT_RT, where the kernel allows that since Linux 6.18): then counters take
/// atomic additions, and what is remembered of a flow is one packet's at a time.
fn is_preemptible() -> bool {
    nix::sys::utsname::uname().is_ok_and(|names| names.version().to_string_lossy().contains("PREEMPT_RT"))
}
