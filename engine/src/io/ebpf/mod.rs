//! The programs of the `ebpf` lane: loaded and attached by whoever has the privilege, fed by whoever has the maps.
//!
//! | module | answers the question |
//! |---|---|
//! | [`programs`] | how do they get into the kernel, and to their devices? |
//! | [`shared`] | how do they get their rules, and we their counters? |
//! | `mapping` | where in memory is that? |

mod mapping;
pub mod programs;
pub mod shared;

pub use programs::{Action, Attachment, Programs, Tried};
pub use shared::{MapFds, Shared};

use std::io;

/// The compiled programs; empty when this was built without them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ISATAP_BPF_OBJECT"));

/// Why the programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// They are not in this program.
    #[error("not built in: {0} when this program was compiled")]
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
    /// The kernel refuses maps.
    #[error(transparent)]
    Load(#[from] aya::EbpfError),
    /// The kernel refuses a program, or to attach it.
    #[error(transparent)]
    Program(#[from] aya::programs::ProgramError),
    /// The kernel does not show a map.
    #[error(transparent)]
    Map(#[from] aya::maps::MapError),
}
