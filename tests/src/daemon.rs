//! The daemon under test: started in a namespace with its log captured, asked for its counters, stopped at the end.

mod builder;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub use builder::Builder;
use builder::{paths, spawn, write_config};

use crate::metrics::{Counters, Direction, Metrics, http_get};
use crate::netns::Netns;
use crate::wait;

/// Name of the tunnel interface (the contract's default).
pub const TUNNEL: &str = "is0";
/// Where metrics are served (the contract's default).
pub const METRICS: &str = "127.0.0.1:9441";
/// Generous: several daemons start at once on two cores.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The contract gives an orderly stop one second; the rest is for a busy machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How packets are carried; every verdict is the same on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// io_uring.
    Uring,
    /// epoll with `recvmmsg` and `sendmmsg`.
    Syscall,
    /// Programs in the kernel, with workers for what they leave.
    Ebpf,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Uring, Self::Syscall, Self::Ebpf];
    /// Those in which workers carry everything.
    pub const OF_WORKERS: [Self; 2] = [Self::Uring, Self::Syscall];

    /// The value of `--lane`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Syscall => "syscall",
            Self::Ebpf => "ebpf",
        }
    }
}

/// Finds a program of this workspace beside the running test.
///
/// # Panics
/// When it was not built: `cargo test -p isatap-tests` alone does not build the daemon.
pub fn program(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("the path of this program");
    let folder = me.parent().expect("a program lies in a folder");
    let found = [folder, folder.parent().unwrap_or(folder)]
        .iter()
        .map(|at| at.join(name))
        .find(|at| at.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not built beside {}: run `make test`, or first `cargo build -p isatapd`",
            me.display()
        )
    })
}

/// A running daemon. Dropping it stops it; when the test is failing, its log is printed.
#[derive(Debug)]
pub struct Daemon<'a> {
    ns: &'a Netns,
    child: Child,
    folder: TempDir,
    config: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
    ended: Option<ExitStatus>,
}

impl<'a> Daemon<'a> {
    /// A router with its locator at `v4`.
    pub fn router(ns: &'a Netns, v4: Ipv4Addr) -> Builder<'a> {
        Builder::new(ns).config(&format!("BindAddress {v4}"))
    }

    /// A host with its locator at `v4` and the given routers.
    pub fn host(ns: &'a Netns, v4: Ipv4Addr, routers: &[Ipv4Addr]) -> Builder<'a> {
        let builder = Builder::new(ns).config(&format!("BindAddress {v4}"));
        routers.iter().fold(builder, |builder, router| {
            builder.config(&format!("ServerAddress {router}"))
        })
    }

    /// The namespace it runs in.
    pub fn ns(&self) -> &'a Netns {
        self.ns
    }

    /// Its process id: the monitor's.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// When the process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The folder that holds its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until it answers `/healthz`.
    ///
    /// # Panics
    /// When it ends or does not serve in time, with its log.
    #[track_caller]
    pub fn wait_alive(&self) {
        self.wait_http("/healthz");
    }

    /// Waits until it answers `/ready`: packets can be carried.
    #[track_caller]
    pub fn wait_ready(&self) {
        self.wait_http("/ready");
    }

    #[track_caller]
    fn wait_http(&self, path: &str) {
        let proc = PathBuf::from(format!("/proc/{}/exe", self.child.id()));
        wait::until(&format!("isatapd to answer {path}"), START_TIMEOUT, || {
            // A child that has ended but was not waited for has no exe link any more.
            if fs::read_link(&proc).is_err() {
                panic!("isatapd ended instead of starting:\n{}", self.log());
            }
            match self.http(path) {
                Ok((200, _)) => Ok(()),
                Ok((status, _)) => Err(format!("status {status}")),
                Err(e) => Err(e),
            }
        });
    }

    /// Asks its HTTP server.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn http(&self, path: &str) -> Result<(u16, String), String> {
        http_get(self.ns, METRICS.parse::<SocketAddr>().expect("an address"), path)
    }

