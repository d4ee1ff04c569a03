//! Lanes where memory is limited: `Lane auto` takes what there is room for and says once why it is not the other one; a lane that was
//! asked for by name is refused, with who raises the limit.

use isatap_tests::daemon::{Builder, Daemon, Lane};
use isatap_tests::scene::{DUT, Opposite, SOON};
use isatap_tests::wait;

/// Locked memory in which one ring fits, and not one for each of [`WORKERS`], in bytes. Kernels that do not count rings give all of them.
const ONE_RING: usize = 64 << 10;
const WORKERS: usize = 4;

/// Starts it, sees a packet through, and says what it logged.
fn carries(scene: &Opposite, limited: impl Fn(Builder<'_>) -> Builder<'_>) -> String {
    let mut daemon = scene.router(|builder| limited(builder.config("Lane auto")));
    scene.carries(&daemon);
    daemon.conservation();
    daemon.stop();
    daemon.log()
}

#[test]
fn auto_does_without_rings_where_not_all_workers_get_one() {
    let scene = Opposite::new();
    let log = carries(&scene, |builder| {
        builder.workers(WORKERS).limit("memlock", ONE_RING)
    });
    let reasons = log
        .matches("the syscall lane carries, since io_uring cannot")
        .count();
    let has_rings = log.contains("workers by uring") || log.contains("info: uring lane, ");
    assert_eq!(reasons, usize::from(!has_rings), "{log}");
}

#[test]
fn a_ring_that_was_asked_for_names_its_limit() {
    let scene = Opposite::new();
    let mut daemon = Daemon::router(&scene.dut, DUT)
        .workers(WORKERS)
        .lane(Lane::Uring)
        .limit("memlock", ONE_RING)
        .launch();
    let is_refused = wait::until("an end or a beginning", SOON, || {
        let log = daemon.log();
        match ["is not available", "uring lane, "].map(|part| log.contains(part)) {
            [false, false] => Err(log),
            [is_refused, _] => Ok(is_refused),
        }
    });
    if !is_refused {
        // Its rings are not counted.
        daemon.stop();
        return;
    }
    let (status, log) = (daemon.wait_exit(SOON), daemon.log());
    assert_eq!(status.code(), Some(69), "{log}");
    for part in ["lane `uring` is not available", "LimitMEMLOCK=", "--lane auto"] {
        assert!(log.contains(part), "{part:?} is not in: {log}");
    }
}
