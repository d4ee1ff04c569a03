//! What crosses a border of privilege: messages between engine and monitor, what the gate lets through, lists for the helper
//! of name servers (FAULTS 72).

use std::net::{Ipv4Addr, Ipv6Addr};

use isatapd::link::change::{Change, message};
use isatapd::link::dns::Names;
use isatapd::monitor::binding::Bounds;
use isatapd::monitor::devices::Device;
use isatapd::monitor::gate;
use isatapd::monitor::wire::{MAX_MESSAGE_LEN, Order, Say};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader};

/// The interface that is ours; whatever is let through must be about it.
const OURS: u32 = 4711;
/// Names and addresses that an advertisement can have put together, at most.
const MAX_NAMES: usize = 32;
/// The address that the configuration lets carry the tunnel, and the only device where a program may be for it.
const LOCATOR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const AT_LOCATOR: u32 = 4;
/// How many workers the engine was told to have.
const WORKERS: usize = 4;

/// Any bytes are a message, with exactly these bytes as its encoding, or they are none.
///
/// # Panics
/// A promise is broken.
pub fn monitor_messages(data: &[u8]) {
    if let Ok(say) = Say::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_LEN, "{} bytes", data.len());
        assert_eq!(say.encode(), data, "{say:?} has two encodings");
    }
    if let Ok(order) = Order::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_LEN, "{} bytes", data.len());
        assert_eq!(order.encode(), data, "{order:?} has two encodings");
    }
}

/// A message of an engine that somebody has taken over: what the monitor carries out concerns the tunnel interface, and is
/// something that this daemon would do.
///
/// # Panics
/// A promise is broken.
pub fn monitor_gate(data: &[u8]) {
    match Say::decode(data) {
        Ok(Say::Change(_, Change::Programs(devices))) => {
            for index in devices {
                if let Some(found) = device(index)
                    && gate::device(index, &found, OURS, |addr| {
                        Bounds::new(Some(vec![LOCATOR])).allow(addr)
                    })
                    .is_ok()
                {
                    assert_eq!(index, AT_LOCATOR, "{found:?} is no place for a program");
                }
            }
        }
        Ok(Say::Change(_, change)) if gate::change(&change).is_ok() => harmless(&change),
        Ok(Say::Listen(_, addr)) if gate::listen(addr).is_ok() => {
            assert!(!(1..1024).contains(&addr.port()), "{addr} takes a privilege");
        }
        // What is held against workers is kept for each: there must not be more of them than there are.
        Ok(Say::Suspect(suspect)) if gate::suspect(&suspect, WORKERS).is_ok() => {
            assert!(usize::from(suspect.worker) < WORKERS, "{suspect:?}");
        }
        _ => {}
    }
}

/// The devices of the machine.
fn device(index: u32) -> Option<Device> {
    let (is_ethernet, addresses): (_, &[Ipv4Addr]) = match index {
        1 => (false, &[Ipv4Addr::LOCALHOST, LOCATOR]),
        2 => (true, &[Ipv4Addr::new(192, 0, 2, 1)]),
        3 => (true, &[]),
        AT_LOCATOR => (true, &[Ipv4Addr::new(10, 0, 0, 2), LOCATOR]),
        OURS => (true, &[LOCATOR]),
        _ => return None,
    };
    Some(Device {
        is_ethernet,
        addresses: addresses.to_vec(),
    })
}

fn harmless(change: &Change) {
    let Some(order) = message::order(OURS, change) else {
        assert!(
            matches!(change, Change::Sysctls(_) | Change::HopLimit(_)),
            "{change:?} is no matter of the kernel"
        );
        return;
    };
    match order.message {
        RouteNetlinkMessage::SetLink(link) => assert_eq!(link.header.index, OURS),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            assert_eq!(address.header.index, OURS);
            for attribute in &address.attributes {
                if let AddressAttribute::Address(addr) | AddressAttribute::Local(addr) = attribute {
                    let std::net::IpAddr::V6(addr) = addr else {
                        panic!("{addr} is no IPv6 address")
                    };
                    assert!(embedded(addr).is_some(), "{addr} is no ISATAP address");
                }
            }
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            assert_eq!(route.header.table, RouteHeader::RT_TABLE_MAIN);
            let mut leaves_by = Vec::new();
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => leaves_by.push(*index),
                    RouteAttribute::Gateway(RouteAddress::Inet6(via)) => {
                        let hop = embedded(via).filter(|hop| is_host(*hop));
                        assert!(hop.is_some() && via.is_unicast_link_local(), "via {via}");
                    }
                    RouteAttribute::Destination(RouteAddress::Inet6(to)) => {
                        assert!(!to.is_multicast() && !to.is_unicast_link_local(), "to {to}");
                    }
                    RouteAttribute::Priority(_)
                    | RouteAttribute::Preference(_)
                    | RouteAttribute::Expires(_) => {}
                    other => panic!("{other:?} is more than a route"),
                }
            }
            assert_eq!(leaves_by, [OURS]);
        }
        other => panic!("{other:?} is no change of the interface"),
    }
}

/// The IPv4 address in an interface identifier (RFC 5214 6.1), told apart by other means than the engine's.
fn embedded(addr: &Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = addr.octets();
    let is_isatap = octets[8] & 0xfd == 0 && octets[9..12] == [0, 0x5e, 0xfe];
    is_isatap.then(|| Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]))
}

fn is_host(v4: Ipv4Addr) -> bool {
    !matches!(v4.octets()[0], 0 | 127 | 224..)
}

/// A list for the helper, which runs programs as root with it: plain names and unicast addresses, or nothing.
///
/// # Panics
/// A promise is broken.
pub fn helper_message(data: &[u8]) {
    let Some(names) = Names::decode(data) else {
        return;
    };
    assert_eq!(names.encode(), data, "{names:?} has two encodings");
    let (&[servers, domains], rest) = data.split_first_chunk().expect("two counts");
    let (servers, domains) = (usize::from(servers), usize::from(domains));
    assert!(servers <= MAX_NAMES && domains <= MAX_NAMES);
    let (addresses, mut rest) = rest.split_at(servers * 16);
    for octets in addresses.as_chunks::<16>().0 {
        let addr = Ipv6Addr::from(*octets);
        assert!(
            !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast(),
            "{addr}"
        );
    }
    for _ in 0..domains {
        let (name, after) = rest[1..].split_at(usize::from(rest[0]));
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        assert!(name.iter().all(is_plain), "{name:?} could be more than a name");
        assert!(
            !name.is_empty() && !name.starts_with(b"-") && !name.starts_with(b"."),
            "{name:?} could be an option or a path"
        );
        rest = after;
    }
    assert!(rest.is_empty());
}
