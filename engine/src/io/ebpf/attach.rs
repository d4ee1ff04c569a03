//! Programs at their devices: by TCX, or where the kernel has none (before Linux 6.6), as filters of a `clsact` queueing discipline.
//!
//! Either way they come behind the programs and filters of others that are there by then, as far as those pass packets on: TCX comes before all filters, so that ours
//! are filters as well where others have some. TCX detaches a program when the last
//! process that holds its [`Attachment`] ends (or has been handed it, see [`super::handover`]); a filter stays, so that whoever attaches for the same tunnel again finds
//! the one that a crash has left, and replaces it in place: no packet passes between the two. A tunnel is known by the name of
//! its interface, since two may share a device.

use std::io;
use std::os::fd::OwnedFd;

use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{Link as _, MultiProgLink as _, ProgramError, SchedClassifier, TcAttachType};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::{LoadError, clsact};
use crate::io::device::name_of;
use crate::stats::Direction;

/// Priorities of our filters, the first that is free of filters of another kind: behind all that the kernel chooses.
const PRIORITIES: std::ops::RangeInclusive<u16> = 0xfff0..=0xffff;

/// The kernel's ways to have a program see each packet of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TCX (Linux 6.6): links that go away with their holder.
    Tcx,
    /// A filter of a `clsact` queueing discipline: it stays until somebody takes it away.
    Clsact,
}

/// One program at one device; it is detached when this is dropped, in the network namespace of the thread that does it.
///
/// A `clsact` that we have added goes as well, unless somebody else has a filter there by then.
#[derive(Debug)]
pub struct Attachment {
    pub(super) direction: Direction,
    /// Its interface index.
    pub(super) device: u32,
    pub(super) link: Link,
}

/// What holds it there.
#[derive(Debug)]
pub(super) enum Link {
    Tcx(OwnedFd),
    // Dropped in this order.
    Clsact(SchedClassifierLink, Option<Added>),
}

/// A `clsact` of ours.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) device: u32,
}

impl Attachment {
    /// How it is attached.
    pub fn hook(&self) -> Hook {
        match self.link {
            Link::Tcx(_) => Hook::Tcx,
            Link::Clsact(..) => Hook::Clsact,
        }
    }

    /// The interface index of the device.
    pub fn device(&self) -> u32 {
        self.device
    }

    /// The direction of its packets.
    pub fn direction(&self) -> Direction {
        self.direction
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        // The device may have gone; an empty one does no harm.
        let _ = clsact::remove_if_empty(self.device);
    }
}

impl Hook {
    /// The one to use: TCX if the kernel has it. It is asked what is attached to `lo` that way.
    ///
    /// # Errors
    /// When it does not answer: CAP_NET_ADMIN is missing, for one.
    pub fn of_the_kernel() -> Result<Self, LoadError> {
        match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
            Ok(_) => Ok(Self::Tcx),
            Err(error) if errno(&error) == Some(Errno::EINVAL) => Ok(Self::Clsact),
            Err(error) => Err(error.into()),
        }
    }
}

/// The way to attach at a device: that of the kernel, unless somebody has filters for what comes in there. (What goes out is that of an
/// interface of ours.)
///
/// # Errors
/// As [`Hook::of_the_kernel`].
pub(super) fn hook_at(direction: Direction, device: &str) -> Result<Hook, LoadError> {
    let hook = Hook::of_the_kernel()?;
    let has_filters = || if_nametoindex(device).is_ok_and(|index| filters_ingress(index).unwrap_or(false));
    let is_behind = hook == Hook::Tcx && direction == Direction::Decap && has_filters();
    Ok(if is_behind { Hook::Clsact } else { hook })
}

/// Whether others have filters for what comes in at a device, of this interface index.
///
/// # Errors
/// When the kernel does not say: no such device, for one.
pub fn filters_ingress(device: u32) -> io::Result<bool> {
    let [(_, ingress), _] = clsact::BOTH_ENDS;
    has_foreign(device, ingress)
}

/// Whether others shape or filter what goes out by a device, of this interface index: by a queueing discipline that somebody chose, or
/// filters.
///
/// # Errors
/// When the kernel does not say.
pub fn shapes_egress(device: u32) -> io::Result<bool> {
    let [_, (_, egress)] = clsact::BOTH_ENDS;
    Ok(clsact::is_chosen(device)? || has_foreign(device, egress)?)
}

fn has_foreign(device: u32, parent: u32) -> io::Result<bool> {
    let found = clsact::filters(device, parent)?;
    Ok(found.iter().any(|(priority, _)| !PRIORITIES.contains(priority)))
}

