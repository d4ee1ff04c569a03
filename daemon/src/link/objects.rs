//! Nexthop objects (`ip nexthop`) that lead over one interface. With `net.ipv4.nexthop_compat_mode=0` the kernel says no more of a route
//! that is made of one than its number, and nothing at all when the object becomes another: so objects are asked for
//! themselves, and what routes say of them is completed here.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use nix::libc;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, parse_i32,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteNextHop};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::plain::{self, attribute};

/// `RTM_NEWNEXTHOP` and `RTM_GETNEXTHOP` (linux/rtnetlink.h).
const NEW: u16 = 104;
const GET: u16 = 106;
/// `struct nhmsg` in bytes, and its attributes (linux/nexthop.h).
const HEADER_LEN: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// `struct nexthop_grp` in bytes: number, weight less one, the rest is not of interest.
const MEMBER_LEN: usize = 8;

/// How long the kernel may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How often the question is asked when objects change while the kernel answers; the last answer is taken as it is.
const MAX_ATTEMPTS: usize = 3;

/// One way that an object leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    gateway: Option<Ipv6Addr>,
    /// Its share of a group, less one, as the kernel says it.
    weight: u8,
}

/// The machine's objects by number, each with its ways over the interface: none for one that leads elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects(BTreeMap<u32, Vec<Way>>);

impl Objects {
    /// Asks the kernel, for those of the interface with this index. Must be called inside the control runtime.
    ///
    /// # Errors
    /// What the kernel says, or that it says nothing.
    pub(super) async fn ask(if_index: u32) -> io::Result<Self> {
        let asked = async {
            for _ in 1..MAX_ATTEMPTS {
                let (payloads, interrupted) = dump().await?;
                if !interrupted {
                    return Ok(payloads);
                }
            }
            dump().await.map(|(payloads, _)| payloads)
        };
        let answered = tokio::time::timeout(ANSWER_LIMIT, asked).await;
        match answered.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
            Ok(payloads) => Ok(Self::read(&payloads, if_index)),
            // Before Linux 5.3 there are none.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// From the payloads of messages. What cannot be read leads elsewhere.
    fn read(payloads: &[Vec<u8>], if_index: u32) -> Self {
        let objects = payloads.iter().filter_map(|payload| {
            let attributes = payload.get(HEADER_LEN..)?;
            let of = |kind| attribute(attributes, kind).ok().flatten();
            Some((number(of(NHA_ID)?)?, of(NHA_OIF), of(NHA_GATEWAY), of(NHA_GROUP)))
        });
        let (groups, single): (Vec<_>, Vec<_>) = objects.partition(|(.., group)| group.is_some());
        let mut all = BTreeMap::new();
        for (id, device, gateway, _) in single {
            let gateway = gateway.map(|bytes| <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from));
            let way = match (device.and_then(number) == Some(if_index), gateway.transpose()) {
                (true, Ok(gateway)) => vec![Way { gateway, weight: 0 }],
                // Elsewhere, or by a gateway of IPv4.
                _ => Vec::new(),
            };
            all.insert(id, way);
        }
        // A group has no groups among its members.
        for (id, .., members) in groups {
            let members = members.unwrap_or_default().chunks_exact(MEMBER_LEN);
            let ways = members.flat_map(|member| {
                let of = number(&member[..4]).and_then(|id| all.get(&id));
                of.into_iter().flatten().map(|way| Way {
                    weight: member[4],
                    ..*way
                })
            });
            let ways = ways.collect();
            all.insert(id, ways);
        }
        Self(all)
    }

    /// Has a message about a route say where its object leads, if that does not say it itself; false when the object is not known.
    pub(super) fn complete(&self, message: &mut RouteMessage, if_index: u32) -> bool {
        let mut object = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::NhId(id) => object = Some(*id),
                RouteAttribute::Oif(_) | RouteAttribute::MultiPath(_) => return true,
                _ => {}
            }
        }
        let Some(object) = object else { return true };
        let Some(ways) = self.0.get(&object) else {
            return false;
        };
        if !ways.is_empty() {
            let paths = ways.iter().map(|way| way.path(if_index)).collect();
            message.attributes.push(RouteAttribute::MultiPath(paths));
        }
        true
    }

    /// Whether some object leads otherwise over the interface than it did.
    pub(super) fn lead_otherwise_than(&self, before: &Self) -> bool {
        let ours = |objects: &Self| {
            let ours = objects.0.iter().filter(|(_, ways)| !ways.is_empty());
            ours.map(|(id, ways)| (*id, ways.clone())).collect::<Vec<_>>()
        };
        ours(self) != ours(before)
    }
}

