//! One rtnetlink connection for questions, which need no privilege: dumps that are consistent, and single answers.
//! Changes are [`super::change`]'s.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::mirror::locator_of;
use super::objects::Objects;

/// How often a dump is repeated when the kernel says that it changed underneath.
const MAX_DUMP_ATTEMPTS: usize = 5;

/// How long the kernel may be silent: its answers can be lost, and the control loop must not wait for ever; nor for so long that it would
/// be taken for wedged.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// A netlink request that failed, by name.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{operation}: {error}")]
    Refused {
        /// What was tried, with its object.
        operation: String,
        /// Why not.
        error: io::Error,
    },
    /// The connection is gone.
    #[error("{operation}: the netlink socket is closed")]
    Closed {
        /// What was tried.
        operation: String,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[from] io::Error),
}

impl NetlinkError {
    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { error, .. } | Self::Open(error) => error.raw_os_error(),
            Self::Closed { .. } => None,
        }
    }
}

/// Devices of each kind that are asked about at most.
const MAX_DEVICES: usize = 64;

/// The devices besides `if_index` that have IPv4 addresses, whose MTUs are of interest, and other ISATAP interfaces, whose names are.
fn devices_of_interest(dump: &[RouteNetlinkMessage], if_index: u32) -> BTreeSet<u32> {
    let devices = |is_meant: fn(&AddressMessage) -> bool| {
        let device = move |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(address) if is_meant(address) => Some(address.header.index),
            _ => None,
        };
        let all = dump.iter().filter_map(device).filter(|index| *index != if_index);
        all.collect::<BTreeSet<_>>().into_iter().take(MAX_DEVICES)
    };
    devices(|address| address.header.family == AddressFamily::Inet)
        .chain(devices(|address| locator_of(address).is_some()))
        .collect()
}

/// The request side. Clones share the socket.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket. Must be called inside the control runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket, or does not know strict dumps (Linux 4.20).
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Everything a mirror of `if_index` is made of: the machine's addresses, and that interface's routes.
    ///
    /// # Errors
    /// When the kernel refuses one of the dumps.
    pub async fn dump(&self, if_index: u32) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.dump_with_objects(if_index).await.map(|(dump, _)| dump)
    }

    /// The nexthop objects of the machine, as they lead over that interface.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(super) async fn objects(&self, if_index: u32) -> Result<Objects, NetlinkError> {
        let asked = Objects::ask(if_index).await;
        asked.map_err(|error| NetlinkError::Refused {
            operation: "list nexthop objects".to_owned(),
            error,
        })
    }

    /// As [`Netlink::dump`], with the objects by which routes were completed.
    ///
    /// # Errors
    /// When the kernel refuses one of the dumps.
    pub(super) async fn dump_with_objects(
        &self,
        if_index: u32,
    ) -> Result<(Vec<RouteNetlinkMessage>, Objects), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = if_index;
        let mut all = self
            .request(
                "read the interface",
                RouteNetlinkMessage::GetLink(link),
                NLM_F_REQUEST,
            )
            .await?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut address = AddressMessage::default();
            address.header.family = family;
            all.extend(
                self.consistent("list addresses", RouteNetlinkMessage::GetAddress(address))
                    .await?,
            );
        }
        for device in devices_of_interest(&all, if_index) {
            let mut link = LinkMessage::default();
            link.header.index = device;
            // One that has just gone is none of our business.
            if let Ok(found) = self
                .request("read a device", RouteNetlinkMessage::GetLink(link), NLM_F_REQUEST)
                .await
            {
                all.extend(found);
            }
        }
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet6;
        route.attributes.push(RouteAttribute::Oif(if_index));
        let mut routes = self
            .consistent("list routes", RouteNetlinkMessage::GetRoute(route))
            .await?;
        let objects = self.objects(if_index).await?;
        for message in &mut routes {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                objects.complete(route, if_index);
            }
        }
        all.extend(routes);
        Ok((all, objects))
    }

    /// Everything that decides which device an IPv4 packet leaves by: links, rules and routes.
    ///
    /// # Errors
    /// When the kernel refuses one of the dumps.
    pub async fn dump_underlay(&self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let link = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut all = self.consistent("list devices", link).await?;
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet;
        all.extend(
            self.consistent("list IPv4 rules", RouteNetlinkMessage::GetRule(rule))
                .await?,
        );
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        all.extend(
            self.consistent("list IPv4 routes", RouteNetlinkMessage::GetRoute(route))
                .await?,
        );
        Ok(all)
    }

    /// The neighbours of IPv4 that the kernel knows of.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn dump_neighbours(&self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = AddressFamily::Inet;
        self.consistent(
            "list IPv4 neighbours",
            RouteNetlinkMessage::GetNeighbour(neighbour),
        )
        .await
    }

    /// Whether the interface has this address.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn has_address(&self, if_index: u32, addr: Ipv6Addr) -> Result<bool, NetlinkError> {
        let mut question = AddressMessage::default();
        question.header.family = AddressFamily::Inet6;
        question.header.index = if_index;
        question.attributes = vec![AddressAttribute::Address(addr.into())];
        let found = self
            .request(
                &format!("look for {addr}"),
                RouteNetlinkMessage::GetAddress(question),
                NLM_F_REQUEST,
            )
            .await;
        match found {
            Err(error) if error.errno() == Some(nix::libc::EADDRNOTAVAIL) => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// Whether the kernel would deliver a packet to `addr` on the interface to itself.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn is_delivered(&self, if_index: u32, addr: Ipv6Addr) -> Result<bool, NetlinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet6;
        question.header.destination_prefix_length = 128;
        question.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet6(addr)),
            RouteAttribute::Oif(if_index),
        ];
        let answers = self
            .request(
                &format!("look up {addr}"),
                RouteNetlinkMessage::GetRoute(question),
                NLM_F_REQUEST,
            )
            .await?;
        Ok(answers.iter().any(
            |answer| matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local),
        ))
    }

    /// A dump during which nothing changed; the last attempt is taken as it is.
    async fn consistent(
        &self,
        operation: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 1..MAX_DUMP_ATTEMPTS {
            let (answers, interrupted) = self
                .exchange(operation, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await?;
            if !interrupted {
                return Ok(answers);
            }
        }
        self.request(operation, message, NLM_F_REQUEST | NLM_F_DUMP).await
    }

    pub(super) async fn request(
        &self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(operation, message, flags)
            .await
            .map(|(answers, _)| answers)
    }

    async fn exchange(
        &self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let closed = || NetlinkError::Closed {
            operation: operation.to_owned(),
        };
        let refused = |error| NetlinkError::Refused {
            operation: operation.to_owned(),
            error,
        };
        let mut answers = self.handle.clone().request(request).map_err(|_| closed())?;
        let (mut all, mut interrupted) = (Vec::new(), false);
        loop {
            let next = tokio::time::timeout(ANSWER_LIMIT, answers.next()).await;
            let Some(answer) = next.map_err(|_| refused(io::ErrorKind::TimedOut.into()))? else {
                break;
            };
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => all.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(refused(error.to_io()));
                }
                _ => {}
            }
        }
        Ok((all, interrupted))
    }
}
