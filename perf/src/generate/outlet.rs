//! Where packets of the generator go into the kernel: connected sockets, one socket to many destinations, or packets written
//! whole.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use isatap_tests::packet::{Inner, Outer};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::stamp::Stamp;

/// Packets given to the kernel by one call at most.
pub(crate) const SEND_BATCH: usize = 32;
/// Where the stamp is in a packet written whole: after IPv4, IPv6 and UDP headers.
pub(crate) const STAMP_AT: usize = 20 + 40 + 8;
/// Where its UDP checksum is.
const CHECKSUM_AT: usize = STAMP_AT - 2;

/// A way out. Flows are numbered from 0.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// A socket for each flow, connected.
    Flows(Vec<UdpSocket>),
    /// A destination for each flow, by one socket.
    Spread(UdpSocket, Vec<SockaddrStorage>),
    /// An outer IPv4 packet for each flow, from whomever it says.
    Crafted(Socket, SockaddrStorage, Vec<Crafted>),
}

/// A packet written whole, and the sum of all that its checksum covers with an empty stamp.
#[derive(Debug)]
pub(crate) struct Crafted {
    bytes: Vec<u8>,
    sum: u16,
}

impl Crafted {
    /// `inner` is where the inner packet goes from and to, `outer` the same for the outer one.
    pub(crate) fn new(outer: [Ipv4Addr; 2], inner: [SocketAddrV6; 2], size: usize) -> Self {
        let [from, to] = inner;
        let packet = Inner::new(*from.ip(), *to.ip()).udp(from.port(), to.port(), &vec![0; size]);
        let bytes = Outer::new(outer[0], outer[1]).wrap(&packet);
        let sum = !u16::from_be_bytes([bytes[CHECKSUM_AT], bytes[CHECKSUM_AT + 1]]);
        Self { bytes, sum }
    }

    fn stamp(&mut self, stamp: &Stamp) {
        let (head, data) = self.bytes.split_at_mut(STAMP_AT);
        stamp.write(data);
        let words = data[..Stamp::LEN]
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum = u32::from(self.sum) + words.sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        let checksum = match u16::try_from(folded).map_or(0, |sum| !sum) {
            0 => 0xffff,
            sum => sum,
        };
        head[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
    }
}

impl Outlet {
    /// Packets written whole go out of a socket of the namespace the caller is in.
    pub(crate) fn crafted(to: Ipv4Addr, packets: Vec<Crafted>) -> Result<Self> {
        let raw = Protocol::from(nix::libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(raw)).context("open a raw socket")?;
        let to = SockaddrStorage::from(SocketAddrV4::new(to, 0));
        Ok(Self::Crafted(socket, to, packets))
    }

    pub(crate) fn flows(&self) -> usize {
        match self {
            Self::Flows(sockets) => sockets.len(),
            Self::Spread(_, to) => to.len(),
            Self::Crafted(_, _, packets) => packets.len(),
        }
    }

    /// Packets that one call sends: connected sockets send one each, so that flows interleave packet by packet.
    pub(crate) const fn batch(&self) -> usize {
        match self {
            Self::Flows(_) => 1,
            Self::Spread(..) | Self::Crafted(..) => SEND_BATCH,
        }
    }

    /// Sends one packet of each of the flows that `stamps` name, with `sizes` bytes of data. A packet that the kernel
    /// refuses, because a queue is full or there is no way, is lost like any other.
    pub(crate) fn send(&mut self, stamps: &[Stamp], sizes: &[usize], scratch: &mut Scratch) -> Result<()> {
        let room = scratch.buffers.iter_mut().zip(stamps).zip(sizes);
        let done = match self {
            Self::Flows(sockets) => {
                for ((buffer, stamp), size) in room {
                    stamp.write(buffer);
                    let sent = sockets[usize::from(stamp.flow)].send(&buffer[..*size]);
                    tolerate(sent.map(drop).map_err(errno))?;
                }
                return Ok(());
            }
            Self::Spread(socket, to) => {
                room.for_each(|((buffer, stamp), _)| stamp.write(buffer));
                let filled = scratch.buffers.iter().zip(sizes);
                let slices: Vec<_> = filled
                    .map(|(buffer, size)| [IoSlice::new(&buffer[..*size])])
                    .collect();
                let to: Vec<_> = stamps
                    .iter()
                    .map(|stamp| Some(to[usize::from(stamp.flow)]))
                    .collect();
                many(socket.as_raw_fd(), &mut scratch.headers, &slices, &to)
            }
            Self::Crafted(socket, to, packets) => {
                for stamp in stamps {
                    packets[usize::from(stamp.flow)].stamp(stamp);
                }
                let filled = stamps.iter().map(|stamp| &packets[usize::from(stamp.flow)].bytes);
                let slices: Vec<_> = filled.map(|bytes| [IoSlice::new(bytes)]).collect();
                many(
                    socket.as_raw_fd(),
                    &mut scratch.headers,
                    &slices,
                    &vec![Some(*to); stamps.len()],
                )
            }
        };
        tolerate(done)
    }
}

/// Memory that calls share.
#[derive(Debug)]
pub(crate) struct Scratch {
    buffers: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Scratch {
    /// For packets of at most `size` bytes of data.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            buffers: vec![vec![0x5a; size]; SEND_BATCH],
            headers: MultiHeaders::preallocate(SEND_BATCH, None),
        }
    }
}

fn many(
    fd: RawFd,
    headers: &mut MultiHeaders<SockaddrStorage>,
    slices: &[[IoSlice<'_>; 1]],
    to: &[Option<SockaddrStorage>],
) -> nix::Result<()> {
    let none: [ControlMessage<'_>; 0] = [];
    sendmmsg(fd, headers, slices, to, none, MsgFlags::empty()).map(drop)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn tolerate(sent: nix::Result<()>) -> Result<()> {
    match sent {
        Ok(()) | Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(()),
        // There is no way just now: whoever measures sees that nothing arrives.
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN) => Ok(()),
        Err(errno) => Err(errno).context("send"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_tests::packet::SeenOuter;

    #[test]
    fn a_stamped_packet_has_the_right_checksum() {
        let v4 = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let v6 = ["[2001:db8::1]:1", "[2001:db8::2]:7"].map(|text| text.parse().unwrap());
        let mut crafted = Crafted::new(v4, v6, 64);
        for sequence in [0, 1, 65_535, u32::MAX] {
            let stamp = Stamp {
                run: 0xffff,
                flow: 3,
                sequence,
                sent_ns: u64::MAX - 5,
            };
            crafted.stamp(&stamp);
            let outer = SeenOuter::read(&crafted.bytes).unwrap();
            let inner = outer.inner().unwrap();
            assert!(inner.checksum_is_right(), "{sequence}");
            assert_eq!(Stamp::read(inner.udp().unwrap().2), Some(stamp));
        }
    }
}
