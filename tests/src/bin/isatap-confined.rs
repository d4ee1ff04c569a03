//! Runs a program with fewer system calls: `isatap-confined FILTERS.json PROGRAM ARGUMENTS...`, for tests of the unit.
//!
//! The file is in the form of seccompiler. A call that this machine's architecture does not have is left out.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use seccompiler::{BpfMap, TargetArch, apply_filter, compile_from_json};
use serde_json::Value;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [filters, program, arguments @ ..] = &arguments[..] else {
        eprintln!("usage: isatap-confined FILTERS.json PROGRAM ARGUMENTS...");
        return ExitCode::from(2);
    };
    let read = fs::read_to_string(filters).map_err(|error| error.to_string());
    let outcome = read.and_then(|text| confine(&text));
    if let Err(error) = outcome {
        eprintln!("isatap-confined: {}: {error}", filters.display());
        return ExitCode::FAILURE;
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("isatap-confined: {}: {error}", program.display());
    ExitCode::FAILURE
}

/// Compiles every filter first: the first one in force might refuse what the second takes.
fn confine(text: &str) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let mut filters: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let of_name = filters.as_object_mut().ok_or("this is no object")?;
    for filter in of_name.values_mut() {
        let rules = filter.get_mut("filter").and_then(Value::as_array_mut);
        rules
            .ok_or("a filter without rules")?
            .retain(|rule| is_known(rule, arch));
    }
    let programs = compile(&filters, arch)?;
    // The one that allows a list comes last: it need not list what installing another takes.
    let mut names: Vec<_> = programs.keys().collect();
    names.sort_by_key(|name| *name == "allowed");
    for name in names {
        apply_filter(&programs[name]).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn compile(filters: &Value, arch: TargetArch) -> Result<BpfMap, String> {
    compile_from_json(filters.to_string().as_bytes(), arch).map_err(|error| error.to_string())
}

fn is_known(rule: &Value, arch: TargetArch) -> bool {
    let alone = serde_json::json!({
        "x": { "mismatch_action": "allow", "match_action": { "errno": 1 }, "filter": [rule] }
    });
    compile(&alone, arch).is_ok()
}
