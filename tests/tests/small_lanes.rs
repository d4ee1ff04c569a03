//! Lanes where memory is limited: `Lane auto` takes what there is room for and says once why it is not the other one; a lane that was
//! asked for by name is refused, with who raises the limit.

use std::process::Output;

use isatap_tests::daemon::{Builder, Daemon, Lane};
use isatap_tests::scene::{DUT, Opposite, SOON};
use isatap_tests::wait;

/// Locked memory in which one ring fits, and not one for each of [`WORKERS`], in bytes. Kernels that do not count rings give all of them.
const ONE_RING: usize = 64 << 10;
const WORKERS: usize = 4;

/// Workers, and address space in bytes: too little to load programs in, little beside the workers, and enough for everything but the maps.
const LITTLE_SPACE: [(usize, usize); 6] = [
    (1, 64 << 20),
    (1, 100 << 20),
    (1, 200 << 20),
    (WORKERS, 180 << 20),
    (WORKERS, 260 << 20),
    (15, 257 << 20),
];

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

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

#[test]
fn auto_does_without_programs_where_there_is_no_room_for_them() {
    let scene = Opposite::new();
    for (workers, limit) in LITTLE_SPACE {
        let log = carries(&scene, |builder| builder.workers(workers).limit("as", limit));
        let reasons = log.matches("without programs in the kernel: ").count();
        assert_eq!(reasons, usize::from(!log.contains("info: ebpf lane, ")), "{log}");
    }
}

#[test]
fn programs_that_were_asked_for_name_their_limit() {
    let scene = Opposite::new();
    let output = Daemon::router(&scene.dut, DUT)
        .workers(1)
        .lane(Lane::Ebpf)
        .args("-f")
        .limit("as", 100 << 20)
        .output();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(69), "{told}");
    for part in [
        "the ebpf lane cannot be used",
        "100 MiB",
        "LimitAS=",
        "auto takes it",
    ] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

/// Far too little for the workers that were asked for: some allocation or other ends it.
#[test]
fn a_start_without_room_for_anything_says_so_and_keeps_nobody_from_the_next() {
    let scene = Opposite::new();
    for limit in [32 << 20, 40 << 20, 48 << 20] {
        let mut daemon = Daemon::router(&scene.dut, DUT)
            .workers(2 * WORKERS)
            .lane(Lane::Syscall)
            .limit("as", limit)
            .launch();
        let status = daemon.wait_exit(SOON);
        assert!(!status.success(), "{}", daemon.log());
        assert!(daemon.log().contains("LimitAS="), "{limit}: {}", daemon.log());
        daemon.start_again().stop();
    }
}
