//! A machine, or a container's policy, that refuses io_uring: the daemon says so and carries packets all the same, unless
//! it was told to use nothing else (FAULTS 41, ECOSYSTEM U15).
//!
//! ```text
//!   dut 10.0.0.1 (router, confined) ------ x 10.0.0.9
//! ```

use std::path::PathBuf;

use isatap_tests::confined::refusing;
use isatap_tests::daemon::Daemon;
use isatap_tests::scene::{DUT, Opposite};
use nix::libc::{ENOSYS, EPERM};
use tempfile::TempDir;

fn without_uring(folder: &TempDir, errno: i32) -> PathBuf {
    refusing(folder, "isatapd", "io_uring_setup", errno)
}

/// FAULTS 41: by itself the daemon takes the other lane, and carries.
#[test]
fn without_io_uring_the_other_lane_carries() {
    for errno in [EPERM, ENOSYS] {
        let folder = TempDir::new().expect("a folder");
        let scene = Opposite::new();
        let daemon = scene.router(|builder| {
            builder
                .program(&without_uring(&folder, errno))
                .config("Lane auto")
        });
        daemon.wait_log("syscall lane");
        scene.carries(&daemon);
    }
}

/// FAULTS 41: who insists on io_uring is told what stands in the way.
#[test]
fn who_insists_on_io_uring_is_told_why_not() {
    for (errno, why) in [(EPERM, "io_uring_disabled"), (ENOSYS, "without it")] {
        let folder = TempDir::new().expect("a folder");
        let scene = Opposite::new();
        let output = Daemon::router(&scene.dut, DUT)
            .program(&without_uring(&folder, errno))
            .config("Lane uring")
            .args("-f")
            .output();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(text.contains("uring") && text.contains(why), "{text}");
    }
}
