//! The unit: what systemd says of it, and the daemon in the confinement that it asks for (U1, U4, U14; FAULTS 71).
//!
//! ```text
//!   rtr 10.0.0.1 (isatapd as the unit starts it) ----- h 10.0.0.2 (isatapd)
//! ```
//!
//! No systemd runs where tests run. What it would take away is taken away by the harness (`unit`): user, capabilities,
//! mounts, system calls; and a socket listens as it would.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::netns::Netns;
use isatap_tests::package::{documents, install_script, top};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::scratch_root::ScratchRoot;
use isatap_tests::service::{Service, WATCHDOG};
use isatap_tests::topology::Site;
use isatap_tests::unit::Unit;
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const UNIT: &str = "usr/local/lib/systemd/system/isatapd.service";
/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_PERFMON, CAP_BPF (capabilities(7)).
const BOUNDING: u64 = (1 << 12) | (1 << 13) | (1 << 18) | (1 << 38) | (1 << 39);

/// The unit as `make install` writes it, where systemd-analyze finds the programs it names.
fn unit_file() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = fs::read_to_string(top().join("daemon/packaging/isatapd.service")).expect("the unit");
    let text = text
        .replace("@BINDIR@/isatapctl", "/bin/true")
        .replace("@SBINDIR@/isatapd", "/bin/true");
    fs::write(folder.path().join("isatapd.service"), text).expect("write");
    folder
}

fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(["--no-pager"])
        .args(arguments)
        .arg(unit.join("isatapd.service"))
        .output()
        .expect("systemd is installed");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = unit_file();
    let (done, text) = analyze(&["verify", "--man=no"], folder.path());
    assert!(done, "{text}");
    let about_us: Vec<_> = text
        .lines()
        .filter(|line| line.contains("isatapd.service"))
        .collect();
    assert!(about_us.is_empty(), "{text}");
}

#[test]
fn systemd_rates_its_exposure_at_two_at_most() {
    let folder = unit_file();
    // A threshold of 20 is an exposure of 2.0.
    let (done, text) = analyze(&["security", "--offline=true", "--threshold=20"], folder.path());
    let verdict = text.lines().find(|line| line.contains("Overall exposure level"));
    eprintln!("{}", verdict.unwrap_or_default());
    assert!(done && verdict.is_some(), "{text}");
}

/// A root with everything installed and the user made.
fn installed() -> ScratchRoot {
    let (root, docs) = (ScratchRoot::new(), documents());
    install_script(&root, docs.path(), "install");
    root.run("systemd-sysusers isatapd.conf && systemd-tmpfiles --create isatapd.conf");
    root
}

fn config(more: &str) -> String {
    format!("BindAddress 10.0.0.1\nWorkers 2\n{more}\n")
}

/// The mask of capabilities in a line of a status file.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let text = line.unwrap_or_else(|| panic!("{name}: {status}"));
    u64::from_str_radix(text.trim(), 16).expect("a mask")
}

/// Every process of the service: the one that was started, and those that it started.
fn processes(ns: &Netns) -> Vec<(String, String)> {
    let read = |pid: i32, name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let of = |pid: &i32| (read(*pid, "comm").trim().to_owned(), read(*pid, "status"));
    ns.pids().iter().map(of).collect()
}

/// The threads that carry packets, whichever process they are in.
fn workers(ns: &Netns) -> Vec<i32> {
    let tasks = ns.pids().into_iter().flat_map(|pid| {
        fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
    });
    let workers = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("worker-"))
    });
    workers
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

#[test]
fn the_daemon_works_in_the_confinement_of_its_unit() {
    let (root, site) = (installed(), Site::new());
    let (rtr, h) = (site.member("rtr", 1), site.member("h", 2));
    rtr.sysctl("ipv6/conf/all/forwarding", "1");
    // As many workers as cores: then each is pinned to one.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    root.write(
        "etc/isatapd.conf",
        &format!(
            "BindAddress 10.0.0.1\nWorkers {cores}\nAdvertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\n"
        ),
    );
    let unit = Unit::parse(&root.read(UNIT));
    let service = Service::start(&root, &rtr, &unit);
    let status = service.wait_told("STATUS=");
    assert!(
        status.starts_with("STATUS=router at 10.0.0.1 on is0, "),
        "{status}"
    );

    // Packets, with a host that is configured by it.
    let host = Daemon::host(
        &h,
        "10.0.0.2".parse().expect("an address"),
        &["10.0.0.1".parse().expect("an address")],
    );
    let host = host.start();
    host.wait_ready();
    ping_until(
        &h,
        &on_link("10.0.0.1".parse().expect("an address")).to_string(),
        SOON,
    );

    // Nothing that it wanted was refused: it says so otherwise.
    let log = service.log();
    for refused in ["cannot", "denied", "not permitted", "warning", "refused"] {
        assert!(!log.contains(refused), "{refused:?} in:\n{log}");
    }
    // The sysctls of its interface are its own, all others are not writable there.
    assert_eq!(rtr.read_sysctl(&format!("ipv6/conf/{TUNNEL}/accept_ra")), "0");
    assert_eq!(rtr.read_sysctl(&format!("ipv6/conf/{TUNNEL}/forwarding")), "1");

    // FAULTS 71: an unprivileged user all along, and no way to more.
    let uid = root.run("id -u isatapd").trim().to_owned();
    let all = processes(&rtr);
    assert!(all.iter().any(|(name, _)| name == "isatapd"), "{all:?}");
    for (name, status) in &all {
        let ids = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap_or_default();
        assert_eq!(
            ids.split_whitespace().skip(1).collect::<Vec<_>>(),
            [&uid[..]; 4],
            "{name}"
        );
        assert_eq!(mask(status, "CapBnd:") & !BOUNDING, 0, "{name}");
        assert_eq!(mask(status, "CapEff:") & !BOUNDING, 0, "{name}");
        assert!(
            status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
            "{name}: {status}"
        );
    }
    let workers = workers(&rtr);
    assert_eq!(workers.len(), cores);
    for tid in workers {
        let status = fs::read_to_string(format!("/proc/{tid}/status")).expect("a running worker");
        assert_eq!(mask(&status, "CapEff:"), 0, "{status}");
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let is_one = allowed.is_some_and(|list| list.trim().parse::<u32>().is_ok());
        assert!(is_one, "a worker that may run anywhere: {status}");
    }

    // Its files are where the unit puts them, and its owner's.
    assert_eq!(
        root.run("stat -c %U /run/isatapd/control.sock /run/isatapd/isatapd.pid"),
        "isatapd\nisatapd\n"
    );
    assert_eq!(service.stop(), Some(0));
    wait::holds("the interface to go", SOON, || !rtr.has_link(TUNNEL));
    assert_eq!(root.run("ls -A /run/isatapd"), "", "nothing is left behind");
}

