//! One address, one tunnel: a second ISATAP interface at a locator is told of, whoever has it (FAULTS 36).
//!
//! ```text
//!   dut 10.0.0.1: is0, and another one beside it ------ x 10.0.0.9 (crafted)
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Builder, Daemon, TUNNEL};
use isatap_tests::netns::Netns;
use isatap_tests::scene::{DUT, Opposite};
use serde_json::{Value, json};

/// What the second daemon has of its own.
const SECOND: &str = "is1";
const SECOND_PORT: u16 = 9442;

/// A daemon beside another one: everything is its own, but for what `config` says.
fn beside<'a>(ns: &'a Netns, config: &str) -> Builder<'a> {
    Builder::new(ns)
        .workers(1)
        .config(&format!(
            "InterfaceName {SECOND}\nMetricsListen 127.0.0.1:{SECOND_PORT}"
        ))
        .config(config)
}

fn status(daemon: &Daemon<'_>) -> Value {
    serde_json::from_slice(&daemon.ctl("status --json").stdout).expect("JSON")
}

fn says(daemon: &Daemon<'_>, command: &str) -> String {
    String::from_utf8_lossy(&daemon.ctl(command).stdout).into_owned()
}

/// The line of the doctor's report about the locator.
fn doctor(daemon: &Daemon<'_>) -> String {
    let report = says(daemon, "doctor");
    let line = report.lines().find(|line| line.contains(" locator "));
    line.unwrap_or_else(|| panic!("nothing about the locator:\n{report}"))
        .to_owned()
}

/// FAULTS 36: a tunnel interface that comes later with our locator, or with which ours comes later, is told of: in the log, the
/// status, by the doctor. It is over when it is over.
#[test]
fn an_address_that_is_shared_later_is_told_of() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    assert!(doctor(&daemon).starts_with("ok"));
    // As one of the kernel's has, or that of another program.
    scene.dut.ip("link add other0 type bridge");
    scene.dut.ip("link set other0 up");
    scene
        .dut
        .ip(&format!("addr add fe80::5efe:{DUT}/64 dev other0 nodad"));
    daemon.wait_log(&format!("other0 has an address of {TUNNEL} as well"));
    assert_eq!(status(&daemon)["locator"]["shared_with"], json!(["other0"]));
    let report = doctor(&daemon);
    assert!(
        report.starts_with("OBSTACLE") && report.contains("other0"),
        "{report}"
    );
    let text = says(&daemon, "status");
    assert!(text.contains("other0 has the locator as well"), "{text}");
    scene.dut.ip("link del other0");
    daemon.wait_log(&format!(
        "{TUNNEL} is the only tunnel interface with its address again"
    ));
    assert!(doctor(&daemon).starts_with("ok"));
    drop(daemon);

    // Neither has it when they start.
    let late = Ipv4Addr::new(10, 0, 0, 200);
    let first = Daemon::router(&scene.dut, late).workers(1).start();
    let second = beside(&scene.dut, &format!("BindAddress {late}")).start_at(SECOND_PORT);
    scene.dut.ip(&format!("addr add {late}/24 dev eth0"));
    first.wait_log(&format!("{SECOND} has an address of {TUNNEL} as well"));
    second.wait_log(&format!("{TUNNEL} has an address of {SECOND} as well"));
    drop(first);
    second.wait_log(&format!(
        "{SECOND} is the only tunnel interface with its address again"
    ));
    drop(second);
}
