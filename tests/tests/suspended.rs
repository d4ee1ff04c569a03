//! A host that was suspended asks its router as soon as it is awake (RFC 4861 6.3.7).
//!
//! ```text
//!   r1 10.0.0.1 (isatapd, advertises itself) ---- h 10.0.0.10 (isatapd 10.0.0.1)     see isatap_tests::routers
//! ```
//!
//! No machine is put to sleep for it: a library before libc adds to the clock that goes on in sleep, and to no other, what a file says.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isatap_tests::asker::EVERYTHING;
use isatap_tests::daemon::{Daemon, program};
use isatap_tests::ping::ping;
use isatap_tests::routers::{Routers, router_v4, server};
use isatap_tests::scene::SOON;
use isatap_tests::wait;

/// What the machine pretends to have slept, in seconds: less than any lifetime that was advertised.
const SLEPT: i64 = 600;

/// The file is opened before the daemon is confined.
const LIBRARY: &str = r#"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *slept;

__attribute__((constructor)) static void begin(void) {
    int file = open(FILE_OF_SECONDS, O_RDONLY | O_CLOEXEC);
    slept = mmap(0, sizeof *slept, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_BOOTTIME && slept != MAP_FAILED)
        now->tv_sec += *slept;
    return result;
}
"#;

/// A program that is the daemon on a machine that has slept as many seconds as `file` says.
fn sleeper(folder: &Path, file: &Path) -> PathBuf {
    let library = folder.join("slept.so");
    let mut compiler = Command::new("clang")
        .args(["-shared", "-fPIC", "-O1", "-x", "c", "-"])
        .arg(format!("-DFILE_OF_SECONDS=\"{}\"", file.display()))
        .arg("-o")
        .arg(&library)
        .stdin(Stdio::piped())
        .spawn()
        .expect("clang, which tests/setup.sh installs");
    let mut stdin = compiler.stdin.take().expect("its standard input");
    stdin.write_all(LIBRARY.as_bytes()).expect("write");
    drop(stdin);
    assert!(compiler.wait().expect("clang").success());
    let script = folder.join("isatapd");
    let text = format!(
        "#!/bin/sh\nLD_PRELOAD={} exec {} \"$@\"\n",
        library.display(),
        program("isatapd").display()
    );
    fs::write(&script, text).expect("write");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    script
}

/// P8: what it was told before it slept is not waited for.
#[test]
fn a_host_that_wakes_up_asks_its_router() {
    let folder = tempfile::tempdir().expect("a folder");
    let seconds = folder.path().join("seconds");
    fs::write(&seconds, 0_i64.to_ne_bytes()).expect("write");
    let scene = Routers::new(1);
    let router = Daemon::router(&scene.routers[0], router_v4(0))
        .config(EVERYTHING)
        .start();
    router.wait_ready();
    let host = scene.host().program(&sleeper(folder.path(), &seconds)).start();
    scene.wait_usable(&host, 1);
    let asked = || host.metrics().sum("isatapd_router_solicitations_total", &[]);
    let before = asked();

    let file = fs::File::options().write(true).open(&seconds).expect("open");
    file.write_all_at(&SLEPT.to_ne_bytes(), 0).expect("write");
    host.wait_log("this machine slept for 600 s: the routers are asked anew");
    wait::until("a solicitation", SOON, || match asked() {
        more if more > before => Ok(()),
        same => Err(format!("{same} as before")),
    });
    ping(&scene.host, &server(1).to_string(), 3);
    assert_eq!(host.log().matches("this machine slept").count(), 1);
    host.conservation();
    router.conservation();
}
