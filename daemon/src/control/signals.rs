//! The signals of the contract as one stream; PIPE is ignored by the Rust runtime already.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::ExitError;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// HUP: load the configuration again.
    Reload,
    /// INT, TERM: end in order.
    Stop(&'static str),
    /// USR1: a summary to the log.
    Summary,
    /// USR2: open the logs again.
    ReopenLogs,
}

/// The handlers, installed.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    pub(super) fn install() -> Result<Self, ExitError> {
        let handler = |kind| {
            signal(kind)
                .map_err(|error| ExitError::other(format!("cannot install a signal handler: {error}")))
        };
        Ok(Self {
            hangup: handler(SignalKind::hangup())?,
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            user1: handler(SignalKind::user_defined1())?,
            user2: handler(SignalKind::user_defined2())?,
        })
    }

    /// The next request. Signals of one kind that arrive together are one request (FAULTS 61).
    pub(super) async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Request::Stop("TERM"),
            _ = self.interrupt.recv() => Request::Stop("INT"),
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user1.recv() => Request::Summary,
            _ = self.user2.recv() => Request::ReopenLogs,
        }
    }
}
