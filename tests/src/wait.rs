//! Waiting for a condition instead of for a time.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short, since a test's length is the sum of its waits.
const POLL_INTERVAL: Duration = Duration::from_millis(4);

/// Polls `probe` until it answers `Ok`, and returns its value.
///
/// # Panics
/// When `timeout` has passed, with `what` and the last reason.
#[track_caller]
pub fn until<T, E: Display>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(reason) if start.elapsed() >= timeout => {
                panic!("waited {timeout:?} for {what}; last seen: {reason}")
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Polls `probe` until it is true.
///
/// # Panics
/// When `timeout` has passed.
#[track_caller]
pub fn holds(what: &str, timeout: Duration, mut probe: impl FnMut() -> bool) {
    until(what, timeout, || if probe() { Ok(()) } else { Err("not so yet") });
}
