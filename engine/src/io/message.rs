//! What the kernel is told with a packet that has its own header: where it goes, where it comes from, what it carries.

use std::io;
use std::mem::{offset_of, size_of};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use nix::libc;

use crate::wire::ipv4::PROTO_IPV6;

/// Tells the kernel where a message comes from, and what it carries. Of headers that we write it reads nothing but the destination to find
/// the way: without this no rule for a source or a protocol (`ip rule add from ... ipproto 41`) holds for the tunnel, nor does a policy of
/// IPsec for them, as RFC 4891 has it (`raw_sendmsg` of net/ipv4/raw.c; ip(7), `IP_PKTINFO`).
///
/// The kernel has room on its stack for the source alone (`____sys_sendmsg` of net/socket.c), so that the protocol costs a small allocation.
#[repr(C)]
pub(crate) struct Origin {
    source: libc::cmsghdr,
    info: libc::in_pktinfo,
    /// Headers begin at multiples of eight bytes.
    _padding: [u8; 4],
    protocol: libc::cmsghdr,
    number: libc::c_int,
}

/// linux/in.h: the protocol of packets that have a header of their own (Linux 6.4). Without it the kernel takes them for 255.
const IP_PROTOCOL: libc::c_int = 52;

/// Whether this kernel takes [`IP_PROTOCOL`]; older ones refuse the message that has it.
static TAKES_PROTOCOL: OnceLock<bool> = OnceLock::new();

impl Origin {
    /// For messages of a sender, which has asked the kernel what it takes.
    pub(crate) fn new(addr: Ipv4Addr) -> Self {
        Self::with(addr, names_protocol())
    }

    fn with(addr: Ipv4Addr, has_protocol: bool) -> Self {
        // SAFETY: `cmsghdr` and `in_pktinfo` are plain data for which all zeroes is a valid value.
        let mut origin: Self = unsafe { std::mem::zeroed() };
        let header = |kind, len: usize| libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + len,
            cmsg_level: libc::IPPROTO_IP,
            cmsg_type: kind,
        };
        origin.source = header(libc::IP_PKTINFO, size_of::<libc::in_pktinfo>());
        if has_protocol {
            origin.protocol = header(IP_PROTOCOL, size_of::<libc::c_int>());
            origin.number = libc::c_int::from(PROTO_IPV6);
        }
        origin.set(addr);
        origin
    }

    pub(crate) fn set(&mut self, addr: Ipv4Addr) {
        self.info.ipi_spec_dst.s_addr = addr.to_bits().to_be();
    }

    /// Points a message at it.
    pub(crate) fn attach(&mut self, message: &mut libc::msghdr) {
        message.msg_control = (&raw mut *self).cast();
        message.msg_controllen = match self.protocol.cmsg_len {
            0 => self.source.cmsg_len,
            len => offset_of!(Self, protocol) + len,
        };
    }
}

/// Asks the kernel, once, whether it takes the protocol with a message: by one that it never sends, for a device that nobody has. It reads
/// what comes with a message before it looks for that, and for the device before it looks at any route.
pub(super) fn ask_about_protocol(sender: BorrowedFd<'_>) {
    TAKES_PROTOCOL.get_or_init(|| {
        let mut origin = Origin::with(Ipv4Addr::UNSPECIFIED, true);
        origin.info.ipi_ifindex = libc::c_int::MAX;
        let sent = send(sender, &[0; 20], Ipv4Addr::BROADCAST, &mut origin);
        sent.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
    });
}

/// Whether messages say that they are of protocol 41; false until a sender has been opened.
pub(super) fn names_protocol() -> bool {
    TAKES_PROTOCOL.get().copied().unwrap_or_default()
}

/// Sends one whole IPv4 packet by a raw socket.
///
/// # Errors
/// What the kernel says.
pub(super) fn send(fd: BorrowedFd<'_>, packet: &[u8], to: Ipv4Addr, origin: &mut Origin) -> io::Result<()> {
    let mut name = socket_address(to);
    let mut part = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).map_err(io::Error::other)?;
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    origin.attach(&mut message);
    // SAFETY: packet, addresses and what points to them live through the call, which writes to none of them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// An IPv4 address as the kernel's socket calls take it.
pub(crate) fn socket_address(addr: Ipv4Addr) -> libc::sockaddr_in {
    // SAFETY: `sockaddr_in` is plain data for which all zeroes is a valid value.
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    name.sin_addr.s_addr = addr.to_bits().to_be();
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message says of itself, as the kernel reads it: level, kind, data.
    fn said(origin: &mut Origin) -> Vec<(i32, i32, Vec<u8>)> {
        // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        origin.attach(&mut message);
        let mut all = Vec::new();
        // SAFETY: the message points to `origin`, of at least as many bytes as it says.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
        while let Some(header) = next {
            let len = header.cmsg_len - size_of::<libc::cmsghdr>();
            // SAFETY: the data of a header follow it, in as many bytes as it says.
            let data = unsafe { std::slice::from_raw_parts(libc::CMSG_DATA(header), len) };
            all.push((header.cmsg_level, header.cmsg_type, data.to_vec()));
            // SAFETY: as above.
            next = unsafe { libc::CMSG_NXTHDR(&raw const message, header).as_ref() };
        }
        all
    }

    #[test]
    #[cfg_attr(miri, ignore = "libc walks by numbers that are no pointers")]
    fn a_message_names_source_and_protocol() {
        let [short, long] = [false, true]
            .map(|has_protocol| said(&mut Origin::with(Ipv4Addr::new(192, 0, 2, 9), has_protocol)));
        let source = [0, 0, 0, 0, 192, 0, 2, 9, 0, 0, 0, 0].to_vec();
        let source = (0, libc::IP_PKTINFO, source);
        let protocol = (0, IP_PROTOCOL, 41i32.to_ne_bytes().to_vec());
        assert_eq!(short[..], long[..1]);
        assert_eq!(long, [source, protocol]);
    }
}
