//! The two places lines go to: standard error, and the datagram socket of the system log (RFC 3164).
//!
//! No time stamp: every receiver of the local socket (journald, rsyslog, syslog-ng, busybox) puts its own, and ours
//! would need the time zone, which is outside the chroot.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tracing::Level;

use super::Destination;
use crate::config::diagnostic::shown;
use crate::config::resolved::Facility;

/// The socket of the system log.
pub const DEFAULT_SYSLOG_SOCKET: &str = "/dev/log";

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    console: Console,
    syslog: Option<Syslog>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    Everything,
    /// While the launcher's terminal is still there.
    Warnings,
    Nothing,
}

impl Sink {
    pub(super) fn open(destination: Destination) -> (Self, Option<String>) {
        match destination {
            Destination::Console => (
                Self {
                    console: Console::Everything,
                    syslog: None,
                },
                None,
            ),
            Destination::Syslog(facility) => {
                Self::open_syslog(Path::new(DEFAULT_SYSLOG_SOCKET), facility, true)
            }
        }
    }

    pub(super) fn open_syslog(path: &Path, facility: Facility, console: bool) -> (Self, Option<String>) {
        let (syslog, complaint) = Syslog::open(path, facility);
        let console = if console {
            Console::Warnings
        } else {
            Console::Nothing
        };
        (
            Self {
                console,
                syslog: Some(syslog),
            },
            complaint,
        )
    }

    pub(super) fn write(&mut self, level: Level, line: &str) {
        let to_console = match self.console {
            Console::Everything => true,
            Console::Warnings => level <= Level::WARN,
            Console::Nothing => false,
        };
        if to_console {
            // One write a line, so that lines of several processes do not mix; a closed terminal is no reason to panic.
            let _ = std::io::stderr().write_all(format!("isatapd: {}: {line}\n", word(level)).as_bytes());
        }
        self.write_syslog(level, line);
    }

    pub(super) fn write_syslog(&mut self, level: Level, line: &str) {
        if let Some(syslog) = &mut self.syslog {
            syslog.write(level, line);
        }
    }

    pub(super) fn set_facility(&mut self, facility: Facility) {
        if let Some(syslog) = &mut self.syslog {
            syslog.facility = facility;
        }
    }

    pub(super) fn reopen(&mut self) -> std::io::Result<()> {
        self.syslog.as_mut().map_or(Ok(()), Syslog::connect)
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// Severity (RFC 3164 4.1.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Held while the current directory is not the root.
static CURRENT_DIR: Mutex<()> = Mutex::new(());

#[derive(Debug)]
struct Syslog {
    socket: Option<UnixDatagram>,
    facility: Facility,
    /// The directory of the socket, with links followed, and its name there: the way back to it from the chroot.
    place: Option<(OwnedFd, OsString)>,
    /// Lines that could not be sent since the last one that could.
    lost: u64,
}

impl Syslog {
    fn open(path: &Path, facility: Facility) -> (Self, Option<String>) {
        // journald's socket is a link from /dev to /run, and absolute: it leads nowhere in the chroot.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let place = match (real.parent(), real.file_name()) {
            (Some(dir), Some(name)) => open(dir, flags, Mode::empty())
                .ok()
                .map(|dir| (dir, name.to_owned())),
            _ => None,
        };
        let mut syslog = Self {
            socket: None,
            facility,
            place,
            lost: 0,
        };
        let socket = datagram_to(&real);
        let complaint = socket.as_ref().err().map(|error| {
            format!(
                "no system log at {} ({error}): lines are lost until SIGUSR2 finds one",
                shown(path)
            )
        });
        syslog.socket = socket.ok();
        (syslog, complaint)
    }

    /// Connects again, through the directory kept open.
    fn connect(&mut self) -> std::io::Result<()> {
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

    fn write(&mut self, level: Level, line: &str) {
        if self.lost > 0 {
            let notice = format!(
                "{} lines were lost here: the system log did not take them",
                self.lost
            );
            if self.send(Level::WARN, &notice) {
                self.lost = 0;
            }
        }
        if !self.send(level, line) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn send(&mut self, level: Level, line: &str) -> bool {
        let Some(socket) = &self.socket else { return false };
        let priority = u16::from(self.facility.number()) * 8 + u16::from(severity(level));
        let message = format!("<{priority}>isatapd[{}]: {line}", std::process::id());
        match socket.send(message.as_bytes()) {
            Ok(_) => true,
            // Full: the log is slower than we are. It is not waited for.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            // Restarted: its new socket has the old name.
            Err(_) => {
                self.connect().is_ok()
                    && self
                        .socket
                        .as_ref()
                        .is_some_and(|it| it.send(message.as_bytes()).is_ok())
            }
        }
    }
}

fn datagram_to(path: &Path) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(log: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = log.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn line(priority: u8, text: &str) -> String {
        format!("<{priority}>isatapd[{}]: {text}", std::process::id())
    }

    #[test]
    fn a_system_log_that_comes_goes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut sink, complaint) = Sink::open_syslog(&path, Facility::DAEMON, false);
        let expected = format!(
            "no system log at {} (No such file or directory (os error 2)): lines are lost until SIGUSR2 finds one",
            path.display()
        );
        assert_eq!(complaint, Some(expected));
        sink.write(Level::INFO, "lost");
        sink.write(Level::INFO, "lost too");
        assert!(sink.reopen().is_err());

        let log = UnixDatagram::bind(&path).unwrap();
        sink.reopen().unwrap();
        sink.write(Level::INFO, "first");
        assert_eq!(
            heard(&log),
            line(28, "2 lines were lost here: the system log did not take them")
        );
        assert_eq!(heard(&log), line(30, "first"));

        // Restarted: nobody tells us.
        drop(log);
        std::fs::remove_file(&path).unwrap();
        let log = UnixDatagram::bind(&path).unwrap();
        sink.write(Level::ERROR, "second");
        assert_eq!(heard(&log), line(27, "second"));

        sink.set_facility(Facility::from_name("local7").unwrap());
        sink.write(Level::DEBUG, "third");
        assert_eq!(heard(&log), line(191, "third"));
        sink.write_syslog(Level::ERROR, "fourth");
        assert_eq!(heard(&log), line(187, "fourth"));
    }

    #[test]
    fn a_log_that_takes_nothing_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _log = UnixDatagram::bind(&path).unwrap();
        let (mut sink, _) = Sink::open_syslog(&path, Facility::DAEMON, false);
        for _ in 0..10_000 {
            sink.write(Level::INFO, "nobody reads this");
        }
        assert!(sink.syslog.unwrap().lost > 0);
    }

    #[test]
    fn a_link_is_followed_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let log = UnixDatagram::bind(real.join("socket")).unwrap();
        let link = dir.path().join("log");
        std::os::unix::fs::symlink(real.join("socket"), &link).unwrap();
        let (mut sink, complaint) = Sink::open_syslog(&link, Facility::DAEMON, false);
        assert_eq!(complaint, None);
        std::fs::remove_file(&link).unwrap();
        sink.reopen().unwrap();
        sink.write(Level::INFO, "found");
        assert_eq!(heard(&log), line(30, "found"));
    }
}
