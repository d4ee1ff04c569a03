//! The datagram socket of a log that may be restarted: connected before the change of root, and found again afterwards
//! through its directory, which is kept open.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Held while the current directory is not the root.
static CURRENT_DIR: Mutex<()> = Mutex::new(());

/// A way to a log.
#[derive(Debug)]
pub(super) struct LogSocket {
    socket: Option<UnixDatagram>,
    /// The directory of the socket, with links followed, and its name there: the way back to it from the chroot.
    place: Option<(OwnedFd, OsString)>,
    /// Lines that could not be sent since the last one that could.
    lost: u64,
}

impl LogSocket {
    /// Finds the socket, whether anybody listens there now or not; the error of the connection comes along.
    pub(super) fn open(path: &Path) -> (Self, std::io::Result<()>) {
        // journald's socket is a link from /dev to /run, and absolute: it leads nowhere in the chroot.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let place = match (real.parent(), real.file_name()) {
            (Some(dir), Some(name)) => open(dir, flags, Mode::empty())
                .ok()
                .map(|dir| (dir, name.to_owned())),
            _ => None,
        };
        let (socket, outcome) = match datagram_to(&real) {
            Ok(socket) => (Some(socket), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let log = Self {
            socket,
            place,
            lost: 0,
        };
        (log, outcome)
    }

    /// Connects again, through the directory kept open.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn connect(&mut self) -> std::io::Result<()> {
        let Some((dir, name)) = &self.place else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        // There is no connectat(2). Nothing else in this process uses relative paths, so the current directory is free.
        let _one_at_a_time = CURRENT_DIR.lock().unwrap_or_else(PoisonError::into_inner);
        nix::unistd::fchdir(dir)?;
        let socket = datagram_to(Path::new(name));
        nix::unistd::chdir("/")?;
        self.socket = Some(socket?);
        Ok(())
    }

    /// Sends a line, and before it what `notice` says about those that could not be sent. Never waits.
    pub(super) fn write(&mut self, line: &[u8], notice: impl FnOnce(u64) -> Vec<u8>) {
        if self.lost > 0 && self.send(&notice(self.lost)) {
            self.lost = 0;
        }
        if !self.send(line) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn send(&mut self, line: &[u8]) -> bool {
        let Some(socket) = &self.socket else { return false };
        match socket.send(line) {
            Ok(_) => true,
            // Full: the log is slower than we are. It is not waited for.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            // Restarted: its new socket has the old name.
            Err(_) => self.connect().is_ok() && self.socket.as_ref().is_some_and(|it| it.send(line).is_ok()),
        }
    }

    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

/// What is said about lines that were lost.
pub(super) fn lost_notice(count: u64) -> String {
    format!("{count} lines were lost here: the system log did not take them")
}

fn datagram_to(path: &Path) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