/// Takes away the filters that a process has left without detaching them, for the tunnel of this name, at whatever device of this
/// network namespace; where there were any. For a start, before anything is attached: what such a filter redirects to an
/// interface that has gone is lost. Takes CAP_NET_ADMIN.
///
/// # Errors
/// When the kernel does not say what there is.
pub fn sweep(tunnel: &str) -> io::Result<Vec<String>> {
    let kinds = match clsact::kinds() {
        // A kernel without queueing disciplines.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        kinds => kinds?,
    };
    let ours = handle_of(tunnel);
    let mut swept = Vec::new();
    for (index, _) in kinds {
        // It may go meanwhile, and its filters with it.
        let Ok(device) = name_of(index) else {
            continue;
        };
        let mut gone = 0;
        for (end, parent) in clsact::BOTH_ENDS {
            let filters = clsact::filters(index, parent).unwrap_or_default().into_iter();
            for (priority, _) in
                filters.filter(|(priority, handle)| PRIORITIES.contains(priority) && *handle == ours)
            {
                let link = SchedClassifierLink::attached(&device, end, priority, ours.into(), None)?;
                // A filter of another kind by chance: that stays.
                gone += usize::from(link.detach().is_ok());
            }
        }
        if gone > 0 {
            swept.push(device);
        }
    }
    Ok(swept)
}

/// Attaches `program` to `device`, for the tunnel of this name.
pub(super) fn attach(
    program: &mut SchedClassifier,
    hook: Hook,
    direction: Direction,
    device: &str,
    tunnel: &str,
) -> Result<Attachment, LoadError> {
    let index = if_nametoindex(device).map_err(|error| LoadError::Device(device.to_owned(), error.into()))?;
    let end = end_of(direction);
    let link = match hook {
        Hook::Tcx => {
            let last = TcAttachOptions::TcxOrder(LinkOrder::last());
            let id = program.attach_with_options(device, end, last)?;
            let link = program.take_link(id)?;
            let fd = link.fd().map_err(|_| LoadError::Object("links"))?;
            Link::Tcx(fd.try_clone_to_owned().map_err(LoadError::Descriptor)?)
        }
        Hook::Clsact => {
            let added = add_clsact(device, index, direction)?;
            Link::Clsact(add_filter(program, end, device, tunnel)?, added)
        }
    };
    Ok(Attachment {
        direction,
        device: index,
        link,
    })
}

pub(super) const fn end_of(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Decap => TcAttachType::Ingress,
        Direction::Encap => TcAttachType::Egress,
    }
}

/// Sees to it that there is one.
fn add_clsact(device: &str, index: u32, direction: Direction) -> Result<Option<Added>, LoadError> {
    match tc::qdisc_add_clsact(device) {
        Ok(()) => Ok(Some(Added { device: index })),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            let kind = clsact::kind(index).map_err(|error| LoadError::Device(device.to_owned(), error))?;
            // The older `ingress` would take a filter for the egress, and have it see what comes in.
            if direction == Direction::Encap && kind.as_deref() != Some("clsact") {
                return Err(LoadError::Occupied(device.to_owned(), kind.unwrap_or_default()));
            }
            Ok(None)
        }
        Err(error) => Err(ProgramError::from(error).into()),
    }
}

/// Adds the filter of this tunnel, or puts it in the place of the one that was left behind.
fn add_filter(
    program: &mut SchedClassifier,
    end: TcAttachType,
    device: &str,
    tunnel: &str,
) -> Result<SchedClassifierLink, LoadError> {
    let handle = TcHandle::from(handle_of(tunnel));
    let mut refused = None;
    for priority in PRIORITIES.rev() {
        let options = NlOptions {
            priority,
            handle,
            classid: None,
        };
        let attached = program.attach_with_options(device, end, TcAttachOptions::Netlink(options));
        let error = match attached {
            Ok(id) => return Ok(program.take_link(id)?),
            Err(error) => error,
        };
        match errno(&error) {
            Some(Errno::EEXIST) => {
                let old = SchedClassifierLink::attached(device, end, priority, handle, None);
                let old = old.map_err(|error| LoadError::Device(device.to_owned(), error))?;
                let id = program.attach_to_link(old)?;
                return Ok(program.take_link(id)?);
            }
            // Filters of another kind are there.
            Some(Errno::EINVAL) => refused = Some(error),
            _ => return Err(error.into()),
        }
    }
    Err(refused.map_or(LoadError::Object("priorities"), Into::into))
}

/// What tells the filters of our tunnels apart: FNV-1a of the name. 0 would have the kernel choose.
pub(super) fn handle_of(tunnel: &str) -> u32 {
    let hash = tunnel.bytes().fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.max(1)
}

fn errno(error: &ProgramError) -> Option<Errno> {
    let code = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    };
    code.map(Errno::from_raw)
}
