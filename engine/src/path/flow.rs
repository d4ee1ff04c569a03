//! The hash of a flow: what keeps a flow on one router among equals (RFC 4311 2, RFC 2992).
//!
//! Addresses, and ports where TCP or UDP follows the fixed header directly. Fragments and packets with extension headers
//! go by their addresses alone, so that all pieces of a packet take the same way.

use crate::fib::group::mix;
use crate::wire::ext;
use crate::wire::ipv6::{self, Ipv6View};

/// The hash of the packet's flow; its upper half is as good as its lower.
#[inline]
pub fn hash(view: &Ipv6View<'_>) -> u64 {
    let (src, dst) = (view.src().to_bits(), view.dst().to_bits());
    let ports = match view.next_header() {
        ext::TCP | ext::UDP => view.packet().get(ipv6::HEADER_LEN..ipv6::HEADER_LEN + 4),
        _ => None,
    };
    let ports = ports
        .and_then(|ports| ports.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    #[allow(clippy::cast_possible_truncation, reason = "halves of 128 bits, one by one")]
    let words = [
        (src >> 64) as u64,
        src as u64,
        (dst >> 64) as u64,
        dst as u64,
        u64::from(ports),
    ];
    words.into_iter().fold(0, |hash, word| mix(hash ^ word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next_header: u8, ports: u32, dst: u8) -> Vec<u8> {
        let mut packet = vec![0; 48];
        packet[0] = 0x60;
        packet[5] = 8;
        packet[6] = next_header;
        packet[39] = dst;
        packet[40..44].copy_from_slice(&ports.to_be_bytes());
        packet
    }

    fn hash_of(packet: &[u8]) -> u64 {
        hash(&Ipv6View::new(packet).unwrap())
    }

    #[test]
    fn ports_count_where_they_are_for_certain() {
        for transport in [ext::TCP, ext::UDP] {
            assert_ne!(
                hash_of(&packet(transport, 1, 1)),
                hash_of(&packet(transport, 2, 1))
            );
        }
        // A fragment header has its offset there: pieces of one packet must not part.
        assert_eq!(hash_of(&packet(44, 1, 1)), hash_of(&packet(44, 2, 1)));
        assert_ne!(hash_of(&packet(44, 1, 1)), hash_of(&packet(44, 1, 2)));
        let traffic_class = {
            let mut packet = packet(ext::TCP, 1, 1);
            packet[0] = 0x6f;
            packet[1] = 0xff;
            packet
        };
        assert_eq!(hash_of(&traffic_class), hash_of(&packet(ext::TCP, 1, 1)));
    }
}
