//! Why the engine cannot start, in words that name the object and the remedy.

use std::io;

/// A failure while descriptors are opened or workers started.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The TUN device node cannot be opened.
    #[error(
        "cannot open /dev/net/tun: {source}{}",
        remedy(source, "; run as root or with CAP_NET_ADMIN")
    )]
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
    #[error(
        "cannot {action} a raw socket for IPv4 protocol 41: {source}{}",
        remedy(source, "; CAP_NET_RAW is needed")
    )]
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
    /// The kernel gives no thread for a worker.
    #[error(
        "no thread for worker {worker}: {source}; raise TasksMax= and LimitNPROC= of the unit (LimitAS=, where it has one), or ulimit -u (-v), or have fewer Workers"
    )]
    Thread {
        /// Its number.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
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

/// What to do about an error of opening something; `privilege` is what to do when it was refused.
fn remedy(source: &io::Error, privilege: &'static str) -> &'static str {
    const NO_DRIVER: [i32; 3] = [libc::ENOENT, libc::ENODEV, libc::ENXIO];
    match source.raw_os_error() {
        Some(libc::EMFILE) => "; raise LimitNOFILE= of the unit, or ulimit -n",
        Some(libc::ENFILE) => "; raise sysctl fs.file-max",
        Some(errno) if NO_DRIVER.contains(&errno) => "; modprobe tun, or pass the device into the container",
        _ if source.kind() == io::ErrorKind::PermissionDenied => privilege,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_the_error() {
        let socket = |errno| SetupError::Socket {
            action: "open",
            source: io::Error::from_raw_os_error(errno),
        };
        let device = |errno| SetupError::TunDevice {
            source: io::Error::from_raw_os_error(errno),
        };
        for (error, says) in [
            (socket(libc::EPERM), Some("CAP_NET_RAW")),
            (socket(libc::EMFILE), Some("LimitNOFILE")),
            (socket(libc::ENFILE), Some("fs.file-max")),
            (socket(libc::ENOMEM), None),
            (device(libc::EPERM), Some("CAP_NET_ADMIN")),
            (device(libc::ENOENT), Some("modprobe tun")),
            (device(libc::EMFILE), Some("LimitNOFILE")),
        ] {
            let told = error.to_string();
            match says {
                Some(says) => assert!(told.contains(says), "{told}"),
                None => assert!(!told.contains(';'), "{told}"),
            }
        }
    }
}
