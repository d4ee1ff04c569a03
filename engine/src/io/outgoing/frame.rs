//! One message as the kernel reads it: a datagram, or a fragment of one, with the addresses and headers it points to.
//!
//! A frame stands for a share of a load. While the link refuses it for its size, it is cut to the next smaller likely size and
//! sent piece by piece from the same frame: no other memory is needed, and those behind it wait.

use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;

use nix::libc;

use super::super::ident;
use super::super::lane::{Form, Outgoing};
use super::super::message::{Origin, socket_address};
use super::super::ticket::Uses;
use super::load::Share;
use crate::isatap::mtu::TUNNEL_MTU_MIN;
use crate::isatap::plateau;
use crate::offload::fragment::{self, Piece};
use crate::offload::split::MAX_SEGMENT_HEADERS;
use crate::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};

/// Outer header, the rest of the inner headers, payload.
const PARTS: usize = 3;

#[repr(C)]
pub(super) struct Frame {
    message: libc::msghdr,
    parts: [libc::iovec; PARTS],
    name: libc::sockaddr_in,
    origin: Origin,
    headers: [u8; MIN_HEADER_LEN + MAX_SEGMENT_HEADERS],
    /// Whose share it is.
    pub(super) load: usize,
    /// What is still to be sent of it.
    pub(super) share: Share,
    /// The size in force; smaller than the load's after refusals.
    mtu: u16,
    /// The DF bit; cleared when the path turns out to take less than IPv6 must be able to.
    dont_fragment: bool,
    /// What the message says now.
    piece: Piece,
    pub(super) attempts: u8,
    /// How often the kernel has answered it.
    pub(super) uses: Uses,
}

impl Frame {
    pub(super) fn empty() -> Self {
        // SAFETY: `msghdr` and `iovec` are plain data for which all zeroes is a valid value.
        let (message, parts) = unsafe { (zeroed(), zeroed()) };
        Self {
            message,
            parts,
            name: socket_address(Ipv4Addr::UNSPECIFIED),
            origin: Origin::new(Ipv4Addr::UNSPECIFIED),
            headers: [0; MIN_HEADER_LEN + MAX_SEGMENT_HEADERS],
            load: 0,
            share: Share::default(),
            mtu: u16::MAX,
            dont_fragment: false,
            piece: Piece { start: 0, end: 0 },
            attempts: 0,
            uses: Uses::default(),
        }
    }

    /// Fills the frame with a share of a load. The parts point into the load's slot, which stays where it is until the
    /// load is done.
    pub(super) fn fill(&mut self, id: usize, share: Share, outgoing: &mut Outgoing) {
        self.load = id;
        self.share = share;
        self.mtu = u16::MAX;
        self.dont_fragment = outgoing.outer.dont_fragment;
        self.attempts = 0;
        self.name.sin_addr.s_addr = outgoing.outer.dst.to_bits().to_be();
        self.origin.set(outgoing.outer.src);
        self.aim(outgoing);
    }

    /// Bytes of the message.
    pub(super) fn len(&self) -> usize {
        MIN_HEADER_LEN + self.piece.end - self.piece.start
    }

    /// Whether something of the share is left when the message is sent.
    pub(super) fn has_more(&self) -> bool {
        self.piece.end < self.share.end
    }

    /// The piece was sent: aims at the next one.
    pub(super) fn advance(&mut self, outgoing: &mut Outgoing) {
        self.share.start = self.piece.end;
        self.aim(outgoing);
    }

    /// The link refused the piece for its size: cuts it smaller. `false` when that cannot be done, or must not: what is
    /// larger than 1280 bytes inside and has DF set is for its sender to make smaller (RFC 4213 3.2.2).
    pub(super) fn shrink(&mut self, outgoing: &mut Outgoing) -> bool {
        let refused = u16::try_from(self.len()).unwrap_or(u16::MAX);
        if refused <= plateau::MIN {
            return false;
        }
        if self.dont_fragment && self.share.len > usize::from(TUNNEL_MTU_MIN) {
            return false;
        }
        if self.dont_fragment || self.share.id == 0 {
            self.share.id = ident::next(outgoing.outer.src, outgoing.outer.dst);
        }
        self.dont_fragment = false;
        self.mtu = plateau::below(refused);
        self.aim(outgoing);
        true
    }

