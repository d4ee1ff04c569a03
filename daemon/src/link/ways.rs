//! IPv4 routing kept current for programs in the kernel: notifications say when to look again, a dump says how it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isatap_engine::ebpf::Egress;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::notices::Notices;
use super::underlay::{self, Ethernet, Unusual};
use super::{Netlink, NetlinkError};

/// What tells about changes: devices, IPv4 routes, the rules that choose among tables, and nexthop objects: of one that goes the
/// kernel tells, and not of the routes that go with it (remove_nexthop of net/ipv4/nexthop.c).
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Nexthop,
];

/// Pause after the socket for notifications failed: it is looked at now and then instead.
const BLIND_INTERVAL: Duration = Duration::from_secs(1);

/// How the machine's IPv4 routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// Which device leads where, or why that cannot be named.
    pub egress: Result<Vec<Egress>, Unusual>,
    /// The Ethernet devices that are up, by index.
    pub ethernet: BTreeMap<u32, Ethernet>,
}

/// Devices that went, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// These.
    These(BTreeSet<u32>),
    /// Notifications were lost.
    Unknown,
}

impl Gone {
    /// Whether it may be that this one went.
    pub fn may_hold(&self, index: u32) -> bool {
        match self {
            Self::These(indices) => indices.contains(&index),
            Self::Unknown => true,
        }
    }
}

/// The device that went, by this message. A port that leaves its bridge is told in the same words, for another family.
fn gone(message: &RouteNetlinkMessage) -> Option<u32> {
    match message {
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(link.header.index)
        }
        _ => None,
    }
}

/// The sockets.
pub struct WaysWatch {
    netlink: Netlink,
    notices: Notices,
    tunnel: u32,
}

impl std::fmt::Debug for WaysWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaysWatch")
            .field("tunnel", &self.tunnel)
            .finish_non_exhaustive()
    }
}

impl WaysWatch {
    /// Subscribes; `tunnel` is the index of the ISATAP interface. Must be called inside the control runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open(netlink: Netlink, tunnel: u32) -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink,
            notices: Notices::open(&GROUPS)?,
            tunnel,
        })
    }

    /// Waits until something may be another way than before; says which devices went, for one that comes back with the same
    /// number looks in a dump as if it had never gone. May be dropped at any await: a dump shows what was missed, if one follows
    /// every return.
    pub async fn changed(&mut self) -> Gone {
        match self.notices.next().await {
            Ok(Some(burst)) => {
                let messages = burst.iter().map(|(_, message)| message);
                Gone::These(messages.filter_map(gone).collect())
            }
            Ok(None) => Gone::Unknown,
            Err(_) => {
                tokio::time::sleep(BLIND_INTERVAL).await;
                Gone::These(BTreeSet::new())
            }
        }
    }

    /// Looks how it is now.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn look(&self) -> Result<Ways, NetlinkError> {
        let dump = self.netlink.dump_underlay().await?;
        Ok(Ways {
            egress: underlay::ways(&dump, self.tunnel),
            ethernet: underlay::ethernet(&dump, self.tunnel),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::LinkMessage;

    #[test]
    fn a_port_that_leaves_a_bridge_is_not_gone() {
        let link = |family, index| {
            let mut link = LinkMessage::default();
            (link.header.interface_family, link.header.index) = (family, index);
            link
        };
        let (device, port) = (link(AddressFamily::Unspec, 7), link(AddressFamily::Bridge, 7));
        assert_eq!(gone(&RouteNetlinkMessage::DelLink(device.clone())), Some(7));
        assert_eq!(gone(&RouteNetlinkMessage::DelLink(port)), None);
        assert_eq!(gone(&RouteNetlinkMessage::NewLink(device)), None);
        assert!(Gone::Unknown.may_hold(7) && Gone::These([7].into()).may_hold(7));
        assert!(!Gone::These([8].into()).may_hold(7));
    }
}
