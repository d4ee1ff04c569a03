//! A burst of equal packets as the kernel reads it: headers and payload apart, as the engine cuts a superpacket.

use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;

use isatap_engine::isatap::iid;
use isatap_engine::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use nix::libc;

use super::link::{LEFT, Neighbour, RIGHT};

/// Packets handed over at once: about what one TUN superpacket of 64 KiB becomes.
pub const BURST: usize = 64;

/// Bytes of the inner IPv6 header.
const INNER_HEADER_LEN: usize = 40;
/// UDP.
const INNER_PROTOCOL: u8 = 17;

/// Messages for [`BURST`] packets. What they point to does not move: it lives in boxes.
pub struct Burst {
    messages: Box<[libc::mmsghdr]>,
    _parts: Box<[[libc::iovec; 2]]>,
    _name: Box<libc::sockaddr_in>,
    _headers: Box<[u8]>,
    _payload: Box<[u8]>,
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Burst").finish_non_exhaustive()
    }
}

impl Burst {
    /// Packets of `inner_len` bytes inside IPv4, with an Ethernet header when they go to a packet socket, and without a
    /// destination beside them when the socket knows it.
    pub fn new(inner_len: usize, ethernet: Option<&Neighbour>, addressed: bool) -> Self {
        let mut headers = ethernet.map(ethernet_header).unwrap_or_default();
        headers.extend(ip_headers(inner_len));
        let headers = headers.into_boxed_slice();
        let payload = vec![0x5a; inner_len.saturating_sub(INNER_HEADER_LEN)].into_boxed_slice();
        let part = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut parts: Box<[_]> = (0..BURST).map(|_| [part(&headers), part(&payload)]).collect();
        let mut name = Box::new(address(RIGHT));
        let messages = parts
            .iter_mut()
            .map(|parts| {
                // SAFETY: `mmsghdr` is plain data for which all zeroes is a valid value.
                let mut message: libc::mmsghdr = unsafe { zeroed() };
                message.msg_hdr.msg_iov = parts.as_mut_ptr();
                message.msg_hdr.msg_iovlen = 2;
                if addressed {
                    message.msg_hdr.msg_name = (&raw mut *name).cast();
                    message.msg_hdr.msg_namelen =
                        libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or_default();
                }
                message
            })
            .collect();
        Self {
            messages,
            _parts: parts,
            _name: name,
            _headers: headers,
            _payload: payload,
        }
    }

    /// All messages.
    pub fn messages(&mut self) -> &mut [libc::mmsghdr] {
        &mut self.messages
    }
}

/// Ethernet to the peer, IPv4.
pub fn ethernet_header(neighbour: &Neighbour) -> Vec<u8> {
    [&neighbour.peer_mac[..], &neighbour.own_mac, &[0x08, 0x00]].concat()
}

/// Outer and inner header of a packet from the near to the far end.
pub fn ip_headers(inner_len: usize) -> Vec<u8> {
    let mut outer = [0; MIN_HEADER_LEN];
    OuterHeader {
        src: LEFT,
        dst: RIGHT,
        tos: 0,
        ttl: 64,
        dont_fragment: false,
        id: 0,
        payload_len: u16::try_from(inner_len).unwrap_or(u16::MAX),
    }
    .emit(&mut outer);
    let mut headers = outer.to_vec();
    headers.extend(inner_header(inner_len, INNER_PROTOCOL));
    headers
}

/// An IPv6 header between the ISATAP link-local addresses of the two ends.
pub fn inner_header(inner_len: usize, protocol: u8) -> Vec<u8> {
    let payload_len = u16::try_from(inner_len.saturating_sub(INNER_HEADER_LEN)).unwrap_or(u16::MAX);
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(payload_len.to_be_bytes());
    header.extend([protocol, 64]);
    header.extend(iid::link_local(LEFT).octets());
    header.extend(iid::link_local(RIGHT).octets());
    header
}

fn address(v4: Ipv4Addr) -> libc::sockaddr_in {
    // SAFETY: `sockaddr_in` is plain data for which all zeroes is a valid value.
    let mut name: libc::sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    name.sin_addr.s_addr = v4.to_bits().to_be();
    name
}

#[cfg(test)]
mod tests {
    use isatap_engine::wire::ipv4::Ipv4View;
    use isatap_engine::wire::ipv6::Ipv6View;

    use super::*;

    #[test]
    fn what_is_sent_is_a_tunnelled_packet_of_the_size_asked_for() {
        let mut packet = ip_headers(64);
        packet.resize(MIN_HEADER_LEN + 64, 0x5a);
        let outer = Ipv4View::new(&packet).unwrap();
        let inner = Ipv6View::new(outer.payload()).unwrap();
        assert_eq!(
            (outer.src(), outer.dst(), inner.packet().len()),
            (LEFT, RIGHT, 64)
        );
        assert_eq!(iid::embedded(&inner.src()), Some(LEFT));

        let mut burst = Burst::new(64, None, true);
        let messages = burst.messages();
        assert_eq!(messages.len(), BURST);
        for message in messages {
            assert_eq!((message.msg_hdr.msg_iovlen, message.msg_hdr.msg_namelen), (2, 16));
        }
    }
}
