//! A daemon about to be started: its configuration, its arguments, and how.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tempfile::TempDir;

use super::{Daemon, Lane, START_TIMEOUT, program};
use crate::dns::Etc;
use crate::metrics::http_get;
use crate::netns::Netns;
use crate::wait;

/// Layers of the sandbox that every daemon of this run does without: `ISATAPD_TEST_WAIVE="seccomp landlock"` is for builds
/// with a sanitizer, which makes calls and writes files of its own.
const WAIVE: &str = "ISATAPD_TEST_WAIVE";

/// The lane of every daemon of this run whose test does not name one: `ISATAPD_TEST_LANE=ebpf make test`. Without it the
/// daemon chooses, as it does for everybody.
const LANE: &str = "ISATAPD_TEST_LANE";

/// A daemon about to be started.
#[derive(Debug)]
pub struct Builder<'a> {
    ns: &'a Netns,
    config: String,
    arguments: Vec<String>,
    etc: Option<&'a Etc>,
    limits: Vec<String>,
    program: PathBuf,
}

impl<'a> Builder<'a> {
    /// In `ns`, with an empty configuration.
    pub fn new(ns: &'a Netns) -> Self {
        Self {
            ns,
            config: String::new(),
            arguments: Vec::new(),
            etc: None,
            limits: Vec::new(),
            program: program("isatapd"),
        }
    }

    /// Another file than the one of this workspace.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.program);
        self
    }

    /// Lets it have so many descriptors at most.
    #[must_use]
    pub fn descriptors(self, limit: usize) -> Self {
        self.limit("nofile", limit)
    }

    /// Sets a resource limit, soft and hard, by its name for prlimit(1).
    #[must_use]
    pub fn limit(mut self, name: &str, limit: usize) -> Self {
        self.limits.push(format!("--{name}={limit}"));
        self
    }

    /// Gives it a `resolv.conf` and a hosts file of its own.
    #[must_use]
    pub fn etc(mut self, etc: &'a Etc) -> Self {
        self.etc = Some(etc);
        self
    }

    fn command(&self) -> Command {
        match self.etc {
            Some(etc) => etc.command(&self.program),
            None if self.limits.is_empty() => Command::new(&self.program),
            None => {
                let mut command = Command::new("prlimit");
                command.args(&self.limits).arg(&self.program);
                command
            }
        }
    }

    /// Adds a line (or several) to the configuration file.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push_str(line);
        self.config.push('\n');
        self
    }

    /// Adds arguments, split at blanks.
    #[must_use]
    pub fn args(mut self, line: &str) -> Self {
        self.arguments.extend(line.split_whitespace().map(str::to_owned));
        self
    }

    /// Sets the number of workers.
    #[must_use]
    pub fn workers(self, count: usize) -> Self {
        self.config(&format!("Workers {count}"))
    }

    /// Sets the lane.
    #[must_use]
    pub fn lane(self, lane: Lane) -> Self {
        self.config(&format!("Lane {}", lane.name()))
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it ends or does not serve in time, with its log.
    #[track_caller]
    pub fn start(self) -> Daemon<'a> {
        let daemon = self.launch();
        daemon.wait_alive();
        daemon
    }

    /// Starts it with its metrics at another port than the default, and waits until it serves there.
    #[track_caller]
    pub fn start_at(self, port: u16) -> Daemon<'a> {
        let ns = self.ns;
        let daemon = self.launch();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until(
            &format!("isatapd to answer at port {port}"),
            START_TIMEOUT,
            || http_get(ns, address, "/healthz").map_err(|e| format!("{e}\n{}", daemon.log())),
        );
        daemon
    }

    /// Starts it and waits for nothing.
    pub fn launch(self) -> Daemon<'a> {
        let folder = scratch();
        let config = write_config(folder.path(), self.config.as_bytes());
        let mut command = self.command();
        let is_named = self.config.lines().any(|line| line.starts_with("Lane "))
            || self.arguments.iter().any(|argument| argument == "--lane");
        if let (Ok(lane), false) = (std::env::var(LANE), is_named) {
            command.args(["--lane", &lane]);
        }
        command
            .arg("-f")
            .args(paths(folder.path(), &config))
            .args(&self.arguments);
        let started = Instant::now();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (child, readers) = spawn(self.ns, command, &log);
        Daemon {
            ns: self.ns,
            child,
            folder,
            config,
            log,
            readers,
            started,
            ended: None,
        }
    }

    /// Runs it to its end, for command lines that do not leave a daemon running.
    pub fn output(self) -> Output {
        let folder = scratch();
        let config = write_config(folder.path(), self.config.as_bytes());
        let mut command = self.command();
        command
            .args(paths(folder.path(), &config))
            .args(&self.arguments)
            .stdin(Stdio::null());
        self.ns.enter(|| command.output()).expect("start isatapd")
    }
}

fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("isatapd-test-")
        .tempdir()
        .expect("a temporary folder")
}

pub(super) fn write_config(folder: &Path, content: &[u8]) -> PathBuf {
    let path = folder.join("isatapd.conf");
    let mut bytes = format!("ControlSocket {}\n", folder.join("control.sock").display()).into_bytes();
    bytes.extend_from_slice(content);
    if let Ok(layers) = std::env::var(WAIVE) {
        bytes.extend_from_slice(format!("\nSandboxWaive {layers}\n").as_bytes());
    }
    fs::write(&path, bytes).expect("write a configuration file");
    path
}

/// Arguments that keep a daemon's files inside `folder`.
pub(super) fn paths(folder: &Path, config: &Path) -> Vec<String> {
    let text = |path: PathBuf| path.display().to_string();
    let (pidfile, root) = (folder.join("pid"), folder.join("root"));
    [
        "-c".into(),
        text(config.to_owned()),
        "-p".into(),
        text(pidfile),
        "-t".into(),
        text(root),
    ]
    .into()
}

/// Starts it with what it says added to `log`.
pub(super) fn spawn(
    ns: &Netns,
    mut command: Command,
    log: &Arc<Mutex<Vec<String>>>,
) -> (Child, Vec<JoinHandle<()>>) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = ns.spawn(&mut command);
    let error = child.stderr.take().expect("a pipe was asked for");
    let output = child.stdout.take().expect("a pipe was asked for");
    let readers = vec![
        read_lines(error, Arc::clone(log)),
        read_lines(output, Arc::clone(log)),
    ];
    (child, readers)
}

fn read_lines(from: impl std::io::Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
