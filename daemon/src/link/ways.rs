//! IPv4 routing kept current for programs in the kernel: notifications say when to look again, a dump says how it is.

use std::collections::BTreeMap;
use std::time::Duration;

use isatap_engine::ebpf::Egress;
use rtnetlink::MulticastGroup;

use super::notices::Notices;
use super::underlay::{self, Unusual};
use super::{Netlink, NetlinkError};

/// What tells about changes: devices, IPv4 routes and the rules that choose among tables.
const GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
];

/// Pause after the socket for notifications failed: it is looked at now and then instead.
const BLIND_INTERVAL: Duration = Duration::from_secs(1);

/// How the machine's IPv4 routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// Which device leads where, or why that cannot be named.
    pub egress: Result<Vec<Egress>, Unusual>,
    /// The Ethernet devices that are up: their names by index.
    pub ethernet: BTreeMap<u32, String>,
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

    /// Waits until something may be another way than before. May be dropped at any await: a dump shows what was missed,
    /// if one follows every return.
    pub async fn changed(&mut self) {
        // Which one it was, or that some were lost, makes no difference.
        if self.notices.next().await.is_err() {
            tokio::time::sleep(BLIND_INTERVAL).await;
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
