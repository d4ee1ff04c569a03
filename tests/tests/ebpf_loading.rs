//! Programs of the `ebpf` lane are loaded while the daemon starts: workers carry meanwhile, and it serves when it knows what it has.
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 (its programs take as long as the test likes)
//! ```

use std::fs;
use std::time::Duration;

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::installation::Installation;
use isatap_tests::netns::Netns;
use isatap_tests::packet::link_local;
use isatap_tests::ping::{ping, ping_direct_until};
use isatap_tests::scene::{ROUTER, SOON, Scene, host_v4};
use isatap_tests::wait;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How often a start is tried that was faster than its tracer.
const ATTEMPTS: usize = 20;

/// The thread of a daemon that has its programs loaded: it stands still until this is dropped.
struct Held(Pid);

impl Held {
    /// That of a router that has just been started; `None` when it has got further already.
    fn of(daemon: &Daemon<'_>) -> Option<Self> {
        let monitor = Pid::from_raw(daemon.pid());
        // From here on the thread it makes, the only one ever, stops before its first step.
        ptrace::seize(monitor, Options::PTRACE_O_TRACECLONE).expect("a monitor to trace");
        if has_got_further(monitor) {
            ptrace::interrupt(monitor).expect("a monitor that runs");
            waitpid(monitor, Some(WaitPidFlag::__WALL)).expect("a monitor that stops");
            ptrace::detach(monitor, None).expect("let it go");
            return None;
        }
        loop {
            match waitpid(monitor, Some(WaitPidFlag::__WALL)).expect("a monitor that goes on") {
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_CLONE) => break,
                WaitStatus::Stopped(_, signal) => ptrace::cont(monitor, signal).expect("on with it"),
                WaitStatus::PtraceEvent(..) => ptrace::cont(monitor, None).expect("on with it"),
                other => panic!("{other:?}: {}", daemon.log()),
            }
        }
        let thread = ptrace::getevent(monitor).expect("its number");
        let thread = Pid::from_raw(i32::try_from(thread).expect("a number of a thread"));
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a thread that stands still");
        ptrace::detach(monitor, None).expect("let it go");
        Some(Self(thread))
    }
}

/// Whether it has made a thread or a process.
fn has_got_further(monitor: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{monitor}/task"))
        .expect("a process")
        .count();
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children"));
    threads > 1 || !children.expect("a kernel that tells").trim().is_empty()
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// A router whose programs are not loaded before what comes along is dropped.
fn without_programs_yet(ns: &Netns) -> (Daemon<'_>, Held) {
    for _ in 0..ATTEMPTS {
        let mut daemon = Daemon::router(ns, ROUTER).lane(Lane::Ebpf).workers(1).launch();
        if let Some(held) = Held::of(&daemon) {
            return (daemon, held);
        }
        daemon.stop();
    }
    panic!("each start was faster than its tracer");
}

/// What comes and goes meanwhile is carried, nobody is told that the daemon serves, and nobody's request is lost.
#[test]
fn workers_carry_until_programs_are_there() {
    let scene = Scene::new(1);
    let (router, held) = without_programs_yet(&scene.router);
    let _host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER])
        .lane(Lane::Uring)
        .start();
    let to = format!("{}%{TUNNEL}", link_local(ROUTER));
    ping_direct_until(&scene.hosts[0], &to, SOON);
    ping(&scene.hosts[0], &to, 20);
    router.signal(Signal::SIGHUP);
    assert!(!router.log().contains("worker(s), interface"), "{}", router.log());

    drop(held);
    router.wait_programs();
    router.wait_ready();
    let metrics = router.metrics();
    assert!(metrics.taken_by_workers() >= 40, "twenty there, twenty back");
    wait::holds("the reload to be made up for", SOON, || {
        router
            .metrics()
            .sum("isatapd_config_reloads_total", &[("result", "success")])
            == 1
    });
    let before = router.metrics().taken_by_workers();
    ping(&scene.hosts[0], &to, 20);
    let kernel = [("worker", "kernel"), ("direction", "decap")];
    assert!(router.metrics().sum("isatapd_packets_total", &kernel) >= 20);
    assert!(router.metrics().taken_by_workers() < before + 20);
    router.conservation();
}

/// Whoever stops the daemon meanwhile finds nothing left of it.
#[test]
fn a_stop_takes_programs_along_that_are_on_their_way() {
    let scene = Scene::new(0);
    let (mut router, held) = without_programs_yet(&scene.router);
    router.signal(Signal::SIGTERM);
    router.wait_log("stopping on signal TERM");
    drop(held);
    assert_eq!(router.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(!scene.router.has_link(TUNNEL));
}

/// Who asked for programs by name hears that there are none to be had, and nothing is left; everybody else has workers that carry.
#[test]
fn a_start_without_programs_is_as_the_lane_says() {
    let scene = Scene::new(1);
    let installed = Installation::new();
    installed.put_without_programs();
    let router = || Daemon::router(&scene.router, ROUTER).program(installed.path());
    let output = router().lane(Lane::Ebpf).output();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("the ebpf lane cannot be used: "), "{text}");
    assert!(text.contains("choose another with Lane or --lane"), "{text}");
    assert!(!scene.router.has_link(TUNNEL));

    let router = router().config("Lane auto").start();
    let why = "packets are carried by workers, without programs in the kernel: ";
    router.wait_log(why);
    let _host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER])
        .lane(Lane::Uring)
        .start();
    ping_direct_until(&scene.hosts[0], &format!("{}%{TUNNEL}", link_local(ROUTER)), SOON);
    let kernel = [("worker", "kernel")];
    assert_eq!(router.metrics().sum("isatapd_packets_total", &kernel), 0);
    router.conservation();
}
