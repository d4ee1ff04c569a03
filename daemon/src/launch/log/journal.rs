//! The journal of systemd, in its own form: each value of an event is a field that `journalctl` can select by.
//!
//! ```text
//!  journalctl -u isatapd ISATAPD_ROUTER=10.0.0.1        everything about one router
//!  journalctl -u isatapd -p warning -o verbose          with every field
//! ```
//!
//! `tracing-journald` finds the socket by its path for every event, and the path is outside the chroot; ours stays open.

use std::os::fd::AsFd as _;
use std::path::Path;

use tracing::Level;

use super::record::Record;
use super::socket::{LogSocket, lost_notice};
use super::syslog::severity;
use crate::config::resolved::Facility;

/// Where the journal takes events in its own form (systemd's JOURNAL_NATIVE_PROTOCOL).
pub const DEFAULT_JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// What fields of ours begin with.
const PREFIX: &str = "ISATAPD_";

/// Whether standard error leads to the journal: then whoever reads it wants fields, not text.
pub fn is_standard_error() -> bool {
    let stderr = std::io::stderr();
    let Ok(stat) = nix::sys::stat::fstat(stderr.as_fd()) else {
        return false;
    };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, stat.st_dev, stat.st_ino))
}

/// A service may have sent its standard error elsewhere and left the variable as it was.
fn is_stream(stream: &str, dev: u64, ino: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(left, right)| left.parse() == Ok(dev) && right.parse() == Ok(ino))
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: LogSocket,
    facility: Facility,
}

impl Journal {
    /// # Errors
    /// No journal takes events there.
    pub(super) fn open(path: &Path, facility: Facility) -> std::io::Result<Self> {
        let (socket, outcome) = LogSocket::open(path);
        outcome.map(|()| Self { socket, facility })
    }

    pub(super) fn set_facility(&mut self, facility: Facility) {
        self.facility = facility;
    }

    pub(super) fn reopen(&mut self) -> std::io::Result<()> {
        self.socket.connect()
    }

    pub(super) fn write(&mut self, record: &Record) {
        let facility = self.facility;
        self.socket.write(&datagram(facility, record), |count| {
            datagram(facility, &Record::plain(Level::WARN, &lost_notice(count)))
        });
    }
}

/// One `NAME=value` a line. That no value has a line break is what makes this form enough.
fn datagram(facility: Facility, record: &Record) -> Vec<u8> {
    let mut text = String::new();
    let mut add = |name: &str, value: &str| {
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    };
    add("MESSAGE", &record.line());
    add("PRIORITY", &severity(record.level).to_string());
    add("SYSLOG_IDENTIFIER", "isatapd");
    add("SYSLOG_FACILITY", &facility.number().to_string());
    add("SYSLOG_PID", &std::process::id().to_string());
    if let Some((file, line)) = record.place {
        add("CODE_FILE", file);
        add("CODE_LINE", &line.to_string());
    }
    for (name, value) in &record.fields {
        add(
            &format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "_")),
            value,
        );
    }
    if record.suppressed > 0 {
        add(&format!("{PREFIX}SUPPRESSED"), &record.suppressed.to_string());
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn an_event_in_the_form_of_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(Journal::open(&path, Facility::DAEMON).is_err());
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path, Facility::DAEMON).unwrap();
        let record = Record {
            level: Level::WARN,
            message: "router 10.0.0.1 is silent".into(),
            fields: vec![("router", "10.0.0.1".into()), ("round.trip", "3".into())],
            place: Some(("daemon/src/x.rs", 7)),
            suppressed: 2,
        };
        journal.write(&record);
        let heard = || {
            let mut buffer = [0; 1024];
            let len = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..len]).into_owned()
        };
        let expected = format!(
            "MESSAGE=router 10.0.0.1 is silent round.trip=3 (2 similar lines suppressed)\nPRIORITY=4\n\
             SYSLOG_IDENTIFIER=isatapd\nSYSLOG_FACILITY=3\nSYSLOG_PID={}\nCODE_FILE=daemon/src/x.rs\nCODE_LINE=7\n\
             ISATAPD_ROUTER=10.0.0.1\nISATAPD_ROUND_TRIP=3\nISATAPD_SUPPRESSED=2\n",
            std::process::id()
        );
        assert_eq!(heard(), expected);

        // FAULTS 74: a name that would be a field.
        journal.set_facility(Facility::from_name("local7").unwrap());
        journal.write(&Record::plain(Level::ERROR, "name x\nPRIORITY=0"));
        let text = heard();
        assert!(
            text.starts_with("MESSAGE=name x\\nPRIORITY=0\nPRIORITY=3\n"),
            "{text}"
        );
        assert!(text.contains("\nSYSLOG_FACILITY=23\n"), "{text}");
    }

    #[test]
    fn the_variable_must_mean_our_standard_error() {
        assert!(is_stream("8:12345", 8, 12345));
        for other in ["8:12346", "9:12345", "8", "", "8:12345:", "x:y"] {
            assert!(!is_stream(other, 8, 12345), "{other:?}");
        }
    }
}
