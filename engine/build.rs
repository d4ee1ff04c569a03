//! Compiles the programs of the `ebpf` lane with clang. Without clang, or without the feature, the engine is built all the same, and
//! says when asked what is missing.

#[path = "build/clang.rs"]
#[allow(unreachable_pub, reason = "the engine's tests read it as well")]
mod clang;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "its names are read here, the rest in the engine"
)]
#[path = "src/ebpf/cause.rs"]
mod cause;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "its names are read here, the rest in the engine"
)]
#[path = "src/ebpf/numbers.rs"]
mod numbers;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "its names are read here, the rest in the engine"
)]
#[path = "src/reason.rs"]
mod reason;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use clang::Outcome;

/// Atomic operations that return a value, and 32-bit arithmetic: Linux 5.12.
const CPU: &str = "-mcpu=v3";

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=ebpf");
    println!("cargo::rerun-if-changed=src/ebpf");
    println!("cargo::rerun-if-changed=src/reason.rs");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = out.join("isatap.bpf.o");
    let missing = if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        Some("the feature ebpf was off".to_owned())
    } else {
        match clang::choose(env::var("CLANG").ok(), attempt) {
            Ok(clang) => {
                build(&clang, &out, &object);
                None
            }
            Err(why) => {
                println!("cargo::warning=built without the ebpf lane: {why}");
                // Looked for again whenever this is built.
                println!("cargo::rerun-if-changed={}", out.join("clang").display());
                Some(why)
            }
        }
    };
    if missing.is_some() {
        fs::write(&object, []).expect("OUT_DIR can be written to");
    }
    println!("cargo::rustc-env=ISATAP_BPF_OBJECT={}", object.display());
    println!(
        "cargo::rustc-env=ISATAP_BPF_MISSING={}",
        missing.unwrap_or_default()
    );
}

fn attempt(clang: &str) -> Outcome {
    let mut empty = Command::new(clang);
    empty.args([
        "-target",
        "bpf",
        CPU,
        "-x",
        "c",
        "-c",
        "/dev/null",
        "-o",
        "/dev/null",
    ]);
    empty.stdout(Stdio::null()).stderr(Stdio::null());
    match empty.status() {
        Ok(status) if status.success() => Outcome::Compiles,
        Ok(_) => Outcome::Refuses,
        Err(_) => Outcome::Absent,
    }
}

fn build(clang: &str, out: &Path, object: &Path) {
    fs::write(out.join("numbers.h"), header()).expect("OUT_DIR can be written to");
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let mut command = Command::new(clang);
    command.args(["-target", "bpf", CPU, "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    // The same bytes wherever it is built.
    for (dir, name) in [(here.as_str(), "."), (&out.display().to_string(), "out")] {
        command.arg(format!("-ffile-prefix-map={dir}={name}"));
    }
    command.arg("-fdebug-compilation-dir=.");
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if !["x86", "x86_64", "s390x"].contains(&target.as_str()) {
        command.arg("-DWEAKLY_ORDERED");
    }
    // Where the verifier lets programs read numbers at any address (HAVE_EFFICIENT_UNALIGNED_ACCESS).
    if ["x86", "x86_64", "s390x", "aarch64", "powerpc64"].contains(&target.as_str()) {
        command.arg("-DUNALIGNED");
    }
    if env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() == Ok("big") {
        command.arg("-mbig-endian");
    }
    let source = Path::new(&here).join("ebpf/isatap.bpf.c");
    let status = command
        .arg("-I")
        .arg(out)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .status();
    let compiled = status.is_ok_and(|status| status.success());
    assert!(compiled, "{clang} does not compile the programs of the ebpf lane");
}

/// The lists of the engine as C.
fn header() -> String {
    let mut text = String::from("/* Made by build.rs from the lists of the engine. */\n#pragma once\n");
    let mut define = |name: String, value: usize| text.push_str(&format!("#define {name} {value}\n"));
    for (name, value) in numbers::NUMBERS {
        define((*name).to_owned(), *value as usize);
    }
    for cause in cause::Cause::ALL {
        define(format!("CAUSE_{}", cause.name().to_uppercase()), *cause as usize);
    }
    define("CAUSES".to_owned(), cause::Cause::COUNT);
    for reason in reason::DropReason::ALL {
        define(
            format!("REASON_{}", reason.name().to_uppercase()),
            *reason as usize,
        );
    }
    define("REASONS".to_owned(), reason::DropReason::COUNT);
    text
}
