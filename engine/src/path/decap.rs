//! Decapsulation: whether an outer packet may enter, and what the kernel is told about it.
//!
//! RFC 5214 7.3 and RFC 4213 3.6 (source checks, lengths), RFC 6040 4.2 (ECN), RFC 4861 with RFC 6980 (neighbour
//! discovery, see [`super::nd_gate`]). The cheapest and most general refusals come first; nothing is ever answered.

use super::nd_gate::{self, Passage};
use super::verdict::{DecapVerdict, Delivery, Handed};
use crate::fib::Rulebook;
use crate::isatap::ecn;
use crate::isatap::ingress;
use crate::isatap::loops;
use crate::offload::merged::{self, Merged};
use crate::reason::DropReason;
use crate::wire::ext::{self, Upper};
use crate::wire::ipv4::{self, Ipv4Error, Ipv4View};
use crate::wire::ipv6::{self, Ipv6Error, Ipv6View};
use crate::wire::vnet::{GsoType, VnetHeader};

/// Decides about one outer packet as a raw socket gives it: IPv4 header, options, inner packet, perhaps padding.
#[inline]
pub fn decide(rules: &Rulebook, packet: &[u8]) -> DecapVerdict {
    decide_merged(rules, packet, true, || None)
}

/// The same where it may be known of which segments the underlay's GRO has made the packet: `gso_size` is asked for their size when the
/// packet looks like that. `udp_offload`: the TUN takes datagrams merged.
#[inline]
pub fn decide_merged(
    rules: &Rulebook,
    packet: &[u8],
    udp_offload: bool,
    gso_size: impl FnOnce() -> Option<u16>,
) -> DecapVerdict {
    check(rules, packet, udp_offload, gso_size).unwrap_or_else(DecapVerdict::Drop)
}

#[inline]
fn check(
    rules: &Rulebook,
    packet: &[u8],
    udp_offload: bool,
    gso_size: impl FnOnce() -> Option<u16>,
) -> Result<DecapVerdict, DropReason> {
    let outer = Ipv4View::new(packet).map_err(outer_refusal)?;
    if outer.protocol() != ipv4::PROTO_IPV6 || outer.is_fragment() {
        return Err(DropReason::Malformed);
    }
    check_options(&outer)?;
    ingress::check_outer(rules, outer.src(), outer.dst())?;

    let inner = Ipv6View::new(outer.payload()).map_err(inner_refusal)?;
    ingress::check_destination(rules, outer.src(), &inner.dst())?;
    let strict = rules.tunnel().strict_ingress;
    let voucher = ingress::check_source(rules, strict, outer.src(), &inner.src())?;
    if rules.tunnel().loop_checks {
        loops::check_received(rules, voucher, outer.src(), &inner.dst())?;
    }
    let upper = upper(&inner)?;
    if upper.is_tunnel() && !rules.tunnel().nested {
        return Err(DropReason::Nested);
    }
    let passage = nd_gate::check(rules, outer.src(), &inner, &upper)?;
    let mark = ecn::decap(outer.ecn(), inner.ecn()).ok_or(DropReason::Ecn)?;
    let copy = match passage {
        Passage::Kernel => None,
        Passage::Both(kind) => Some(kind),
        Passage::Control(kind) => {
            return Ok(DecapVerdict::Punt(Handed {
                kind,
                outer_len: outer.header_len(),
                inner_len: inner.total_len(),
            }));
        }
    };
    let (vnet, segments) = offload(rules, &inner, &upper, udp_offload, gso_size)?;
    Ok(DecapVerdict::Deliver(Delivery {
        outer_len: outer.header_len(),
        inner_len: inner.total_len(),
        set_ecn: (mark != inner.ecn()).then_some(mark),
        vnet,
        segments,
        copy,
        ecn_dangerous: ecn::is_dangerous(outer.ecn(), inner.ecn()),
    }))
}

fn outer_refusal(error: Ipv4Error) -> DropReason {
    match error {
        Ipv4Error::Truncated | Ipv4Error::TotalLen => DropReason::Truncated,
        Ipv4Error::Version | Ipv4Error::HeaderLen => DropReason::Malformed,
    }
}

fn inner_refusal(error: Ipv6Error) -> DropReason {
    match error {
        Ipv6Error::Truncated | Ipv6Error::PayloadLen => DropReason::Truncated,
        Ipv6Error::Version | Ipv6Error::PayloadZero => DropReason::Malformed,
    }
}

/// FAULTS 11: options are skipped by the header length; a source route, or a list that does not add up, is refused.
#[inline]
fn check_options(outer: &Ipv4View<'_>) -> Result<(), DropReason> {
    if outer.options().is_empty() {
        return Ok(());
    }
    if outer.has_source_route() {
        return Err(DropReason::SourceRoute);
    }
    if outer.options_ok() {
        Ok(())
    } else {
        Err(DropReason::Malformed)
    }
}

/// Where the upper layer starts; most packets have no extension header and need no walk.
#[inline]
fn upper(inner: &Ipv6View<'_>) -> Result<Upper, DropReason> {
    match inner.next_header() {
        protocol @ (ext::TCP | ext::UDP | ext::ICMPV6) => Ok(Upper {
            protocol,
            offset: ipv6::HEADER_LEN,
            fragment: None,
            headers: 0,
        }),
        _ => ext::walk(inner.packet()).map_err(|_| DropReason::Malformed),
    }
}

/// The underlay's GRO may have merged packets (DESIGN D3): the kernel must hear of it, or it drops them all.
#[inline]
fn offload(
    rules: &Rulebook,
    inner: &Ipv6View<'_>,
    upper: &Upper,
    udp_offload: bool,
    gso_size: impl FnOnce() -> Option<u16>,
) -> Result<(VnetHeader, usize), DropReason> {
    let mtu = usize::from(rules.tunnel().mtu.tunnel_mtu());
    let known = || merged::of_segments(inner.packet(), upper, gso_size()?);
    let vnet = match merged::recognise(inner.packet(), upper, mtu) {
        // Merged as a list, the segments keep their checksums, and the whole has the first one's.
        Merged::No if inner.total_len() > mtu && upper.protocol == ext::TCP => {
            known().unwrap_or(VnetHeader::NONE)
        }
        Merged::No => VnetHeader::NONE,
        Merged::Tcp(vnet) => vnet,
        Merged::Udp(vnet) => known().unwrap_or(vnet),
        Merged::UdpUnsplittable => known().ok_or(DropReason::Merged)?,
    };
    if vnet.gso == GsoType::UdpL4 && !udp_offload {
        return Err(DropReason::Merged);
    }
    if vnet.gso == GsoType::None {
        return Ok((vnet, 1));
    }
    let payload = inner.total_len().saturating_sub(usize::from(vnet.hdr_len));
    Ok((vnet, payload.div_ceil(usize::from(vnet.gso_size).max(1))))
}
