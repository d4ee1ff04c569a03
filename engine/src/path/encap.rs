//! Encapsulation: where an inner packet goes, under which outer header, or why it does not.
//!
//! Next hop: RFC 4861 5.2 with RFC 5214 7.1 (static mapping); outer header: RFC 4213 3.5; size: RFC 4213 3.2; ECN and
//! DSCP: RFC 6040 4.1, RFC 2983. Decisions on the next hop never look at the source (DESIGN D7). What is for a group:
//! [`super::multicast`].

use std::net::{Ipv4Addr, Ipv6Addr};

use super::verdict::{EncapVerdict, Route};
use super::{flow, multicast};
use crate::fib::{NextHop, Rulebook};
use crate::isatap::classify::{self, InnerDest, InnerSource};
use crate::isatap::mtu::MtuVerdict;
use crate::isatap::{SiteKnowledge, egress, loops, tos};
use crate::offload::split::SplitPlan;
use crate::reason::DropReason;
use crate::wire::ext;
use crate::wire::icmpv6::{self, ADDRESS_UNREACHABLE, ErrorMessage, NO_ROUTE};
use crate::wire::ipv4::{self, Ipv4View, OuterHeader};
use crate::wire::ipv6::{HEADER_LEN, Ipv6Error, Ipv6View};
use crate::wire::vnet::{self, GsoType, VnetHeader};

/// Decides about one frame from the TUN queue: 10 bytes of vnet header, then the inner packet.
#[inline]
pub fn decide(rules: &Rulebook, frame: &[u8]) -> EncapVerdict {
    let Some((vnet, inner)) = frame.split_first_chunk::<{ vnet::LEN }>() else {
        return EncapVerdict::Drop(DropReason::Truncated);
    };
    let Ok(vnet) = VnetHeader::parse(vnet) else {
        return EncapVerdict::Drop(DropReason::BadOffload);
    };
    let view = match Ipv6View::new(inner) {
        Ok(view) => view,
        Err(error) => return EncapVerdict::Drop(refusal(rules, inner, error)),
    };
    let to = match destination(rules, &vnet, &view) {
        Ok(to) => to,
        Err(verdict) => return verdict,
    };
    if let Err(reason) = check_content(rules, &view) {
        return EncapVerdict::Drop(reason);
    }
    if rules.tunnel().loop_checks
        && let Err(reason) = loops::check_sent(rules, &view.src())
    {
        return EncapVerdict::Drop(reason);
    }
    route(rules, &vnet, &view, to)
}

/// What an unreadable inner packet is dropped for. An IPv4 packet of protocol 41 from one of our own addresses is our
/// own work that was routed back into the tunnel (REQUIREMENTS E8).
fn refusal(rules: &Rulebook, inner: &[u8], error: Ipv6Error) -> DropReason {
    match error {
        Ipv6Error::Truncated | Ipv6Error::PayloadLen => DropReason::Truncated,
        Ipv6Error::PayloadZero => DropReason::Malformed,
        Ipv6Error::Version => match Ipv4View::new(inner) {
            Ok(outer) if outer.protocol() == ipv4::PROTO_IPV6 && rules.is_locator(outer.src()) => {
                DropReason::Loop
            }
            _ => DropReason::Malformed,
        },
    }
}

/// The IPv4 address a packet goes to, or what becomes of it otherwise.
#[inline]
fn destination(rules: &Rulebook, vnet: &VnetHeader, view: &Ipv6View<'_>) -> Result<Ipv4Addr, EncapVerdict> {
    let dst = view.dst();
    let group = match classify::inner_dest(&dst) {
        InnerDest::Unicast | InnerDest::LinkLocal => None,
        InnerDest::Forbidden => return Err(EncapVerdict::Drop(DropReason::DstForbidden)),
        group => Some(group),
    };
    if let Some(group) = group {
        return multicast::destination(rules, vnet, view, group);
    }
    match classify::inner_source(&view.src()) {
        InnerSource::LinkLocal | InnerSource::Global => next_hop(rules, view, &dst),
        InnerSource::Unspecified | InnerSource::Forbidden => {
            Err(EncapVerdict::Drop(DropReason::SrcForbidden))
        }
    }
}

