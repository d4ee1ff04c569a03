//! The daemon `isatapd`: reads the command line, and hands over to whoever does what it asks for.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use isatapd::cli::{self, Command, Options};
use isatapd::config::Loader;
use isatapd::exit::{ExitError, ExitStatus, report};
use isatapd::launch::{self, detach, engine, pidfile, privilege, start};
use isatapd::link::dns::Errand;
use isatapd::monitor::upgrade;
use isatapd::prl::resolver;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(rest) = engine::requested(&arguments) {
        return engine::run(rest).into();
    }
    if let Some(rest) = upgrade::requested(upgrade::TAKE_OVER, &arguments) {
        return start::take_over(rest).into();
    }
    if let Some(rest) = upgrade::requested(upgrade::TRY, &arguments) {
        return launch::try_upgrade(rest).into();
    }
    if let Some(errand) = Errand::requested(&arguments) {
        return if errand.run().is_ok() {
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
        Ok(Command::Run(options)) if options.foreground || options.ready_on_stdin => start::serve(options),
        Ok(Command::Run(_)) => match detach::launch(arguments.into_iter().skip(1)) {
            Ok(()) => ExitStatus::Ok,
            Err(error) => {
                report(&error);
                error.status()
            }
        },
    };
    status.into()
}

fn print(text: &str) -> ExitStatus {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitStatus::Ok,
        Err(_) => ExitStatus::Other,
    }
}

/// `--check-config`: everything that can be known without touching anything but name servers.
fn check(options: Options) -> ExitStatus {
    let loaded = Loader::open(options.config, options.overrides).and_then(|loader| loader.load());
    let checked = loaded.map_err(ExitError::from).and_then(|loaded| {
        pidfile::check(&loaded.settings.pidfile)?;
        privilege::check(&loaded.settings.chroot_dir)?;
        let routers = resolver::check(&loaded)?;
        Ok((loaded, routers))
    });
    match checked {
        Ok((loaded, routers)) => {
            for warning in loaded.warnings {
                let _ = writeln!(std::io::stderr(), "isatapd: warning: {warning}");
            }
            print(&loaded.settings.with_routers(&routers))
        }
        Err(error) => {
            report(&error);
            ExitStatus::Config
        }
    }
}
