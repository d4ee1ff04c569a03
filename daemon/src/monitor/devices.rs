//! What the monitor knows of devices that the engine asks the programs to be attached to: what the kernel says of them, and which
//! addresses may carry the tunnel by the configuration (FAULTS 72).
//!
//! The configuration in force is what the engine says it is. So the file is read here once more: it belongs to root, and is all that
//! the monitor believes.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use tracing::debug;

use crate::config::Loader;
use crate::config::resolved::Bind;
use crate::link::change::Devices;
use crate::link::plain::{self, attribute, message, nonsense};

/// Bytes of `struct ifinfomsg`: family, padding, 16 bits of type, index, flags, mask.
const IFINFOMSG_LEN: usize = 16;
/// Bytes of `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const IFADDRMSG_LEN: usize = 8;
/// `AF_INET`, in a byte.
const IPV4: u8 = 2;

/// What the kernel says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its packets have Ethernet headers.
    pub is_ethernet: bool,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Looks at devices of this network namespace, by interface index; those that are not there are missing.
///
/// # Errors
/// What the kernel says.
pub fn look(wanted: &Devices) -> io::Result<BTreeMap<u32, Device>> {
    let mut found = BTreeMap::new();
    for index in wanted.iter().copied().filter(|index| *index != 0) {
        if let Some(is_ethernet) = is_ethernet(index)? {
            let addresses = Vec::new();
            found.insert(
                index,
                Device {
                    is_ethernet,
                    addresses,
                },
            );
        }
    }
    let mut question = [0; IFADDRMSG_LEN];
    question[0] = IPV4;
    let question = message(libc::RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &question);
    plain::find(NETLINK_ROUTE, &question, |kind, payload| {
        let (index, addr) = address(kind, payload)?;
        let device = found
            .get_mut(&index)
            .filter(|device| !device.addresses.contains(&addr));
        if let Some(device) = device {
            device.addresses.push(addr);
        }
        Ok(None::<()>)
    })?;
    Ok(found)
}

/// `None` when there is no such device.
fn is_ethernet(index: u32) -> io::Result<Option<bool>> {
    let Ok(number) = i32::try_from(index) else {
        return Ok(None);
    };
    let mut question = [0; IFINFOMSG_LEN];
    question[4..8].copy_from_slice(&number.to_ne_bytes());
    let question = message(libc::RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &question);
    match plain::find(NETLINK_ROUTE, &question, |kind, payload| {
        has_ethernet_type(kind, payload).map(Some)
    }) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        found => found,
    }
}

fn has_ethernet_type(kind: u16, payload: &[u8]) -> io::Result<bool> {
    let header = payload.first_chunk::<IFINFOMSG_LEN>();
    let header = header
        .filter(|_| kind == libc::RTM_NEWLINK)
        .ok_or_else(|| nonsense("a device"))?;
    Ok(u16::from_ne_bytes([header[2], header[3]]) == libc::ARPHRD_ETHER)
}

/// The device and the address that a part of a dump tells of.
fn address(kind: u16, payload: &[u8]) -> io::Result<(u32, Ipv4Addr)> {
    let unread = || nonsense("an address");
    let (header, attributes) = payload.split_first_chunk::<IFADDRMSG_LEN>().ok_or_else(unread)?;
    if kind != libc::RTM_NEWADDR || header[0] != IPV4 {
        return Err(unread());
    }
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let local = attribute(attributes, libc::IFA_LOCAL)?.and_then(|value| <[u8; 4]>::try_from(value).ok());
    Ok((index, local.ok_or_else(unread)?.into()))
}

/// Which addresses may carry the tunnel: what the file says and, as a reload may have failed, what it said before. `None` is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    now: Option<Vec<Ipv4Addr>>,
    before: Option<Vec<Ipv4Addr>>,
}

impl Bounds {
    /// These from the beginning.
    pub fn new(now: Option<Vec<Ipv4Addr>>) -> Self {
        let before = now.clone();
        Self { now, before }
    }

    /// The file says this now.
    pub fn set(&mut self, now: Option<Vec<Ipv4Addr>>) {
        if self.now != now {
            self.before = std::mem::replace(&mut self.now, now);
        }
    }

    /// Whether this address may carry the tunnel.
    pub fn allow(&self, addr: Ipv4Addr) -> bool {
        let has =
            |addresses: &Option<Vec<Ipv4Addr>>| addresses.as_ref().is_none_or(|all| all.contains(&addr));
        has(&self.now) || has(&self.before)
    }
}

