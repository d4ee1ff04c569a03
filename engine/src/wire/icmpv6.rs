//! ICMPv6 (RFC 4443): checksums, and the error messages the tunnel sends about packets it cannot carry.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |  type (<128:  |     code      |           checksum            |  0
//! |     an error) |               | (with pseudo-header, RFC 4443 |
//! |               |               |  2.3)                         |
//! +---------------+---------------+-------------------------------+
//! |     0, or the MTU, or the pointer (errors, section 3)         |  4
//! +---------------------------------------------------------------+
//! |     as much of the offending packet as keeps the whole        |  8
//! |     message within 1280 bytes                                 |
//! +---------------------------------------------------------------+
//! ```
//!
//! Rate limiting (2.4 f) is the sender's business, the choice of the source address (2.2) too.

use super::be16;
use super::checksum::pseudo_v6;
use super::ext::{self, ICMPV6};
use super::ipv6::{self, Ipv6Header, Ipv6View, MIN_MTU};
use std::net::Ipv6Addr;

/// Destination unreachable (RFC 4443 3.1).
pub const DEST_UNREACHABLE: u8 = 1;
/// Packet too big (RFC 4443 3.2).
pub const PACKET_TOO_BIG: u8 = 2;
/// Time exceeded (RFC 4443 3.3).
pub const TIME_EXCEEDED: u8 = 3;
/// Parameter problem (RFC 4443 3.4).
pub const PARAMETER_PROBLEM: u8 = 4;
/// Echo request (RFC 4443 4.1).
pub const ECHO_REQUEST: u8 = 128;
/// Echo reply (RFC 4443 4.2).
pub const ECHO_REPLY: u8 = 129;
/// Redirect (RFC 4861 4.5): informational by number, yet no error may be sent about it.
pub const REDIRECT: u8 = 137;

/// Unreachable: no route to the destination.
pub const NO_ROUTE: u8 = 0;
/// Unreachable: administratively prohibited.
pub const PROHIBITED: u8 = 1;
/// Unreachable: beyond the scope of the source address.
pub const BEYOND_SCOPE: u8 = 2;
/// Unreachable: the address, e.g. because it maps to no link-layer address.
pub const ADDRESS_UNREACHABLE: u8 = 3;
/// Unreachable: the port.
pub const PORT_UNREACHABLE: u8 = 4;
/// Unreachable: the source address failed a policy.
pub const SOURCE_POLICY: u8 = 5;
/// Unreachable: the route says reject.
pub const REJECT_ROUTE: u8 = 6;

/// Bytes of the header every error message has.
pub const ERROR_HEADER_LEN: usize = 8;
/// The largest error message, IPv6 header and all (RFC 4443 2.4 c).
pub const MAX_ERROR_LEN: usize = MIN_MTU;
/// Hop limit of the error messages we send: what a host's other packets have.
const ERROR_HOP_LIMIT: u8 = 64;

/// Why bytes are no ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv6Error {
    /// Fewer than the four bytes of type, code and checksum.
    Truncated,
    /// The checksum is wrong.
    Checksum,
}

/// A message whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6View<'a> {
    fixed: &'a [u8; 4],
    message: &'a [u8],
}

impl<'a> Icmpv6View<'a> {
    /// Looks at the message that starts `offset` bytes into `packet`, a slice that gave an [`Ipv6View`], and
    /// verifies it.
    ///
    /// # Errors
    /// The message is cut short, or damaged.
    #[inline]
    pub fn new(packet: &'a [u8], offset: usize) -> Result<Self, Icmpv6Error> {
        let (view, message) = message_at(packet, offset).ok_or(Icmpv6Error::Truncated)?;
        let fixed = message.first_chunk::<4>().ok_or(Icmpv6Error::Truncated)?;
        if !is_intact(&view, message) {
            return Err(Icmpv6Error::Checksum);
        }
        Ok(Icmpv6View { fixed, message })
    }

    /// The type; below 128 it is an error message.
    #[inline]
    pub fn message_type(&self) -> u8 {
        self.fixed[0]
    }

    /// The code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.fixed[1]
    }

    /// The checksum field.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.fixed, 2)
    }

    /// The message from its type byte to its end.
    #[inline]
    pub fn message(&self) -> &'a [u8] {
        self.message
    }
}

