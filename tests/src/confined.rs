//! Programs on a machine, or in a container, that refuses them something: a system call, a limit, a file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::program;

/// A program that becomes `name` after `call` has been made to fail with `errno`; it lies in `folder`.
///
/// # Panics
/// When `folder` cannot be written to.
pub fn refusing(folder: &TempDir, name: &str, call: &str, errno: i32) -> PathBuf {
    refusing_rules(folder, name, &json!([{ "syscall": call }]), errno)
}

/// The same for calls that match one of `rules`, in the form of seccompiler.
///
/// # Panics
/// When `folder` cannot be written to.
pub fn refusing_rules(folder: &TempDir, name: &str, rules: &Value, errno: i32) -> PathBuf {
    let filters = folder.path().join("filters.json");
    let filter = json!({
        "refusing": {
            "mismatch_action": "allow",
            "match_action": { "errno": errno },
            "filter": rules
        }
    });
    fs::write(&filters, filter.to_string()).expect("write the filter");
    let script = folder.path().join(name);
    let text = format!(
        "#!/bin/sh\nexec {} {} {} \"$@\"\n",
        program("isatap-confined").display(),
        filters.display(),
        program(name).display()
    );
    fs::write(&script, text).expect("write the script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("make it a program");
    script
}