/// RFC 4861 5.2 next-hop determination; refusals tell the sender (REQUIREMENTS E1, E2, E7; FAULTS 21-23).
#[inline]
fn next_hop(rules: &Rulebook, view: &Ipv6View<'_>, dst: &Ipv6Addr) -> Result<Ipv4Addr, EncapVerdict> {
    let refuse = |reason, code| Err(EncapVerdict::Reply(reason, ErrorMessage::Unreachable { code }));
    let (to, configured) = match rules.route(dst) {
        None => return refuse(DropReason::NoRoute, NO_ROUTE),
        Some(NextHop::Unreachable) => return refuse(DropReason::Unresolvable, ADDRESS_UNREACHABLE),
        Some(NextHop::Via(gateway)) => (gateway, true),
        Some(NextHop::Group(number)) => match rules.group(number) {
            Some(group) => (group.pick(flow::hash(view)), true),
            None => return refuse(DropReason::NoRoute, NO_ROUTE),
        },
        Some(NextHop::OnLink) => match egress::on_link(dst) {
            Ok(embedded) => (embedded, false),
            Err(reason) => return refuse(reason, ADDRESS_UNREACHABLE),
        },
    };
    match egress::check_next_hop(rules, to, configured) {
        Ok(()) => Ok(to),
        Err(reason) => refuse(reason, ADDRESS_UNREACHABLE),
    }
}

/// What is not carried for what it is. Ordinary transports need no walk; behind extension headers a tunnel packet is one
/// all the same.
#[inline]
fn check_content(rules: &Rulebook, view: &Ipv6View<'_>) -> Result<(), DropReason> {
    match view.next_header() {
        ext::TCP | ext::UDP => Ok(()),
        // T12, RFC 6964 3.5: our kernel redirects whenever it forwards back to the link, and there is no knob for it.
        ext::ICMPV6 if view.packet().get(HEADER_LEN) == Some(&icmpv6::REDIRECT) => {
            Err(DropReason::OwnRedirect)
        }
        _ if !rules.tunnel().nested && is_tunnel(view) => Err(DropReason::Nested),
        _ => Ok(()),
    }
}

/// Whether the packet carries another tunnel's.
#[inline]
pub(super) fn is_tunnel(view: &Ipv6View<'_>) -> bool {
    match view.next_header() {
        ext::TCP | ext::UDP | ext::ICMPV6 => false,
        _ => ext::walk(view.packet()).is_ok_and(|upper| upper.is_tunnel()),
    }
}

#[inline]
fn route(rules: &Rulebook, vnet: &VnetHeader, view: &Ipv6View<'_>, to: Ipv4Addr) -> EncapVerdict {
    let Some(src) = rules.source_for(&view.src()) else {
        return EncapVerdict::Drop(DropReason::NoRoute);
    };
    let inner_len = view.total_len();
    let split = match vnet.gso {
        GsoType::None => None,
        _ => match SplitPlan::new(vnet, view.packet()) {
            Ok(plan) => Some(plan),
            Err(_) => return EncapVerdict::Drop(DropReason::BadOffload),
        },
    };
    let (tunnel, peer, path) = (rules.tunnel(), rules.peer_policy(to), rules.path(to));
    let largest = split.as_ref().map_or(inner_len, SplitPlan::segment_len);
    let mtu = tunnel.mtu.with_mode(peer.path_mtu);
    let dont_fragment = match mtu.decide_on_path(largest, Some(path.path())) {
        MtuVerdict::Fits { dont_fragment } => dont_fragment,
        MtuVerdict::TooBig { report } => {
            return EncapVerdict::Reply(DropReason::TooBig, ErrorMessage::PacketTooBig { mtu: report });
        }
    };
    let Ok(payload_len) = u16::try_from(largest) else {
        return EncapVerdict::Drop(DropReason::TooBig);
    };
    let outer = OuterHeader {
        src,
        dst: to,
        tos: tos::outer_tos(tunnel.dscp, peer.ecn, view.traffic_class()),
        ttl: tos::outer_ttl(tunnel.ttl, view.hop_limit()),
        dont_fragment,
        // The kernel numbers packets of a raw socket whose identification is 0.
        id: if dont_fragment {
            tunnel.mark.identification(src, to)
        } else {
            0
        },
        payload_len,
    };
    let complete_checksum = (split.is_none() && vnet.needs_csum).then_some(*vnet);
    EncapVerdict::Send(Route {
        outer,
        link_mtu: path.link(),
        inner_len,
        split,
        complete_checksum,
    })
}