/// The checksum of `body`, a whole message from its type byte on whose checksum field is zero (RFC 4443 2.3).
pub fn checksum(src: &Ipv6Addr, dst: &Ipv6Addr, body: &[u8]) -> u16 {
    pseudo_v6(&src.octets(), &dst.octets(), body_len(body), ICMPV6)
        .add_bytes(body)
        .finish()
}

/// Whether the message `offset` bytes into `packet` is there and intact.
pub fn verify(packet: &[u8], offset: usize) -> bool {
    Icmpv6View::new(packet, offset).is_ok()
}

fn is_intact(view: &Ipv6View<'_>, message: &[u8]) -> bool {
    pseudo_v6(view.src_bytes(), view.dst_bytes(), body_len(message), ICMPV6)
        .add_bytes(message)
        .is_valid()
}

fn message_at(packet: &[u8], offset: usize) -> Option<(Ipv6View<'_>, &[u8])> {
    let view = Ipv6View::new(packet).ok()?;
    let message = view
        .packet()
        .get(offset..)
        .filter(|_| offset >= ipv6::HEADER_LEN)?;
    Some((view, message))
}

/// The length for a pseudo-header: messages are never near 4 GiB.
fn body_len(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}

/// What went wrong with a packet, as its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMessage {
    /// The packet cannot be delivered; `code` says why, see [`NO_ROUTE`] and following.
    Unreachable {
        /// 0..=6.
        code: u8,
    },
    /// The packet is larger than the next link takes.
    PacketTooBig {
        /// What would fit, in bytes; never below 1280 from this tunnel.
        mtu: u32,
    },
    /// The hop limit ran out (code 0).
    TimeExceeded,
    /// A header field makes no sense.
    ParameterProblem {
        /// 0 field, 1 next header, 2 option, 3 first fragment without its whole chain (RFC 7112).
        code: u8,
        /// Where in the packet, in bytes.
        pointer: u32,
    },
}

impl ErrorMessage {
    /// Type, code, and the four bytes after the checksum.
    const fn fields(self) -> (u8, u8, u32) {
        match self {
            ErrorMessage::Unreachable { code } => (DEST_UNREACHABLE, code, 0),
            ErrorMessage::PacketTooBig { mtu } => (PACKET_TOO_BIG, 0, mtu),
            ErrorMessage::TimeExceeded => (TIME_EXCEEDED, 0, 0),
            ErrorMessage::ParameterProblem { code, pointer } => (PARAMETER_PROBLEM, code, pointer),
        }
    }

    /// Messages that may answer a packet to a multicast group: path MTU discovery works there (RFC 4443 2.4
    /// e.3).
    const fn may_answer_multicast(self) -> bool {
        matches!(
            self,
            ErrorMessage::PacketTooBig { .. } | ErrorMessage::ParameterProblem { code: 2, .. }
        )
    }
}

/// Writes a whole IPv6 packet with the error message to the start of `out` and returns its length, at most
/// [`MAX_ERROR_LEN`]. The quote is cut to fit that and `out`; padding behind `offending` is never quoted.
///
/// Returns 0 and writes nothing when `out` cannot even hold the 48 bytes of headers. Whether an answer is
/// allowed at all is for [`may_answer`] to say.
pub fn emit_error(
    out: &mut [u8],
    src: &Ipv6Addr,
    dst: &Ipv6Addr,
    kind: ErrorMessage,
    offending: &[u8],
) -> usize {
    const HEADERS_LEN: usize = ipv6::HEADER_LEN + ERROR_HEADER_LEN;
    let room = out.len().min(MAX_ERROR_LEN);
    if room < HEADERS_LEN {
        return 0;
    }
    let offending = Ipv6View::new(offending).map_or(offending, |view| view.packet());
    let quote = &offending[..offending.len().min(room - HEADERS_LEN)];
    let (message_type, code, value) = kind.fields();
    let message_len = ERROR_HEADER_LEN + quote.len();
    Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(message_len).unwrap_or(u16::MAX),
        next_header: ICMPV6,
        hop_limit: ERROR_HOP_LIMIT,
        src: *src,
        dst: *dst,
    }
    .emit(out);
    let message = &mut out[ipv6::HEADER_LEN..ipv6::HEADER_LEN + message_len];
    message[0] = message_type;
    message[1] = code;
    message[4..8].copy_from_slice(&value.to_be_bytes());
    message[ERROR_HEADER_LEN..].copy_from_slice(quote);
    fill_checksum(message, src, dst);
    ipv6::HEADER_LEN + message_len
}

