//! The helper for name servers with programs that write down how they were called.

use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isatapd::link::dns::{DnsHandover, DnsHelper, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::MsgFlags;
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

fn begin(helper: DnsHelper) -> DnsHandover {
    let (stream, _process) = helper.into_parts();
    DnsHandover::begin(stream.into(), None).expect("a task")
}

/// The children of a process, in the order they were started.
fn children(process: u32) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let pids = list.split_whitespace();
    pids.map(|pid| Pid::from_raw(pid.parse().expect("a process id")))
        .collect()
}

/// The helper that this parent runs now, and no other than `but`.
async fn helper_of(parent: u32, but: Option<Pid>) -> Pid {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let [helper] = children(parent)[..]
            && Some(helper) != but
            && name_of(helper) == "isatapd-names\n"
        {
            return helper;
        }
        assert!(Instant::now() < deadline, "no helper");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn name_of(process: Pid) -> String {
    fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default()
}

async fn gone(process: u32) {
    let deadline = Instant::now() + PATIENCE;
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.trim().chars().next())
    };
    while !matches!(state(), None | Some('Z')) {
        assert!(Instant::now() < deadline, "{process} goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A directory with fake programs and what they were asked.
struct Programs {
    dir: tempfile::TempDir,
}

impl Programs {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        Self { dir }
    }

    /// A program that notes its arguments and its input, and ends as `then` says.
    fn add(&self, name: &str, then: &str) {
        let log = self.log_file();
        let script = format!(
            "#!/bin/sh\n{{ printf '{name}'; for a in \"$@\"; do printf ' [%s]' \"$a\"; done; echo; \
             /bin/sed 's/^/  /'; }} >> {}\n{then}\n",
            log.display()
        );
        // In one step: the one before may be running.
        let new = self.dir.path().join(format!("{name}.new"));
        fs::write(&new, script).expect("a script");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::rename(&new, self.dir.path().join(name)).expect("a place");
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn helper(&self) -> DnsHelper {
        let path = self.dir.path().to_str().expect("a plain path");
        DnsHelper::start_program(Path::new(env!("CARGO_BIN_EXE_isatapd")), "is0", path).expect("a helper")
    }

    async fn until(&self, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.log() != expected {
            assert!(
                Instant::now() < deadline,
                "instead of\n{expected}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn become_of(names: &DnsHandover, expected: Outcome) {
    let deadline = Instant::now() + PATIENCE;
    while names.outcome() != Some(expected) {
        assert!(
            Instant::now() < deadline,
            "{:?} instead of {expected:?}",
            names.outcome()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn control(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

fn server(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn domains(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// V10: set, changed, and withdrawn when the daemon is gone.
#[test]
fn v10_resolved_is_told() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 0");
    programs.add("resolvconf", "exit 0");
    control(async {
        let names = begin(programs.helper());
        names.set(
            &[server("2001:db8::1"), server("fe80::1")],
            &domains(&["a.example", "b"]),
        );
        let mut expected = "resolvectl [dns] [is0] [2001:db8::1] [fe80::1]\n\
                            resolvectl [domain] [is0] [a.example] [b]\n"
            .to_owned();
        programs.until(&expected).await;
        names.set(
            &[server("2001:db8::1"), server("fe80::1")],
            &domains(&["a.example", "b"]),
        );
        names.set(&[server("2001:db8::2")], &[]);
        expected += "resolvectl [dns] [is0] [2001:db8::2]\nresolvectl [domain] [is0] []\n";
        programs.until(&expected).await;
        names.set(&[], &[]);
        expected += "resolvectl [revert] [is0]\n";
        programs.until(&expected).await;
        names.set(&[], &domains(&["c"]));
        expected += "resolvectl [dns] [is0] []\nresolvectl [domain] [is0] [c]\n";
        programs.until(&expected).await;
        drop(names);
        expected += "resolvectl [revert] [is0]\n";
        programs.until(&expected).await;
    });
}

/// V10: where resolved does not run, resolvconf is told.
#[test]
fn v10_resolvconf_is_told_when_resolved_refuses() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 1");
    programs.add("resolvconf", "exit 0");
    control(async {
        let names = begin(programs.helper());
        names.set(&[server("2001:db8::1")], &domains(&["a.example"]));
        let mut expected = "resolvectl [dns] [is0] [2001:db8::1]\n\
                            resolvconf [-a] [is0.isatapd]\n  nameserver 2001:db8::1\n  search a.example\n"
            .to_owned();
        programs.until(&expected).await;
        // resolved began to run meanwhile: it gets them, and resolvconf's are withdrawn.
        programs.add("resolvectl", "exit 0");
        names.set(&[server("2001:db8::2")], &[]);
        expected += "resolvectl [dns] [is0] [2001:db8::2]\nresolvectl [domain] [is0] []\n\
                     resolvconf [-d] [is0.isatapd]\n";
        programs.until(&expected).await;
        drop(names);
        expected += "resolvectl [revert] [is0]\n";
        programs.until(&expected).await;
    });
}

/// A program that is missing or says no harms nobody: the next list is tried again.
#[test]
fn programs_that_fail() {
    let programs = Programs::new();
    control(async {
        let names = begin(programs.helper());
        names.set(&[server("2001:db8::1")], &[]);
        become_of(&names, Outcome::Nobody).await;
        programs.add("resolvconf", "exit 3");
        names.set(&[server("2001:db8::2")], &[]);
        become_of(&names, Outcome::Failed).await;
        programs.add("resolvconf", "exit 0");
        names.set(&[server("2001:db8::3")], &[]);
        become_of(&names, Outcome::Done).await;
        let said = [2, 3].map(|n| format!("resolvconf [-a] [is0.isatapd]\n  nameserver 2001:db8::{n}\n"));
        assert_eq!(programs.log(), said.concat());
    });
}

/// The helper has no capability, and no child of it gets one; it is not the daemon by name, and outlives a signal to it.
#[test]
fn the_helper_has_little_power() {
    let programs = Programs::new();
    let status = programs.dir.path().join("status");
    programs.add(
        "resolvectl",
        &format!(
            "/bin/cat /proc/self/status > {}.new; /bin/mv {0}.new {0}",
            status.display()
        ),
    );
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        assert_eq!(children(parent), [], "nothing was to be handed over yet");
        let names = begin(helper);
        names.set(&[server("2001:db8::1")], &[]);
        let mut expected = "resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n".to_owned();
        programs.until(&expected).await;
        become_of(&names, Outcome::Done).await;
        let helper = helper_of(parent, None).await;
        let of = |process| fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let parent = i32::try_from(parent).expect("a process id");
        let (own, of_parent) = (of(helper.as_raw()), of(parent));
        assert!(of_parent.starts_with("Name:\tisatapd-dns\n"), "{of_parent}");
        let child = fs::read_to_string(&status).expect("it ran");
        for (what, text) in [("parent", of_parent), ("helper", own), ("child", child)] {
            for line in [
                "CapInh:\t0000000000000000",
                "CapPrm:\t0000000000000000",
                "CapEff:\t0000000000000000",
                "NoNewPrivs:\t1",
            ] {
                assert!(text.contains(line), "{what}: {line} in\n{text}");
            }
        }
        for process in [Pid::from_raw(parent), helper] {
            kill(process, Signal::SIGTERM).expect("it runs");
        }
        drop(names);
        expected += "resolvectl [revert] [is0]\n";
        programs.until(&expected).await;
    });
}

/// V10: a helper that was killed is followed by another one, which hands over once more what is in force, takes what comes, and
/// withdraws it from whoever may have it, also when it is killed as the daemon ends.
#[test]
fn v10_a_helper_that_dies_is_followed() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 1");
    programs.add("resolvconf", "exit 0");
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        let names = begin(helper);
        names.set(&[server("2001:db8::1")], &[]);
        let mut expected = "resolvectl [dns] [is0] [2001:db8::1]\n\
                            resolvconf [-a] [is0.isatapd]\n  nameserver 2001:db8::1\n"
            .to_owned();
        programs.until(&expected).await;
        become_of(&names, Outcome::Done).await;
        // resolved began to run meanwhile, and nobody knows who has the names.
        programs.add("resolvectl", "exit 0");
        let first = helper_of(parent, None).await;
        kill(first, Signal::SIGKILL).expect("it runs");
        expected += "resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n\
                     resolvconf [-d] [is0.isatapd]\n";
        programs.until(&expected).await;
        names.set(&[server("2001:db8::2")], &[]);
        expected += "resolvectl [dns] [is0] [2001:db8::2]\nresolvectl [domain] [is0] []\n";
        programs.until(&expected).await;
        // The next one finds the daemon gone.
        let second = helper_of(parent, Some(first)).await;
        kill(second, Signal::SIGSTOP).expect("it runs");
        drop(names);
        tokio::task::yield_now().await;
        kill(second, Signal::SIGKILL).expect("it runs");
        expected += "resolvectl [revert] [is0]\nresolvconf [-d] [is0.isatapd]\n";
        programs.until(&expected).await;
        gone(parent).await;
    });
}

/// V10: systemd-resolved's resolvconf is resolvectl by another name. A helper that takes names back from everybody else who may have
/// them must not take these.
#[test]
fn v10_resolvconf_may_be_resolvectl() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 0");
    std::os::unix::fs::symlink("resolvectl", programs.dir.path().join("resolvconf")).expect("a link");
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        let names = begin(helper);
        names.set(&[server("2001:db8::1")], &[]);
        let given = "resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n";
        programs.until(given).await;
        become_of(&names, Outcome::Done).await;
        kill(helper_of(parent, None).await, Signal::SIGKILL).expect("it runs");
        programs.until(&given.repeat(2)).await;
        drop(names);
        programs
            .until(&(given.repeat(2) + "resolvectl [revert] [is0]\n"))
            .await;
    });
}

/// Names that come while no helper runs are the next one's.
#[test]
fn what_a_helper_did_not_live_to_do_the_next_one_does() {
    let programs = Programs::new();
    // The first program kills who has started it.
    programs.add("resolvconf", "kill -9 $PPID");
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        let names = begin(helper);
        names.set(&[server("2001:db8::1")], &[]);
        let mut expected = "resolvconf [-a] [is0.isatapd]\n  nameserver 2001:db8::1\n".to_owned();
        programs.until(&expected).await;
        names.set(&[server("2001:db8::2")], &[]);
        programs.add("resolvconf", "exit 0");
        expected += "resolvconf [-a] [is0.isatapd]\n  nameserver 2001:db8::2\n";
        programs.until(&expected).await;
        become_of(&names, Outcome::Done).await;
        drop(names);
        expected += "resolvconf [-d] [is0.isatapd]\n";
        programs.until(&expected).await;
        gone(parent).await;
    });
}

