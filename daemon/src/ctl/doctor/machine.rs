//! Traps of the kernel and the container: what they allow, before any packet.

use super::checks::running;
use super::sight::{NeighbourTable, Sight, is_on};
use super::{Finding, Grade};
use crate::ctl::share;

const EBPF: &str = "ebpf lane";

/// What rings of many workers need where the kernel counts them as locked memory: before 5.12, and measured with 6.18.
const MEMLOCK_WANTED: u64 = 8 << 20;

/// A daemon that runs got what it needs.
pub(super) fn capabilities(sight: &Sight) -> Option<Finding> {
    if running(sight).is_some() {
        return None;
    }
    Some(if sight.capabilities_missing.is_empty() {
        Finding::fine("capabilities", "the daemon can get what it needs")
    } else {
        Finding::new(
            Grade::Obstacle,
            "capabilities",
            format!(
                "nothing started here can get {}",
                sight.capabilities_missing.join(", ")
            ),
            "in a container, --cap-add each; in a unit, CapabilityBoundingSet= as in the shipped one",
        )
    })
}

pub(super) fn tun(sight: &Sight) -> Option<Finding> {
    Some(match &sight.tun {
        Ok(()) => Finding::fine("/dev/net/tun", "can be opened"),
        // The daemon opened it before it gave up its privileges.
        Err(why) if running(sight).is_some() => Finding::new(
            Grade::Note,
            "/dev/net/tun",
            format!("{why}, but the daemon has it"),
            "",
        ),
        Err(why) => Finding::new(
            Grade::Obstacle,
            "/dev/net/tun",
            why.as_str(),
            "modprobe tun; in a container, pass the device in (--device /dev/net/tun)",
        ),
    })
}

pub(super) fn uring(sight: &Sight) -> Option<Finding> {
    Some(match &sight.uring {
        Ok(how) => Finding::fine("io_uring", how.as_str()),
        Err(why) => Finding::new(
            Grade::Warning,
            "io_uring",
            why.as_str(),
            "the syscall lane carries instead; for this one, sysctl kernel.io_uring_disabled=0, or a container policy that allows it",
        ),
    })
}

/// Whether the kernel carries packets itself, or why workers do.
pub(super) fn ebpf(sight: &Sight) -> Option<Finding> {
    let Some(status) = running(sight) else {
        return Some(match sight.ebpf.as_ref()? {
            Ok(how) => Finding::fine(EBPF, how.as_str()),
            Err(why) => Finding::new(
                Grade::Note,
                EBPF,
                why.as_str(),
                "workers carry all packets instead",
            ),
        });
    };
    let programs = &status.programs;
    let found = share::summary(status)?;
    let carries_all = programs.carries.encap && programs.carries.decap && programs.obstacles.is_empty();
    Some(if carries_all {
        Finding::fine(EBPF, format!("the programs {found}"))
    } else if programs.loaded {
        Finding::new(
            Grade::Note,
            EBPF,
            format!("the programs {found}"),
            "workers carry what the kernel does not; isatapctl explain says so for one packet, isatapctl workers for all",
        )
    } else {
        Finding::new(Grade::Note, EBPF, found, "workers carry all packets instead")
    })
}

/// What GRO has merged is marked as tunnelled, and stays so when the programs take the header off: they leave what is forwarded to a device
/// that cuts tunnelled packets itself.
pub(super) fn segmentation(sight: &Sight) -> Option<Finding> {
    let decap = running(sight)?.programs.carries.decap;
    if !decap || sight.forwarding.as_deref() != Some("1") {
        return None;
    }
    let hardware = sight.tools.hardware.iter();
    let cutting: Vec<_> = hardware
        .filter(|(_, features)| is_on(features, "tx-ipxip4-segmentation"))
        .map(|(name, _)| name.as_str())
        .collect();
    if cutting.is_empty() {
        return None;
    }
    Some(Finding::new(
        Grade::Note,
        "segmentation",
        format!(
            "superpackets out of the tunnel that are forwarded by {} are left to workers: it would cut them as tunnelled ones",
            cutting.join(", ")
        ),
        "ethtool -K DEVICE tx-ipxip4-segmentation off for each: the kernel cuts them, and the programs carry them",
    ))
}

pub(super) fn memlock(sight: &Sight) -> Option<Finding> {
    let limit = sight.memlock.filter(|limit| *limit < MEMLOCK_WANTED)?;
    Some(Finding::new(
        Grade::Note,
        "locked memory",
        format!("the daemon may lock {} KiB", limit / 1024),
        "kernels before 5.12, and again those of today, count the rings of all processes of a user as locked memory: LimitMEMLOCK=64M in the unit",
    ))
}

/// What the kernel has no room for is not sent; a router has as many neighbours as there are hosts on its own IPv4 networks.
pub(super) fn neighbours(sight: &Sight) -> Option<Finding> {
    let NeighbourTable {
        entries,
        limit,
        refused,
    } = sight.neighbours?;
    let found = match refused {
        0 => format!("the kernel knows {entries} of IPv4 and has room for {limit}"),
        _ => format!(
            "the kernel knows {entries} of IPv4 and has room for {limit}; {refused} time(s) there was none since the machine started"
        ),
    };
    let is_full = entries * 5 >= limit * 4;
    Some(if refused == 0 && !is_full {
        Finding::fine("neighbours", found)
    } else {
        // The count stays until the machine is started anew, whatever was done about it.
        let grade = if is_full { Grade::Warning } else { Grade::Note };
        let room = limit.max(entries).saturating_mul(4);
        Finding::new(
            grade,
            "neighbours",
            found,
            format!(
                "packets to those without room are lost; if the table is full, or that number grows: sysctl -w net.ipv4.neigh.default.gc_thresh3={room} net.ipv4.neigh.default.gc_thresh2={}, and in /etc/sysctl.d to keep it",
                room / 2
            ),
        )
    })
}

/// FAULTS 71: what the engine is confined by; before a start, what would keep it from one.
pub(super) fn sandbox(sight: &Sight) -> Option<Finding> {
    let Some(status) = running(sight) else {
        let (layer, why) = sight.missing_layers.first()?;
        return Some(Finding::new(
            Grade::Obstacle,
            "sandbox",
            why.as_str(),
            format!("have the kernel, or the container's policy, allow it; or SandboxWaive {layer}"),
        ));
    };
    let layers = &status.sandbox.layers;
    let waived: Vec<_> = layers
        .iter()
        .filter(|layer| layer.waived)
        .map(|layer| layer.name.as_str())
        .collect();
    let in_force = layers
        .iter()
        .filter(|layer| !layer.waived)
        .map(|layer| format!("{} ({})", layer.name, layer.detail));
    if layers.is_empty() {
        None
    } else if waived.is_empty() {
        Some(Finding::fine("sandbox", in_force.collect::<Vec<_>>().join(", ")))
    } else {
        Some(Finding::new(
            Grade::Warning,
            "sandbox",
            format!("without {}", waived.join(", ")),
            "SandboxWaive names them: take out what this machine does not refuse",
        ))
    }
}

/// Lifetimes are counted by a clock that nobody sets; what people compare by its time is not.
pub(super) fn clock(sight: &Sight) -> Option<Finding> {
    Some(if sight.clock_is_plausible {
        Finding::fine("clock", "not before this program was made")
    } else {
        Finding::new(
            Grade::Warning,
            "clock",
            "it shows a time before this program was made: times of logs and captures are wrong",
            "timedatectl set-ntp true, or date -s; what the daemon does with packets and lifetimes does not depend on it",
        )
    })
}
