//! The last layers of the engine's sandbox, entered when it has no power left: rules for files and ports, filters of system
//! calls; rings are restricted by the packet engine. The monitor has rules and filters of its own, which everything inherits.
//!
//! ```text
//!  monitor: privilege::confine_monitor -> landlock, seccomp of the monitor
//!  engine:  privilege::Sandbox -> landlock -> seccomp of the process -> threads, each with seccomp of its kind
//! ```
//!
//! A layer that cannot be entered ends the start, unless the configuration waives it (`SandboxWaive`): nobody has less of
//! a sandbox than he believes. A waived layer is not tried at all.

mod calls;
pub mod changes;
#[cfg(test)]
mod every_call;
pub mod files;
pub mod filters;
pub mod monitor;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use isatap_engine::io::lane::LaneKind;
use isatap_engine::io::restrict::{OPERATIONS, RingScope};

use crate::config::names::Key;
use crate::config::resolved::Layer;
use crate::exit::{ExitError, ExitStatus};
use crate::ops::status::{LayerStatus, SandboxStatus, ThreadsStatus};
use changes::Changes;
use files::FilesError;
use filters::{FilterError, Filters, ThreadKind};
use monitor::MonitorFilters;

/// What this process is confined to, and what its threads are still to enter.
#[derive(Clone, Debug)]
pub struct Confinement {
    waived: Vec<Layer>,
    /// Which Landlock it is.
    landlock: Option<String>,
    filters: Option<Arc<Filters>>,
}

impl Confinement {
    /// Enters the layers that are the whole process's, but for those that are waived. Files are read below `directories`
    /// only from now on. To be called while there is one thread.
    ///
    /// # Errors
    /// The layer that cannot be entered, why, and what helps. The process must end then.
    pub fn enter(waived: &[Layer], directories: &[BorrowedFd<'_>]) -> Result<Self, ExitError> {
        let is_wanted = |layer| !waived.contains(&layer);
        let landlock = is_wanted(Layer::Landlock)
            .then(|| files::enter(directories))
            .transpose()
            .map_err(|error| landlock_refused(&error))?;
        let filters = is_wanted(Layer::Seccomp)
            .then(|| {
                let filters = Filters::new()?;
                filters.enter_process()?;
                Ok(Arc::new(filters))
            })
            .transpose()
            .map_err(|error| seccomp_refused(&error))?;
        Ok(Self {
            waived: waived.to_vec(),
            landlock,
            filters,
        })
    }

    /// Enters what threads of this kind enter when they are set up.
    ///
    /// # Errors
    /// The layer that cannot be entered, and why. The process must end then.
    pub fn enter_thread(&self, kind: ThreadKind) -> Result<(), ExitError> {
        match &self.filters {
            Some(filters) => filters.enter(kind).map_err(|error| seccomp_refused(&error)),
            None => Ok(()),
        }
    }

    /// Enters what a worker of this lane enters.
    ///
    /// # Errors
    /// As [`Confinement::enter_thread`].
    pub fn enter_worker(&self, lane: LaneKind) -> Result<(), ExitError> {
        self.enter_thread(match lane {
            LaneKind::Uring => ThreadKind::UringWorker,
            LaneKind::Syscall => ThreadKind::SyscallWorker,
        })
    }

    /// What rings may be asked for; a machine whose rings cannot be restricted has none for the lane.
    pub fn ring(&self) -> RingScope {
        if self.waived.contains(&Layer::Ring) {
            RingScope::Anything
        } else {
            RingScope::Lane
        }
    }

    /// For people and programs, with the lane in use.
    pub fn status(&self, lane: LaneKind) -> SandboxStatus {
        let layers = Layer::ALL.into_iter().map(|layer| {
            let detail = match layer {
                _ if self.waived.contains(&layer) => format!("waived by {}", Key::SandboxWaive),
                Layer::Landlock => self.landlock.clone().unwrap_or_default(),
                Layer::Seccomp => "a filter for each kind of thread, and one for the monitor".to_owned(),
                Layer::Ring if lane == LaneKind::Uring => {
                    format!("{} operations on files of the lane", OPERATIONS.len())
                }
                Layer::Ring => "this lane has no ring".to_owned(),
            };
            LayerStatus {
                name: layer.name().to_owned(),
                waived: self.waived.contains(&layer),
                detail,
            }
        });
        let worker = match lane {
            LaneKind::Uring => ThreadKind::UringWorker,
            LaneKind::Syscall => ThreadKind::SyscallWorker,
        };
        let kinds = [ThreadKind::Control, worker, ThreadKind::Watch];
        let threads = kinds.map(|kind| ThreadsStatus {
            kind: kind.name().to_owned(),
            system_calls: self.filters.as_ref().map(|_| kind.allowed().len()),
            ring_operations: match (kind, self.ring()) {
                (ThreadKind::UringWorker, RingScope::Lane) => Some(OPERATIONS.len()),
                (ThreadKind::UringWorker, RingScope::Anything) => None,
                _ => Some(0),
            },
        });
        SandboxStatus {
            layers: layers.collect(),
            threads: threads.into(),
        }
    }
}

/// What a monitor is under, by marks that tell each from any other; 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Of the rules.
    pub rules: u64,
    /// Of the filters.
    pub filters: u64,
}

