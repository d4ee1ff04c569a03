//! Realistic packets: UDP and TCP between a host of the site and a server, as the TUN and the raw socket give them.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::wire::checksum::pseudo_v6;
use isatap_engine::wire::ext::{TCP, UDP};
use isatap_engine::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use isatap_engine::wire::ipv6::{HEADER_LEN, Ipv6Header};
use isatap_engine::wire::transport::{ACK, PSH};
use isatap_engine::wire::vnet::{self, GsoType, VnetHeader};

/// TCP with the timestamp option, as every Linux connection has it.
pub const TCP_HEADER_LEN: usize = 32;
/// Bytes of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

/// The transport of a packet and its payload.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One datagram with this many bytes of data.
    Udp(usize),
    /// One segment with this many bytes of data.
    Tcp(usize),
}

impl Shape {
    /// 64 bytes of data: what packet rates are measured with.
    pub const SMALL: Self = Self::Udp(64);
    /// A segment that fills a tunnel MTU of 1480.
    pub const FULL: Self = Self::Tcp(1480 - HEADER_LEN - TCP_HEADER_LEN);

    /// A short name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Tcp(_) => "tcp",
        }
    }

    /// Bytes of the inner packet.
    pub const fn inner_len(self) -> usize {
        match self {
            Self::Udp(data) => HEADER_LEN + UDP_HEADER_LEN + data,
            Self::Tcp(data) => HEADER_LEN + TCP_HEADER_LEN + data,
        }
    }
}

/// How far a transport checksum has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Complete,
    /// Only the pseudo-header's sum: left to hardware, or to whoever sends the packet.
    Partial,
}

/// An inner packet.
pub fn inner(shape: Shape, src: Ipv6Addr, dst: Ipv6Addr, checksum: Checksum) -> Vec<u8> {
    let mut packet = vec![0; shape.inner_len()];
    let upper_len = packet.len() - HEADER_LEN;
    let (protocol, field_at) = match shape {
        Shape::Udp(_) => (UDP, 6),
        Shape::Tcp(_) => (TCP, 16),
    };
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: 0x5_1234,
        payload_len: u16::try_from(upper_len).unwrap_or(u16::MAX),
        next_header: protocol,
        hop_limit: 64,
        src,
        dst,
    };
    header.emit(&mut packet);
    let upper = &mut packet[HEADER_LEN..];
    upper[..4].copy_from_slice(&[0x1b, 0x59, 0x14, 0x51]);
    match shape {
        Shape::Udp(_) => {
            upper[4..6].copy_from_slice(&u16::try_from(upper_len).unwrap_or(u16::MAX).to_be_bytes())
        }
        Shape::Tcp(_) => {
            upper[4..12].copy_from_slice(&[0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80]);
            upper[12..16].copy_from_slice(&[0x80, ACK | PSH, 0x01, 0xf6]);
            upper[20..24].copy_from_slice(&[1, 1, 8, 10]);
        }
    }
    let header_len = shape.inner_len() - HEADER_LEN - data_len(shape);
    for (byte, value) in upper[header_len..].iter_mut().zip((0u8..251).cycle()) {
        *byte = value;
    }
    let pseudo = pseudo_v6(
        &src.octets(),
        &dst.octets(),
        u32::try_from(upper_len).unwrap_or(u32::MAX),
        protocol,
    );
    let value = match checksum {
        Checksum::Complete => pseudo.add_bytes(upper).finish(),
        Checksum::Partial => pseudo.fold(),
    };
    upper[field_at..field_at + 2].copy_from_slice(&value.to_be_bytes());
    packet
}

/// A frame as a TUN queue gives it: vnet header, inner packet.
pub fn from_tun(vnet: &VnetHeader, inner: &[u8]) -> Vec<u8> {
    let mut header = [0; vnet::LEN];
    vnet.emit(&mut header);
    [&header[..], inner].concat()
}

/// A packet as a raw socket gives it: outer header, inner packet.
pub fn from_raw(src: Ipv4Addr, dst: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    let outer = OuterHeader {
        src,
        dst,
        tos: 0,
        ttl: 63,
        dont_fragment: false,
        id: 7,
        payload_len: u16::try_from(inner.len()).unwrap_or(u16::MAX),
    };
    let mut header = [0; MIN_HEADER_LEN];
    outer.emit(&mut header);
    [&header[..], inner].concat()
}

/// What the TUN says about a packet whose checksum it leaves to us.
pub fn needs_csum(shape: Shape) -> VnetHeader {
    VnetHeader {
        needs_csum: true,
        csum_start: 40,
        csum_offset: match shape {
            Shape::Udp(_) => 6,
            Shape::Tcp(_) => 16,
        },
        hdr_len: u16::try_from(shape.inner_len() - data_len(shape)).unwrap_or(u16::MAX),
        ..VnetHeader::NONE
    }
}

/// The largest superpacket of a kind, which splits into packets of the tunnel MTU: header and packet.
pub fn superpacket(tcp: bool, src: Ipv6Addr, dst: Ipv6Addr) -> (VnetHeader, Vec<u8>) {
    /// What fits the length field of IPv4 with the headers around it.
    const LARGEST: usize = 65_535 - MIN_HEADER_LEN;
    let (shape, header_len, gso) = if tcp {
        let header_len = HEADER_LEN + TCP_HEADER_LEN;
        (Shape::Tcp(LARGEST - header_len), header_len, GsoType::TcpV6)
    } else {
        let header_len = HEADER_LEN + UDP_HEADER_LEN;
        (Shape::Udp(LARGEST - header_len), header_len, GsoType::UdpL4)
    };
    let vnet = VnetHeader {
        gso,
        gso_size: u16::try_from(1480 - header_len).unwrap_or(u16::MAX),
        ..needs_csum(shape)
    };
    (vnet, inner(shape, src, dst, Checksum::Partial))
}

fn data_len(shape: Shape) -> usize {
    match shape {
        Shape::Udp(len) | Shape::Tcp(len) => len,
    }
}
