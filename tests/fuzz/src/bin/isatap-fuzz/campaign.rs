//! One target after the other under libFuzzer, built and run by cargo-fuzz.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Options;

/// Longest input: a packet of the tunnel MTU with its headers, a few options more.
const MAX_LEN: u32 = 4096;
/// An input that takes longer is a finding, in seconds.
const TIMEOUT: u32 = 10;
/// More memory than this is a finding, in MiB.
const MEMORY_LIMIT: u32 = 2048;

/// What the compiler adds to find more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sanitizer {
    /// Bytes that are not there, or no longer.
    Address,
    /// Nothing: several times faster, and as good for code without `unsafe`.
    None,
}

impl Sanitizer {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Address, Self::None]
            .into_iter()
            .find(|sanitizer| sanitizer.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::None => "none",
        }
    }
}

/// What libFuzzer said about one target.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    executions: u64,
    edges: u64,
    corpus: u64,
    pub(crate) failed: bool,
}

impl Outcome {
    /// A line of the table.
    pub(crate) fn line(&self, name: &str, seconds: u32) -> String {
        format!(
            "| {name} | {} | {} | {} | {} | {} |",
            self.executions,
            self.executions / u64::from(seconds.max(1)),
            self.edges,
            self.corpus,
            if self.failed { "BROKEN" } else { "held" }
        )
    }
}

/// Of the development profile: the release profile optimises each program as a whole, for minutes.
fn cargo_fuzz(home: &Path, action: &str, sanitizer: Sanitizer) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["+nightly", "fuzz", action, "--dev"])
        .args(["--no-default-features", "--features", "libfuzzer"])
        .args(["--sanitizer", sanitizer.name(), "--fuzz-dir"])
        .arg(home)
        .current_dir(home)
        // Which compiler is asked for by name, not by who called us.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    command
}

/// Builds every target.
///
/// # Errors
/// What is missing, with the remedy.
pub(crate) fn build(home: &Path, sanitizer: Sanitizer) -> Result<(), String> {
    let status = cargo_fuzz(home, "build", sanitizer)
        .status()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(
            "the targets cannot be built; tests/fuzz/setup.sh installs a nightly compiler and cargo-fuzz"
                .into(),
        )
    }
}

/// Runs one target for its time.
///
/// # Errors
/// It cannot be run.
pub(crate) fn fuzz(home: &Path, name: &str, options: &Options) -> Result<Outcome, String> {
    let failed = |error: std::io::Error| format!("{name}: {error}");
    if options.tidy {
        let mut smaller = cargo_fuzz(home, "cmin", options.sanitizer);
        if !smaller.arg(name).status().map_err(failed)?.success() {
            return Err(format!("the corpus of {name} cannot be made smaller"));
        }
    }
    if options.seconds == 0 {
        return Ok(Outcome::default());
    }
    let mut child = cargo_fuzz(home, "run", options.sanitizer)
        .arg(name)
        .arg("--")
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-max_len={MAX_LEN}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT}"))
        .arg("-print_final_stats=1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut outcome = Outcome::default();
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(failed)?;
            read(&mut outcome, name, &String::from_utf8_lossy(&line));
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
    } else if ["panicked at", "ERROR:", "SUMMARY:", "artifact"]
        .iter()
        .any(|sign| line.contains(sign))
    {
        eprintln!("\r\x1b[K{name}: {line}");
    }
}
