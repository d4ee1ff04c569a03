//! Raw sockets of IPv4 protocol 41: receive and send apart (DESIGN D2).
//!
//! A send socket has `IP_RECVERR`, without which a full queue loses packets silently, and a filter that receives
//! nothing. One socket, control's, hears the ICMPv4 errors for all. The receive socket has no `IP_RECVERR`: with it, one dead peer's ICMP error fails `recv` on every socket.

use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

use super::errors::SetupError;
use super::message::{self, Origin, socket_address};
use super::steer::{self, Instruction, Shard};
use crate::fib::Locator;
use crate::wire::ipv4::PROTO_IPV6;

/// Receive buffer per socket, in bytes: a burst of superpackets waits here while a worker is off its core.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;

/// Send buffer per socket, in bytes. What waits in it waits for an ARP answer, or in a queueing discipline that has a
/// limit of its own. A host that is not there holds up to 208 KiB (`unres_qlen_bytes`) for seconds, and the kernel knows
/// 1024 neighbours (`gc_thresh3`): with room for all of them nobody who scans the site is in the way of others (N9).
const SEND_BUFFER: libc::c_int = 256 << 20;

/// An address no packet of ours is ever sent to: a multicast group for documentation (MCAST-TEST-NET, RFC 6676). A raw
/// socket bound to a group sends as before, but matches no unicast packet: the kernel neither clones what arrives for it,
/// nor lets an ICMP error about one peer fail the next send to another (`raw_v4_match`, `raw_bind`; FAULTS 26).
const DEAF: Ipv4Addr = Ipv4Addr::new(233, 252, 0, 1);

/// linux/in.h: the largest packet is what the device takes, and no ICMP error changes that. Every raw socket of the protocol
/// hears ICMP errors, and would otherwise have the kernel believe any forged one about a path for ten minutes (FAULTS 25).
const IP_PMTUDISC_INTERFACE: libc::c_int = 4;

/// The receive side of one worker.
#[derive(Debug)]
pub struct RawReceiver {
    fd: OwnedFd,
}

/// The send side of one worker, or of control.
#[derive(Debug)]
pub struct RawSender {
    fd: OwnedFd,
}

/// A handle by which control changes a receiver's filter and reads its losses while the worker receives.
#[derive(Debug)]
pub struct ReceiverHandle {
    fd: OwnedFd,
    shard: Shard,
}

impl RawReceiver {
    /// A socket that keeps nothing until its filter is attached.
    ///
    /// # Errors
    /// [`SetupError::Socket`].
    pub fn open() -> Result<Self, SetupError> {
        let fd = open_socket()?;
        attach(fd.as_fd(), &steer::keep_nothing()).map_err(|source| socket("filter", source))?;
        set_buffer(fd.as_fd(), libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER)
            .map_err(|source| socket("buffer", source))?;
        Ok(Self { fd })
    }

    /// Takes over a socket that [`RawReceiver::open`] has made, perhaps in another process.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A second handle to the same socket for control.
    ///
    /// # Errors
    /// [`SetupError::Socket`] when no descriptor is left.
    pub fn handle(&self, shard: Shard) -> Result<ReceiverHandle, SetupError> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|source| socket("duplicate", source))?;
        Ok(ReceiverHandle { fd, shard })
    }
}

impl From<RawReceiver> for OwnedFd {
    fn from(receiver: RawReceiver) -> Self {
        receiver.fd
    }
}

impl From<RawSender> for OwnedFd {
    fn from(sender: RawSender) -> Self {
        sender.fd
    }
}

impl AsFd for RawReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for RawSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ReceiverHandle {
    /// Keeps this shard's share of what arrives for `locators`; replaces the previous filter in one step.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach_filter(&self, locators: &[Locator]) -> io::Result<()> {
        attach(self.fd.as_fd(), &steer::receive_filter(&self.shard, locators))
    }

    /// Keeps nothing: before the workers stop, so that nothing waits in a socket nobody reads.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&self) -> io::Result<()> {
        attach(self.fd.as_fd(), &steer::keep_nothing())
    }

    /// Packets the kernel dropped because the socket's buffer was full.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kernel_drops(&self) -> io::Result<u64> {
        /// linux/sock_diag.h: index of the drop count within SO_MEMINFO.
        const SK_MEMINFO_DROPS: usize = 8;
        const SO_MEMINFO: libc::c_int = 55;
        let mut info = [0u32; SK_MEMINFO_DROPS + 1];
        let mut len = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `len` bytes into `info`, which lives through the call.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(u64::from(info[SK_MEMINFO_DROPS]))
        }
    }
}

