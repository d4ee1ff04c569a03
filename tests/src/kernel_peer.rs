//! The kernel's ISATAP device in a [`Guest`]: made as an operator would, and exercised from both ends.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use crate::daemon::TUNNEL;
use crate::guest::Guest;
use crate::netns::Netns;
use crate::scene::SOON;
use crate::traffic::{TcpReport, tcp_echo};
use crate::wait;

/// Where echo servers listen, in the guest and beside our daemon.
pub const ECHO_PORT: u16 = 7007;
/// Emulated processors take their time, and two guests may share one core.
const STALL: Duration = Duration::from_secs(20);

/// A potential router of the kernel's.
#[derive(Clone, Copy, Debug)]
pub enum Potential {
    /// `prl-default`: its advertisements may make it a default router.
    Default(Ipv4Addr),
    /// `prl-nodefault`: they may not.
    NoDefault(Ipv4Addr),
}

/// Makes the ISATAP device of the guest.
#[track_caller]
pub fn tunnel(guest: &Guest, mtu: u16, routers: &[Potential]) {
    guest.run(&format!(
        "ip tunnel add {TUNNEL} mode isatap local {} ttl 64\nip link set {TUNNEL} mtu {mtu}",
        guest.v4()
    ));
    for router in routers {
        let (kind, v4) = match router {
            Potential::Default(v4) => ("prl-default", v4),
            Potential::NoDefault(v4) => ("prl-nodefault", v4),
        };
        guest.run(&format!("ip tunnel prl {kind} {v4} dev {TUNNEL}"));
    }
    guest.run(&format!("ip link set {TUNNEL} up"));
}

/// Each of `count` echo requests of the guest to `dst` (`address` or `address%device`) is answered once.
#[track_caller]
pub fn ping_from(guest: &Guest, dst: &str, count: u32) {
    let text = guest.run(&format!("ping -6 -n -i 0.05 -W 5 -c {count} {dst}"));
    let all = format!("{count} packets transmitted, {count} received, 0% packet loss");
    assert!(text.contains(&all) && !text.contains("DUP"), "{text}");
}

/// The address in the form that names the tunnel if it is link-local.
pub fn scoped(addr: Ipv6Addr) -> String {
    if addr.is_unicast_link_local() {
        format!("{addr}%{TUNNEL}")
    } else {
        addr.to_string()
    }
}

/// TCP from `ns` to the guest's echo server at `dst`, every byte both ways and compared.
#[track_caller]
pub fn tcp_to(ns: &Netns, dst: Ipv6Addr, bytes: u64) -> TcpReport {
    let scope = if dst.is_unicast_link_local() {
        ns.enter(|| if_nametoindex(TUNNEL)).expect("the tunnel interface")
    } else {
        0
    };
    let to = SocketAddrV6::new(dst, ECHO_PORT, 0, scope);
    tcp_echo(ns, to, bytes, STALL).unwrap_or_else(|e| panic!("TCP from {} to {dst}: {e}", ns.name()))
}

/// TCP from the guest to an echo server at `dst`, every byte both ways and compared.
#[track_caller]
pub fn tcp_from(guest: &Guest, within: &str, dst: Ipv6Addr, bytes: u64) {
    let script = format!("{within} mirror ask {} {ECHO_PORT} {bytes}", scoped(dst));
    let answer = guest.run_within(STALL * 2, &script);
    assert_eq!(
        answer.status, 0,
        "TCP from the guest to {dst}: {}{}",
        answer.out, answer.err
    );
}

/// The packets that a `sniff` of the guest has written to `file`: whether it sent them, and their bytes. It writes later than the guest
/// answers: this waits for the packet `last`.
#[track_caller]
pub fn sniffed(guest: &Guest, file: &str, last: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let hex: String = last.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = guest.wait_for(
        "the last packet to be written down",
        SOON * 4,
        &format!("grep -q {hex} {file} && cat {file}"),
    );
    let line = |line: &str| {
        let (way, hex) = line.split_once(' ')?;
        let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
        Some((way == "out", bytes?))
    };
    text.lines().filter_map(line).collect()
}

/// Waits until `ns` has an answer from the guest's `dst`: addresses and routes of the last moments are in force.
#[track_caller]
pub fn wait_answer_from_guest(ns: &Netns, dst: Ipv6Addr) {
    wait::holds("an answer from the guest", SOON * 2, || {
        !crate::ping::is_silent(ns, &scoped(dst))
    });
}
