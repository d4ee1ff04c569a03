//! Limits that are too small, of a unit, a shell or a container that others have filled (FAULTS 66): what cannot be done is said, with who
//! raises the limit, and what runs goes on.

use std::process::Output;

use isatap_tests::cgroup::FullGroup;
use isatap_tests::daemon::Daemon;
use isatap_tests::scene::{DUT, Opposite, SOON};
use isatap_tests::wait;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// FAULTS 66: a reload takes no thread that is not there already.
#[test]
fn a_reload_needs_no_room_for_a_thread() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let engine = daemon.engine_pid();
    let _full = FullGroup::around(&[daemon.pid(), engine]);
    daemon.rewrite_config(&format!("BindAddress {DUT}\nWorkers 1\nTtl 17"));
    let reloaded = daemon.ctl("reload");
    assert!(reloaded.status.success(), "{}", told(&reloaded));
    let said = String::from_utf8_lossy(&reloaded.stdout).into_owned();
    assert!(said.contains("Ttl"), "{said}");
    assert_eq!(daemon.engine_pid(), engine, "{}", daemon.log());
    daemon.conservation();
}

/// FAULTS 66: nor does a name that is looked up, though a thread reads the hosts file for it.
#[test]
fn a_lookup_needs_no_room_for_a_thread() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let engine = daemon.engine_pid();
    let _full = FullGroup::around(&[daemon.pid(), engine]);
    // It is a host from then on, with a router that has a name.
    daemon.rewrite_config(&format!(
        "BindAddress {DUT}\nWorkers 1\nServerAddress isatap.example"
    ));
    let reloaded = daemon.ctl("reload");
    assert!(reloaded.status.success(), "{}", told(&reloaded));
    wait::until("what became of the name", SOON, || {
        let log = daemon.log();
        let is_told = log.contains("isatap.example cannot be looked up");
        if is_told { Ok(()) } else { Err(log) }
    });
    assert_eq!(daemon.engine_pid(), engine, "{}", daemon.log());
}

/// FAULTS 66: a start that is not possible says by which limit.
#[test]
fn a_start_names_the_limit_that_it_meets() {
    let scene = Opposite::new();
    for (limit, most, remedy) in [
        // Of the engine's user, who has none to spare.
        ("nproc", 0, "LimitNPROC="),
        // The pid file, and then what is kept in memory.
        ("fsize", 0, "LimitFSIZE="),
        ("fsize", 4096, "LimitFSIZE="),
        ("nofile", 8, "LimitNOFILE="),
    ] {
        let output = Daemon::router(&scene.dut, DUT)
            .workers(1)
            .limit(limit, most)
            .output();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(69), "{limit} {most}: {told}");
        assert!(told.contains(remedy), "{limit} {most}: {told}");
        assert!(!told.contains("choose another"), "{limit} {most}: {told}");
    }
}

/// Whichever call would have met it, and whoever starts it.
#[test]
fn few_descriptors_are_told_of_by_their_limit() {
    let scene = Opposite::new();
    let small = [4, 5, 6, 13, 20, 28, 34, 47].map(|limit| (1, limit));
    for (workers, limit) in small.into_iter().chain([(4, 56), (4, 70)]) {
        for arguments in ["-f", ""] {
            let output = Daemon::router(&scene.dut, DUT)
                .workers(workers)
                .descriptors(limit)
                .args(arguments)
                .output();
            let told = told(&output);
            assert!(!output.status.success(), "{limit}: {told}");
            for part in ["LimitNOFILE=", "ulimit -n"] {
                assert!(told.contains(part), "{limit} {arguments}: {told}");
            }
        }
    }
}
