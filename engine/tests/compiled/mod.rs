//! Functions of the programs of the `ebpf` lane, compiled for this machine by clang and called by a `main` of the test's own.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// What a C program prints that includes headers of the programs. `None`, with the reason on the standard error, where clang was missing
/// when the programs were built.
pub(crate) fn output(source: &str, words: impl IntoIterator<Item = String>) -> Option<String> {
    let missing = env!("ISATAP_BPF_MISSING");
    if !missing.is_empty() {
        eprintln!("not built: {missing}");
        return None;
    }
    let dir = env::temp_dir().join(format!("isatapd-compiled-{}", std::process::id()));
    fs::create_dir(&dir).expect("a directory");
    let (file, program) = (dir.join("asked.c"), dir.join("asked"));
    fs::write(&file, source).expect("a file");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("ebpf");
    let mut command = Command::new(clang);
    command.arg("-I").arg(headers).arg("-I").arg(env!("OUT_DIR"));
    let compiled = command.arg(file).arg("-o").arg(&program).status();
    let output = Command::new(&program).args(words).output();
    fs::remove_dir_all(&dir).expect("its own directory");
    assert!(compiled.expect("clang").success());
    Some(String::from_utf8(output.expect("the program").stdout).expect("text"))
}
