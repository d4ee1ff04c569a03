//! What the kernel says of devices that the engine asks the programs to be attached to (FAULTS 72). Which addresses may carry the
//! tunnel is for [`super::binding`] to say.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

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

#[cfg(test)]
mod tests {
    use super::*;
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

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = has_ethernet_type(libc::RTM_NEWLINK, &payload);
            let _ = address(libc::RTM_NEWADDR, &payload);
        }
    }
}
