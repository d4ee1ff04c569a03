//! The programs of the `ebpf` lane: loaded and attached by whoever has the privilege, fed by whoever has the maps.
//!
//! | module | answers the question |
//! |---|---|
//! | [`programs`] | how do they get into the kernel? |
//! | [`attach`], `clsact` | how do they get to their devices? |
//! | [`handover`] | how do other programs get into their places? |
//! | [`features`] | what does this kernel lack for them? |
//! | [`shared`] | how do they get their rules, and we their counters? |
//! | [`neighbours`] | whom may they send frames to? |

pub mod attach;
mod clsact;
pub mod features;
pub mod handover;
pub mod neighbours;
pub mod programs;
pub mod shared;

pub use attach::{Attachment, Hook, filters_ingress, shapes_egress, sweep};
pub use features::{Features, Lacking};
pub use handover::{Filter, Place};
pub use neighbours::Neighbour;
pub use programs::{Action, Programs, Tried};
pub use shared::{MapFds, Shared};

use std::io;

/// The compiled programs; empty when this was built without them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ISATAP_BPF_OBJECT"));

/// Why the programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// They are not in this program.
    #[error("not built in: when this program was compiled {0}")]
    NotBuilt(&'static str),
    /// They are not what they should be: a fault of the build.
    #[error("the programs of the ebpf lane are damaged: {0}")]
    Object(&'static str),
    /// How many CPUs there may be is unknown.
    #[error("how many CPUs there may be cannot be read: {0}")]
    Cpus(io::Error),
    /// No descriptor is left.
    #[error("a descriptor for a map: {0}")]
    Descriptor(io::Error),
    /// No thread is left.
    #[error("a thread to load them: {0}")]
    Thread(io::Error),
    /// This process may not have the address space that they take.
    #[error(
        "this process may have {} MiB of address space, and they take up to {} while they are loaded; raise LimitAS= of the unit, or ulimit -v", .may_have >> 20, .take >> 20
    )]
    AddressSpace {
        /// The limit in force, in bytes.
        may_have: u64,
        /// What they take, in bytes.
        take: u64,
    },
    /// The kernel is too old, or was built without something.
    #[error("{0}: {1}")]
    Lacking(&'static str, Lacking),
    /// Maps cannot be mapped.
    #[error("the maps of the ebpf lane: {0}")]
    Memory(io::Error),
    /// A device cannot be asked about.
    #[error("{0}: {1}")]
    Device(String, io::Error),
    /// What would take filters for both ends is another thing.
    #[error("{0} has a queueing discipline of the kind '{1}' where clsact would be: take that away")]
    Occupied(String, String),
    /// The kernel refuses maps.
    #[error(transparent)]
    Load(#[from] aya::EbpfError),
    /// The kernel refuses a program, or to attach it.
    #[error("{}", brief(.0))]
    Program(#[from] aya::programs::ProgramError),
    /// The kernel does not show a map.
    #[error(transparent)]
    Map(#[from] aya::maps::MapError),
}

impl LoadError {
    /// There was no memory for a map: a smaller one may do.
    pub fn is_memory(&self) -> bool {
        use aya::EbpfError;
        use aya::maps::MapError;
        match self {
            Self::Load(EbpfError::MapError(MapError::CreateError { io_error, .. })) => {
                io_error.raw_os_error() == Some(libc::ENOMEM)
            }
            _ => false,
        }
    }
}

/// What the kernel says, with the end of its verifier's long log alone: that is where the reason is.
fn brief(error: &aya::programs::ProgramError) -> String {
    const LINES: usize = 4;
    let aya::programs::ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = &lines[lines.len().saturating_sub(LINES)..];
    format!("the kernel refuses a program ({io_error}): {}", end.join("; "))
}