    /// Writes headers and parts for the piece at the start of what is left.
    fn aim(&mut self, outgoing: &mut Outgoing) {
        let share = self.share;
        self.piece = fragment::piece(share.start, share.end, self.mtu);
        let Piece { start, end } = self.piece;
        let outer = OuterHeader {
            id: share.id,
            dont_fragment: self.dont_fragment,
            payload_len: u16::try_from(end - start).unwrap_or(u16::MAX),
            ..outgoing.outer
        };
        let bytes = outgoing.packet.bytes_mut();
        let whole = start == 0 && end == share.len;
        let mut parts = Parts::new(&mut self.parts);
        match &outgoing.form {
            // As it lies there.
            Form::Whole if whole && share.id == outgoing.outer.id => parts.push(bytes),
            Form::Whole => {
                emit(&outer, start, end, share.len, &mut self.headers);
                parts.push(&mut self.headers[..MIN_HEADER_LEN]);
                parts.push(&mut bytes[MIN_HEADER_LEN + start..MIN_HEADER_LEN + end]);
            }
            Form::Segments(plan) => {
                let header_len = plan.header_len;
                let payload = if start < header_len {
                    let inner = &mut self.headers[MIN_HEADER_LEN..MIN_HEADER_LEN + header_len];
                    plan.segment(bytes, share.datagram, inner)
                } else {
                    plan.payload(share.datagram)
                };
                emit(&outer, start, end, share.len, &mut self.headers);
                if start == 0 {
                    parts.push(&mut self.headers[..MIN_HEADER_LEN + header_len.min(end)]);
                } else {
                    let inner = start.min(header_len)..end.min(header_len);
                    let (outer, inner_headers) = self.headers.split_at_mut(MIN_HEADER_LEN);
                    parts.push(outer);
                    parts.push(&mut inner_headers[inner]);
                }
                let from = |at: usize| payload.start + at.saturating_sub(header_len);
                parts.push(&mut bytes[from(start)..from(end)]);
            }
        }
        self.message.msg_iovlen = parts.count;
    }

    /// Points the message at this frame's own parts and addresses, which do not move: frames live in a box.
    pub(super) fn message(&mut self) -> *mut libc::msghdr {
        self.message.msg_name = (&raw mut self.name).cast();
        self.message.msg_namelen =
            libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or_default();
        self.message.msg_iov = self.parts.as_mut_ptr();
        self.origin.attach(&mut self.message);
        &raw mut self.message
    }

    /// The bytes of the message, put together.
    #[cfg(test)]
    pub(super) fn gathered(&self) -> Vec<u8> {
        let parts = &self.parts[..self.message.msg_iovlen];
        parts
            .iter()
            .flat_map(|part| {
                // SAFETY: the parts point into this frame and its load's slot, which live as long as the queue.
                unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) }
            })
            .copied()
            .collect()
    }
}

/// Writes the outer header of the bytes from `start` to `end` of a payload of `len` bytes.
fn emit(outer: &OuterHeader, start: usize, end: usize, len: usize, headers: &mut [u8]) {
    let Some(out) = headers.first_chunk_mut() else {
        return;
    };
    if start == 0 && end == len {
        outer.emit(out);
    } else {
        outer.emit_fragment(u16::try_from(start).unwrap_or(u16::MAX), end < len, out);
    }
}

/// The parts of a message as they are put together.
struct Parts<'a> {
    parts: &'a mut [libc::iovec; PARTS],
    count: usize,
}

impl<'a> Parts<'a> {
    fn new(parts: &'a mut [libc::iovec; PARTS]) -> Self {
        Self { parts, count: 0 }
    }

    /// Appends some bytes, if there are any.
    fn push(&mut self, bytes: &mut [u8]) {
        if let Some(part) = self.parts.get_mut(self.count).filter(|_| !bytes.is_empty()) {
            *part = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            };
            self.count += 1;
        }
    }
}
