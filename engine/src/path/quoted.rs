//! The ICMPv6 error that follows from an ICMPv4 error about a packet of ours (RFC 4213 3.4, REQUIREMENTS N6-N8).
//!
//! ```text
//!   ICMPv4 header | outer IPv4 header | inner IPv6 header | the beginning of its payload
//!                  `---------------- the quote, as long as its sender pleased ---------'
//! ```
//!
//! Anybody can send an ICMPv4 error. Only who saw our packet can quote it, and what the quote says must be something that
//! we would send: from a locator, as protocol 41, to a peer that the inner destination leads to.

use std::net::Ipv4Addr;

use super::reply::MAX_REPLY_LEN;
use crate::fib::Rulebook;
use crate::isatap::{SiteKnowledge, iid};
use crate::wire::icmpv6::{self, ADDRESS_UNREACHABLE, ErrorMessage};
use crate::wire::ipv4::{self, MIN_HEADER_LEN};
use crate::wire::ipv6::HEADER_LEN;

/// Quotes are looked at up to here. No more is the offending packet for sure: behind 128 bytes RFC 4884 lets other
/// things follow.
pub const MAX_QUOTE_LEN: usize = 128;

/// What a sender needs of its packet's payload to know it again: the ports, or an echo's identifier (RFC 792).
const UPPER_LEN: usize = 8;

/// Why there is no ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// The quote ends before the inner packet can be known by its sender.
    Short,
    /// We sent no such packet, or would not now.
    Foreign,
    /// RFC 4443 2.4 (e) forbids an error about this packet, or there is no address to send it from.
    Unanswerable,
}

/// Writes "address unreachable" about the quoted packet, to its inner source, into `out`; its length. `peer` is where the
/// ICMPv4 error says the packet was going. That code whatever the ICMPv4 error was: to IPv6 the tunnel is a link.
///
/// # Errors
/// [`Untold`].
pub fn translate(
    rules: &Rulebook,
    peer: Ipv4Addr,
    quote: &[u8],
    out: &mut [u8; MAX_REPLY_LEN],
) -> Result<usize, Untold> {
    let inner = inner(rules, peer, &quote[..quote.len().min(MAX_QUOTE_LEN)])?;
    let mut copy = [0; MAX_QUOTE_LEN];
    let whole = whole(inner, &mut copy).ok_or(Untold::Short)?;
    let message = ErrorMessage::Unreachable {
        code: ADDRESS_UNREACHABLE,
    };
    if !icmpv6::may_answer(whole, message) {
        return Err(Untold::Unanswerable);
    }
    let [src, dst] = addresses(whole).ok_or(Untold::Short)?;
    let leads_there =
        rules.is_first_hop(&dst, peer) || rules.is_on_link(&dst) && iid::embedded(&dst) == Some(peer);
    if !leads_there {
        return Err(Untold::Foreign);
    }
    let from = rules.reply_source(&src).ok_or(Untold::Unanswerable)?;
    Ok(icmpv6::emit_error(out, &from, &src, message, inner))
}

/// What is quoted of the inner packet, if the outer header is one of ours: without options, since we write none.
fn inner<'a>(rules: &Rulebook, peer: Ipv4Addr, quote: &'a [u8]) -> Result<&'a [u8], Untold> {
    let (header, inner) = quote
        .split_first_chunk::<MIN_HEADER_LEN>()
        .ok_or(Untold::Foreign)?;
    let [
        0x45,
        _,
        total @ ..,
        _,
        _,
        _,
        _,
        _,
        protocol,
        _,
        _,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ] = header
    else {
        return Err(Untold::Foreign);
    };
    let (src, dst) = (Ipv4Addr::new(*a, *b, *c, *d), Ipv4Addr::new(*e, *f, *g, *h));
    if *protocol != ipv4::PROTO_IPV6 || !rules.is_locator(src) || dst != peer {
        return Err(Untold::Foreign);
    }
    let len = usize::from(u16::from_be_bytes(*total)).saturating_sub(MIN_HEADER_LEN);
    Ok(&inner[..inner.len().min(len)])
}

/// The quote as a packet that ends where the quote does, so that rules about packets can be asked; `None` when it ends too
/// early.
fn whole<'a>(inner: &[u8], copy: &'a mut [u8; MAX_QUOTE_LEN]) -> Option<&'a [u8]> {
    let (header, payload) = inner.split_first_chunk::<HEADER_LEN>()?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let quoted = payload.len().min(payload_len);
    if quoted < payload_len.min(UPPER_LEN) {
        return None;
    }
    let copy = copy.get_mut(..HEADER_LEN + quoted)?;
    copy.copy_from_slice(&inner[..HEADER_LEN + quoted]);
    copy[4..6].copy_from_slice(&u16::try_from(quoted).ok()?.to_be_bytes());
    Some(copy)
}

fn addresses(packet: &[u8]) -> Option<[std::net::Ipv6Addr; 2]> {
    let view = crate::wire::ipv6::Ipv6View::new(packet).ok()?;
    Some([view.src(), view.dst()])
}
