//! Programs of the `ebpf` lane on their way: the kernel takes longer to verify them than everything else at a start takes, so a
//! thread of its own has them loaded. The first engine starts meanwhile, and carries by workers.
//!
//! ```text
//!   monitor  interface, sockets, confined --- engine: carries ------------- is told of maps, serves
//!                                        \                               /
//!   thread                                load, verify, attach --- ends
//! ```
//!
//! The thread is under everything that the monitor is under, and gone before the daemon says that it serves.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};

use isatap_engine::io::ebpf::{Attachment, LoadError, MapFds};
use isatap_engine::worker::Shape;
use tracing::{info, warn};

use super::others::Lookout;
use super::programs::{self, Held};
use super::segmenters::SegmentersWatch;
use super::shaping::Shaping;
use crate::config::resolved::Lane;
use crate::exit::{ExitError, ExitStatus};
use crate::launch::address_space;

/// Address space in which programs can be loaded, in bytes. The monitor takes up to 151 MiB for it, most of them glibc's for the
/// thread; an engine takes 45 MiB, 15 for each worker, and 32 for the maps.
const ADDRESS_SPACE: u64 = 192 << 20;

/// What has become of them.
#[derive(Debug)]
pub enum Programs {
    /// A thread has them loaded.
    Coming(Loading),
    /// They are there.
    Here(Box<Here>),
    /// There are none; why, if the configuration would have it otherwise.
    Without(String),
}

/// Programs that are there.
#[derive(Debug)]
pub struct Here {
    /// They.
    pub held: Held,
    /// Their maps, for engines.
    pub maps: MapFds,
    /// Looks out for others who have a say about outer packets.
    pub lookout: Lookout,
    /// Looks at their traffic control.
    pub shaping: Shaping,
    /// Looks for devices that would cut what comes out of the tunnel wrongly.
    pub segmenters: SegmentersWatch,
    /// The operator asked for them by name, and so for packets that nobody else sees.
    pub insists: bool,
}

impl Here {
    /// Readable when somebody else may have a say about packets now, or no longer: about outer ones, or by traffic control.
    pub fn words_of_others(&self) -> [Option<BorrowedFd<'_>>; 3] {
        let [chains, policies] = self.lookout.words();
        [chains, policies, Some(self.shaping.word())]
    }
}

impl Programs {
    /// Has them loaded for the interface, as `lane` wants them; those of a monitor `before` stay until these have rules.
    ///
    /// # Errors
    /// As [`Otherwise::follow`], when there is no descriptor or no thread left to load them by.
    pub fn load(
        lane: Lane,
        shape: &Shape,
        before: Vec<Attachment>,
        otherwise: Otherwise,
    ) -> Result<Self, ExitError> {
        match Loading::start(lane, shape, before, otherwise) {
            Ok(loading) => Ok(Self::Coming(loading)),
            Err(error) => otherwise.follow(&shape.interface, &error),
        }
    }

    /// Those that are there.
    pub fn here(&self) -> Option<&Here> {
        match self {
            Self::Here(here) => Some(here),
            Self::Coming(_) | Self::Without(_) => None,
        }
    }

    /// Those that are there, to be changed.
    pub fn here_mut(&mut self) -> Option<&mut Here> {
        match self {
            Self::Here(here) => Some(here),
            Self::Coming(_) | Self::Without(_) => None,
        }
    }

    /// Those that are there, to be attached.
    pub fn held_mut(&mut self) -> Option<&mut Held> {
        self.here_mut().map(|here| &mut here.held)
    }
}

/// What follows when there are none to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// The start fails: the operator insists on them.
    Fail,
    /// Workers carry.
    Workers,
    /// Workers carry, whatever its start would have insisted on: the daemon runs, and was another program before.
    WorkersAgain,
}

impl Otherwise {
    /// Does that, for this reason.
    ///
    /// # Errors
    /// There have to be some.
    pub fn follow(self, interface: &str, error: &LoadError) -> Result<Programs, ExitError> {
        match self {
            Self::Fail => {
                let error = ExitError::new(
                    ExitStatus::Unavailable,
                    format!("the ebpf lane cannot be used: {error}"),
                );
                return Err(
                    error.with_remedy("choose another with Lane or --lane; auto takes it where it works")
                );
            }
            Self::Workers => info!("packets are carried by workers, without programs in the kernel: {error}"),
            Self::WorkersAgain => {
                warn!("workers carry all packets: {error}");
                // Where programs are attached by filters, those of before stay, with rules that nobody replaces any longer.
                programs::sweep(interface);
            }
        }
        Ok(Programs::Without(error.to_string()))
    }
}

/// A thread that has them loaded.
#[derive(Debug)]
pub struct Loading {
    /// What follows when it fails.
    pub otherwise: Otherwise,
    /// As [`Here::insists`].
    pub insists: bool,
    thread: JoinHandle<Result<Held, LoadError>>,
    ended: PipeReader,
}

impl Loading {
    /// Starts it; what it does is [`Held::load`].
    ///
    /// # Errors
    /// There is no room, or no descriptor or no thread left. Programs of a monitor `before` are detached then.
    fn start(
        lane: Lane,
        shape: &Shape,
        before: Vec<Attachment>,
        otherwise: Otherwise,
    ) -> Result<Self, LoadError> {
        require_room()?;
        let (ended, at_work) = pipe().map_err(LoadError::Descriptor)?;
        let shape = shape.clone();
        let thread = thread::Builder::new()
            .name("load-programs".into())
            .spawn(move || {
                // Closed at its end, whatever that is.
                let _at_work = at_work;
                Held::load(&shape, before)
            })
            .map_err(LoadError::Thread)?;
        Ok(Self {
            otherwise,
            insists: lane == Lane::Ebpf,
            thread,
            ended,
        })
    }

    /// Waits for its end, and says what came of it.
    ///
    /// # Errors
    /// As [`Held::load`].
    pub fn finish(self) -> Result<Held, LoadError> {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// An allocation that fails ends the process: where there may be no room for what loading allocates, it is not begun.
fn require_room() -> Result<(), LoadError> {
    match address_space::limit() {
        Some(may_have) if may_have < ADDRESS_SPACE => Err(LoadError::AddressSpace {
            may_have,
            take: ADDRESS_SPACE,
        }),
        _ => Ok(()),
    }
}

/// Readable at its end.
impl AsFd for Loading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}
