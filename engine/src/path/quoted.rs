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
use crate::wire::ipv6::{HEADER_LEN, Ipv6View};

/// Quotes are looked at up to here. No more is the offending packet for sure: behind 128 bytes RFC 4884 lets other
/// things follow.
pub const MAX_QUOTE_LEN: usize = 128;

/// What a sender needs of its packet's payload to know it again: the ports, or an echo's identifier (RFC 792).
const UPPER_LEN: usize = 8;

/// Why there is no ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// The quote ends before the inner packet can be known by its sender, or begins behind its header: it is of a later
    /// fragment.
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
    let view = Ipv6View::new(whole).map_err(|_| Untold::Unanswerable)?;
    let (src, dst) = (view.src(), view.dst());
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
    let (src, dst) = (address_at(header, 12), address_at(header, 16));
    if header[0] != 0x45 || header[9] != ipv4::PROTO_IPV6 || !rules.is_locator(src) || dst != peer {
        return Err(Untold::Foreign);
    }
    if be16(header, 6) & ipv4::OFFSET_MASK != 0 {
        return Err(Untold::Short);
    }
    let len = usize::from(be16(header, 2)).saturating_sub(MIN_HEADER_LEN);
    Ok(&inner[..inner.len().min(len)])
}

fn address_at(header: &[u8; MIN_HEADER_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

fn be16(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// The quote as a packet that ends where the quote does, so that rules about packets can be asked; `None` when it ends too
/// early.
fn whole<'a>(inner: &[u8], copy: &'a mut [u8; MAX_QUOTE_LEN]) -> Option<&'a [u8]> {
    let (header, payload) = inner.split_first_chunk::<HEADER_LEN>()?;
    let payload_len = usize::from(be16(header, 4));
    let quoted = payload.len().min(payload_len);
    if quoted < payload_len.min(UPPER_LEN) {
        return None;
    }
    let copy = copy.get_mut(..HEADER_LEN + quoted)?;
    copy.copy_from_slice(&inner[..HEADER_LEN + quoted]);
    copy[4..6].copy_from_slice(&u16::try_from(quoted).ok()?.to_be_bytes());
    Some(copy)
}
