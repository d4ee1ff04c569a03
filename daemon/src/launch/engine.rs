//! The start of the engine's process: takes what the monitor hands it, gives everything else up, then reads the
//! configuration and runs control.
//!
//! ```text
//!  setup and descriptors -> log, places to read from -> sandbox: privilege, confine -> configuration in force
//!  -> control::run
//! ```
//!
//! Nothing is parsed before the sandbox is entered but what the monitor says.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isatap_engine::io::passing::MessageSocket;
use isatap_engine::worker::WorkerHook;
use nix::sys::signal::SigSet;

use super::confine::Confinement;
use super::confine::filters::ThreadKind;
use super::log::Logs;
use super::privilege::{self, Sandbox};
use super::start::destination;
use crate::config::kept::Kept;
use crate::config::resolved::{Facility, Layer, LogLevel};
use crate::control::{self, Hooks, MonitorLink, Startup};
use crate::exit::{ExitError, ExitStatus, report};
use crate::link::sysctl;
use crate::monitor::engine::ARGUMENT;
use crate::monitor::holdings::Holdings;
use crate::monitor::known_hosts::{KnownHosts, epoch};
use crate::monitor::text;
use crate::monitor::wire::{Cause, Say};
use crate::prl::resolver::Resolver;

/// How long the process may live on once its monitor is gone, to end in order.
const ORPHAN_LIMIT: Duration = Duration::from_secs(2);

/// The arguments of the daemon, when a command line asks for an engine at all. `arguments` begins with the name of the
/// program.
pub fn requested(arguments: &[OsString]) -> Option<&[OsString]> {
    let (flag, rest) = arguments.get(1..)?.split_first()?;
    (flag == ARGUMENT).then_some(rest)
}

/// The engine's whole life. Standard input must be the monitor's socket.
pub fn run(arguments: &[OsString]) -> ExitStatus {
    let _ = nix::sys::prctl::set_name(c"isatapd-engine");
    let socket = match take_socket() {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            report(&error);
            return error.status();
        }
    };
    tell_panics(Arc::clone(&socket));
    match serve(arguments, &socket) {
        Ok(()) => ExitStatus::Ok,
        Err((cause, error)) => {
            let last_words = Say::Failed(cause, error.status().code(), error.to_string());
            if socket.send(&last_words.encode(), &[]).is_err() {
                report(&error);
            }
            error.status()
        }
    }
}

fn take_socket() -> Result<MessageSocket, ExitError> {
    MessageSocket::from_fd(super::stdin_descriptor()?)
        .map_err(|_| ExitError::new(ExitStatus::Usage, format!("{ARGUMENT} is for isatapd itself")))
}

/// What a panic says reaches the monitor's log, whichever thread it is in.
fn tell_panics(socket: Arc<MessageSocket>) {
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("without a message");
        let place = panic
            .location()
            .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let text = format!("it panicked{place}: {what}");
        let _ = socket.send(
            &Say::Failed(Cause::Panic, ExitStatus::Other.code(), text).encode(),
            &[],
        );
    }));
}

type Failure = (Cause, ExitError);