impl Way {
    fn path(&self, if_index: u32) -> RouteNextHop {
        let mut path = RouteNextHop::default();
        path.interface_index = if_index;
        path.hops = self.weight;
        let gateway = self
            .gateway
            .map(|gateway| RouteAttribute::Gateway(RouteAddress::Inet6(gateway)));
        path.attributes.extend(gateway);
        path
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// The payloads of all objects, and whether they changed meanwhile.
async fn dump() -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    let question = plain::message(GET, NLM_F_REQUEST | NLM_F_DUMP, &[0; HEADER_LEN]);
    socket.send(&question).await?;
    let (mut payloads, mut interrupted) = (Vec::new(), false);
    loop {
        let (datagram, _) = socket.recv_from_full().await?;
        for message in plain::messages(&datagram) {
            let message = NetlinkBuffer::new(message);
            interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NEW => payloads.push(message.payload().to_vec()),
                NLMSG_DONE => return Ok((payloads, interrupted)),
                NLMSG_ERROR => {
                    let code = message.payload().get(..4).and_then(|code| parse_i32(code).ok());
                    let errno = code.and_then(i32::checked_neg).unwrap_or(libc::EBADMSG);
                    return Err(io::Error::from_raw_os_error(errno));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 7;

    /// An object as the kernel says it.
    fn object(id: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![0; HEADER_LEN];
        let id = id.to_ne_bytes();
        for (kind, value) in std::iter::once(&(NHA_ID, &id[..])).chain(attributes) {
            payload.extend(plain::encode_attribute(*kind, value));
        }
        payload
    }

    fn objects() -> Objects {
        let gateway: Ipv6Addr = "fe80::5efe:10.0.0.1".parse().unwrap();
        let member = |id: u32, weight| [&id.to_ne_bytes()[..], &[weight, 0, 0, 0]].concat();
        let payloads = [
            object(
                9,
                &[(NHA_GROUP, &[member(1, 2), member(2, 0), member(3, 0)].concat())],
            ),
            object(
                1,
                &[(NHA_OIF, &OURS.to_ne_bytes()), (NHA_GATEWAY, &gateway.octets())],
            ),
            object(2, &[(NHA_OIF, &OURS.to_ne_bytes())]),
            object(
                3,
                &[(NHA_OIF, &3u32.to_ne_bytes()), (NHA_GATEWAY, &gateway.octets())],
            ),
            object(
                4,
                &[(NHA_OIF, &OURS.to_ne_bytes()), (NHA_GATEWAY, &[10, 0, 0, 1])],
            ),
            object(5, &[]),
            vec![0; 3],
            object(6, &[(NHA_GROUP, &[0; 5])]),
        ];
        Objects::read(&payloads, OURS)
    }

    /// E1: gateways and weights, once they are known; what leads elsewhere is known to.
    #[test]
    fn e1_a_route_says_where_its_object_leads() {
        let completed = |id| {
            let mut route = RouteMessage::default();
            route.attributes.push(RouteAttribute::NhId(id));
            let is_known = objects().complete(&mut route, OURS);
            let paths = route
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::MultiPath(paths) => Some(paths),
                    _ => None,
                });
            let path = |path: &RouteNextHop| (path.interface_index, path.hops, path.attributes.len());
            (
                is_known,
                paths.unwrap_or_default().iter().map(path).collect::<Vec<_>>(),
            )
        };
        assert_eq!(completed(1), (true, vec![(OURS, 0, 1)]));
        assert_eq!(completed(2), (true, vec![(OURS, 0, 0)]));
        assert_eq!(completed(9), (true, vec![(OURS, 2, 1), (OURS, 0, 0)]));
        for elsewhere in [3, 4, 5, 6] {
            assert_eq!(completed(elsewhere), (true, vec![]), "{elsewhere}");
        }
        assert_eq!(completed(10), (false, vec![]));
    }

    #[test]
    fn a_route_that_says_it_itself_is_left_alone() {
        let mut route = RouteMessage::default();
        assert!(objects().complete(&mut route, OURS));
        route.attributes = vec![RouteAttribute::NhId(10), RouteAttribute::Oif(OURS)];
        let before = route.clone();
        assert!(objects().complete(&mut route, OURS));
        assert_eq!(route, before);
    }

    #[test]
    fn what_leads_elsewhere_may_change() {
        let (before, mut now) = (objects(), objects());
        now.0.insert(11, Vec::new());
        now.0.remove(&5);
        assert!(!now.lead_otherwise_than(&before));
        now.0.remove(&1);
        assert!(now.lead_otherwise_than(&before));
    }
}
