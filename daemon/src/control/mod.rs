//! The control thread: brings the daemon up, then turns events into Rulebooks, solicitations and answers.
//!
//! ```text
//!  signals, netlink, punts, ICMP errors, queries, timers --> Daemon::serve --> Publisher (workers)
//!                                                                         `--> netlink, control socket of the engine
//! ```
//!
//! One asynchronous thread (DESIGN D10); nothing here touches a packet that is not control's business.

mod advertising;
mod configure;
mod daemon;
mod discovery;
mod drain;
mod error_limits;
mod explain;
mod icmp;
mod latency;
mod locator;
mod names;
mod paths;
mod placement;
mod punts;
mod redirects;
mod reload;
mod report;
mod service;
mod signals;
mod start;
mod translate;
mod upkeep;
mod watched;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::config::resolved::{Facility, LogLevel};
use crate::config::{Loader, Settings};
use crate::exit::ExitError;
use crate::launch::notify::Notice;

/// One for a reload that looks up our own name, one for the files that lookups of routers read.
const BLOCKING_THREADS: usize = 2;
/// How long a name lookup of a reload may hold up the exit.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(100);

/// Everything the daemon starts from.
pub struct Startup {
    /// What to do.
    pub settings: Settings,
    /// Reads the configuration again.
    pub loader: Loader,
    /// Listens on `MetricsListen`.
    pub metrics: Option<TcpListener>,
    /// Listens on `ControlSocket`.
    pub control: UnixListener,
    /// What the process does for us.
    pub hooks: Hooks,
}

/// What control asks of the process around it, in the order of use.
pub struct Hooks {
    /// Changes root directory and user, and keeps CAP_NET_ADMIN alone. Called when everything privileged is open.
    pub drop_privileges: Box<dyn FnOnce() -> Result<(), ExitError>>,
    /// Gives up every privilege of a worker thread; called in each before its first packet.
    pub worker_start: fn() -> Result<(), String>,
    /// Tells the service manager, and at the first [`Notice::Ready`] whoever else waits for the start.
    pub notify: Box<dyn Fn(Notice)>,
    /// For how long the service manager may hear nothing; `None` when it does not watch.
    pub watchdog: Option<Duration>,
    /// Sets level and facility of the log.
    pub set_log: Box<dyn Fn(LogLevel, Facility)>,
    /// Opens the log again after rotation.
    pub reopen_log: Box<dyn Fn()>,
    /// Tells how many log lines were suppressed; called about a second after anything happened, and again as long as it says so.
    pub flush_log: Box<dyn Fn() -> bool>,
}

impl std::fmt::Debug for Startup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Startup")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it could not start, or could not go on.
pub fn run(startup: Startup) -> Result<(), ExitError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("control-lookup")
        .build()
        .map_err(|error| ExitError::other(format!("cannot start the control loop: {error}")))?;
    let outcome = runtime.block_on(async {
        let mut daemon = start::bring_up(startup).await?;
        daemon.serve().await
    });
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    outcome
}
