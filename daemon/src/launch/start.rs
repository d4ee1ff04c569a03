//! The order of a start: what can be refused comes first, what needs root next, and power goes before packets come.
//!
//! ```text
//!  configuration -> log -> pid file -> listeners -> janitor -> control::run [ engine, interface -> sandbox -> workers ]
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::detach::Launcher;
use super::log::{self, Destination, Logs};
use super::pidfile::PidFile;
use super::privilege::{self, Sandbox};
use super::{Ready, listen, notify, require};
use crate::cli::Options;
use crate::config::{Loader, Settings};
use crate::control::{self, Hooks, Startup};
use crate::exit::{ExitError, ExitStatus, report};

/// Runs the daemon, in the foreground or at the end of a launcher's socket, until it is told to stop.
pub fn serve(options: Options) -> ExitStatus {
    let launcher = match options.ready_on_stdin.then(Launcher::take_stdin).transpose() {
        Ok(launcher) => launcher,
        Err(error) => {
            report(&error);
            return error.status();
        }
    };
    // What is made from here on belongs to root: files others may read, sockets others may not write to.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let detached = launcher.is_some();
    let ready = Rc::new(RefCell::new(Ready::new(launcher)));
    match start(options, detached, &ready) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            ready.borrow_mut().failed(&error);
            error.status()
        }
    }
}

fn start(options: Options, detached: bool, ready: &Rc<RefCell<Ready>>) -> Result<(), ExitError> {
    let loader = Loader::open(options.config, options.overrides)?;
    let loaded = loader.load()?;
    require::require(&loaded.settings.user)?;
    let (logs, complaint) = Logs::start(destination(detached, &loaded.settings), loaded.settings.log_level);
    for warning in complaint.into_iter().chain(loaded.warnings) {
        tracing::warn!("{warning}");
    }
    let outcome = run(loaded.settings, loader, &logs, ready);
    if let Err(error) = &outcome {
        logs.record_failure(&error.to_string());
    }
    logs.flush_suppressed(Instant::now());
    outcome
}

fn destination(detached: bool, settings: &Settings) -> Destination {
    if detached {
        Destination::Syslog(settings.syslog_facility)
    } else if log::journal_is_standard_error() {
        Destination::Journal(settings.syslog_facility)
    } else {
        Destination::Console
    }
}

fn run(settings: Settings, loader: Loader, logs: &Logs, ready: &Rc<RefCell<Ready>>) -> Result<(), ExitError> {
    let mut pidfile = PidFile::acquire(&settings.pidfile)?;
    let sandbox = Sandbox::prepare(&settings.chroot_dir, settings.user.clone())?;
    let metrics = settings.metrics_listen.map(listen::metrics).transpose()?;
    let control = listen::control(&settings.control_socket)?;
    pidfile
        .guard(std::slice::from_ref(&settings.control_socket.path))
        .map_err(|error| ExitError::other(format!("the janitor cannot be started: {error}")))?;
    let outcome = control::run(Startup {
        hooks: hooks(sandbox, logs, ready),
        settings,
        loader,
        metrics,
        control,
    });
    pidfile.remove();
    outcome
}

fn hooks(sandbox: Sandbox, logs: &Logs, ready: &Rc<RefCell<Ready>>) -> Hooks {
    let (ready, set_log, reopen_log) = (Rc::clone(ready), logs.clone(), logs.clone());
    let flush_log = logs.clone();
    Hooks {
        drop_privileges: Box::new(|| sandbox.enter()),
        worker_start: privilege::drop_all_in_thread,
        notify: Box::new(move |notice| ready.borrow_mut().tell(&notice)),
        watchdog: notify::watchdog_from_environment(),
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