/// Enters the monitor's rules and filters, but for those that are waived and those of a predecessor that are the same; what is in
/// force then. It removes `files` at its end. To be called while there is one thread.
///
/// # Errors
/// They cannot be entered, why, and what helps. The process must end then.
pub fn enter_monitor(
    waived: &[Layer],
    has_programs: bool,
    files: &[&Path],
    inherited: Marks,
) -> Result<Marks, ExitError> {
    let mut marks = inherited;
    if !waived.contains(&Layer::Landlock) {
        let changes = Changes::new(files);
        if changes.mark() != inherited.rules {
            changes.enter().map_err(|error| landlock_refused(&error))?;
        }
        marks.rules = changes.mark();
    }
    if !waived.contains(&Layer::Seccomp) {
        let filters = MonitorFilters::new(has_programs).map_err(|error| seccomp_refused(&error))?;
        if filters.mark() != inherited.filters {
            filters.enter().map_err(|error| seccomp_refused(&error))?;
        }
        marks.filters = filters.mark();
    }
    Ok(marks)
}

fn landlock_refused(error: &FilesError) -> ExitError {
    match error {
        FilesError::Kernel(error) => refused(Layer::Landlock, status_of(error), error),
        FilesError::Unavailable(why) => refused(Layer::Landlock, ExitStatus::Unavailable, why),
        FilesError::Other(why) => refused(Layer::Landlock, ExitStatus::Other, why),
    }
}

fn seccomp_refused(error: &FilterError) -> ExitError {
    match error {
        FilterError::Kernel(error) => refused(Layer::Seccomp, status_of(error), error),
        FilterError::Unavailable(why) => refused(Layer::Seccomp, ExitStatus::Unavailable, why),
    }
}

fn status_of(error: &std::io::Error) -> ExitStatus {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => ExitStatus::NotPermitted,
        _ => ExitStatus::Unavailable,
    }
}

fn refused(layer: Layer, status: ExitStatus, why: impl std::fmt::Display) -> ExitError {
    let (name, key) = (layer.name(), Key::SandboxWaive);
    ExitError::new(status, format!("the sandbox has no {name}: {why}")).with_remedy(format!(
        "have the kernel, or the policy of the container, allow it; \"{key} {name}\" in the configuration does without"
    ))
}

/// Layers that this machine does not have, as far as can be seen without entering one, and why.
pub fn missing() -> Vec<(&'static str, String)> {
    let layers = [
        (
            Layer::Landlock,
            files::available().map_err(|error| error.to_string()),
        ),
        (
            Layer::Seccomp,
            filters::available().map_err(|error| error.to_string()),
        ),
    ];
    let missing = layers
        .into_iter()
        .filter_map(|(layer, found)| Some((layer, found.err()?)));
    missing
        .map(|(layer, why)| (layer.name(), format!("no {}: {why}", layer.name())))
        .collect()
}

/// What a log line says of layers that are waived; nothing when none is.
pub fn waived_words(waived: &[Layer]) -> Option<String> {
    let names: Vec<_> = waived.iter().map(|layer| layer.name()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the sandbox is without {}, as {} says",
            names.join(" and "),
            Key::SandboxWaive
        )
    })
}