impl RawSender {
    /// A worker's socket: whole IPv4 packets are written to it, and it hears of nothing but the kernel's own refusals.
    ///
    /// # Errors
    /// [`SetupError::Socket`].
    pub fn open() -> Result<Self, SetupError> {
        let sender = Self::open_hearing()?;
        let name = socket_address(DEAF);
        let name_len = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or_default();
        // SAFETY: the address lives through the call, and its length is passed along.
        let bound = unsafe { libc::bind(sender.fd.as_raw_fd(), (&raw const name).cast(), name_len) };
        if bound < 0 {
            return Err(socket("bind", io::Error::last_os_error()));
        }
        Ok(sender)
    }

    /// Control's socket: its error queue also yields the ICMPv4 errors about what the workers sent, and has room for a storm
    /// of them.
    ///
    /// # Errors
    /// [`SetupError::Socket`].
    pub fn open_hearing() -> Result<Self, SetupError> {
        let fd = open_socket()?;
        attach(fd.as_fd(), &steer::keep_nothing()).map_err(|source| socket("filter", source))?;
        for (forced, plain, size) in [
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER),
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER),
        ] {
            set_buffer(fd.as_fd(), forced, plain, size).map_err(|source| socket("buffer", source))?;
        }
        for (name, action) in [
            (libc::IP_HDRINCL, "write headers to"),
            (libc::IP_RECVERR, "read errors of"),
        ] {
            set_int(fd.as_fd(), libc::IPPROTO_IP, name, 1).map_err(|source| socket(action, source))?;
        }
        Ok(Self::from_fd(fd))
    }

    /// Takes over a socket that [`RawSender::open`] or [`RawSender::open_hearing`] has made, perhaps in another process.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        message::ask_about_protocol(fd.as_fd());
        Self { fd }
    }

    /// Sends one whole IPv4 packet between these addresses; for control, which sends a handful a minute.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, packet: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> io::Result<()> {
        message::send(self.fd.as_fd(), packet, to, &mut Origin::new(from))
    }

    /// A second handle to the same socket, for control to read its error queue.
    ///
    /// # Errors
    /// [`SetupError::Socket`] when no descriptor is left.
    pub fn error_handle(&self) -> Result<OwnedFd, SetupError> {
        self.fd.try_clone().map_err(|source| socket("duplicate", source))
    }
}

/// Whether IPv4 rules and IPsec policies for protocol 41 hold for what workers send: from Linux 6.4. False until a sender has been opened.
pub fn obeys_policies_for_protocol() -> bool {
    message::names_protocol()
}

fn open_socket() -> Result<OwnedFd, SetupError> {
    // SAFETY: a plain call that returns a descriptor or an error.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(PROTO_IPV6),
        )
    };
    if fd < 0 {
        return Err(socket("open", io::Error::last_os_error()));
    }
    // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_int(
        fd.as_fd(),
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        IP_PMTUDISC_INTERFACE,
    )
    .map_err(|source| socket("take path MTU discovery from", source))?;
    Ok(fd)
}

fn attach(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: the kernel copies `len` instructions, which live through the call, and does not write to them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The forced option needs CAP_NET_ADMIN; without it the system's limit applies, and is enough to run.
fn set_buffer(
    fd: BorrowedFd<'_>,
    forced: libc::c_int,
    plain: libc::c_int,
    size: libc::c_int,
) -> io::Result<()> {
    set_int(fd, libc::SOL_SOCKET, forced, size).or_else(|_| set_int(fd, libc::SOL_SOCKET, plain, size))
}

pub(super) fn set_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one `int` that lives through the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn socket(action: &'static str, source: io::Error) -> SetupError {
    SetupError::Socket { action, source }
}