/// The bounds, and where they come from.
#[derive(Debug)]
pub struct Binding {
    loader: Loader,
    bounds: Bounds,
}

impl Binding {
    /// By the file; by what a daemon that runs has in force where the file says nothing any more.
    pub fn new(loader: Loader, in_force: Bind) -> Self {
        let fixed = || match in_force {
            Bind::Auto(_) => None,
            Bind::Fixed(addr) => Some(vec![addr]),
        };
        let bounds = Bounds::new(loader.bound_to().unwrap_or_else(|_| fixed()));
        Self { loader, bounds }
    }

    /// Reads the file once more. One that cannot be read changes nothing, as it does elsewhere.
    pub fn read_again(&mut self) {
        match self.loader.bound_to() {
            Ok(addresses) => self.bounds.set(addresses),
            Err(error) => debug!("which addresses may carry the tunnel stays as it was: {error}"),
        }
    }

    /// What holds now.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use isatap_engine::fib::MAX_LOCATORS;
    use isatap_tests::netns::Netns;
    use proptest::prelude::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

    #[test]
    fn the_kernel_tells_what_devices_are() {
        let ns = Netns::new("devices");
        ns.ip_batch(
            "link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\naddr add 10.0.0.2/24 dev eth0\n\
             link add eth1 type bridge\naddr add 2001:db8::1/64 dev eth1 nodad\n\
             addr add 10.0.0.3 peer 10.0.0.9 dev lo\n",
        );
        ns.enter(|| {
            let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
            let mut wanted = [0; MAX_LOCATORS];
            wanted[..5].copy_from_slice(&[index("eth0"), index("eth1"), index("lo"), 4711, u32::MAX]);
            let found = look(&wanted).unwrap();
            let device = |is_ethernet, addresses: &[Ipv4Addr]| Device {
                is_ethernet,
                addresses: addresses.to_vec(),
            };
            let expected = [
                (index("eth0"), device(true, &[A, B])),
                (index("eth1"), device(true, &[])),
                // Its own address, not that of the other end.
                (index("lo"), device(false, &[Ipv4Addr::LOCALHOST, C])),
            ];
            assert_eq!(found, expected.into());
            assert_eq!(look(&[0; MAX_LOCATORS]).unwrap(), BTreeMap::new());
        });
    }

    #[test]
    fn what_the_file_said_before_is_allowed_once_more() {
        let mut bounds = Bounds::new(Some(vec![A]));
        let allowed = |bounds: &Bounds| [A, B, C].map(|addr| bounds.allow(addr));
        assert_eq!(allowed(&bounds), [true, false, false]);
        bounds.set(Some(vec![B]));
        bounds.set(Some(vec![B]));
        assert_eq!(allowed(&bounds), [true, true, false]);
        bounds.set(Some(vec![C]));
        assert_eq!(allowed(&bounds), [false, true, true]);
        bounds.set(None);
        assert_eq!(allowed(&bounds), [true; 3]);
        bounds.set(Some(vec![A]));
        bounds.set(Some(vec![B]));
        assert_eq!(allowed(&bounds), [true, true, false]);
    }

    #[test]
    fn the_file_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("isatapd.conf");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("BindAddress 10.0.0.1\n");
        let loader = Loader::open(Some(path.clone()), Overrides::default()).unwrap();
        let mut binding = Binding::new(loader, Bind::Auto(B));
        assert_eq!(binding.bounds(), &Bounds::new(Some(vec![A])));
        for (text, now) in [
            ("BindAddress 10.0.0.2\n", Some(vec![B])),
            ("BindAddress 10.0.0\n", Some(vec![B])),
            ("BindAddress auto\n", None),
            ("Mtu 1400\n", None),
            // Nobody has looked it up.
            ("BindAddress ourselves.example\n", None),
            ("BindAddress 10.0.0.3\n", Some(vec![C])),
        ] {
            write(text);
            binding.read_again();
            assert_eq!(binding.bounds().now, now, "{text}");
        }
        // A daemon that runs goes on without its file.
        write("BindAddress 10.0.0\n");
        let loader = Loader::open(Some(path.clone()), Overrides::default()).unwrap();
        let binding = Binding::new(loader, Bind::Fixed(C));
        assert_eq!(binding.bounds(), &Bounds::new(Some(vec![C])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = has_ethernet_type(libc::RTM_NEWLINK, &payload);
            let _ = address(libc::RTM_NEWADDR, &payload);
        }
    }
}
