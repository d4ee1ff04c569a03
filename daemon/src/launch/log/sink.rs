//! The places lines go to: standard error, the system log, the journal.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::Level;

use super::Destination;
use super::journal::{DEFAULT_JOURNAL_SOCKET, Journal};
use super::record::Record;
use super::syslog::{DEFAULT_SYSLOG_SOCKET, Syslog};
use crate::config::resolved::Facility;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    console: Console,
    /// Lines that standard error did not take since the last one that it did.
    lost: u64,
    log: Option<Log>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    Everything,
    /// While the launcher's terminal is still there.
    Warnings,
    Nothing,
}

#[derive(Debug)]
enum Log {
    Syslog(Syslog),
    Journal(Journal),
}

impl Sink {
    pub(super) fn open(destination: Destination) -> (Self, Option<String>) {
        match destination {
            Destination::Console => (Self::console(), None),
            Destination::Syslog(facility) => {
                Self::open_syslog(Path::new(DEFAULT_SYSLOG_SOCKET), facility, true)
            }
            Destination::Journal(facility) => Self::open_journal(Path::new(DEFAULT_JOURNAL_SOCKET), facility),
        }
    }

    fn console() -> Self {
        Self {
            console: Console::Everything,
            lost: 0,
            log: None,
        }
    }

    pub(super) fn open_syslog(path: &Path, facility: Facility, console: bool) -> (Self, Option<String>) {
        let (syslog, complaint) = Syslog::open(path, facility);
        let console = if console {
            Console::Warnings
        } else {
            Console::Nothing
        };
        let sink = Self {
            console,
            lost: 0,
            log: Some(Log::Syslog(syslog)),
        };
        (sink, complaint)
    }

    /// Standard error leads to the journal as well, and stands in when its own socket is not there.
    pub(super) fn open_journal(path: &Path, facility: Facility) -> (Self, Option<String>) {
        match Journal::open(path, facility) {
            Ok(journal) => {
                let sink = Self {
                    console: Console::Nothing,
                    lost: 0,
                    log: Some(Log::Journal(journal)),
                };
                (sink, None)
            }
            Err(error) => {
                let complaint = format!(
                    "the journal gets text without fields: {}: {error}",
                    path.display()
                );
                (Self::console(), Some(complaint))
            }
        }
    }

    pub(super) fn write(&mut self, record: &Record) {
        let to_console = match self.console {
            Console::Everything => true,
            Console::Warnings => record.level <= Level::WARN,
            Console::Nothing => false,
        };
        if to_console {
            self.print(record);
        }
        match &mut self.log {
            Some(Log::Syslog(syslog)) => syslog.write(record),
            Some(Log::Journal(journal)) => journal.write(record),
            None => {}
        }
    }

    /// To standard error, which is not waited for either: its reader may stand still (a terminal after Ctrl-S, a log whose disk is full),
    /// and everything else would stand still with it.
    fn print(&mut self, record: &Record) {
        if self.lost > 0 && takes_a_line() {
            let text = format!(
                "{} lines were lost here: standard error did not take them",
                self.lost
            );
            print(&Record::plain(Level::WARN, &text));
            self.lost = 0;
        }
        if takes_a_line() {
            print(record);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Writes where nobody reads standard error.
    pub(super) fn write_syslog(&mut self, record: &Record) {
        if let Some(Log::Syslog(syslog)) = &mut self.log {
            syslog.write(record);
        }
    }

    pub(super) fn set_facility(&mut self, facility: Facility) {
        match &mut self.log {
            Some(Log::Syslog(syslog)) => syslog.set_facility(facility),
            Some(Log::Journal(journal)) => journal.set_facility(facility),
            None => {}
        }
    }

    pub(super) fn reopen(&mut self) -> std::io::Result<()> {
        match &mut self.log {
            Some(Log::Syslog(syslog)) => syslog.reopen(),
            Some(Log::Journal(journal)) => journal.reopen(),
            None => Ok(()),
        }
    }
}

/// Whether standard error takes a line now: a pipe that can be written to takes 4096 bytes, and no line has so many. What else is wrong
/// with it, writing finds out.
fn takes_a_line() -> bool {
    let stderr = std::io::stderr();
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut polled, PollTimeout::ZERO) != Ok(0)
}

fn print(record: &Record) {
    let line = format!("isatapd: {}: {}\n", word(record.level), record.line());
    // One write a line, so that lines of several processes do not mix; a closed terminal is no reason to panic.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn heard(log: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = log.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn line(priority: u8, text: &str) -> String {
        format!("<{priority}>isatapd[{}]: {text}", std::process::id())
    }

    fn write(sink: &mut Sink, level: Level, text: &str) {
        sink.write(&Record::plain(level, text));
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
        write(&mut sink, Level::INFO, "lost");
        write(&mut sink, Level::INFO, "lost too");
        assert!(sink.reopen().is_err());

        let log = UnixDatagram::bind(&path).unwrap();
        sink.reopen().unwrap();
        write(&mut sink, Level::INFO, "first");
        assert_eq!(
            heard(&log),
            line(28, "2 lines were lost here: the system log did not take them")
        );
        assert_eq!(heard(&log), line(30, "first"));

        // Restarted: nobody tells us.
        drop(log);
        std::fs::remove_file(&path).unwrap();
        let log = UnixDatagram::bind(&path).unwrap();
        write(&mut sink, Level::ERROR, "second");
        assert_eq!(heard(&log), line(27, "second"));

        sink.set_facility(Facility::from_name("local7").unwrap());
        write(&mut sink, Level::DEBUG, "third");
        assert_eq!(heard(&log), line(191, "third"));
        sink.write_syslog(&Record::plain(Level::ERROR, "fourth"));
        assert_eq!(heard(&log), line(187, "fourth"));
    }

    #[test]
    fn a_log_that_takes_nothing_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _log = UnixDatagram::bind(&path).unwrap();
        let (mut sink, _) = Sink::open_syslog(&path, Facility::DAEMON, false);
        for _ in 0..10_000 {
            write(&mut sink, Level::INFO, "nobody reads this");
        }
        let Some(Log::Syslog(syslog)) = &sink.log else {
            panic!("a system log was opened");
        };
        assert!(syslog.lost() > 0);
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
        write(&mut sink, Level::INFO, "found");
        assert_eq!(heard(&log), line(30, "found"));
    }

    #[test]
    fn without_a_journal_standard_error_stands_in() {
        let (sink, complaint) = Sink::open_journal(Path::new("/nonexistent/socket"), Facility::DAEMON);
        assert_eq!(sink.console, Console::Everything);
        assert!(complaint.unwrap().contains("/nonexistent/socket"));
    }
}
