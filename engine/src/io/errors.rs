//! Why the engine cannot start, in words that name the object and the remedy.

use std::io;

/// A failure while descriptors are opened or workers started.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The TUN device node cannot be opened.
    #[error("cannot open /dev/net/tun: {source}; load the tun module, and run as root or with CAP_NET_ADMIN")]
    TunDevice {
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface name is in use.
    #[error("interface {name} exists already; stop its owner, or choose another InterfaceName")]
    InterfaceTaken {
        /// The name.
        name: String,
    },
    /// The name cannot be an interface's.
    #[error("`{name}` cannot be an interface name: 1 to 15 bytes without `/`, `:`, `%` or blanks")]
    InterfaceName {
        /// The name.
        name: String,
    },
    /// An operation on the interface failed.
    #[error("cannot {action} interface {name}: {source}")]
    Interface {
        /// The name.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A protocol-41 socket cannot be made.
    #[error("cannot {action} a raw socket for IPv4 protocol 41: {source}; CAP_NET_RAW is needed")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The chosen lane does not work on this machine.
    #[error("lane `{lane}` is not available: {reason}; `--lane auto` takes what works here")]
    Lane {
        /// Which lane.
        lane: &'static str,
        /// What is missing.
        reason: String,
    },
    /// A worker could not start.
    #[error("worker {worker} cannot start: {reason}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What went wrong.
        reason: String,
    },
}

impl SetupError {
    /// Whether the caller lacks a privilege, rather than the machine a feature.
    pub fn is_permission(&self) -> bool {
        let source = match self {
            Self::TunDevice { source } | Self::Interface { source, .. } | Self::Socket { source, .. } => {
                source
            }
            _ => return false,
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}
