//! Whether somebody else carries the tunnel of this address already, or listens to protocol 41 besides (FAULTS 36).
//!
//! The kernel gives each raw socket, and each of its own tunnels, a copy of every packet, and programs of the `ebpf` lane are asked
//! one after the other: of two ISATAP interfaces with one locator both deliver each packet, or one of them hears nothing. What tells
//! of the other one is the link-local address that every ISATAP interface has, whoever made it. It needs no lock that could be left
//! behind, and is of one network namespace, as the tunnel is. Two at the same moment do not see each other; control
//! does when they run.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::worker::Descriptors;
use nix::sys::stat::fstat;
use tracing::warn;

use crate::config::Settings;
use crate::config::resolved::Role;
use crate::exit::ExitError;
use crate::link::inet6_table::isatap_interfaces;
use crate::link::raw_table::inodes_of_protocol_41;

/// The IPv6 addresses of this network namespace.
const ADDRESSES: &str = "/proc/thread-self/net/if_inet6";
/// Its raw sockets.
const RAW_SOCKETS: &str = "/proc/thread-self/net/raw";
/// How often to look again whether somebody that was killed is gone.
const RETRY: Duration = Duration::from_millis(20);
/// How long the sockets of one that was killed may outlive its interface.
const SOCKETS_LIMIT: Duration = Duration::from_millis(100);

/// Refuses a second interface with this locator. One with the name of ours is ours, or refused as such; somebody who was killed has
/// until `deadline` to be gone.
///
/// # Errors
/// 69, with the name of the other interface.
pub(super) fn require(settings: &Settings, deadline: Instant) -> Result<(), ExitError> {
    // With names alone as servers it may be another one in a moment; control follows it.
    if settings.bind.is_auto() && settings.servers.is_empty() && settings.role == Role::Host {
        return Ok(());
    }
    let locator = settings.bind.addr();
    match until(deadline, || other_interface(locator, &settings.interface)) {
        None => Ok(()),
        Some(other) => Err(ExitError::unavailable(format!(
            "{locator} is the address of the tunnel interface {other} already, and only one can have what arrives there"
        ))
        .with_remedy(format!(
            "stop the isatapd of {other} (a tunnel of the kernel's goes with ip link del {other}), or give each its own BindAddress"
        ))),
    }
}

/// Warns of sockets that get copies besides. Those of a daemon for another address do no harm, and are not told from others.
pub(super) fn tell_of_listeners(descriptors: &Descriptors) {
    let interface = &descriptors.shape.interface;
    let own = descriptors.raw_sockets().filter_map(|fd| fstat(fd).ok());
    let own: Vec<_> = own.map(|about| about.st_ino).collect();
    let foreign = || {
        let table = read(RAW_SOCKETS);
        let foreign =
            inodes_of_protocol_41(&table).filter(|inode| !inode.is_some_and(|inode| own.contains(&inode)));
        Some(foreign.count()).filter(|count| *count > 0)
    };
    let has_neighbour = isatap_interfaces(&read(ADDRESSES)).any(|(name, _)| name != interface);
    if has_neighbour {
        return;
    }
    if let Some(count) = until(Instant::now() + SOCKETS_LIMIT, foreign) {
        warn!(
            "{count} socket(s) for protocol 41 belong to another program: it gets a copy of each packet, and a second tunnel program \
             may answer it; ss -0wp shows whose they are"
        );
    }
}

fn other_interface(locator: Ipv4Addr, own: &str) -> Option<String> {
    isatap_interfaces(&read(ADDRESSES))
        .find(|(name, other)| *other == locator && *name != own)
        .map(|(name, _)| name.to_owned())
}

/// What `look` finds, if it still does at `deadline`.
fn until<T>(deadline: Instant, look: impl Fn() -> Option<T>) -> Option<T> {
    loop {
        let found = look()?;
        if Instant::now() >= deadline {
            return Some(found);
        }
        std::thread::sleep(RETRY);
    }
}

/// Without IPv6 in the kernel, and where /proc does not show the network, there is nothing to be found.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
