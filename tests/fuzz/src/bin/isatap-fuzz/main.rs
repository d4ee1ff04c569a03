//! Runs every fuzz target for a while and says what came of it: `make fuzz ARGS="--seconds 600 decap encap"`.
//!
//! Needs `cargo-fuzz` and a nightly compiler, which `make fuzz` installs; `--coverage --seconds 0` the compiler's tools alone. Inputs that reach new code are added to
//! `corpus/<target>/`, where `make test` replays them; after a long run `--tidy` leaves the few that reach everything the
//! others do. `--coverage` says at the end which lines the corpora reach. The report is `target/fuzz/report.md`.
//!
//! | module | answers the question |
//! |---|---|
//! | [`campaign`] | does anything break a promise? |
//! | [`coverage`] | which lines do the corpora reach? |

mod campaign;
mod coverage;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use isatap_fuzz::{TARGETS, Target};

use campaign::Sanitizer;

const USAGE: &str = "isatap-fuzz [--seconds N] [--sanitizer address|none] [--tidy] [--coverage] [TARGET]...\n\n\
    --seconds N     time for each target, 60 by default; 0 for none\n\
    --sanitizer S   address (default) finds what unsafe code does wrong; none is faster\n\
    --tidy          leave the inputs that reach everything the others do\n\
    --coverage      say which lines the corpora reach";

struct Options {
    seconds: u32,
    sanitizer: Sanitizer,
    tidy: bool,
    coverage: bool,
    targets: Vec<&'static Target>,
}

fn main() -> ExitCode {
    if std::env::var_os(coverage::COMPILER).is_some() {
        return coverage::compile(std::env::args_os().skip(1));
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, names @ ..] = words.as_slice()
        && flag == coverage::REPLAY
    {
        return coverage::replay(&corpora(), names);
    }
    let options = match parse(words.into_iter()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("isatap-fuzz: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!(
                "\nwhat broke a promise is in {}",
                home().join("artifacts").display()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("isatap-fuzz: {error}");
            ExitCode::from(69)
        }
    }
}

/// Whether every promise held.
fn run(options: &Options) -> Result<bool, String> {
    let mut report = String::new();
    let mut held = true;
    if options.seconds > 0 || options.tidy {
        campaign::build(home(), options.sanitizer)?;
        let head = format!(
            "{} s for each target, sanitizer: {}\n\n| target | executions | a second | edges | corpus | |\n|---|---|---|---|---|---|\n",
            options.seconds,
            options.sanitizer.name()
        );
        print!("{head}");
        report += &head;
        for target in &options.targets {
            let line = match campaign::fuzz(home(), target.name, options) {
                Ok(outcome) => {
                    held &= !outcome.failed;
                    outcome.line(target.name, options.seconds)
                }
                Err(error) => {
                    held = false;
                    format!("| {} | | | | | {error} |", target.name)
                }
            };
            println!("{line}");
            let _ = writeln!(report, "{line}");
        }
    }
    if options.coverage {
        let table = coverage::measure(&workspace(), &options.targets)?;
        println!("\n{table}");
        let _ = write!(report, "\n{table}");
    }
    let folder = workspace().join("target/fuzz");
    let path = folder.join("report.md");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, report))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("\n{}", path.display());
    Ok(held)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        seconds: 60,
        sanitizer: Sanitizer::Address,
        tidy: false,
        coverage: false,
        targets: Vec::new(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                options.seconds = number.ok_or("--seconds needs a number")?;
            }
            "--sanitizer" => {
                let named = words.next();
                options.sanitizer = named
                    .as_deref()
                    .and_then(Sanitizer::named)
                    .ok_or("--sanitizer is address or none")?;
            }
            "--tidy" => options.tidy = true,
            "--coverage" => options.coverage = true,
            option if option.starts_with('-') => return Err(format!("{option} is no option")),
            name => {
                let target = isatap_fuzz::target(name);
                options.targets.push(target.ok_or_else(|| {
                    let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                    format!("{name:?} is no target; there are {}", known.join(", "))
                })?);
            }
        }
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.iter().collect();
    }
    Ok(options)
}

/// Where targets and corpora are.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpora() -> PathBuf {
    home().join("corpus")
}

fn workspace() -> PathBuf {
    home()
        .join("../..")
        .canonicalize()
        .unwrap_or_else(|_| home().to_owned())
}
