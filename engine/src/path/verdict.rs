//! The verdicts: send, deliver, reply, punt, or drop with a reason.

use crate::offload::split::SplitPlan;
use crate::reason::DropReason;
use crate::wire::icmpv6::ErrorMessage;
use crate::wire::ipv4::OuterHeader;
use crate::wire::vnet::VnetHeader;

/// What control gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PuntKind {
    /// A router solicitation of this host: control sends it to every router of the PRL, since the link has no multicast.
    RouterSolicitation,
    /// A router solicitation from the link, on a router: the whole packet where control answers it, else a copy of what
    /// the kernel got.
    HostSolicitation,
    /// Another packet of this host to all routers: control sends it to each router of the PRL as well.
    AllRouters,
    /// On a host a copy of a router advertisement that was delivered; on a router that advertises itself, what a peer
    /// router advertises.
    RouterAdvertisement,
    /// A router advertisement of this router's own kernel side to all nodes: the link has no multicast, so control sends
    /// it to each host that solicited lately.
    OwnAdvertisement,
    /// A copy of a neighbour advertisement of a router that was delivered: an answer to a probe, perhaps.
    NeighborAdvertisement,
    /// The headers of an outer packet whose ECN fields are a combination RFC 6040 4.2 calls dangerous: to be logged.
    EcnAlarm,
    /// A redirect of the first hop: the kernel would not follow it, control does.
    Redirect,
}

impl PuntKind {
    /// Every one, in their order.
    pub const ALL: &'static [PuntKind] = &[
        PuntKind::RouterSolicitation,
        PuntKind::HostSolicitation,
        PuntKind::AllRouters,
        PuntKind::RouterAdvertisement,
        PuntKind::OwnAdvertisement,
        PuntKind::NeighborAdvertisement,
        PuntKind::EcnAlarm,
        PuntKind::Redirect,
    ];

    /// The name in captures.
    pub const fn name(self) -> &'static str {
        match self {
            PuntKind::RouterSolicitation => "router_solicitation",
            PuntKind::HostSolicitation => "host_solicitation",
            PuntKind::AllRouters => "all_routers",
            PuntKind::RouterAdvertisement => "router_advertisement",
            PuntKind::OwnAdvertisement => "own_advertisement",
            PuntKind::NeighborAdvertisement => "neighbor_advertisement",
            PuntKind::EcnAlarm => "ecn_alarm",
            PuntKind::Redirect => "redirect",
        }
    }
}

/// How an inner packet leaves.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The outer header, whose destination is the next hop; of a superpacket, that of every segment but for its length.
    pub outer: OuterHeader,
    /// What our own link takes, in bytes of IPv4 packet; `u16::MAX` unless it is less than the tunnel may need.
    pub link_mtu: u16,
    /// Length of the inner packet in bytes; what follows it in the buffer never leaves.
    pub inner_len: usize,
    /// How to cut a superpacket; `None` for an ordinary packet.
    pub split: Option<SplitPlan>,
    /// The transport checksum is to be completed as this vnet header says before sending.
    pub complete_checksum: Option<VnetHeader>,
}

/// What happens to a packet from the TUN interface.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a verdict lives in registers and on the stack, never in a collection"
)]
pub enum EncapVerdict {
    /// It is sent.
    Send(Route),
    /// It is dropped, and its sender told why.
    Reply(DropReason, ErrorMessage),
    /// It is control's business.
    Punt(PuntKind),
    /// It is dropped.
    Drop(DropReason),
}

/// How a packet from the IPv4 network reaches the TUN interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes of outer header, options included, before the inner packet.
    pub outer_len: usize,
    /// Length of the inner packet in bytes; padding behind it is cut off (RFC 4213 3.6).
    pub inner_len: usize,
    /// The ECN codepoint the inner header must get, when it changes (RFC 6040).
    pub set_ecn: Option<u8>,
    /// What the kernel is told about checksum and segments.
    pub vnet: VnetHeader,
    /// Segments the packet stands for.
    pub segments: usize,
    /// Control gets a copy.
    pub copy: Option<PuntKind>,
    /// The ECN codepoints are a combination RFC 6040 4.2 calls dangerous.
    pub ecn_dangerous: bool,
}

/// A packet from the IPv4 network that goes to control instead of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// What it is.
    pub kind: PuntKind,
    /// Bytes of outer header, options included, before the inner packet.
    pub outer_len: usize,
    /// Length of the inner packet in bytes.
    pub inner_len: usize,
}

/// What happens to a packet from the IPv4 network. Nothing is ever answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecapVerdict {
    /// It is written to the TUN interface.
    Deliver(Delivery),
    /// It is control's business.
    Punt(Handed),
    /// It is dropped.
    Drop(DropReason),
}
