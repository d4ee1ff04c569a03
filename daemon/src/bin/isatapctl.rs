//! The control client of `isatapd`.

use std::process::ExitCode;

use clap::Parser;
use isatapd::ctl::{self, cli::Cli};
use isatapd::exit::report_as;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match ctl::run(&cli, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_as("isatapctl", &error);
            error.status().into()
        }
    }
}
