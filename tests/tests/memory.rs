//! Memory that a load took goes back when it is over (P10 of DESIGN 3).
//!
//! ```text
//!   rtr 10.0.0.1 (isatapd) ---- h1 10.0.0.2 (isatapd)     see isatap_tests::scene
//! ```

use std::time::Duration;

use isatap_engine::io::lane::TUN_SLOTS;
use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::flows::UdpFlows;
use isatap_tests::ping::ping;
use isatap_tests::scene::{ROUTER, Scene, host_v4, on_link};
use isatap_tests::state::resident_kib;
use isatap_tests::wait;

/// Datagrams of one superpacket; with their headers nearly 64 KiB.
const BATCH: u32 = 45;
/// What superpackets in every slot of one direction take, nearly, in KiB, and what of it has to go back.
const USED: u64 = 3 << 10;
const BACK: u64 = 2 << 10;
/// A worker looks every five seconds; a busy machine wakes it later.
const PATIENCE: Duration = Duration::from_secs(40);

fn resident(daemon: &Daemon<'_>) -> u64 {
    resident_kib(daemon.engine_pid())
}

/// With a ring each slot has its turn. The lane `syscall` takes the slot that was used last, so that there is less to give back, and in
/// the lane `ebpf` workers are one of these two: `io::lane_tests` has both.
#[test]
fn memory_goes_back_after_a_load() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(1).lane(Lane::Uring));
    let (host, sender) = (&scene.hosts[0], &running.hosts[0]);
    let superpackets = UdpFlows {
        flows: 1,
        packets: 4 * u32::from(TUN_SLOTS) * BATCH,
        sizes: &[1200],
        batch: BATCH,
    };
    let carry = || {
        let book = superpackets.run(host, on_link(host_v4(0)), &scene.router, on_link(ROUTER), 0);
        book.assert_exactly_once_in_order("superpackets", superpackets.flows, superpackets.packets);
    };
    let before = resident(sender);
    let loaded = wait::until("more memory", PATIENCE, || {
        carry();
        match resident(sender) {
            now if now >= before + USED => Ok(now),
            now => Err(format!("{now} KiB, {before} before")),
        }
    });
    // Somebody always says something.
    wait::until("less memory", PATIENCE, || {
        ping(host, &on_link(ROUTER).to_string(), 1);
        match resident(sender) {
            now if now + BACK <= loaded => Ok(()),
            now => Err(format!("{now} KiB, {loaded} under load")),
        }
    });
    carry();
    running.conservation();
}
