//! Attachments that go to another process, with the programs that are there; and other programs put into their places.
//!
//! A TCX link goes by its descriptor, and stays as long as either side holds it. A filter of a `clsact` stays by itself, so that it is
//! enough to say where it is. Either way the kernel takes the new program for the old one at once: each packet meets one of them.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::programs::SchedClassifier;
use aya::programs::tc::{SchedClassifierLink, TcHandle};

use super::LoadError;
use super::attach::{Added, Attachment, Link, end_of, handle_of};
use crate::io::device::name_of;
use crate::stats::Direction;

/// Where a program is. The descriptor of its link goes along, unless it is a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the programs.
    pub direction: Direction,
    /// The interface index of the device.
    pub device: u32,
    /// The filter that it is, where the kernel has no TCX.
    pub filter: Option<Filter>,
}

/// A filter of a `clsact` queueing discipline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority.
    pub priority: u16,
    /// The queueing discipline was added for it, and goes with it.
    pub added: bool,
}

impl Attachment {
    /// Where it is, for another process to take it over: that has it from when it takes it, whatever becomes of this one.
    ///
    /// # Errors
    /// `InvalidData` for a filter that does not know its own priority, which none of ours does not.
    pub fn place(&self) -> io::Result<(Place, Option<BorrowedFd<'_>>)> {
        let (filter, fd) = match &self.link {
            Link::Tcx(fd) => (None, Some(fd.as_fd())),
            Link::Clsact(filter, added) => {
                let priority = filter
                    .priority()
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                let added = added.is_some();
                (Some(Filter { priority, added }), None)
            }
        };
        let place = Place {
            direction: self.direction,
            device: self.device,
            filter,
        };
        Ok((place, fd))
    }

    /// Takes over what another process had for the tunnel of this name: it is this one's to detach from now on.
    ///
    /// # Errors
    /// `InvalidInput` when the descriptor of a link is missing; what the kernel says when a device has gone.
    pub fn taken(place: Place, link: Option<OwnedFd>, tunnel: &str) -> io::Result<Self> {
        let link = match place.filter {
            None => Link::Tcx(link.ok_or(io::ErrorKind::InvalidInput)?),
            Some(filter) => {
                let device = place.device;
                let added = filter.added.then_some(Added { device });
                Link::Clsact(filter_at(place, filter.priority, tunnel)?, added)
            }
        };
        Ok(Self {
            direction: place.direction,
            device: place.device,
            link,
        })
    }
}

fn filter_at(place: Place, priority: u16, tunnel: &str) -> io::Result<SchedClassifierLink> {
    let name = name_of(place.device)?;
    let handle = TcHandle::from(handle_of(tunnel));
    SchedClassifierLink::attached(&name, end_of(place.direction), priority, handle, None)
}

/// Puts `program` into the place of the one that is attached there; no packet passes between the two. If that fails neither is there.
pub(super) fn replace(
    program: &mut SchedClassifier,
    old: Attachment,
    tunnel: &str,
) -> Result<Attachment, LoadError> {
    let failed = |error| LoadError::Device(format!("device {}", old.device), error);
    match &old.link {
        Link::Tcx(link) => update(link, program.fd()?.as_fd()).map_err(failed)?,
        Link::Clsact(..) => {
            let (place, _) = old.place().map_err(failed)?;
            let priority = place.filter.map_or(0, |filter| filter.priority);
            let same = filter_at(place, priority, tunnel).map_err(failed)?;
            let id = program.attach_to_link(same)?;
            // There are two handles to one filter now, and each would detach it.
            std::mem::forget(program.take_link(id)?);
        }
    }
    Ok(old)
}

/// `BPF_LINK_UPDATE` of bpf(2) for a link that `aya` has not made: it takes none by its descriptor.
fn update(link: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    /// Of `enum bpf_cmd` (linux/bpf.h).
    const BPF_LINK_UPDATE: libc::c_int = 29;
    /// The part of `union bpf_attr` that it takes.
    #[repr(C)]
    struct LinkUpdate {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attributes = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the kernel reads as many bytes of our structure as we say it has, and keeps no pointer to it.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_UPDATE,
            &raw mut attributes,
            size_of::<LinkUpdate>(),
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
