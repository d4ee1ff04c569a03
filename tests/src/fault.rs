//! Engines made to go wrong: by signals from outside, by wishes over the control socket of a debug build.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::Daemon;
use crate::wait;

/// Generous: a dead engine is followed at once, on a machine that does other things as well.
pub const FOLLOWED: Duration = Duration::from_secs(20);

/// Utters a wish (`control_panic`, `worker_wedge`, ...); returns what came of it, or nothing when nobody was left to say.
pub fn wish(daemon: &Daemon<'_>, fault: &str) -> Option<String> {
    let socket = daemon.folder().join("control.sock");
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    let line = format!("{{\"version\":1,\"command\":\"fault\",\"fault\":\"{fault}\"}}\n");
    stream.write_all(line.as_bytes()).expect("a wish");
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(len) if len > 0 => Some(answer),
        _ => None,
    }
}

/// Kills the engine of `daemon`; returns its process id.
pub fn kill_engine(daemon: &Daemon<'_>) -> i32 {
    let engine = daemon.engine_pid();
    kill(Pid::from_raw(engine), Signal::SIGKILL).expect("kill the engine");
    engine
}

/// Waits until `daemon` has another engine than `old` that answers; returns its process id.
///
/// # Panics
/// When it does not get one.
#[track_caller]
pub fn wait_successor(daemon: &Daemon<'_>, old: i32) -> i32 {
    wait::until("another engine", FOLLOWED, || match daemon.try_engine_pid() {
        Some(engine) if engine != old => match daemon.http("/healthz") {
            Ok((200, _)) => Ok(engine),
            other => Err(format!("it does not answer: {other:?}")),
        },
        other => Err(format!("{other:?} and not after {old}\n{}", daemon.log())),
    })
}

/// How often an engine was followed by another one, for this reason.
pub fn restarts(daemon: &Daemon<'_>, reason: &str) -> u64 {
    daemon
        .metrics()
        .sum("isatapd_engine_restarts_total", &[("reason", reason)])
}

/// Waits until the engine has served for so long that its death is no loop.
pub fn let_it_live(since: Instant) {
    // Its age is all that counts here: there is nothing else to wait for.
    std::thread::sleep((since + Duration::from_millis(1200)).saturating_duration_since(Instant::now()));
}
