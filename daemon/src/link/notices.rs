//! The kernel's notifications, and certainty about which of them are lost.
//!
//! A netlink socket whose buffer was full reports that before the messages that still wait, though they are older; and
//! until it has been read empty, it takes no further message and does not report that either. So when some were lost,
//! everything that waits is thrown away at once: whoever looks at the kernel afterwards misses nothing, and no message
//! of before comes after what was looked at.

use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use socket2::{SockFilter, SockRef};

use super::plain;

/// Bytes of notifications that the kernel keeps for us: some thousand.
const RECEIVE_BUFFER_BYTES: usize = 2 << 20;

/// Most messages taken before the caller gets its turn; many times what the buffer holds.
const MAX_BURST: usize = 16_384;

/// Classic BPF over a message about a neighbour: is the byte after the netlink header, its family, that of IPv4?
const NEIGHBOURS_OF_IPV4: [SockFilter; 4] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 16),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, AF_INET),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];
/// `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K` (linux/bpf_common.h).
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const AF_INET: u32 = 2;

/// A notification: the flags of its netlink header, and what it says.
pub(super) type Notice = (u16, RouteNetlinkMessage);

/// The socket.
pub(super) struct Notices {
    socket: TokioSocket,
}

impl Notices {
    /// Subscribes to what `groups` tell. Must be called inside the control runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub(super) fn open(groups: &[MulticastGroup]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let bits = groups
            .iter()
            .fold(0, |bits, group| bits | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, bits))?;
        // More than net.core.rmem_max needs a privilege; without it storms cost more dumps.
        let _ = nix::sys::socket::setsockopt(
            socket.socket_ref(),
            nix::sys::socket::sockopt::RcvBufForce,
            &RECEIVE_BUFFER_BYTES,
        );
        Ok(Self { socket })
    }

    /// Subscribes to neighbours of IPv4. The kernel tells of those of IPv6 in the same group, and every host behind the tunnel
    /// interface is one: when packets come from more than it has room for (1024), it forgets one for each, and says so.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub(super) fn of_neighbours() -> io::Result<Self> {
        let notices = Self::open(&[MulticastGroup::Neigh])?;
        // Whoever hears the others as well passes them over, and more are lost.
        let _ = SockRef::from(notices.socket.socket_ref()).attach_filter(&NEIGHBOURS_OF_IPV4);
        Ok(notices)
    }

    /// Waits for a notification, and takes all that have come. `None` when some were lost: all that waited are thrown away.
    /// May be dropped at any await without losing one.
    ///
    /// # Errors
    /// When the socket died.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<Notice>>> {
        let mut burst = Vec::new();
        let mut received = self.socket.recv_from_full().await;
        // No await from here on: what was taken is also returned.
        for _ in 0..MAX_BURST {
            match received {
                Ok((data, _)) => read(&data, &mut burst),
                Err(error) if is_overrun(&error) => {
                    self.discard()?;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            received = self.socket.socket_ref().recv_from_full();
        }
        Ok(Some(burst))
    }

    /// Throws away what waits; says how often some were lost meanwhile.
    ///
    /// # Errors
    /// When the socket died.
    pub(super) fn discard(&mut self) -> io::Result<u64> {
        let mut overruns = 0;
        for _ in 0..MAX_BURST {
            match self.socket.socket_ref().recv_from_full() {
                Ok(_) => {}
                Err(error) if is_overrun(&error) => overruns += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(overruns)
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// What a datagram says. A message that cannot be read is skipped: it is of a kind newer than this program.
fn read(datagram: &[u8], burst: &mut Vec<Notice>) {
    for message in plain::messages(datagram) {
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
            && let NetlinkPayload::InnerMessage(inner) = message.payload
        {
            burst.push((message.header.flags, inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::address::AddressMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = 7;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_datagram_may_hold_several_messages() {
        let link = bytes(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        let address = bytes(RouteNetlinkMessage::DelAddress(AddressMessage::default()));
        let mut burst = Vec::new();
        read(&[&link[..], &address, &link[..9]].concat(), &mut burst);
        assert!(matches!(
            burst.as_slice(),
            [
                (7, RouteNetlinkMessage::NewLink(_)),
                (7, RouteNetlinkMessage::DelAddress(_))
            ]
        ));
    }

    /// Whatever the bytes are, reading ends.
    #[test]
    fn nonsense_is_skipped() {
        let link = bytes(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        for at in 0..link.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut spoilt = link.clone();
                spoilt[at] = value;
                read(&spoilt, &mut Vec::new());
                read(&spoilt[..at], &mut Vec::new());
            }
        }
    }
}