    /// All of its counters.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self
            .http("/metrics")
            .unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
        assert_eq!(status, 200, "/metrics: {text}");
        Metrics::parse(&text).unwrap_or_else(|e| panic!("/metrics: {e}"))
    }

    /// The counters of one direction. A scrape may see a packet received and not yet delivered: it is asked a few times for
    /// numbers that add up, and under load the last ones may not.
    #[track_caller]
    pub fn counters(&self, direction: Direction) -> Counters {
        const SCRAPES: usize = 10;
        let mut counters = self.metrics().direction(direction);
        for _ in 1..SCRAPES {
            if counters.balanced() {
                break;
            }
            counters = self.metrics().direction(direction);
        }
        counters
    }

    /// The counters of one direction when nothing is on the way any more: they add up, and stay as they are.
    #[track_caller]
    pub fn settled(&self, direction: Direction) -> Counters {
        wait::until("packets on the way to be counted", START_TIMEOUT, || {
            let (then, now) = (self.counters(direction), self.counters(direction));
            if now.balanced() && now == then {
                Ok(now)
            } else {
                Err(now.to_string())
            }
        })
    }

    /// Drops of one direction by reason.
    #[track_caller]
    pub fn drops(&self, direction: Direction) -> BTreeMap<String, u64> {
        self.counters(direction).drops
    }

    /// Waits until `count` more packets than at `before` were received in `direction` and all of them are
    /// accounted for; returns what was counted since.
    ///
    /// # Panics
    /// When that does not happen.
    #[track_caller]
    pub fn wait_received(&self, direction: Direction, before: &Counters, count: u64) -> Counters {
        wait::until(
            &format!("{count} packets to be counted ({direction:?})"),
            Duration::from_secs(5),
            || {
                let since = self.counters(direction).since(before);
                if since.received >= count && since.balanced() {
                    Ok(since)
                } else {
                    Err(since.to_string())
                }
            },
        )
    }

    /// Everything received in either direction is delivered, punted or dropped, exactly (DESIGN D12). Polls, since
    /// a scrape may see a batch half counted.
    ///
    /// # Panics
    /// When the two sides do not become equal.
    #[track_caller]
    pub fn conservation(&self) {
        wait::until(
            "received = delivered + punted + drops",
            Duration::from_secs(5),
            || {
                let metrics = self.metrics();
                for direction in Direction::ALL {
                    assert!(
                        metrics.has(
                            "isatapd_received_packets_total",
                            &[("direction", direction.label())]
                        ),
                        "isatapd_received_packets_total is not there"
                    );
                    let counters = metrics.direction(direction);
                    if !counters.balanced() {
                        return Err(format!("{direction:?}: {counters}"));
                    }
                }
                Ok(())
            },
        );
    }

    /// Waits until it knows a route of its interface, for example `2001:db8:1::/64`.
    ///
    /// # Panics
    /// When it does not learn it.
    #[track_caller]
    pub fn wait_route(&self, prefix: &str) {
        wait::until(&format!("{prefix} to be known"), Duration::from_secs(5), || {
            let output = self.ctl("routes");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.split_whitespace().any(|word| word == prefix) {
                Ok(())
            } else {
                Err(text)
            }
        });
    }

    /// Runs `isatapctl COMMAND` against it.
    pub fn ctl(&self, command: &str) -> Output {
        let socket = self.folder.path().join("control.sock");
        self.ns.try_run(&format!(
            "{} --socket {} {command}",
            program("isatapctl").display(),
            socket.display()
        ))
    }

    /// Replaces its configuration file, but for the first line, which keeps the control socket where it is.
    pub fn rewrite_config(&self, text: &str) {
        self.rewrite_config_bytes(text.as_bytes());
    }

    /// The same with bytes that may be no text.
    pub fn rewrite_config_bytes(&self, bytes: &[u8]) {
        write_config(self.folder.path(), bytes);
        debug_assert!(self.config.is_file());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the daemon");
    }

    /// What it wrote to the console so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    /// When it does not, with the log.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        wait::until(&format!("{text:?} in the log"), Duration::from_secs(5), || {
            let log = self.log();
            if log.contains(text) {
                Ok(())
            } else {
                Err(format!("\n{log}"))
            }
        });
    }

    /// Waits until the programs of the `ebpf` lane carry packets.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn wait_programs(&self) {
        self.wait_log("the kernel carries packets by the ebpf lane");
    }

    /// Waits until whoever carries in a lane does: workers have since the start, programs may not have got rules yet.
    ///
    /// # Panics
    /// When they do not get any.
    #[track_caller]
    pub fn wait_lane(&self, lane: Lane) {
        if lane == Lane::Ebpf {
            self.wait_programs();
        }
    }

    /// Waits until the programs of the `ebpf` lane leave all packets to the workers; at once where there are none.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn wait_held(&self) {
        wait::holds("the programs to be held", Duration::from_secs(5), || {
            self.metrics().sum("isatapd_kernel_carries", &[]) == 0
        });
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("isatapd (pid {}) to end", self.pid());
        let log = Arc::clone(&self.log);
        let child = &mut self.child;
        let status = wait::until(&what, timeout, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!(
                "it runs\n{}",
                log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
            )),
            Err(e) => Err(e.to_string()),
        });
        self.ended = Some(status);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }

    /// Starts another daemon with the files of one that has ended, and waits until it serves.
    ///
    /// # Panics
    /// When this one has not ended, or the other one does not serve in time.
    #[track_caller]
    pub fn start_again(mut self) -> Self {
        assert!(self.ended.is_some(), "it has not ended");
        let mut command = Command::new(program("isatapd"));
        command.arg("-f").args(paths(self.folder.path(), &self.config));
        self.started = Instant::now();
        (self.child, self.readers) = spawn(self.ns, command, &self.log);
        self.ended = None;
        self.wait_alive();
        self
    }

    /// Stops it with TERM; returns how long that took.
    ///
    /// # Panics
    /// When it does not end with status 0.
    #[track_caller]
    pub fn stop(&mut self) -> Duration {
        let asked = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = self.wait_exit(STOP_TIMEOUT);
        assert_eq!(
            status.code(),
            Some(0),
            "exit status after TERM; log:\n{}",
            self.log()
        );
        asked.elapsed()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let failing = thread::panicking();
        if failing {
            if let Ok((200, text)) = self.http("/metrics") {
                let counters = text
                    .lines()
                    .filter(|l| !l.starts_with('#') && !l.ends_with(" 0") && !l.contains("bucket"));
                eprintln!("--- counters of isatapd in {}", self.ns.name());
                counters.for_each(|line| eprintln!("{line}"));
            }
            eprintln!("--- log of isatapd in {}\n{}\n---", self.ns.name(), self.log());
        }
        if self.ended.is_none() && matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            let deadline = Instant::now() + STOP_TIMEOUT;
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    assert!(
                        failing,
                        "isatapd did not end within {STOP_TIMEOUT:?} of TERM:\n{}",
                        self.log()
                    );
                    break;
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}
