//! Crafted ICMPv4 errors about packets that were seen on the wire (RFC 792).

use std::net::Ipv4Addr;

use crate::packet::{Outer, checksum};

/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// IPv4 protocol number of ICMP.
const ICMP: u8 = 1;

/// An error message about to be sent.
#[derive(Clone, Debug)]
pub struct Icmp4Error {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// What lies between checksum and quote.
    pub value: u32,
    /// How much of the offending packet's payload is quoted behind its header, in bytes.
    pub quoted: usize,
}

impl Icmp4Error {
    /// An error that quotes all it can.
    pub const fn new(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            value: 0,
            quoted: 520,
        }
    }

    /// With a shorter quote.
    #[must_use]
    pub const fn quoted(mut self, bytes: usize) -> Self {
        self.quoted = bytes;
        self
    }

    /// The whole IPv4 packet from `src`, to the sender of `offending`, an IPv4 packet with a header of 20 bytes.
    pub fn about(&self, src: Ipv4Addr, offending: &[u8]) -> Vec<u8> {
        let sender: [u8; 4] = offending[12..16].try_into().expect("four bytes");
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend_from_slice(&self.value.to_be_bytes());
        message.extend_from_slice(&offending[..offending.len().min(20 + self.quoted)]);
        let sum = checksum(&[&message]).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut outer = Outer::new(src, sender.into());
        outer.protocol = ICMP;
        outer.wrap(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Slice, SlicedPacket, TransportSlice};

    #[test]
    fn etherparse_reads_the_error() {
        let (us, peer, router) = (
            Ipv4Addr::new(10, 0, 0, 1),
            Ipv4Addr::new(10, 0, 0, 2),
            Ipv4Addr::new(10, 0, 0, 254),
        );
        let offending = Outer::new(us, peer).wrap(&[7; 100]);
        let error = Icmp4Error::new(UNREACHABLE, 1)
            .quoted(8)
            .about(router, &offending);
        let sliced = SlicedPacket::from_ip(&error).expect("IPv4");
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else {
            panic!("no ICMPv4: {sliced:?}");
        };
        let icmp: Icmpv4Slice<'_> = icmp;
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (UNREACHABLE, 1));
        assert_eq!(icmp.payload(), &offending[..28]);
        assert_eq!(checksum(&[icmp.slice()]), 0);
    }
}
