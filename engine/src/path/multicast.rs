//! What becomes of a packet to a group, on a link that has no multicast (RFC 5214 6.3, REQUIREMENTS A9, P7).
//!
//! | group | what is sent |
//! |---|---|
//! | all routers | solicitations, and whatever a host says: by control, a copy to each router of the PRL |
//! | all nodes | a router's advertisements: by control, a copy to each host that solicited lately |
//! | solicited-node | a neighbour solicitation: as it is, to the IPv4 address in its target |
//! | all others | nothing |
//!
//! Nobody is told of what is dropped (RFC 4443 2.4 (e.3)), but for what is too large.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::verdict::{EncapVerdict, PuntKind};
use crate::fib::{Role, Rulebook};
use crate::isatap::classify::{self, InnerDest, InnerSource};
use crate::isatap::{SiteKnowledge, egress, iid};
use crate::reason::DropReason;
use crate::wire::ext;
use crate::wire::icmpv6::ErrorMessage;
use crate::wire::ipv6::Ipv6View;
use crate::wire::nd::{self, NdKind, NdMessage};
use crate::wire::vnet::{GsoType, VnetHeader};

/// The IPv4 address that stands for the group; else what becomes of the packet. Kept out of the way of unicast.
///
/// # Errors
/// The verdict.
#[inline(never)]
pub fn destination(
    rules: &Rulebook,
    vnet: &VnetHeader,
    view: &Ipv6View<'_>,
    group: InnerDest,
) -> Result<Ipv4Addr, EncapVerdict> {
    let message = discovery(view);
    let kind = message.as_ref().map(NdMessage::kind);
    match group {
        InnerDest::AllRouters if kind == Some(NdKind::RouterSolicitation) => {
            Err(EncapVerdict::Punt(PuntKind::RouterSolicitation))
        }
        // Where control advertises itself, another voice would contradict it.
        InnerDest::AllNodes
            if kind == Some(NdKind::RouterAdvertisement)
                && rules.role() == Role::Router
                && !rules.advertises() =>
        {
            Err(EncapVerdict::Punt(PuntKind::OwnAdvertisement))
        }
        InnerDest::AllRouters => Err(to_all_routers(rules, vnet, view)),
        InnerDest::SolicitedNode if kind == Some(NdKind::NeighborSolicitation) => message
            .and_then(|message| message.target())
            .and_then(|target| solicited(rules, view, &target))
            .ok_or(EncapVerdict::Drop(DropReason::DstMulticast)),
        _ => Err(EncapVerdict::Drop(DropReason::DstMulticast)),
    }
}

fn discovery<'a>(view: &Ipv6View<'a>) -> Option<NdMessage<'a>> {
    let upper = ext::walk(view.packet()).ok()?;
    nd::parse(view.packet(), &upper)?.ok()
}

/// A host speaks to the routers it knows; a router knows of none that it would have to ask.
fn to_all_routers(rules: &Rulebook, vnet: &VnetHeader, view: &Ipv6View<'_>) -> EncapVerdict {
    let mtu = rules.tunnel().mtu.tunnel_mtu();
    let src = view.src();
    // An address that has just come may be known by the locator in it alone.
    let is_ours = rules.is_own(&src) || iid::embedded(&src).is_some_and(|end| rules.is_locator(end));
    if rules.role() == Role::Router || rules.prl().is_empty() || !is_ours {
        return EncapVerdict::Drop(DropReason::DstMulticast);
    }
    if vnet.gso != GsoType::None || view.total_len() > usize::from(mtu) {
        let mtu = u32::from(mtu);
        return EncapVerdict::Reply(DropReason::TooBig, ErrorMessage::PacketTooBig { mtu });
    }
    EncapVerdict::Punt(PuntKind::AllRouters)
}

/// Where the node with the address `target` is, if it is on the link and the packet for its group. Nobody asks from `::`
/// whether an address is taken: there is no duplicate address detection here (A3).
fn solicited(rules: &Rulebook, view: &Ipv6View<'_>, target: &Ipv6Addr) -> Option<Ipv4Addr> {
    let is_its_group = view.dst().octets()[13..] == target.octets()[13..];
    let has_source = matches!(
        classify::inner_source(&view.src()),
        InnerSource::LinkLocal | InnerSource::Global
    );
    if !is_its_group || !has_source || !rules.is_on_link(target) {
        return None;
    }
    let to = iid::embedded(target)?;
    egress::check_next_hop(rules, to, false).ok().map(|()| to)
}