fn serve(arguments: &[OsString], socket: &Arc<MessageSocket>) -> Result<(), Failure> {
    let fault = |error: ExitError| (Cause::Fault, error);
    // The monitor is told by signals, and tells us by messages.
    SigSet::all()
        .thread_block()
        .map_err(|errno| fault(ExitError::other(format!("signals: {}", errno.desc()))))?;
    let (setup, holdings) = Holdings::take(socket)
        .map_err(|error| fault(ExitError::other(format!("what the monitor hands over {error}"))))?;
    let options = super::arguments(arguments).map_err(fault)?;
    // What is wrong with the system log, the monitor has said.
    let (logs, _) = Logs::start(destination(setup.detached, Facility::DAEMON), LogLevel::Info);
    // Opened while their paths mean what the operator meant.
    let null = setup.detached.then(null_device).transpose().map_err(fault)?;
    let loader = super::loader(options).map_err(fault)?;
    let resolver = Resolver::open();
    let forwards = sysctl::forwards();

    let Holdings {
        descriptors,
        root,
        control,
        metrics,
        names,
        text,
        known_hosts,
    } = holdings;
    let waived: Vec<_> = Layer::ALL
        .into_iter()
        .zip(setup.waived)
        .filter_map(|(layer, is_waived)| is_waived.then_some(layer))
        .collect();
    Sandbox::new(root, setup.ids).enter().map_err(fault)?;
    let directories: Vec<_> = loader
        .directory()
        .into_iter()
        .chain(resolver.directories())
        .collect();
    let confinement = Confinement::enter(&waived, &directories).map_err(fault)?;
    watch_the_monitor(socket, &confinement).map_err(fault)?;
    let kept = kept(text).map_err(fault)?;
    let settings = loader.load_kept(&kept).map_err(|error| fault(error.into()))?;
    logs.set_level(settings.log_level);
    logs.set_facility(settings.syslog_facility);
    let link = MonitorLink::new(Arc::clone(socket));
    let hooks = hooks(&logs, null, &link, &confinement);
    let outcome = control::run(Startup {
        settings,
        drained_at: kept.drained.then(|| since(kept.drained_at)),
        taken_back: kept.taken_back,
        known_routers: kept.routers,
        heard_routers: kept.heard,
        known_paths: kept.paths,
        loader,
        setup,
        descriptors,
        known_hosts: KnownHosts::new(known_hosts),
        control: control.into(),
        metrics: metrics.map(Into::into),
        names: names.map(Into::into),
        resolver,
        forwards,
        link,
        confinement,
        hooks,
    });
    logs.flush_suppressed(Instant::now());
    outcome
}

/// The moment that an engine before this one kept, and not after now; now, if it kept none.
fn since(millis: Option<u64>) -> Instant {
    let now = Instant::now();
    let at = millis.and_then(|millis| epoch().checked_add(Duration::from_millis(millis)));
    at.map_or(now, |at| at.min(now))
}

fn null_device() -> Result<OwnedFd, ExitError> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map(OwnedFd::from)
        .map_err(|error| ExitError::other(format!("/dev/null: {error}")))
}

fn kept(text: OwnedFd) -> Result<Kept, ExitError> {
    let bytes = text::read(text)
        .map_err(|error| ExitError::other(format!("the configuration in force cannot be read: {error}")))?;
    Kept::decode(&bytes).map_err(ExitError::other)
}

/// No engine outlives its monitor: control ends in order when the socket closes, and this thread sees to it that it does.
fn watch_the_monitor(socket: &Arc<MessageSocket>, confinement: &Confinement) -> Result<(), ExitError> {
    let (socket, confinement) = (Arc::clone(socket), confinement.clone());
    std::thread::Builder::new()
        .name("monitor-watch".into())
        .stack_size(64 << 10)
        .spawn(move || {
            // Without its filter it is not to be: the end of the process says so.
            if confinement.enter_thread(ThreadKind::Watch).is_ok() && socket.wait_for_end().is_ok() {
                std::thread::sleep(ORPHAN_LIMIT);
            }
            std::process::abort();
        })
        .map(|_| ())
        .map_err(|error| {
            let what = "the watch of the monitor cannot be started";
            ExitError::from_io(&error, ExitStatus::Other, what)
        })
}

fn hooks(logs: &Logs, null: Option<OwnedFd>, link: &MonitorLink, confinement: &Confinement) -> Hooks {
    let (set_log, reopen_log, flush_log) = (logs.clone(), logs.clone(), logs.clone());
    let link = link.clone();
    let confinement = confinement.clone();
    Hooks {
        notify: Box::new(move |notice| link.notify(notice)),
        worker_start: WorkerHook::new(move |lane| {
            privilege::drop_all_in_thread()?;
            confinement.enter_worker(lane).map_err(|error| error.to_string())
        }),
        let_terminal_go: Box::new(move || {
            if let Some(null) = &null {
                let _ = nix::unistd::dup2_stdout(null);
                let _ = nix::unistd::dup2_stderr(null);
            }
        }),
        set_log: Box::new(move |level, facility| {
            set_log.set_level(level);
            set_log.set_facility(facility);
        }),
        flush_log: Box::new(move || flush_log.flush_suppressed(Instant::now())),
        reopen_log: Box::new(move || {
            if let Err(error) = reopen_log.reopen() {
                tracing::warn!("the system log cannot be opened again: {error}");
            }
        }),
    }
}
