//! The control thread: brings the daemon up, then turns events into Rulebooks, solicitations and answers.
//!
//! ```text
//!  orders, netlink, punts, ICMP errors, queries, timers --> Daemon::serve --> Publisher (workers)
//!                                                                        |--> the monitor (changes of the interface)
//!                                                                        `--> control socket of the engine
//! ```
//!
//! One asynchronous thread (DESIGN D10) without any privilege; nothing here touches a packet that is not control's business.

mod advertising;
mod carrier;
mod client;
mod configure;
mod daemon;
mod discovery;
mod drain;
mod error_limits;
mod explain;
#[cfg(debug_assertions)]
mod fault;
mod icmp;
mod latency;
mod locator;
mod names;
mod opening;
mod pace;
mod paths;
mod placement;
mod programs;
mod punts;
mod redirects;
mod reload;
mod report;
mod service;
mod slumber;
mod start;
mod translate;
mod upkeep;
mod watchdog;
mod watched;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use isatap_engine::worker::{Descriptors, WorkerHook};

use crate::advertise::TakenBack;
use crate::config::resolved::{Facility, LogLevel};
use crate::config::{Loader, Settings};
use crate::exit::ExitError;
use crate::launch::confine::Confinement;
use crate::launch::notify::Notice;
use crate::monitor::known_hosts::KnownHosts;
use crate::monitor::wire::{Cause, Setup};
use crate::pmtu::KnownPath;
use crate::prl::Known;
use crate::prl::resolver::Resolver;

pub use client::MonitorLink;

/// One for a reload that looks up our own name, one for the files that lookups of routers read.
const BLOCKING_THREADS: usize = 2;
/// How long each of them waits for something to do: for ever. Where there is none, and the kernel gives none, the runtime panics; with
/// one left, what comes waits for that.
const BLOCKING_THREADS_STAY: Duration = Duration::MAX;
/// How long a name lookup of a reload may hold up the exit.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(100);

/// Everything the engine's process starts from.
pub struct Startup {
    /// What to do.
    pub settings: Settings,
    /// Since when this router is being taken out of service, if an engine before this one was told so.
    pub drained_at: Option<Instant>,
    /// What the engine before took back from hosts.
    pub taken_back: Vec<TakenBack>,
    /// What the engine before knew of the names of routers.
    pub known_routers: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Which routers the engine before heard, and which of them were silent.
    pub heard_routers: Vec<Known>,
    /// What the engine before had heard of paths.
    pub known_paths: Vec<KnownPath>,
    /// Reads the configuration again.
    pub loader: Loader,
    /// What the monitor said.
    pub setup: Setup,
    /// The hosts that the engine before this one knew, and where to keep them for the next.
    pub known_hosts: KnownHosts,
    /// Queues and sockets for the packet engine.
    pub descriptors: Descriptors,
    /// Listens on `ControlSocket`.
    pub control: UnixListener,
    /// Listens on `MetricsListen`.
    pub metrics: Option<TcpListener>,
    /// Leads to the helper for name servers.
    pub names: Option<UnixStream>,
    /// Looks names up, by files that were found before the change of root.
    pub resolver: Resolver,
    /// Whether the machine forwards IPv6 at all.
    pub forwards: bool,
    /// The way to the monitor.
    pub link: MonitorLink,
    /// What the process is confined to, and what its threads are still to enter.
    pub confinement: Confinement,
    /// What the process does for us.
    pub hooks: Hooks,
}

/// What control asks of the process around it.
pub struct Hooks {
    /// Gives up every privilege of a worker thread; called in each before its first packet.
    pub worker_start: WorkerHook,
    /// Tells the service manager, and at the first [`Notice::Ready`] whoever else waits for the start.
    pub notify: Box<dyn Fn(Notice)>,
    /// Lets go of the terminal that somebody waits at, if there is one.
    pub let_terminal_go: Box<dyn Fn()>,
    /// Sets level and facility of the log.
    pub set_log: Box<dyn Fn(LogLevel, Facility)>,
    /// Opens the log again after rotation.
    pub reopen_log: Box<dyn Fn()>,
    /// Tells how many log lines were suppressed; called about a second after anything happened, and again as long as it says so.
    pub flush_log: Box<dyn Fn() -> bool>,
}

/// Why control ended: what kind of reason it was, and the error with its words.
pub type Failure = (Cause, ExitError);

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

/// Runs until the monitor says to stop, or is gone.
///
/// # Errors
/// Why it could not start, or could not go on.
pub fn run(startup: Startup) -> Result<(), Failure> {
    let fault = |error| (Cause::Fault, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_THREADS_STAY)
        .thread_name("control-lookup")
        .build()
        .map_err(|error| {
            fault(ExitError::other(format!(
                "cannot start the control loop: {error}"
            )))
        })?;
    let outcome = runtime.block_on(async {
        let mut daemon = start::bring_up(startup).await.map_err(fault)?;
        daemon.serve().await
    });
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    outcome
}
