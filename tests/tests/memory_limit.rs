//! Little memory, as a unit with MemoryMax= or a container gives it (FAULTS 67).
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 (in a memory group) ---- srv 2001:db8:99::2       see `isatap_tests::scene`
//! ```

use std::fs;
use std::net::SocketAddrV6;
use std::process::{Child, Command, Stdio};

use isatap_tests::cgroup::MemoryGroup;
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::fault::{FOLLOWED, restarts, wait_successor};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{ROUTER, SERVER, SOON, Scene, host_v4, on_link};
use isatap_tests::state::{self, wait_configured};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use tempfile::TempDir;

/// What a service of this size is usually given.
const LIMIT: u64 = 64 << 20;
const WORKERS: usize = 4;
const BYTES: u64 = 40_000_000;

/// A neighbour in the group that takes all it gets; ended by the kernel, or on drop.
struct Glutton(Child);

impl Glutton {
    fn start(group: &MemoryGroup) -> Self {
        // It waits for a line, so that it is inside before it begins.
        let child = Command::new("sh")
            .args(["-c", "read -r _; exec tail /dev/zero"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        group.adopt(child.id());
        Self(child)
    }

    /// Has it begin, and waits for its end.
    fn run_to_its_end(mut self) {
        drop(self.0.stdin.take());
        wait::holds("the neighbour to be ended", FOLLOWED, || {
            matches!(self.0.try_wait(), Ok(Some(_)))
        });
    }
}

impl Drop for Glutton {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn router<'a>(scene: &'a Scene, group: &MemoryGroup, folder: &TempDir, lane: Lane) -> Daemon<'a> {
    let router = Daemon::router(&scene.router, ROUTER)
        .program(&group.enclosing(folder, "isatapd"))
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link")
        .lane(lane)
        .workers(WORKERS)
        .start();
    wait_configured(&scene.router, &[ROUTER]);
    router.wait_route("2001:db8:1::/64");
    router
}

fn transfers(scene: &Scene) {
    for (from, to, dst) in [
        (&scene.hosts[0], &scene.server, SERVER),
        (&scene.server, &scene.hosts[0], on_link(host_v4(0))),
    ] {
        let report = tcp_transfer(from, to, SocketAddrV6::new(dst, 5001, 0, 0), BYTES, FOLLOWED);
        report.expect("every byte arrives, in order");
    }
}

fn bulk_traffic_needs_no_more(lane: Lane) {
    let (scene, folder) = (Scene::new(1), TempDir::new().expect("a folder"));
    let group = MemoryGroup::new(LIMIT);
    let router = router(&scene, &group, &folder, lane);
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER]).start();
    ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
    let engine = router.engine_pid();
    transfers(&scene);
    // A neighbour that eats up everything is ended; it is larger than the engine by then.
    Glutton::start(&group).run_to_its_end();
    transfers(&scene);
    assert_eq!((group.killed(), router.engine_pid()), (1, engine));
    let held = state::resident_kib(engine) / 1024;
    eprintln!("{lane:?}: the engine holds {held} MiB with {WORKERS} workers");
    router.conservation();
    host.conservation();
}

/// FAULTS 67: four workers carry bulk traffic with 64 MiB, and beside a neighbour that takes the rest.
#[test]
fn bulk_traffic_needs_no_more_uring() {
    bulk_traffic_needs_no_more(Lane::Uring);
}

/// FAULTS 67: the same on the other lane.
#[test]
fn bulk_traffic_needs_no_more_syscall() {
    bulk_traffic_needs_no_more(Lane::Syscall);
}

/// FAULTS 67: the same on the other lane.
#[test]
fn bulk_traffic_needs_no_more_ebpf() {
    bulk_traffic_needs_no_more(Lane::Ebpf);
}

fn an_engine_that_is_ended_is_followed(lane: Lane) {
    let (scene, folder) = (Scene::new(1), TempDir::new().expect("a folder"));
    let group = MemoryGroup::new(LIMIT);
    let router = router(&scene, &group, &folder, lane);
    let host = Daemon::host(&scene.hosts[0], host_v4(0), &[ROUTER]).start();
    ping_until(&scene.hosts[0], &SERVER.to_string(), SOON);
    let (old, interface) = (router.engine_pid(), state::if_index(&scene.router, TUNNEL));
    // The kernel would take the neighbour first.
    fs::write(format!("/proc/{old}/oom_score_adj"), "1000").expect("a process that lives");
    Glutton::start(&group).run_to_its_end();
    wait_successor(&router, old);
    assert_eq!(group.killed(), 2, "the engine, then the neighbour");
    assert_eq!(restarts(&router, "signal"), 1, "{}", router.log());
    assert_eq!(state::if_index(&scene.router, TUNNEL), interface);
    transfers(&scene);
    router.conservation();
    host.conservation();
}

/// FAULTS 67: an engine that the kernel ends for want of memory is followed by another one, on the same interface.
#[test]
fn an_engine_that_is_ended_is_followed_uring() {
    an_engine_that_is_ended_is_followed(Lane::Uring);
}

/// FAULTS 67: the same beside programs that go on.
#[test]
fn an_engine_that_is_ended_is_followed_ebpf() {
    an_engine_that_is_ended_is_followed(Lane::Ebpf);
}
