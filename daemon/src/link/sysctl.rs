//! The interface's IPv6 sysctls, written before the chroot; `all.*` is read, never written.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use isatap_engine::fib::Role;
use isatap_engine::io::device::name_of;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use tracing::warn;

/// Where the kernel keeps them, a directory for each interface.
pub const CONF: &str = "/proc/sys/net/ipv6/conf";

/// The kernel's default of `hop_limit`.
const KERNEL_HOP_LIMIT: &str = "64";

/// The sysctls of one interface, reachable also after the chroot: whoever has CAP_NET_ADMIN may write them.
#[derive(Debug)]
pub struct Sysctls {
    if_index: u32,
    dir: Option<OwnedFd>,
    /// The hop limit of before the first one written.
    own_hop_limit: OnceLock<String>,
}

/// What is written for an interface, with the reason when it cannot be.
fn wanted(role: Role) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut list = vec![
        ("disable_ipv6", "0", "no IPv6 on the interface"),
        // No link-local of the kernel's own making: its identifier embeds no IPv4 address.
        (
            "addr_gen_mode",
            "1",
            "the kernel adds a second link-local address",
        ),
        // The daemon solicits each router itself, by unicast.
        ("router_solicitations", "0", "the kernel solicits as well"),
        // Duplicate detection needs multicast, and ISATAP identifiers need none (RFC 5214 6.1).
        ("accept_dad", "0", "addresses become usable late"),
        ("dad_transmits", "0", "addresses become usable late"),
        // Static addresses survive the interface going down and up.
        (
            "keep_addr_on_down",
            "1",
            "static addresses vanish when the interface goes down",
        ),
    ];
    match role {
        Role::Host => list.extend([
            // What routers advertise is the daemon's business: it knows whom to believe, and keeps what they promised.
            (
                "accept_ra",
                "0",
                "the kernel configures itself besides the daemon",
            ),
            ("autoconf", "0", "the kernel configures itself besides the daemon"),
            // A random identifier embeds no IPv4 address: no peer would accept it.
            (
                "use_tempaddr",
                "0",
                "the kernel adds temporary addresses that do not work here",
            ),
        ]),
        Role::Router => list.extend([
            (
                "accept_ra",
                "0",
                "advertisements of others would configure this router",
            ),
            (
                "accept_redirects",
                "0",
                "redirects would change this router's routes",
            ),
            ("forwarding", "1", "nothing is forwarded out of the tunnel"),
        ]),
    }
    list
}

fn path(interface: &str, name: &str) -> PathBuf {
    [CONF, interface, name].iter().collect()
}

impl Sysctls {
    /// Opens the directory above the interface's own, which the kernel replaces whenever IPv6 on the interface ends and
    /// begins anew. Without it (no `/proc`, or IPv6 switched off) every write fails and says so.
    pub fn open(if_index: u32) -> Self {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(CONF, flags, Mode::empty()).ok();
        Self {
            if_index,
            dir,
            own_hop_limit: OnceLock::new(),
        }
    }

    /// The directory, if it is open.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(AsFd::as_fd)
    }

    /// Writes them all; what cannot be written is said once, with its consequence. A container with a read-only
    /// `/proc/sys` may have been set up from outside, so that none of it ends the daemon.
    pub fn apply(&self, role: Role) {
        for (name, value, consequence) in wanted(role) {
            self.write(name, value, consequence);
        }
    }

    /// The hop limit of this host's packets out of the interface (RFC 4861 6.3.4); `None` for what it was before.
    pub fn apply_hop_limit(&self, hop_limit: Option<u8>) {
        let own = self.own_hop_limit.get_or_init(|| {
            self.try_read("hop_limit")
                .unwrap_or_else(|_| KERNEL_HOP_LIMIT.to_owned())
        });
        let value = hop_limit.map_or_else(|| own.clone(), |limit| limit.to_string());
        self.write("hop_limit", &value, "packets have the hop limit of before");
    }

    fn write(&self, name: &str, value: &str, consequence: &str) {
        let Err(error) = self.try_write(name, value) else {
            return;
        };
        let interface = name_of(self.if_index).unwrap_or_else(|_| self.if_index.to_string());
        let path = path(&interface, name);
        warn!(
            "cannot write {value} to {}: {error}; otherwise {consequence}",
            path.display()
        );
    }

    fn try_read(&self, name: &str) -> std::io::Result<String> {
        let dir = self.dir.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let path = PathBuf::from(name_of(self.if_index)?).join(name);
        let file = openat(dir, &path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(std::io::read_to_string(File::from(file))?.trim().to_owned())
    }

    fn try_write(&self, name: &str, value: &str) -> std::io::Result<()> {
        let dir = self.dir.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let path = PathBuf::from(name_of(self.if_index)?).join(name);
        let file = openat(dir, &path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        File::from(file).write_all(value.as_bytes())
    }
}

/// Whether the machine forwards IPv6 at all.
pub fn forwards() -> bool {
    std::fs::read_to_string(path("all", "forwarding")).is_ok_and(|now| now.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_is_written_twice_and_all_is_never_touched() {
        for role in [Role::Host, Role::Router] {
            let list = wanted(role);
            for (at, (name, _, consequence)) in list.iter().enumerate() {
                assert!(list[at + 1..].iter().all(|(other, _, _)| other != name));
                assert!(
                    !consequence.is_empty() && !path("is0", name).starts_with("/proc/sys/net/ipv6/conf/all")
                );
            }
        }
    }
}
