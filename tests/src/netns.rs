//! A network namespace owned by a guard: created under a unique name, deleted with everything in it on drop.

use std::fs::{self, File};
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where `ip netns` keeps its handles.
const HANDLES: &str = "/run/netns";
/// Every namespace of this harness is named `it-<pid>-<number>-<label>`.
const PREFIX: &str = "it-";

static COUNTER: AtomicU32 = AtomicU32::new(0);
static REAP: Once = Once::new();

/// A network namespace of this process. Dropping it kills what still runs inside and deletes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: File,
}

impl Netns {
    /// Creates a namespace with its loopback interface up. The first call of a process also removes namespaces
    /// left behind by test processes that no longer exist.
    ///
    /// # Panics
    /// When the namespace cannot be created: these tests need root.
    pub fn new(label: &str) -> Self {
        REAP.call_once(reap_leftovers);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", process::id());
        let made = Command::new("ip")
            .args(["netns", "add", &name])
            .output()
            .expect("iproute2 is installed");
        assert!(
            made.status.success(),
            "cannot create network namespace {name} (root is needed): {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let handle = File::open(Path::new(HANDLES).join(&name)).expect("the handle of a namespace just made");
        let ns = Self { name, handle };
        ns.ip("link set lo up");
        ns
    }

    /// The name `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a thread of its own inside the namespace; sockets and processes it opens belong there.
    /// A panic of `f` is passed on.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                join_namespace(&self.handle);
                f()
            });
            inside.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// Starts a thread inside the namespace and leaves it running.
    pub fn spawn_thread<T, F>(&self, f: F) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let handle = self.handle.try_clone().expect("duplicate a namespace handle");
        thread::spawn(move || {
            join_namespace(&handle);
            f()
        })
    }

    /// Starts `command` inside the namespace.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Child {
        self.enter(|| command.spawn())
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"))
    }

    /// Runs a command line (split at blanks) inside the namespace to its end, whatever its result.
    pub fn try_run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a command line has a program"));
        command.args(words).stdin(Stdio::null());
        self.enter(|| command.output())
            .unwrap_or_else(|e| panic!("cannot start `{line}`: {e}"))
    }

    /// Runs a command line inside the namespace and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with its messages.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        assert!(
            output.status.success(),
            "in {}: `{line}` failed ({}): {}{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `ip ARGS` inside the namespace.
    #[track_caller]
    pub fn ip(&self, args: &str) -> String {
        self.run(&format!("ip {args}"))
    }

    /// Runs several `ip` commands, one a line, in one process.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        let mut command = Command::new("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.spawn(&mut command);
        child
            .stdin
            .take()
            .expect("a pipe was asked for")
            .write_all(lines.as_bytes())
            .expect("feed ip -batch");
        let output = child.wait_with_output().expect("wait for ip -batch");
        assert!(
            output.status.success(),
            "in {}: ip -batch failed: {}\n{lines}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Sets a sysctl below `net`, for example `ipv6/conf/all/forwarding`.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = sysctl_path(key);
        let set = self.enter(|| fs::write(&path, value));
        set.unwrap_or_else(|e| panic!("in {}: {} := {value}: {e}", self.name, path.display()));
    }

    /// Reads a sysctl below `net`.
    #[track_caller]
    pub fn read_sysctl(&self, key: &str) -> String {
        let path = sysctl_path(key);
        let text = self.enter(|| fs::read_to_string(&path));
        text.unwrap_or_else(|e| panic!("in {}: {}: {e}", self.name, path.display()))
            .trim()
            .to_owned()
    }

    /// Writes an attribute of an interface below `/sys/class/net` (`ip netns exec` mounts the namespace's own).
    #[track_caller]
    pub fn set_device_attribute(&self, device: &str, attribute: &str, value: &str) {
        let script = format!("echo {value} > /sys/class/net/{device}/{attribute}");
        let done = Command::new("ip")
            .args(["netns", "exec", &self.name, "sh", "-c", &script])
            .output();
        let done = done.expect("iproute2 is installed");
        assert!(
            done.status.success(),
            "in {}: {script}: {}",
            self.name,
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Whether an interface of this name exists.
    pub fn has_link(&self, device: &str) -> bool {
        self.try_run(&format!("ip link show dev {device}"))
            .status
            .success()
    }

    /// Processes whose main thread is in this namespace.
    pub fn pids(&self) -> Vec<i32> {
        pids_in(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn join_namespace(handle: &File) {
    setns(handle, CloneFlags::CLONE_NEWNET).expect("enter a network namespace (root is needed)");
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

fn pids_in(name: &str) -> Vec<i32> {
    let Ok(listed) = Command::new("ip")
        .args(["netns", "pids", name])
        .stderr(Stdio::null())
        .output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// Ends what runs in the namespace and deletes it. Never panics: it is called while a test unwinds.
fn remove(name: &str) {
    for pid in pids_in(name) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

/// Removes namespaces whose test process was killed before its guards could run.
fn reap_leftovers() {
    let Ok(entries) = fs::read_dir(HANDLES) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let Some(owner) = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn namespace_is_entered_and_removed() {
        let ns = Netns::new("guard");
        let path = Path::new(HANDLES).join(ns.name());
        assert!(path.exists());
        assert!(ns.has_link("lo"));
        assert!(!ns.has_link("nosuch0"));
        let outside = fs::read_link("/proc/thread-self/ns/net").expect("own namespace");
        let inside = ns.enter(|| fs::read_link("/proc/thread-self/ns/net").expect("own namespace"));
        assert_ne!(outside, inside);
        ns.enter(|| UdpSocket::bind("127.0.0.1:9").expect("loopback is up inside"));
        let mut sleeper = ns.spawn(Command::new("sleep").arg("1000"));
        assert_eq!(ns.pids(), [i32::try_from(sleeper.id()).expect("a pid")]);
        drop(ns);
        assert!(!path.exists());
        assert!(
            !sleeper.wait().expect("wait").success(),
            "dropping the guard ends what runs inside"
        );
    }

    #[test]
    fn namespace_goes_away_on_panic() {
        let mut path = PathBuf::new();
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let ns = Netns::new("panic");
            path = Path::new(HANDLES).join(ns.name());
            panic!("as a failing test does");
        }));
        assert!(result.is_err());
        assert!(!path.exists());
    }

    #[test]
    fn leftovers_of_dead_processes_are_reaped() {
        let mut child = Command::new("true").spawn().expect("true");
        let dead = child.id();
        child.wait().expect("wait");
        let name = format!("{PREFIX}{dead}-0-left");
        assert!(
            Command::new("ip")
                .args(["netns", "add", &name])
                .status()
                .expect("ip")
                .success()
        );
        reap_leftovers();
        assert!(!Path::new(HANDLES).join(&name).exists());
    }
}
