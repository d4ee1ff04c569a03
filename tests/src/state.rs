//! What the kernel has on an interface, and what a process holds: for tests of what changes and of what must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, TUNNEL};
use crate::netns::Netns;
use crate::packet::isatap;
use crate::scene::{PREFIX, SOON};
use crate::wait;

/// IPv6 addresses of an interface, as `address/length`.
#[track_caller]
pub fn addresses(ns: &Netns, device: &str) -> BTreeSet<String> {
    let text = ns.ip(&format!("-6 -o addr show dev {device}"));
    let address = |line: &str| {
        Some(
            line.split_whitespace()
                .skip_while(|w| *w != "inet6")
                .nth(1)?
                .to_owned(),
        )
    };
    text.lines().filter_map(address).collect()
}

/// IPv6 routes over an interface, one a line, without the time they have left.
#[track_caller]
pub fn routes(ns: &Netns, device: &str) -> String {
    let text = ns.ip(&format!("-6 route show dev {device}"));
    let line = |line: &str| {
        let words = line.split_whitespace().filter(|word| !word.ends_with("sec"));
        words
            .filter(|word| *word != "expires")
            .collect::<Vec<_>>()
            .join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Addresses, routes and neighbours of an interface, without times.
#[track_caller]
pub fn snapshot(ns: &Netns, device: &str) -> String {
    let neighbours = ns.ip(&format!("-6 neigh show dev {device}"));
    let addresses: Vec<_> = addresses(ns, device).into_iter().collect();
    format!("{}\n{}\n{neighbours}", addresses.join("\n"), routes(ns, device))
}

/// The index of an interface: another one after it was made anew.
///
/// # Panics
/// When there is no such interface.
#[track_caller]
pub fn if_index(ns: &Netns, device: &str) -> u32 {
    ns.enter(|| nix::net::if_::if_nametoindex(device))
        .unwrap_or_else(|e| panic!("{} has no {device}: {e}", ns.name()))
}

/// The addresses that a host has for a locator when its routers advertise [`PREFIX`]: a link-local one and one below the
/// prefix, with the u bit for an IPv4 address that is unique (A1).
pub fn configured_for(v4: Ipv4Addr) -> [String; 2] {
    let unique = !v4.is_private() && !v4.is_link_local();
    let address = |prefix| isatap(prefix, unique, v4);
    let (link_local, global): (Ipv6Addr, Ipv6Addr) = (address("fe80::"), address(PREFIX));
    [format!("{link_local}/64"), format!("{global}/128")]
}

/// Waits until the tunnel interface has the addresses of these locators and no others; returns how long it took.
///
/// # Panics
/// When that does not happen.
#[track_caller]
pub fn wait_configured(ns: &Netns, locators: &[Ipv4Addr]) -> Duration {
    let wanted: BTreeSet<String> = locators.iter().copied().flat_map(configured_for).collect();
    let started = Instant::now();
    wait::until(&format!("the addresses of {locators:?} alone"), SOON, || {
        let seen = addresses(ns, TUNNEL);
        if seen == wanted {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    started.elapsed()
}

/// How many descriptors a process has open.
///
/// # Panics
/// When there is no such process.
pub fn descriptors(pid: i32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process");
    all.count()
}

/// What a process has open, by the kernel's name for it (`socket:[4711]`), and how often. Connections that come and go
/// are left out: they are no more when they are asked for.
///
/// # Panics
/// When there is no such process.
pub fn open_files(pid: i32) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process");
    for target in entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
    {
        *all.entry(target.display().to_string()).or_insert(0) += 1;
    }
    all
}

/// Memory of a process that is in use, in KiB.
///
/// # Panics
/// When there is no such process.
pub fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no VmRSS in {status}"))
}

/// Open descriptors of a daemon's processes together.
pub fn descriptors_of(daemon: &Daemon<'_>) -> usize {
    [daemon.pid(), daemon.engine_pid()].map(descriptors).iter().sum()
}

/// Resident memory of a daemon's processes together, KiB.
pub fn resident_kib_of(daemon: &Daemon<'_>) -> u64 {
    [daemon.pid(), daemon.engine_pid()].map(resident_kib).iter().sum()
}
