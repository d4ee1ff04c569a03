//! Name servers of advertisements, handed to who keeps the machine's: by a daemon that became a host, by the helper that follows one
//! that was killed, by the next engine; and withdrawn (V10; RFC 8106 6.3).
//!
//! ```text
//!   rtr 10.0.0.1 (isatapd, advertises 2001:db8::53) ---- h1 10.0.0.2 (isatapd, with a resolvconf that notes what it is asked)
//! ```

use std::fs;

use isatap_tests::daemon::{Builder, Daemon};
use isatap_tests::dns::Etc;
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::scene::{ROUTER, SOON, Scene, host_v4};
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADD: &str = "-a is0.isatapd nameserver 2001:db8::53;search site.example;";
const DELETE: &str = "-d is0.isatapd";

/// The child of this name of a process.
fn child(parent: i32, name: &str) -> Option<i32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .find(|pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
        })
}

/// The helper's parent, and the helper if there is one.
fn helper(daemon: &Daemon<'_>) -> (i32, Option<i32>) {
    let parent = wait::until("the parent of helpers", SOON, || {
        child(daemon.pid(), "isatapd-dns").ok_or("none")
    });
    (parent, child(parent, "isatapd-names"))
}

#[track_caller]
fn wait_asked(etc: &Etc, expected: &[&str]) {
    wait::until("names handed over", SOON * 3, || {
        let asked = etc.names();
        if asked == expected {
            Ok(())
        } else {
            Err(format!("{asked:?} instead of {expected:?}"))
        }
    });
}

fn outcome(daemon: &Daemon<'_>) -> String {
    let (_, text) = daemon.http("/api/v1/status").expect("a status");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    status["resolver"]["outcome"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// V10, FAULTS 61, 72: through every change of who does it, the machine has the names that are advertised, and none when the daemon is gone.
#[test]
fn v10_name_servers_stay_with_who_keeps_them() {
    let scene = Scene::new(1);
    let router = Daemon::router(&scene.router, ROUTER)
        .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\nAdvertiseDns 2001:db8::53\nAdvertiseSearch site.example")
        .start();
    let etc = Etc::new("").keeps_names();
    let as_router = format!("BindAddress {}\nWorkers 1\n", host_v4(0));
    let as_host = format!("{as_router}ServerAddress {ROUTER}\n");
    let mut host = Builder::new(&scene.hosts[0])
        .config(as_router.trim_end())
        .etc(&etc)
        .start();
    let (parent, none) = helper(&host);
    assert_eq!(none, None, "a router has nothing to hand over");

    host.rewrite_config(&as_host);
    assert!(host.ctl("reload").status.success());
    let mut expected = vec![ADD];
    wait_asked(&etc, &expected);

    let first = helper(&host).1.expect("a helper");
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    // The one before may have left them with resolvconf, which has them still.
    expected.push(ADD);
    wait_asked(&etc, &expected);
    host.wait_log("the helper for name servers died and was started again");
    let second = helper(&host).1.expect("a helper");
    assert_ne!(first, second);

    let old = kill_engine(&host);
    wait_successor(&host, old);
    expected.push(ADD);
    wait_asked(&etc, &expected);
    assert_eq!(helper(&host), (parent, Some(second)), "helpers outlive engines");
    wait::holds("word that it was done", SOON, || outcome(&host) == "handed over");

    host.rewrite_config(&as_router);
    assert!(host.ctl("reload").status.success());
    expected.push(DELETE);
    wait_asked(&etc, &expected);
    host.rewrite_config(&as_host);
    assert!(host.ctl("reload").status.success());
    expected.push(ADD);
    wait_asked(&etc, &expected);
    host.conservation();

    // As the kernel would when memory is short: the daemon, and the helper before it has withdrawn anything.
    kill(Pid::from_raw(second), Signal::SIGSTOP).expect("it runs");
    host.signal(Signal::SIGKILL);
    host.wait_exit(SOON);
    kill(Pid::from_raw(second), Signal::SIGKILL).expect("it runs");
    expected.push(DELETE);
    wait_asked(&etc, &expected);
    wait::holds("the helper's parent to end", SOON, || {
        !fs::read_to_string(format!("/proc/{parent}/comm")).is_ok_and(|comm| comm == "isatapd-dns\n")
    });
    router.conservation();
}