/// A daemon that never hears of name servers runs no helper.
#[test]
fn nothing_to_hand_over_needs_no_helper() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 0");
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        let names = begin(helper);
        names.set(&[], &[]);
        tokio::task::yield_now().await;
        drop(names);
        gone(parent).await;
        assert_eq!(programs.log(), "");
    });
}

/// Nor does one whose engine before this one may have handed some over, and did not.
#[test]
fn nothing_to_withdraw_needs_no_helper() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 0");
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        let (stream, _process) = helper.into_parts();
        let names = DnsHandover::begin(stream.into(), Some(Duration::from_millis(10))).expect("a task");
        become_of(&names, Outcome::Done).await;
        assert_eq!(children(parent), []);
        // The first one that there is something to hand over to is there as ever.
        names.set(&[server("2001:db8::1")], &[]);
        helper_of(parent, None).await;
        programs
            .until("resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n")
            .await;
    });
}

/// The next engine takes over what the one before it handed over; when no router says so again, it is withdrawn.
#[test]
fn a_successor_withdraws_what_nobody_advertises() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 0");
    control(async {
        let (stream, _process) = programs.helper().into_parts();
        let held = stream.try_clone().expect("a descriptor");
        let names = DnsHandover::begin(stream.into(), None).expect("a task");
        names.set(&[server("2001:db8::1")], &[]);
        let mut expected = "resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n".to_owned();
        programs.until(&expected).await;
        drop(names);
        let limit = Duration::from_millis(10);
        let next = DnsHandover::begin(held.into(), Some(limit)).expect("a task");
        next.set(&[], &[]);
        expected += "resolvectl [revert] [is0]\n";
        programs.until(&expected).await;
        become_of(&next, Outcome::Done).await;
    });
}

