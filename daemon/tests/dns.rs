//! The helper for name servers with programs that write down how they were called.

use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isatapd::link::dns::{DnsHandover, DnsHelper, Outcome};

const PATIENCE: Duration = Duration::from_secs(20);

fn begin(helper: DnsHelper) -> DnsHandover {
    let (stream, _process) = helper.into_parts();
    DnsHandover::begin(stream.into()).expect("a task")
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
        let process = helper.process_id();
        let own = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        assert!(own.starts_with("Name:\tisatapd-dns\n"), "{own}");
        let names = begin(helper);
        names.set(&[server("2001:db8::1")], &[]);
        programs
            .until("resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\n")
            .await;
        let child = fs::read_to_string(&status).expect("it ran");
        for (what, text) in [("helper", own), ("child", child)] {
            for line in [
                "CapInh:\t0000000000000000",
                "CapPrm:\t0000000000000000",
                "CapEff:\t0000000000000000",
                "NoNewPrivs:\t1",
            ] {
                assert!(text.contains(line), "{what}: {line} in\n{text}");
            }
        }
        let process = nix::unistd::Pid::from_raw(i32::try_from(process).expect("a process id"));
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        drop(names);
        programs
            .until("resolvectl [dns] [is0] [2001:db8::1]\nresolvectl [domain] [is0] []\nresolvectl [revert] [is0]\n")
            .await;
    });
}
