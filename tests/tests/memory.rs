//! Memory that a load took goes back when it is over (P10 of DESIGN 3).
//!
//! ```text
//!   rtr 10.0.0.1 (isatapd) ---- h1 10.0.0.2 (isatapd)     see isatap_tests::scene
//! ```

use std::net::SocketAddrV6;
use std::thread;
use std::time::Duration;

use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::ping::ping;
use isatap_tests::scene::{ROUTER, SOON, Scene, host_v4, on_link};
use isatap_tests::state::resident_kib;
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;

const PORT: u16 = 5010;
const BYTES: u64 = 60_000_000;
/// What superpackets in every slot of one direction take, or less, in KiB.
const USED: u64 = 3 << 10;
/// A worker looks every five seconds; a busy machine wakes it later.
const PATIENCE: Duration = Duration::from_secs(40);

fn resident(daemon: &Daemon<'_>) -> u64 {
    resident_kib(daemon.engine_pid())
}

#[test]
fn uring() {
    goes_back(Lane::Uring);
}

#[test]
fn ebpf() {
    goes_back(Lane::Ebpf);
}

/// The lane `syscall` takes the slot that was used last, so that there is less to give back; `io::lane_tests` has it.
#[track_caller]
fn goes_back(lane: Lane) {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(1).lane(lane));
    let (sender, to) = (&running.hosts[0], SocketAddrV6::new(on_link(ROUTER), PORT, 0, 0));
    let before = resident(sender);
    // While somebody captures, workers carry in every lane.
    let seconds = 3;
    let captured = thread::scope(|scope| {
        let capture = scope.spawn(|| sender.ctl(&format!("capture -w /dev/null --seconds {seconds}")));
        while !capture.is_finished() {
            tcp_transfer(&scene.hosts[0], &scene.router, to, BYTES, SOON).expect("a transfer");
        }
        capture.join().expect("the capture")
    });
    assert!(captured.status.success(), "{captured:?}");
    let loaded = resident(sender);
    assert!(
        loaded >= before + USED,
        "{before} KiB before the load and {loaded} after it"
    );
    // Somebody always says something.
    wait::until("less memory", PATIENCE, || {
        ping(&scene.hosts[0], &on_link(ROUTER).to_string(), 1);
        match resident(sender) {
            now if now + USED <= loaded => Ok(()),
            now => Err(format!("{now} KiB, {loaded} under load")),
        }
    });
    tcp_transfer(
        &scene.router,
        &scene.hosts[0],
        SocketAddrV6::new(on_link(host_v4(0)), PORT, 0, 0),
        BYTES,
        SOON,
    )
    .expect("a transfer");
    running.conservation();
}
