//! Neighbours of IPv4 kept current for programs in the kernel, which send frames themselves to those that the kernel would send to.
//!
//! RFC 4861 7.3.2 names the states, which Linux uses for ARP too. What the kernel does next about a neighbour that it is sure of, or is
//! asking, it does by a clock. Only one in doubt (STALE: it has not answered for half a minute) waits for a packet, so the first of each
//! flow is the kernel's to send. To all others packets go by the kernel, which finds them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::io::ebpf::Neighbour;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::doubts::Doubts;
use super::notices::Notices;
use super::underlay::Ethernet;
use super::{Netlink, NetlinkError};

/// Pause after the socket for notifications failed.
const BLIND_INTERVAL: Duration = Duration::from_secs(1);

/// The sockets.
pub struct NeighboursWatch {
    netlink: Netlink,
    notices: Notices,
    doubts: Doubts,
}

impl std::fmt::Debug for NeighboursWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NeighboursWatch").finish_non_exhaustive()
    }
}

impl NeighboursWatch {
    /// Subscribes. Must be called inside the control runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open(netlink: Netlink) -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink,
            notices: Notices::of_neighbours()?,
            doubts: Doubts::default(),
        })
    }

    /// Waits for news of neighbours; what `may_wait` comes a moment later, with others. `None` when some were lost: what is known may
    /// be wrong, and all are to be looked at. May be dropped at any await without losing one.
    pub async fn changed(
        &mut self,
        devices: &BTreeMap<u32, Ethernet>,
        may_wait: impl Fn(&Neighbour) -> bool,
    ) -> Option<Vec<Neighbour>> {
        loop {
            let due = self.doubts.due();
            let waited = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into());
            tokio::select! {
                burst = self.notices.next() => {
                    let Ok(burst) = burst else {
                        tokio::time::sleep(BLIND_INTERVAL).await;
                        return None;
                    };
                    let burst = burst?;
                    let messages = burst.iter().map(|(_, message)| message);
                    let news = messages.filter_map(|message| news(message, devices)).collect();
                    let at_once = self.doubts.sort(news, &may_wait, Instant::now());
                    if !at_once.is_empty() {
                        return Some(at_once);
                    }
                }
                () = waited, if due.is_some() => return Some(self.doubts.take()),
            }
        }
    }

    /// Those that the kernel would send to now.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn look(&mut self, devices: &BTreeMap<u32, Ethernet>) -> Result<Vec<Neighbour>, NetlinkError> {
        self.doubts.take();
        let dump = self.netlink.dump_neighbours().await?;
        let all = dump.iter().filter_map(|message| news(message, devices));
        Ok(all.filter(|neighbour| neighbour.link.is_some()).collect())
    }
}

/// What a message says of a neighbour behind one of `devices`.
fn news(message: &RouteNetlinkMessage, devices: &BTreeMap<u32, Ethernet>) -> Option<Neighbour> {
    let (neighbour, is_there) = match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => (neighbour, true),
        RouteNetlinkMessage::DelNeighbour(neighbour) => (neighbour, false),
        _ => return None,
    };
    if neighbour.header.family != AddressFamily::Inet {
        return None;
    }
    let device = neighbour.header.ifindex;
    let src = devices.get(&device)?.link?;
    let dst = (is_there && is_sent_to(neighbour)).then(|| link_of(neighbour));
    let link = dst.flatten().map(|dst| [dst, src]);
    Some(Neighbour {
        addr: addr_of(neighbour)?,
        device,
        link,
        is_doubted: link.is_some() && neighbour.header.state == NeighbourState::Stale,
    })
}

/// Whether the kernel would send it a packet at once, by the link address that it has.
fn is_sent_to(neighbour: &NeighbourMessage) -> bool {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    matches!(
        neighbour.header.state,
        Noarp | Permanent | Reachable | Stale | Delay | Probe
    )
}

fn addr_of(neighbour: &NeighbourMessage) -> Option<Ipv4Addr> {
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some(*addr),
        _ => None,
    })
}

/// The link address, if frames to it are for one.
fn link_of(neighbour: &NeighbourMessage) -> Option<[u8; 6]> {
    let link: [u8; 6] = neighbour
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        })?;
    (link[0] & 1 == 0 && link != [0; 6]).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u32 = 7;
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn devices() -> BTreeMap<u32, Ethernet> {
        let device = |link| Ethernet {
            name: "eth0".to_owned(),
            link,
        };
        [(DEVICE, device(Some(OURS))), (DEVICE + 1, device(None))].into()
    }

    fn message(state: NeighbourState, link: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = DEVICE;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ADDR)),
            NeighbourAttribute::LinkLayerAddress(link.to_vec()),
        ];
        message
    }

    /// What is known of the neighbour's frames after this message, and whether the kernel doubts it.
    fn told(message: NeighbourMessage) -> (Option<[[u8; 6]; 2]>, bool) {
        let found = news(&RouteNetlinkMessage::NewNeighbour(message), &devices());
        let found = found.expect("news");
        assert_eq!((found.addr, found.device), (ADDR, DEVICE));
        (found.link, found.is_doubted)
    }

    #[test]
    fn frames_go_to_those_that_the_kernel_sends_to() {
        use NeighbourState::{
            Delay, Failed, Incomplete, Noarp, None as Nothing, Other, Permanent, Probe, Reachable, Stale,
        };
        for state in [Reachable, Permanent, Noarp, Delay, Probe] {
            assert_eq!(told(message(state, &THEIRS)), (Some([THEIRS, OURS]), false));
        }
        assert_eq!(told(message(Stale, &THEIRS)), (Some([THEIRS, OURS]), true));
        for state in [Failed, Incomplete, Nothing, Other(0x81)] {
            assert_eq!(told(message(state, &THEIRS)), (None, false), "{state:?}");
        }
    }

    #[test]
    fn no_frame_goes_to_one_that_is_gone() {
        for state in [NeighbourState::Reachable, NeighbourState::Stale] {
            let gone = RouteNetlinkMessage::DelNeighbour(message(state, &THEIRS));
            let news = news(&gone, &devices()).expect("news");
            assert_eq!((news.link, news.is_doubted), (None, false));
        }
    }

    #[test]
    fn no_frame_goes_to_several_or_to_no_address() {
        for bytes in [
            &[0xff; 6][..],
            &[1, 0, 0x5e, 0, 0, 1],
            &[0; 6],
            &[],
            &[2; 5],
            &[2; 8],
        ] {
            for state in [NeighbourState::Reachable, NeighbourState::Stale] {
                assert_eq!(told(message(state, bytes)), (None, false), "{bytes:?}");
            }
        }
    }

    #[test]
    fn others_are_passed_over() {
        let mut elsewhere = message(NeighbourState::Reachable, &THEIRS);
        elsewhere.header.ifindex = DEVICE + 1;
        let mut unknown = elsewhere.clone();
        unknown.header.ifindex = DEVICE + 2;
        let mut ipv6 = message(NeighbourState::Reachable, &THEIRS);
        ipv6.header.family = AddressFamily::Inet6;
        for message in [elsewhere, unknown, ipv6] {
            assert_eq!(
                news(&RouteNetlinkMessage::NewNeighbour(message), &devices()),
                None
            );
        }
    }
}
