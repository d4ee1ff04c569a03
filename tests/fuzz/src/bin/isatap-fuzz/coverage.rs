//! Which lines the corpora reach: this program once more, built with the compiler's own counters, replays each corpus; the
//! compiler's tools read the counters. The compiler is the one that builds everything else, and libFuzzer is not needed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use isatap_fuzz::Target;
use serde_json::Value;

/// The hidden first argument: replay the corpora of these targets and end.
pub(crate) const REPLAY: &str = "--replay";

/// In the environment of a build: this program is called as the compiler of the workspace's crates, and adds the counters.
pub(crate) const COMPILER: &str = "ISATAP_FUZZ_COMPILER";

/// What the compiler counted in one file.
#[derive(Clone, Copy, Debug, Default)]
struct Covered {
    lines: u64,
    covered_lines: u64,
    regions: u64,
    covered_regions: u64,
}

/// Becomes the compiler that cargo names with its arguments, and has it count. Crates of others are built as they are.
pub(crate) fn compile(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(compiler) = words.next() else {
        return ExitCode::from(2);
    };
    let error = Command::new(&compiler)
        .args(words)
        .arg("-Cinstrument-coverage")
        .exec();
    eprintln!("isatap-fuzz: {}: {error}", compiler.display());
    ExitCode::from(69)
}

/// Replays corpora; the counters are written when it ends.
pub(crate) fn replay(corpora: &Path, names: &[String]) -> ExitCode {
    for name in names {
        let Some(target) = isatap_fuzz::target(name) else {
            eprintln!("isatap-fuzz: {name:?} is no target");
            return ExitCode::from(2);
        };
        let inputs = fs::read_dir(corpora.join(name)).into_iter().flatten().flatten();
        for input in inputs.filter_map(|entry| fs::read(entry.path()).ok()) {
            (target.run)(&input);
        }
    }
    ExitCode::SUCCESS
}

/// The table: for each target the files it is about.
///
/// # Errors
/// What cannot be built or run.
pub(crate) fn measure(workspace: &Path, targets: &[&Target]) -> Result<String, String> {
    let folder = workspace.join("target/fuzz/coverage");
    let tools = tools()?;
    let this = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let built = Command::new("cargo")
        .args([
            "build",
            "-q",
            "-p",
            "isatap-fuzz",
            "--bin",
            "isatap-fuzz",
            "--target-dir",
        ])
        .arg(&folder)
        .current_dir(workspace)
        .env("RUSTC_WORKSPACE_WRAPPER", this)
        .env(COMPILER, "yes")
        // Regions as they are written, and soon built.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Programs that run while it is built count as well.
        .env("LLVM_PROFILE_FILE", folder.join("build-%p.profraw"))
        .status();
    done("cargo build", built)?;
    let program = folder.join("debug/isatap-fuzz");
    let mut table = String::from(
        "Lines and regions of each file that the corpora reach, tests in it left out as far as the compiler does.\n\n\
         | target | file | lines | regions |\n|---|---|---|---|\n",
    );
    for target in targets {
        let (raw, merged) = (folder.join("replay.profraw"), folder.join("replay.profdata"));
        let replayed = Command::new(&program)
            .args([REPLAY, target.name])
            .env("LLVM_PROFILE_FILE", &raw)
            .status();
        done("the replay", replayed)?;
        let merge = Command::new(tools.join("llvm-profdata"))
            .args(["merge", "-sparse", "-o"])
            .args([&merged, &raw])
            .status();
        done("llvm-profdata", merge)?;
        let seen = files(&tools, &program, &merged, workspace)?;
        for file in target.about {
            let covered = seen
                .get(*file)
                .ok_or_else(|| format!("{}: there is no {file}", target.name))?;
            let _ = writeln!(
                table,
                "| {} | `{file}` | {} | {} |",
                target.name,
                share(covered.covered_lines, covered.lines),
                share(covered.covered_regions, covered.regions)
            );
        }
    }
    Ok(table)
}

fn share(part: u64, whole: u64) -> String {
    format!("{part} of {whole} ({} %)", part * 100 / whole.max(1))
}

/// What was covered in each source file, by its path in the workspace.
fn files(
    tools: &Path,
    program: &Path,
    profile: &Path,
    workspace: &Path,
) -> Result<BTreeMap<String, Covered>, String> {
    let exported = Command::new(tools.join("llvm-cov"))
        .args(["export", "-summary-only", "-instr-profile"])
        .arg(profile)
        .arg(program)
        .output()
        .map_err(|error| format!("llvm-cov: {error}"))?;
    let export: Value = serde_json::from_slice(&exported.stdout)
        .map_err(|error| format!("llvm-cov: {error}: {}", String::from_utf8_lossy(&exported.stderr)))?;
    let mut files = BTreeMap::new();
    for file in export["data"][0]["files"].as_array().into_iter().flatten() {
        let Some(path) = file["filename"].as_str() else {
            continue;
        };
        let Ok(path) = Path::new(path).strip_prefix(workspace) else {
            continue;
        };
        let count = |what: &str, which: &str| file["summary"][what][which].as_u64().unwrap_or(0);
        files.insert(
            path.display().to_string(),
            Covered {
                lines: count("lines", "count"),
                covered_lines: count("lines", "covered"),
                regions: count("regions", "count"),
                covered_regions: count("regions", "covered"),
            },
        );
    }
    Ok(files)
}

/// Where the compiler keeps its tools.
fn tools() -> Result<PathBuf, String> {
    let rustc = |what: &[&str]| {
        let output = Command::new("rustc").args(what).output();
        let output = output.map_err(|error| format!("rustc cannot be run: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let root = rustc(&["--print", "sysroot"])?;
    let version = rustc(&["-vV"])?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("rustc does not say which machine this is")?;
    let tools = Path::new(root.trim()).join("lib/rustlib").join(host).join("bin");
    if tools.join("llvm-cov").is_file() {
        Ok(tools)
    } else {
        Err("llvm-cov is not there; \"rustup component add llvm-tools\" installs it".into())
    }
}

fn done(what: &str, status: std::io::Result<std::process::ExitStatus>) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(error) => Err(format!("{what} cannot be run: {error}")),
    }
}
