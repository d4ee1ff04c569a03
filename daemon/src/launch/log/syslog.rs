//! The system log: one datagram a line (RFC 3164).
//!
//! No time stamp: every receiver of the local socket (journald, rsyslog, syslog-ng, busybox) puts its own, and ours
//! would need the time zone, which is outside the chroot.

use std::path::Path;

use tracing::Level;

use super::record::Record;
use super::socket::{LogSocket, lost_notice};
use crate::config::diagnostic::shown;
use crate::config::resolved::Facility;

/// The socket of the system log.
pub const DEFAULT_SYSLOG_SOCKET: &str = "/dev/log";

/// Severity (RFC 3164 4.1.1).
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// An open system log.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: LogSocket,
    facility: Facility,
}

impl Syslog {
    pub(super) fn open(path: &Path, facility: Facility) -> (Self, Option<String>) {
        let (socket, outcome) = LogSocket::open(path);
        let complaint = outcome.err().map(|error| {
            format!(
                "no system log at {} ({error}): lines are lost until SIGUSR2 finds one",
                shown(path)
            )
        });
        (Self { socket, facility }, complaint)
    }

    pub(super) fn set_facility(&mut self, facility: Facility) {
        self.facility = facility;
    }

    pub(super) fn reopen(&mut self) -> std::io::Result<()> {
        self.socket.connect()
    }

    pub(super) fn write(&mut self, record: &Record) {
        let facility = self.facility;
        self.socket
            .write(&datagram(facility, record.level, &record.line()), |count| {
                datagram(facility, Level::WARN, &lost_notice(count))
            });
    }

    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.socket.lost()
    }
}

fn datagram(facility: Facility, level: Level, line: &str) -> Vec<u8> {
    let priority = u16::from(facility.number()) * 8 + u16::from(severity(level));
    format!("<{priority}>isatapd[{}]: {line}", std::process::id()).into_bytes()
}