/// Computes and writes the checksum of a message of at least four bytes.
pub(super) fn fill_checksum(message: &mut [u8], src: &Ipv6Addr, dst: &Ipv6Addr) {
    message[2..4].fill(0);
    let value = checksum(src, dst, message);
    message[2..4].copy_from_slice(&value.to_be_bytes());
}

/// Whether RFC 4443 2.4 (e) lets us tell the sender of `offending` about it: never about an error message or
/// a redirect, never to a source that names no single node, and for multicast only what path MTU discovery
/// needs.
///
/// When the chain of headers cannot be followed to see what the packet is, the answer is no; so it is for
/// later fragments of ICMPv6 messages, whose type lies in another packet.
pub fn may_answer(offending: &[u8], kind: ErrorMessage) -> bool {
    let Ok(view) = Ipv6View::new(offending) else {
        return false;
    };
    if view.src().is_unspecified() || view.src().is_multicast() {
        return false;
    }
    if view.dst().is_multicast() && !kind.may_answer_multicast() {
        return false;
    }
    let Ok(upper) = ext::walk(view.packet()) else {
        return false;
    };
    if upper.protocol != ICMPV6 {
        return true;
    }
    match view.packet().get(upper.offset) {
        Some(&message_type) if !upper.is_later_fragment() => message_type >= 128 && message_type != REDIRECT,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0x5efe, 0x0a00, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0x5efe, 0x0a00, 2);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 9);

    fn packet(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ipv6::HEADER_LEN];
        let payload_len = u16::try_from(payload.len()).unwrap();
        Ipv6Header {
            traffic_class: 0,
            flow_label: 0,
            payload_len,
            next_header,
            hop_limit: 9,
            src,
            dst,
        }
        .emit(&mut bytes);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn errors_carry_type_code_value_and_the_quote() {
        let offending = packet(A, B, 17, &[7; 100]);
        for (kind, head) in [
            (ErrorMessage::Unreachable { code: 3 }, [1, 3, 0, 0, 0, 0]),
            (ErrorMessage::PacketTooBig { mtu: 1280 }, [2, 0, 0, 0, 5, 0]),
            (ErrorMessage::TimeExceeded, [3, 0, 0, 0, 0, 0]),
            (
                ErrorMessage::ParameterProblem { code: 1, pointer: 40 },
                [4, 1, 0, 0, 0, 40],
            ),
        ] {
            let mut out = [0xaa; 2000];
            let len = emit_error(&mut out, &B, &A, kind, &offending);
            assert_eq!(len, 48 + offending.len());
            let view = Ipv6View::new(&out[..len]).unwrap();
            assert_eq!(
                (view.src(), view.dst(), view.next_header(), view.total_len()),
                (B, A, ICMPV6, len)
            );
            let message = Icmpv6View::new(view.packet(), 40).unwrap();
            assert_eq!([message.message_type(), message.code()], head[..2]);
            assert_eq!(message.message()[4..8], head[2..]);
            assert_eq!(message.message()[8..], offending);
            assert!(
                out[len..].iter().all(|&b| b == 0xaa),
                "bytes past the message were touched"
            );
        }
    }

    /// N7: at most 1280 bytes; FAULTS 19: nothing behind the offending packet is quoted.
    #[test]
    fn the_quote_is_cut_to_the_minimum_mtu_and_to_the_offending_packet() {
        let mut out = [0; 4000];
        let big = packet(A, B, 17, &[7; 3000]);
        let kind = ErrorMessage::PacketTooBig { mtu: 1480 };
        assert_eq!(emit_error(&mut out, &B, &A, kind, &big), 1280);
        assert!(verify(&out[..1280], 40));

        let mut padded = packet(A, B, 17, &[7; 8]);
        padded.extend_from_slice(b"secret");
        assert_eq!(emit_error(&mut out, &B, &A, kind, &padded), 48 + 48);
    }

    #[test]
    fn a_small_buffer_shortens_the_quote_and_a_tiny_one_gets_nothing() {
        let offending = packet(A, B, 17, &[7; 100]);
        for room in 0..160 {
            let mut out = vec![0xaa; room];
            let len = emit_error(&mut out, &B, &A, ErrorMessage::TimeExceeded, &offending);
            if room < 48 {
                assert_eq!(len, 0);
                assert!(out.iter().all(|&b| b == 0xaa));
            } else {
                assert_eq!(len, room);
                assert!(verify(&out, 40));
            }
        }
    }

    #[test]
    fn a_message_lies_behind_the_ipv6_header_and_has_four_bytes() {
        let mut packet = packet(A, B, ICMPV6, &[128, 0, 0, 0, 1, 2, 3, 4]);
        fill_checksum(&mut packet[40..], &A, &B);
        for offset in 0..60 {
            let expected = match offset {
                40 => None,
                41..=44 => Some(Icmpv6Error::Checksum),
                _ => Some(Icmpv6Error::Truncated),
            };
            assert_eq!(
                Icmpv6View::new(&packet, offset).err(),
                expected,
                "offset {offset}"
            );
        }
    }

    /// N7, RFC 4443 2.4 (e).
    #[test]
    fn who_may_be_told() {
        let unreachable = ErrorMessage::Unreachable { code: 0 };
        let too_big = ErrorMessage::PacketTooBig { mtu: 1280 };
        let bad_option = ErrorMessage::ParameterProblem { code: 2, pointer: 42 };
        let none = Ipv6Addr::UNSPECIFIED;
        let in_dest_opts = [58, 0, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0];
        let later_fragment = [58, 0, 0, 8, 0, 0, 0, 1, 128, 0, 0, 0];
        let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        let table: &[(&str, Vec<u8>, ErrorMessage, bool)] = &[
            ("UDP", packet(A, B, 17, &[0; 8]), unreachable, true),
            (
                "echo request",
                packet(A, B, 58, &[128, 0, 0, 0]),
                unreachable,
                true,
            ),
            ("echo reply", packet(A, B, 58, &[129, 0, 0, 0]), unreachable, true),
            ("unreachable", packet(A, B, 58, &[1, 0, 0, 0]), unreachable, false),
            (
                "an error type of the future",
                packet(A, B, 58, &[127, 0, 0, 0]),
                too_big,
                false,
            ),
            ("redirect", packet(A, B, 58, &[137, 0, 0, 0]), unreachable, false),
            (
                "error behind options",
                packet(A, B, 60, &in_dest_opts),
                unreachable,
                false,
            ),
            (
                "later fragment of ICMPv6",
                packet(A, B, 44, &later_fragment),
                unreachable,
                false,
            ),
            (
                "chain without end",
                packet(A, B, 60, &endless),
                unreachable,
                false,
            ),
            ("source ::", packet(none, B, 17, &[0; 8]), unreachable, false),
            (
                "source multicast",
                packet(GROUP, B, 17, &[0; 8]),
                unreachable,
                false,
            ),
            ("to a group", packet(A, GROUP, 17, &[0; 8]), unreachable, false),
            (
                "to a group, too big",
                packet(A, GROUP, 17, &[0; 8]),
                too_big,
                true,
            ),
            (
                "to a group, bad option",
                packet(A, GROUP, 17, &[0; 8]),
                bad_option,
                true,
            ),
            ("no packet at all", vec![0x60; 39], unreachable, false),
        ];
        for (what, offending, kind, allowed) in table {
            assert_eq!(may_answer(offending, *kind), *allowed, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), offset in 0usize..300) {
            verify(&bytes, offset);
            may_answer(&bytes, ErrorMessage::TimeExceeded);
            let mut out = [0; 1280];
            let len = emit_error(&mut out, &A, &B, ErrorMessage::TimeExceeded, &bytes);
            prop_assert!(verify(&out[..len], 40));
        }

        #[test]
        fn one_flipped_bit_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut out = [0; 1280];
            let kind = ErrorMessage::Unreachable { code: 0 };
            let len = emit_error(&mut out, &A, &B, kind, &packet(A, B, 17, &[&[1][..], &payload].concat()));
            let bit = bit.index((len - 40) * 8);
            out[40 + bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify(&out[..len], 40));
        }
    }
}
