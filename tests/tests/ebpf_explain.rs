//! Who carries a packet, as `isatapctl explain` says it: the answers that `ebpf_seen` does not meet.
//!
//! ```text
//!   dut 10.0.0.1 (router) ------ x 10.0.0.9        or 10.0.0.1 at a device that is not Ethernet
//! ```

use std::net::Ipv4Addr;
use std::process::Command;

use isatap_tests::daemon::{Daemon, Lane, program};
use isatap_tests::netns::Netns;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link, set_address};
use isatap_tests::wait;
use socket2::{Domain, Protocol, Socket, Type};

/// An address that is not the crafter's.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
/// IPv6 in IPv4.
const PROTOCOL: i32 = 41;

/// The last line of the answer.
fn explain(daemon: &Daemon<'_>, packet: &str) -> String {
    let output = daemon.ctl(&format!("explain {packet}"));
    assert!(output.status.success(), "{packet}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().last().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_answer(daemon: &Daemon<'_>, packet: &str, expected: &str) {
    wait::until(expected, SOON, || match explain(daemon, packet) {
        answer if answer.starts_with(expected) => Ok(()),
        answer => Err(answer),
    });
}

fn received(src4: Ipv4Addr, dst6: &str) -> String {
    format!("--src4 {src4} --src6 {} --dst6 {dst6}", on_link(X))
}

fn sent(dst6: &str) -> String {
    format!("--src6 {} --dst6 {dst6}", on_link(DUT))
}

#[test]
fn what_the_kernel_leaves_is_told_with_its_cause() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.lane(Lane::Ebpf));
    daemon.wait_programs();
    wait_answer(
        &daemon,
        &sent(&on_link(X).to_string()),
        "carried by the kernel, out by eth0",
    );
    wait_answer(&daemon, &received(X, "ff02::1"), "left to a worker, multicast: ");
    // A router of the link that no IPv4 route leads to.
    scene
        .dut
        .ip("-6 route add 2001:db8:9::/64 via fe80::5efe:10.9.0.1 dev is0");
    wait_answer(
        &daemon,
        &sent("2001:db8:9::1"),
        "left to a worker, route: No device is known that leads to the IPv4 address.",
    );
    // Others are entitled to hear what is refused.
    let forged = received(FOREIGN, &on_link(DUT).to_string());
    wait_answer(&daemon, &forged, "dropped by the kernel's programs");
    let listener = scene
        .dut
        .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(PROTOCOL))))
        .expect("a raw socket");
    wait_answer(&daemon, &forged, "left to a worker, refused: ");
    drop(listener);
    wait_answer(&daemon, &forged, "dropped by the kernel's programs");
}

#[test]
fn a_device_without_programs_is_named() {
    let ns = Netns::new("dut");
    ns.ip("tuntap add dev wan0 mode tun");
    ns.ip(&format!("addr add {DUT}/24 dev wan0"));
    ns.ip("link set wan0 up");
    let daemon = Daemon::router(&ns, DUT).lane(Lane::Ebpf).start();
    set_address(&ns, DUT);
    daemon.wait_log("packets are left to the workers: no Ethernet device has an address of the tunnel");
    let answer = explain(&daemon, &received(X, &on_link(DUT).to_string()));
    assert!(
        answer.starts_with("left to a worker: there are no programs at "),
        "{answer}"
    );
}

/// Where the daemon may not load programs, `auto` goes without, and an answer says why.
#[test]
fn without_programs_the_reason_is_told() {
    let scene = Opposite::new();
    let wrapper = tempfile::tempdir().expect("a folder");
    let script = wrapper.path().join("isatapd");
    let text = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -bpf,-perfmon,-sys_admin {} \"$@\"\n",
        program("isatapd").display()
    );
    std::fs::write(&script, text).expect("a script");
    let made = Command::new("chmod").arg("755").arg(&script).status();
    assert!(made.is_ok_and(|status| status.success()));
    let daemon = scene.router(|builder| builder.program(&script).args("--lane auto"));
    daemon.wait_log("packets are carried by workers, without programs in the kernel: ");
    let why = "by a worker, for there are no programs in the kernel: ";
    let us = on_link(DUT).to_string();
    for packet in [received(X, &us), sent(&on_link(X).to_string())] {
        let answer = explain(&daemon, &packet);
        assert!(answer.starts_with(why) && answer.len() > why.len(), "{answer}");
        eprintln!("{answer}");
    }
}