#[test]
fn the_service_manager_hears_of_reloads_readiness_and_life() {
    let (root, site) = (installed(), Site::new());
    let rtr = site.member("rtr", 1);
    root.write("etc/isatapd.conf", &config(""));
    let service = Service::start(&root, &rtr, &Unit::parse(&root.read(UNIT)));
    service.wait_told("STATUS=router at 10.0.0.1 on is0, ebpf lane, workers by uring, 2 worker(s): ready");
    // U4: signs of life at half the time, more than one, from an idle daemon.
    for _ in 0..2 {
        service.forget();
        service.wait_told("WATCHDOG=1");
    }

    // U3: a reload is announced, and ends with READY; the same by a signal alone.
    service.forget();
    root.write("etc/isatapd.conf", &config("Ttl 33"));
    assert_eq!(service.reload(), Ok(()));
    let told = service.told();
    let at = |line: &str| told.iter().position(|told| told.starts_with(line));
    assert!(
        at("RELOADING=1") < at("READY=1") && at("MONOTONIC_USEC=").is_some(),
        "{told:?}"
    );
    assert!(at("RELOADING=1").is_some(), "{told:?}");
    service.forget();
    service.signal(Signal::SIGHUP);
    service.wait_told("RELOADING=1");
    service.wait_told("READY=1");

    // U1: a file that cannot be used never reaches the daemon.
    service.forget();
    root.write("etc/isatapd.conf", &config("Ttl 333"));
    let refused = service.reload().expect_err("a refusal");
    assert!(refused.contains("isatapd.conf:3:5"), "{refused}");
    assert!(
        !service.told().iter().any(|line| line == "RELOADING=1"),
        "{:?}",
        service.told()
    );

    // The status follows the state.
    service.forget();
    rtr.ip(&format!("link set {TUNNEL} down"));
    service.wait_told(
        "STATUS=router at 10.0.0.1 on is0, ebpf lane, workers by uring, 2 worker(s): not ready: interface is0 is down",
    );
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_daemon_that_hangs_is_not_said_to_live() {
    let (root, site) = (installed(), Site::new());
    let rtr = site.member("rtr", 1);
    root.write("etc/isatapd.conf", &config(""));
    let service = Service::start(&root, &rtr, &Unit::parse(&root.read(UNIT)));
    service.wait_told("WATCHDOG=1");
    service.signal(Signal::SIGSTOP);
    // What was sent before it stopped may still arrive.
    std::thread::park_timeout(Duration::from_millis(100));
    service.forget();
    std::thread::park_timeout(WATCHDOG);
    assert_eq!(service.told(), [""; 0], "it is stopped");
    service.signal(Signal::SIGCONT);
    service.wait_told("WATCHDOG=1");
}

/// U4: a worker that hangs is found, however well control does, and the engine exchanged, in the confinement of the unit as
/// well; the service manager hears that the daemon lives.
#[test]
fn an_engine_with_a_worker_that_hangs_is_exchanged() {
    let (root, site) = (installed(), Site::new());
    let rtr = site.member("rtr", 1);
    root.write("etc/isatapd.conf", &config("Lane uring"));
    let service = Service::start(&root, &rtr, &Unit::parse(&root.read(UNIT)));
    service.wait_told("WATCHDOG=1");
    // From its next turn on it waits for a minute before it asks the kernel for more.
    let held = workers(&rtr);
    let mut debugger = Command::new("strace")
        .arg(format!("--attach={}", held[0]))
        .args(["-e", "inject=io_uring_enter:delay_enter=60000000"])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace is installed");
    wait::until("it to be found", SOON * 2, || {
        let log = service.log();
        if log.contains("worker 0 is stuck") && log.contains("the engine is started again") {
            Ok(())
        } else {
            Err(log)
        }
    });
    wait::holds("other workers", SOON * 2, || {
        let now = workers(&rtr);
        now.len() == held.len() && now.iter().all(|worker| !held.contains(worker))
    });
    service.forget();
    service.wait_told("WATCHDOG=1");
    // Nothing is left to be watched.
    let _ = kill(
        Pid::from_raw(i32::try_from(debugger.id()).expect("a pid")),
        Signal::SIGTERM,
    );
    debugger.wait().expect("wait");
    assert_eq!(service.stop(), Some(0));
}
