//! One address, one tunnel: a second ISATAP interface at a locator is refused or told of, whoever has it (FAULTS 36).
//!
//! ```text
//!   dut 10.0.0.1: is0, and another one beside it ------ x 10.0.0.9 (crafted)
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::netns::Netns;
use isatap_tests::scene::{DUT, Opposite, SOON, X};
use isatap_tests::wait;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// What the second daemon has of its own.
const SECOND: &str = "is1";
const SECOND_PORT: u16 = 9442;
/// An address for a second tunnel.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// A daemon beside another one: everything is its own, but for what `config` says.
fn beside<'a>(ns: &'a Netns, config: &str) -> Builder<'a> {
    Builder::new(ns)
        .workers(1)
        .config(&format!(
            "InterfaceName {SECOND}\nMetricsListen 127.0.0.1:{SECOND_PORT}"
        ))
        .config(config)
}

fn has(ns: &Netns, device: &str) -> bool {
    ns.try_run(&format!("ip link show {device}")).status.success()
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

/// FAULTS 36: a second daemon with the address of one that runs ends with 69, makes nothing, and takes nothing away from the first.
#[test]
fn a_second_daemon_at_one_address_is_refused_in_each_lane() {
    for lane in Lane::ALL {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| builder.lane(lane).workers(1));
        if lane == Lane::Ebpf {
            daemon.wait_programs();
        }
        for config in [
            format!("BindAddress {DUT}"),
            "BindAddress auto".to_owned(),
            format!("BindAddress auto\nServerAddress {X}"),
        ] {
            let builder = beside(&scene.dut, &config).lane(lane).args("-f");
            let output = builder.output();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(69), "{config}: {text}");
            for part in [
                format!("{DUT} is the address of the tunnel interface {TUNNEL} already"),
                format!("stop the isatapd of {TUNNEL}"),
                "BindAddress".to_owned(),
            ] {
                assert!(text.contains(&part), "{part:?} is not in: {text}");
            }
            assert!(!has(&scene.dut, SECOND), "{config}");
        }
        scene.carries(&daemon);
    }
}

/// FAULTS 36: another address is another tunnel, and nothing to be warned of; the same one can be had when the first is gone, however
/// it went.
#[test]
fn another_address_or_the_place_of_a_dead_one_can_be_had() {
    let scene = Opposite::new();
    scene.dut.ip(&format!("addr add {ELSEWHERE}/24 dev eth0"));
    let first = scene.router(|builder| builder.workers(1));
    let second = beside(&scene.dut, &format!("BindAddress {ELSEWHERE}")).start_at(SECOND_PORT);
    for (daemon, locator) in [(&first, DUT), (&second, ELSEWHERE)] {
        assert_eq!(
            status(daemon)["locator"],
            json!({ "address": locator, "automatic": false, "present": true, "shared_with": [] })
        );
        assert!(doctor(daemon).starts_with("ok"));
        assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    }
    drop(second);
    first.signal(Signal::SIGKILL);
    let heir = beside(&scene.dut, &format!("BindAddress {DUT}")).start_at(SECOND_PORT);
    let alone = || !has(&scene.dut, TUNNEL) && status(&heir)["locator"]["shared_with"] == json!([]);
    wait::holds("the dead one's interface to be gone", SOON, alone);
    drop(heir);
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

/// FAULTS 36: somebody else's socket for protocol 41 may be that of a tunnel, or only listen: it is told of, and refuses nothing.
#[test]
fn a_socket_of_another_program_is_told_of_at_the_start() {
    let scene = Opposite::new();
    let told = "1 socket(s) for protocol 41 belong to another program";
    let quiet = scene.router(|builder| builder.workers(2));
    assert!(!quiet.log().contains("belong to another program"));
    drop(quiet);
    let listener = scene
        .dut
        .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(41))))
        .expect("a raw socket");
    let daemon = scene.router(|builder| builder.workers(2));
    daemon.wait_log(told);
    daemon.conservation();
    drop(listener);
}