/// What a compromised engine sends instead of lists is answered, and changes nothing; an empty message is not the end.
#[test]
fn nonsense_is_no_list() {
    let programs = Programs::new();
    programs.add("resolvectl", "exit 0");
    control(async {
        let helper = programs.helper();
        let parent = helper.process_id();
        let (stream, _process) = helper.into_parts();
        let held = stream.try_clone().expect("a descriptor");
        let names = DnsHandover::begin(stream.into(), None).expect("a task");
        names.set(&[server("2001:db8::1")], &[]);
        let mut expected = "resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n".to_owned();
        programs.until(&expected).await;
        become_of(&names, Outcome::Done).await;
        let first = helper_of(parent, None).await;
        let raw = std::os::unix::net::UnixStream::from(held);
        for odd in [&b"\0\x01\x02-a"[..], &[9; 4096]] {
            nix::sys::socket::send(raw.as_raw_fd(), odd, MsgFlags::empty()).expect("room");
            become_of(&names, Outcome::Failed).await;
            names.set(&[server("2001:db8::2")], &[]);
            expected += "resolvectl [dns] [is0] [2001:db8::2]\nresolvectl [domain] [is0] []\n";
            programs.until(&expected).await;
            become_of(&names, Outcome::Done).await;
            names.set(&[server("2001:db8::1")], &[]);
            expected += "resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n";
            programs.until(&expected).await;
            become_of(&names, Outcome::Done).await;
        }
        assert_eq!(helper_of(parent, None).await, first);
        nix::sys::socket::send(raw.as_raw_fd(), &[], MsgFlags::empty()).expect("room");
        expected +=
            "resolvectl [revert] [is0]\nresolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n";
        programs.until(&expected).await;
        drop((names, raw));
        expected += "resolvectl [revert] [is0]\n";
        programs.until(&expected).await;
        gone(parent).await;
    });
}
