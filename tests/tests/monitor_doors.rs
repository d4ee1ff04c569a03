//! The doors that are left to somebody who has taken the monitor over: which files it may change, whom it may signal. Tried from inside
//! of a monitor that serves (FAULTS 72).
//!
//! ```text
//!   dut 10.0.0.1 (a bridge without ports) <- a tracer that has the monitor make calls
//! ```

#![cfg(target_arch = "x86_64")]

use std::fs;
use std::path::Path;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::inside::{Inside, Outcome};
use isatap_tests::netns::Netns;
use nix::libc;

const REFUSED: Outcome = Outcome::error(libc::EACCES);
/// Versions of Landlock that know of cutting off files (Linux 6.2), and of signals (6.12).
const WITH_TRUNCATION: i64 = 3;
const WITH_SIGNALS: i64 = 6;

fn lonely() -> Netns {
    let ns = Netns::new("dut");
    ns.ip_batch("link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up\n");
    ns
}

/// Calls with a path, by a copy of the monitor.
struct Doors<'a>(&'a Inside);

impl Doors<'_> {
    fn call(&self, number: i64, path: &str, rest: &[i32]) -> Outcome {
        let copy = self.0.copy();
        let mut arguments = [0; 6];
        arguments[0] = copy.text(path);
        for (to, from) in arguments[1..].iter_mut().zip(rest) {
            *to = i64::from(*from).cast_unsigned();
        }
        copy.call(number, arguments)
    }

    fn open(&self, path: &str, flags: i32) -> Outcome {
        self.call(libc::SYS_open, path, &[flags, 0o600])
    }

    fn is_open(&self, path: &str, flags: i32) -> bool {
        matches!(self.open(path, flags), Outcome::Value(0..))
    }
}

/// A file that everybody may write to, beside a folder in which everybody may do anything.
struct Elsewhere {
    folder: tempfile::TempDir,
}

impl Elsewhere {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "text").expect("a file");
        fs::create_dir(folder.path().join("sub")).expect("a folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// What this monitor can change is what it has to.
fn judge(daemon: &Daemon<'_>) {
    let elsewhere = Elsewhere::new();
    let monitor = Inside::of(daemon.pid());
    let doors = Doors(&monitor);
    let own = |name: &str| daemon.folder().join(name).display().to_string();
    let version = match monitor.call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0, 0]) {
        Outcome::Value(version) => version,
        ended => panic!("{ended:?}"),
    };
    let make = libc::O_CREAT | libc::O_WRONLY;

    // Its files and others' are read.
    for path in [own("pid"), elsewhere.path("file"), "/proc/self/mem".to_owned()] {
        assert!(doors.is_open(&path, libc::O_RDONLY), "{path}");
    }
    // Nothing is written to, not even by whom it belongs to.
    for path in [
        &own("pid"),
        &elsewhere.path("file"),
        "/proc/self/mem",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/net/ipv4/ip_forward",
        "/dev/zero",
    ] {
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC] {
            assert_eq!(doors.open(path, flags), REFUSED, "{path} {flags:#o}");
        }
    }
    let cut = doors.call(libc::SYS_truncate, &elsewhere.path("file"), &[0]);
    assert_eq!(cut == REFUSED, version >= WITH_TRUNCATION, "{cut:?}");
    // Nothing is made ...
    let device = i32::try_from(libc::makedev(1, 3)).expect("a device");
    for name in [own("new"), elsewhere.path("new")] {
        assert_eq!(doors.open(&name, make), REFUSED, "{name}");
        assert_eq!(doors.call(libc::SYS_mkdir, &name, &[0o700]), REFUSED, "{name}");
        for kind in [libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK] {
            let kind = kind.cast_signed() | 0o600;
            assert_eq!(doors.call(libc::SYS_mknod, &name, &[kind]), REFUSED, "{name}");
        }
        let kind = libc::S_IFCHR.cast_signed() | 0o600;
        let made = doors.call(libc::SYS_mknod, &name, &[kind, device]);
        assert!(
            [REFUSED, Outcome::error(libc::EPERM)].contains(&made),
            "{name}: {made:?}"
        );
        assert!(!Path::new(&name).exists());
    }
    // ... or removed, but where its own files are.
    assert_eq!(
        doors.call(libc::SYS_unlink, &elsewhere.path("file"), &[]),
        REFUSED
    );
    assert_eq!(doors.call(libc::SYS_rmdir, &elsewhere.path("sub"), &[]), REFUSED);
    // Removing is no way to anything else.
    let there = daemon.folder().join("to be removed");
    fs::write(&there, "").expect("a file");
    let gone = doors.call(libc::SYS_unlink, &there.display().to_string(), &[]);
    assert_eq!(gone, Outcome::Value(0));
    assert!(!there.exists());
    // What it has to write to.
    let sysctl = format!("/proc/sys/net/ipv6/conf/{TUNNEL}/hop_limit");
    for path in ["/dev/null", &sysctl] {
        assert!(doors.is_open(path, libc::O_WRONLY), "{path}");
    }
    // Whom it may signal: its engine, and not this test.
    let signal = |pid: i32| monitor.call(libc::SYS_kill, [u64::from(pid.cast_unsigned()), 0, 0, 0, 0, 0]);
    assert_eq!(signal(daemon.engine_pid()), Outcome::Value(0));
    let signalled = signal(nix::unistd::getpid().as_raw());
    assert_eq!(
        signalled == Outcome::error(libc::EPERM),
        version >= WITH_SIGNALS,
        "{signalled:?}"
    );
}

/// FAULTS 72: who has taken the monitor over writes to no file of the machine, its own memory by name included, and signals nobody else; the
/// rules are inherited by upgrades, and not entered again: the kernel stacks no more than 16.
fn a_monitor_changes_no_files(lane: Lane) {
    const UPGRADES: usize = 17;
    let ns = lonely();
    let mut daemon = Builder::new(&ns).lane(lane).start();
    judge(&daemon);
    for _ in 0..UPGRADES {
        let output = daemon.ctl("upgrade");
        assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    }
    judge(&daemon);
    daemon.conservation();
    // What it is for still works: the interface is set up, the files are removed.
    assert!(!daemon.log().contains("cannot write"), "{}", daemon.log());
    daemon.stop();
    for name in ["pid", "control.sock"] {
        assert!(!daemon.folder().join(name).exists(), "{name}");
    }
}

#[test]
fn a_monitor_changes_no_files_syscall() {
    a_monitor_changes_no_files(Lane::Syscall);
}

#[test]
fn a_monitor_changes_no_files_ebpf() {
    a_monitor_changes_no_files(Lane::Ebpf);
}

/// Without the layer the same doors are open: it is the rules that close them.
#[test]
fn without_the_layer_the_doors_are_open() {
    let ns = lonely();
    let mut daemon = Builder::new(&ns)
        .lane(Lane::Syscall)
        .config("SandboxWaive landlock")
        .start();
    let elsewhere = Elsewhere::new();
    let monitor = Inside::of(daemon.pid());
    let doors = Doors(&monitor);
    for path in [&elsewhere.path("file"), "/proc/self/mem", "/dev/zero"] {
        assert!(doors.is_open(path, libc::O_WRONLY), "{path}");
    }
    assert_eq!(
        doors.call(libc::SYS_unlink, &elsewhere.path("file"), &[]),
        Outcome::Value(0)
    );
    drop(monitor);
    daemon.stop();
}
