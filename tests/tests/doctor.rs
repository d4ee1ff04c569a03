//! `isatapctl doctor` on machines with something wrong: each trap is made in a namespace, found, and gone when mended.
//!
//! ```text
//!   dut 10.0.0.1 (router) ------ x 10.0.0.9
//! ```

use std::process::Output;

use isatap_tests::daemon::Daemon;
use isatap_tests::scene::{DUT, Opposite, X, on_link};
use socket2::{Domain, Protocol, Socket, Type};

fn report(daemon: &Daemon<'_>) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = daemon.ctl("doctor");
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.success(), text.concat())
}

/// The line about `subject`.
fn line<'a>(report: &'a str, subject: &str) -> &'a str {
    let about = |line: &&str| {
        line.split_once(' ')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(subject))
    };
    report
        .lines()
        .find(about)
        .unwrap_or_else(|| panic!("nothing about {subject}:\n{report}"))
}

/// FAULTS 29, 36, 59: forwarding off, a second program with protocol 41, a small MTU, strict reverse paths, a firewall.
#[test]
fn traps_are_found_and_gone_when_mended() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.config("Advertise yes"));

    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");
    let (fine, text) = report(&daemon);
    assert!(fine, "{text}");
    for subject in [
        "daemon",
        "ready",
        "forwarding",
        "protocol 41",
        "MTU",
        "firewall",
        "advertisements",
    ] {
        assert!(line(&text, subject).starts_with("ok"), "{subject}: {text}");
    }

    scene.dut.sysctl("ipv6/conf/all/forwarding", "0");
    let (fine, text) = report(&daemon);
    assert!(
        !fine && line(&text, "forwarding").starts_with("OBSTACLE"),
        "{text}"
    );
    assert!(
        text.contains("-> sysctl -w net.ipv6.conf.all.forwarding=1"),
        "{text}"
    );
    scene.dut.sysctl("ipv6/conf/all/forwarding", "1");

    let second = scene
        .dut
        .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(41))));
    let (_, text) = report(&daemon);
    assert!(line(&text, "protocol 41").starts_with("WARNING"), "{text}");
    drop(second);
    let (_, text) = report(&daemon);
    assert!(line(&text, "protocol 41").starts_with("ok"), "{text}");

    let addresses = scene.dut.ip("-o -4 addr show");
    let device = addresses
        .lines()
        .find(|line| line.contains(&format!(" {DUT}/")))
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("the device of the locator")
        .to_owned();
    scene.dut.ip(&format!("link set {device} mtu 1280"));
    assert!(line(&report(&daemon).1, "MTU").starts_with("WARNING"));
    scene.dut.ip(&format!("link set {device} mtu 1500"));

    scene.dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "1");
    let (_, text) = report(&daemon);
    assert!(
        line(&text, "rp_filter").contains(&format!("strict for {device}")),
        "{text}"
    );
    scene.dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
    assert!(line(&report(&daemon).1, "rp_filter").starts_with("ok"));

    scene.dut.run("nft add table inet f");
    scene
        .dut
        .run("nft add chain inet f o { type filter hook output priority 0 ; }");
    scene.dut.run("nft add rule inet f o ip protocol 41 drop");
    scene.dut.try_run(&format!("ping -6 -c 1 -W 1 {}", on_link(X)));
    let (fine, text) = report(&daemon);
    assert!(!fine && line(&text, "firewall").starts_with("OBSTACLE"), "{text}");
    daemon.conservation();
}

#[test]
fn without_a_daemon_it_says_so_and_looks_at_the_machine() {
    let scene = Opposite::new();
    let program = isatap_tests::daemon::program("isatapctl");
    let output = scene
        .dut
        .try_run(&format!("{} --socket /nonexistent doctor", program.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(line(&text, "daemon").starts_with("OBSTACLE"), "{text}");
    assert!(line(&text, "/dev/net/tun").starts_with("ok"), "{text}");
}
