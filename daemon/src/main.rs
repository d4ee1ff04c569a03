//! The daemon `isatapd`: reads the command line, and hands over to whoever does what it asks for.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use isatapd::cli::{self, Command, Options};
use isatapd::config::Loader;
use isatapd::exit::{ExitError, ExitStatus, report};
use isatapd::launch::detach::{self, Launcher};
use isatapd::launch::log::{Destination, Logs};
use isatapd::launch::pidfile::{self, PidFile};
use isatapd::launch::privilege::{self, Sandbox};
use isatapd::launch::{Ready, janitor};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(files) = janitor::requested(&arguments) {
        return if janitor::run(&files).is_ok() {
            ExitStatus::Ok
        } else {
            ExitStatus::Other
        }
        .into();
    }
    let status = match cli::parse(&arguments) {
        Err(stop) => stop.report(),
        Ok(Command::Version) => print(&isatapd::version::text()),
        Ok(Command::Check(options)) => check(options),
        Ok(Command::Run(options)) if options.foreground || options.ready_on_stdin => serve(options),
        Ok(Command::Run(_)) => finish(detach::launch(arguments.into_iter().skip(1))),
    };
    status.into()
}

fn finish(result: Result<(), ExitError>) -> ExitStatus {
    match result {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            report(&error);
            error.status()
        }
    }
}

fn print(text: &str) -> ExitStatus {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitStatus::Ok,
        Err(_) => ExitStatus::Other,
    }
}

/// `--check-config`: everything that can be known without touching anything.
fn check(options: Options) -> ExitStatus {
    let checked = Loader::open(options.config, options.overrides).and_then(|loader| loader.load());
    let checked = checked.map_err(ExitError::from).and_then(|loaded| {
        pidfile::check(&loaded.settings.pidfile)?;
        privilege::check(&loaded.settings.chroot_dir)?;
        Ok(loaded)
    });
    match checked {
        Ok(loaded) => {
            for warning in loaded.warnings {
                let _ = writeln!(std::io::stderr(), "isatapd: warning: {warning}");
            }
            print(&loaded.settings.to_string())
        }
        Err(error) => {
            report(&error);
            ExitStatus::Config
        }
    }
}

/// The daemon, in the foreground or at the end of a launcher's socket.
fn serve(options: Options) -> ExitStatus {
    let launcher = match options.ready_on_stdin {
        true => match Launcher::take_stdin() {
            Ok(launcher) => Some(launcher),
            Err(error) => return finish(Err(error)),
        },
        false => None,
    };
    let detached = launcher.is_some();
    let mut ready = Ready::new(launcher);
    match start(options, detached, &mut ready) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            ready.failed(&error);
            error.status()
        }
    }
}

fn start(options: Options, detached: bool, _ready: &mut Ready) -> Result<(), ExitError> {
    let loader = Loader::open(options.config, options.overrides)?;
    let loaded = loader.load()?;
    let settings = loaded.settings;
    privilege::require()?;
    let destination = if detached {
        Destination::Syslog(settings.syslog_facility)
    } else {
        Destination::Console
    };
    let (_logs, complaint) = Logs::start(destination, settings.log_level);
    for warning in complaint.into_iter().chain(loaded.warnings) {
        tracing::warn!("{warning}");
    }
    let mut pidfile = PidFile::acquire(&settings.pidfile)?;
    let _sandbox = Sandbox::prepare(&settings.chroot_dir, settings.user.clone())?;
    pidfile
        .guard(&[])
        .map_err(|error| ExitError::other(format!("the janitor cannot be started: {error}")))?;
    Err(ExitError::other(
        "the control plane is not connected to the program yet",
    ))
}
