//! Runs every fuzz target for a while and says what came of it: `make fuzz ARGS="--seconds 600 decap encap"`.
//!
//! Needs `cargo-fuzz` and a nightly compiler. Inputs that reach new code are added to `corpus/<target>/`, where `make test`
//! replays them; after a long run `--tidy` leaves the few that reach everything the others do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use isatap_fuzz::TARGETS;

/// Longest input: a packet of the tunnel MTU with its headers, a few options more.
const MAX_LEN: u32 = 4096;

struct Options {
    seconds: u32,
    tidy: bool,
    targets: Vec<&'static str>,
}

/// What libFuzzer said about one target.
#[derive(Default)]
struct Outcome {
    executions: u64,
    edges: u64,
    corpus: u64,
    failed: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("isatap-fuzz: {error}");
            return ExitCode::from(2);
        }
    };
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if let Err(error) = built(&dir) {
        eprintln!("isatap-fuzz: {error}");
        return ExitCode::from(69);
    }
    println!("| target | executions | a second | edges | corpus | |\n|---|---|---|---|---|---|");
    let mut failed = false;
    for name in &options.targets {
        match fuzz(&dir, name, &options) {
            Ok(outcome) => {
                failed |= outcome.failed;
                let word = if outcome.failed { "BROKEN" } else { "held" };
                let rate = outcome.executions / u64::from(options.seconds.max(1));
                println!(
                    "| {name} | {} | {rate} | {} | {} | {word} |",
                    outcome.executions, outcome.edges, outcome.corpus
                );
            }
            Err(error) => {
                failed = true;
                println!("| {name} | | | | | {error} |");
            }
        }
    }
    if failed {
        println!("\nwhat broke a promise is in {}", dir.join("artifacts").display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        seconds: 60,
        tidy: false,
        targets: Vec::new(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                options.seconds = number.ok_or("--seconds needs a number")?;
            }
            "--tidy" => options.tidy = true,
            name => {
                let known = || {
                    TARGETS
                        .iter()
                        .map(|target| target.name)
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let target = isatap_fuzz::target(name)
                    .ok_or_else(|| format!("{name:?} is no target; there are {}", known()))?;
                options.targets.push(target.name);
            }
        }
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.iter().map(|target| target.name).collect();
    }
    Ok(options)
}

fn cargo_fuzz(dir: &Path, action: &str) -> Command {
    let mut command = Command::new("cargo");
    // Of the development profile: the release profile optimises each program as a whole, for minutes.
    command
        .args([
            "+nightly",
            "fuzz",
            action,
            "--dev",
            "--features",
            "libfuzzer",
            "--fuzz-dir",
        ])
        .arg(dir)
        .current_dir(dir)
        // Which compiler is asked for by name, not by who called us.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    command
}

fn built(dir: &Path) -> Result<(), String> {
    let remedy = "cargo install cargo-fuzz --locked; rustup toolchain install nightly";
    let status = cargo_fuzz(dir, "build")
        .status()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "the targets cannot be built with cargo-fuzz and a nightly compiler: {remedy}"
        ))
    }
}

fn fuzz(dir: &Path, name: &str, options: &Options) -> Result<Outcome, String> {
    let failed = |error: std::io::Error| format!("{name}: {error}");
    if options.tidy {
        let status = cargo_fuzz(dir, "cmin").arg(name).status().map_err(failed)?;
        if !status.success() {
            return Err(format!("the corpus of {name} cannot be made smaller"));
        }
    }
    let mut child = cargo_fuzz(dir, "run")
        .arg(name)
        .arg("--")
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-max_len={MAX_LEN}"))
        .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut outcome = Outcome::default();
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).lines() {
            read(&mut outcome, name, &line.map_err(failed)?);
        }
    }
    outcome.failed = !child.wait().map_err(failed)?.success();
    eprint!("\r\x1b[K");
    Ok(outcome)
}

/// Takes the numbers out of a line of libFuzzer's, and shows how far it is. A crash is shown as it is.
fn read(outcome: &mut Outcome, name: &str, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let after = |word: &str| {
        let at = words.iter().position(|other| *other == word)?;
        words.get(at + 1)
    };
    if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
        outcome.executions = count.trim().parse().unwrap_or_default();
    } else if let Some(edges) = after("cov:") {
        outcome.edges = edges.parse().unwrap_or(outcome.edges);
        let corpus = after("corp:").and_then(|corpus| corpus.split('/').next());
        outcome.corpus = corpus
            .and_then(|count| count.parse().ok())
            .unwrap_or(outcome.corpus);
        eprint!(
            "\r\x1b[K{name}: {} executions, {} edges",
            words[0].trim_start_matches('#'),
            outcome.edges
        );
        let _ = std::io::stderr().flush();
    } else if line.contains("panicked at") || line.contains("ERROR:") || line.contains("SUMMARY:") {
        eprintln!("\r\x1b[K{name}: {line}");
    }
}
