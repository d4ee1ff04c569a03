//! What `-V` prints: the version, then one line per kernel feature.

use std::fmt::Write as _;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Name and release of the running kernel, such as `Linux 6.18.5`.
pub fn kernel() -> String {
    match nix::sys::utsname::uname() {
        Ok(name) => format!(
            "{} {}",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy()
        ),
        Err(_) => "unknown kernel".to_owned(),
    }
}

/// The whole text.
pub fn text() -> String {
    let mut text = format!("isatapd {VERSION}\nkernel: {}\n", kernel());
    for feature in isatap_engine::io::probe::features() {
        let state = match feature.state {
            Ok(state) => state,
            Err(reason) => format!("not available: {reason}"),
        };
        let _ = writeln!(text, "{}: {state}", feature.name);
    }
    text
}
