//! Where the daemon's words go: standard error in the foreground, the system log when detached, the journal under systemd.
//!
//! One event is one line. Of each kind (place in the source) at most ten a second are written, the rest is counted.
//! Nothing on the packet path logs.

mod journal;
mod limit;
mod line;
mod record;
mod sink;
mod socket;
mod syslog;

use std::sync::Arc;
use std::time::Instant;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;

pub use journal::{DEFAULT_JOURNAL_SOCKET, is_standard_error as journal_is_standard_error};
pub use limit::{LINES_PER_SECOND, RateLimit, Verdict};
pub use record::escaped;
pub use syslog::DEFAULT_SYSLOG_SOCKET;

use crate::config::resolved::{Facility, LogLevel};
use line::{LineLayer, Shared};
use record::Record;
use sink::Sink;

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard error.
    Console,
    /// The system log; warnings and errors also go to standard error, which nobody reads once the daemon is ready.
    Syslog(Facility),
    /// The journal of systemd, with fields.
    Journal(Facility),
}

/// The running log, to be changed by a reload or a signal.
#[derive(Clone, Debug)]
pub struct Logs {
    shared: Arc<Shared>,
    filter: reload::Handle<Targets, Registry>,
}

impl Logs {
    /// Opens the destination and takes every event of this process from now on. Must come before the change of root.
    ///
    /// The second value says what is wrong with the destination, if anything is: a missing system log stops no daemon.
    pub fn start(destination: Destination, level: LogLevel) -> (Self, Option<String>) {
        let (sink, complaint) = Sink::open(destination);
        let shared = Arc::new(Shared::new(sink));
        let (filter, handle) = reload::Layer::new(targets(level));
        let subscriber = tracing_subscriber::registry()
            .with(filter)
            .with(LineLayer::new(Arc::clone(&shared)));
        // Only a second call in one process fails: in tests, where the first log goes on.
        let _ = tracing::subscriber::set_global_default(subscriber);
        (
            Self {
                shared,
                filter: handle,
            },
            complaint,
        )
    }

    /// `LogLevel` changed.
    pub fn set_level(&self, level: LogLevel) {
        let _ = self.filter.modify(|filter| *filter = targets(level));
    }

    /// `SyslogFacility` changed; the console does not care.
    pub fn set_facility(&self, facility: Facility) {
        self.shared.with_sink(|sink| sink.set_facility(facility));
    }

    /// Opens the system log again (USR2): it was restarted, or appeared.
    ///
    /// # Errors
    /// It is not there; lines are lost until it is.
    pub fn reopen(&self) -> std::io::Result<()> {
        self.shared.with_sink(Sink::reopen)
    }

    /// Writes how many lines were suppressed since the last line of their kind; whether it is to be called once more in a
    /// second, since a second has room for so many lines only.
    pub fn flush_suppressed(&self, now: Instant) -> bool {
        self.shared.flush_suppressed(now)
    }

    /// Writes the error the daemon ends with to the system log alone: the terminal hears it from somebody else.
    pub fn record_failure(&self, message: &str) {
        self.shared
            .with_sink(|sink| sink.write_syslog(&Record::plain(tracing::Level::ERROR, message)));
    }
}

/// Our own crates at `level`; the libraries only where they warn.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("isatapd", level)
        .with_target("isatap_engine", level)
}
