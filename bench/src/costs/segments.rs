//! Whether the kernel cuts a TCP superpacket that lies inside IPv4: sent through a packet socket with a vnet header
//! (PACKET_VNET_HDR), with and without the interface's own segmentation.
//!
//! Nothing in that header can say "IPv6 in IPv4" (`SKB_GSO_IPXIP4`), which the kernel's code for protocol 41 asks for
//! (`sit_gso_segment`). An interface that segments itself does not help: a header from user space is checked first
//! (`SKB_GSO_DODGY`), and that is the same code.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::Result;
use isatap_engine::wire::vnet;
use nix::libc;

use super::burst::{ethernet_header, inner_header, ip_headers};
use super::counted;
use super::link::{self, Link};
use super::send::{packet_socket, set_option};

const ETHERNET_LEN: usize = 14;
const TCP_HEADER_LEN: usize = 20;
const SEGMENT: usize = 1400;
const SEGMENTS: usize = 20;
const TCP: u8 = 6;

/// What became of the superpacket.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes the socket took, or its refusal.
    pub taken: io::Result<usize>,
    /// Lengths of the IPv4 packets that came out of the far end's raw socket.
    pub arrived: Vec<usize>,
}

/// Sends one superpacket of 20 segments; `tso` says whether the near interface segments itself.
///
/// # Errors
/// When sockets cannot be opened or set.
pub fn try_superpacket(link: &Link, tso: bool) -> Result<Outcome> {
    let device = isatap_tests::topology::UNDERLAY;
    link.left.run(&format!(
        "ethtool -K {device} tso {}",
        if tso { "on" } else { "off" }
    ));
    let receiver = link::receiver(link)?;
    let limit = nix::sys::time::TimeVal::new(0, 200_000);
    nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::ReceiveTimeout, &limit)?;
    let sender = link.left.enter(|| packet_socket(&link.neighbour, false))?;
    set_option(sender.as_fd(), libc::PACKET_VNET_HDR, &1i32)?;
    let packet = superpacket(link);
    // SAFETY: the kernel reads the packet, which lives through the call.
    let taken = counted(unsafe { libc::send(sender.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) });
    let mut arrived = Vec::new();
    let mut buffer = vec![0u8; 70_000];
    while let Ok(len) = nix::unistd::read(&receiver, &mut buffer) {
        arrived.push(len);
    }
    std::thread::sleep(Duration::from_millis(1));
    link.left.run(&format!("ethtool -K {device} tso on"));
    Ok(Outcome { taken, arrived })
}

fn superpacket(link: &Link) -> Vec<u8> {
    let inner_len = 40 + TCP_HEADER_LEN + SEGMENT * SEGMENTS;
    let mut headers = ethernet_header(&link.neighbour);
    headers.extend(&ip_headers(inner_len)[..20]);
    headers.extend(inner_header(inner_len, TCP));
    let checksum_at = headers.len();
    let mut tcp = [0u8; TCP_HEADER_LEN];
    tcp[2..4].copy_from_slice(&5001u16.to_be_bytes());
    tcp[12] = 5 << 4;
    headers.extend(tcp);
    let number = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_ne_bytes();
    let (hdr_len, csum_start) = (number(headers.len()), number(checksum_at));
    let (gso_size, csum_offset) = (number(SEGMENT), number(16));
    // flags: NEEDS_CSUM; type: TCPV6.
    let mut packet = vec![1, 4];
    for field in [hdr_len, gso_size, csum_start, csum_offset] {
        packet.extend(field);
    }
    debug_assert_eq!((packet.len(), checksum_at), (vnet::LEN, ETHERNET_LEN + 20 + 40));
    packet.extend(headers);
    packet.resize(packet.len() + SEGMENT * SEGMENTS, 0x5a);
    packet
}
