//! Ways to send a burst: raw and packet sockets, by system calls and by io_uring.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::Result;
use io_uring::squeue::Flags;
use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};
use nix::libc;

use super::burst::{BURST, Burst};
use super::link::{self, Link, Neighbour};
use super::tx_ring::TxRing;
use super::{counted, last};

/// One way to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Raw socket, one `sendmsg` a packet.
    RawEach,
    /// Raw socket, one `sendmmsg` a burst.
    RawMany,
    /// The same on a connected socket.
    RawConnected,
    /// Raw socket, one enter a burst, every send linked to the next: what the engine does.
    RawRing,
    /// The same without links.
    RawRingUnlinked,
    /// The same, the ring polled by a kernel thread.
    RawRingPolled,
    /// The same, without a copy.
    RawRingZeroCopy,
    /// Packet socket, one `sendmsg` a packet.
    PacketEach,
    /// Packet socket, one `sendmmsg` a burst.
    PacketMany,
    /// The same past the queue discipline.
    PacketManyBypass,
    /// Packet socket, one enter a burst, linked.
    PacketRing,
    /// The same past the queue discipline.
    PacketRingBypass,
    /// Packet socket with a transmit ring.
    PacketTxRing,
    /// The same past the queue discipline.
    PacketTxRingBypass,
}

impl Way {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 14] = [
        Self::RawEach,
        Self::RawMany,
        Self::RawConnected,
        Self::RawRing,
        Self::RawRingUnlinked,
        Self::RawRingPolled,
        Self::RawRingZeroCopy,
        Self::PacketEach,
        Self::PacketMany,
        Self::PacketManyBypass,
        Self::PacketRing,
        Self::PacketRingBypass,
        Self::PacketTxRing,
        Self::PacketTxRingBypass,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawEach => "raw, sendmsg each",
            Self::RawMany => "raw, sendmmsg",
            Self::RawConnected => "raw, connected, sendmmsg",
            Self::RawRing => "raw, io_uring, linked (the uring lane)",
            Self::RawRingUnlinked => "raw, io_uring, not linked",
            Self::RawRingPolled => "raw, io_uring, SQPOLL",
            Self::RawRingZeroCopy => "raw, io_uring, SENDMSG_ZC",
            Self::PacketEach => "packet, sendmsg each",
            Self::PacketMany => "packet, sendmmsg",
            Self::PacketManyBypass => "packet, sendmmsg, qdisc bypass",
            Self::PacketRing => "packet, io_uring, linked",
            Self::PacketRingBypass => "packet, io_uring, linked, qdisc bypass",
            Self::PacketTxRing => "packet, TX_RING",
            Self::PacketTxRingBypass => "packet, TX_RING, qdisc bypass",
        }
    }

    const fn is_packet(self) -> bool {
        matches!(
            self,
            Self::PacketEach
                | Self::PacketMany
                | Self::PacketManyBypass
                | Self::PacketRing
                | Self::PacketRingBypass
                | Self::PacketTxRing
                | Self::PacketTxRingBypass
        )
    }

    const fn bypasses(self) -> bool {
        matches!(
            self,
            Self::PacketManyBypass | Self::PacketRingBypass | Self::PacketTxRingBypass
        )
    }
}

/// Submission entries: one burst.
const ENTRIES: u32 = 64;
const _: () = assert!(ENTRIES as usize == BURST);

/// A way made ready for packets of one size. Field order is drop order: the ring closes before what it reads is freed.
#[derive(Debug)]
pub struct Sender {
    mover: Mover,
    socket: OwnedFd,
    burst: Burst,
}

enum Mover {
    Each,
    Many,
    Ring {
        ring: Box<IoUring>,
        linked: bool,
        zero_copy: bool,
    },
    TxRing(TxRing),
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mover")
    }
}

impl Sender {
    /// Opens the socket and, where there is one, the ring.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(link: &Link, way: Way, inner_len: usize) -> Result<Self> {
        let socket = match way {
            Way::RawConnected => link::connected_sender(link)?,
            way if way.is_packet() => link
                .left
                .enter(|| packet_socket(&link.neighbour, way.bypasses()))?,
            _ => link::sender(link)?,
        };
        let ethernet = way.is_packet().then_some(&link.neighbour);
        let burst = Burst::new(inner_len, ethernet, !way.is_packet() && way != Way::RawConnected);
        let ring = |linked, zero_copy, polled| -> io::Result<Mover> {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(4 * ENTRIES);
            if polled {
                builder.setup_sqpoll(1000);
            } else {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            let ring = Box::new(builder.build(ENTRIES)?);
            ring.submitter().register_files(&[socket.as_raw_fd()])?;
            Ok(Mover::Ring {
                ring,
                linked,
                zero_copy,
            })
        };
        let mover = match way {
            Way::RawEach | Way::PacketEach => Mover::Each,
            Way::RawMany | Way::RawConnected | Way::PacketMany | Way::PacketManyBypass => Mover::Many,
            Way::RawRing | Way::PacketRing | Way::PacketRingBypass => ring(true, false, false)?,
            Way::RawRingUnlinked => ring(false, false, false)?,
            Way::RawRingPolled => ring(true, false, true)?,
            Way::RawRingZeroCopy => ring(true, true, false)?,
            Way::PacketTxRing | Way::PacketTxRingBypass => {
                Mover::TxRing(TxRing::new(socket.try_clone()?, &link.neighbour, inner_len)?)
            }
        };
        Ok(Self { mover, socket, burst })
    }

    /// Sends one burst; returns when the kernel has taken all of it.
    ///
    /// # Errors
    /// When it refuses a packet.
    pub fn send(&mut self) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        let messages = self.burst.messages();
        match &mut self.mover {
            Mover::Each => {
                for message in messages {
                    // SAFETY: the message points to parts and a name that live as long as the burst.
                    counted(unsafe { libc::sendmsg(fd, &raw const message.msg_hdr, 0) })?;
                }
                Ok(())
            }
            Mover::Many => {
                let mut sent = 0;
                while sent < BURST {
                    let rest = &mut messages[sent..];
                    let count = u32::try_from(rest.len()).unwrap_or_default();
                    // SAFETY: `count` messages begin at `rest`, and what they point to lives as long as the burst.
                    let taken = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), count, 0) };
                    sent += usize::try_from(taken).or_else(|_| last())?;
                }
                Ok(())
            }
            Mover::Ring {
                ring,
                linked,
                zero_copy,
            } => submit(ring, messages, *linked, *zero_copy),
            Mover::TxRing(ring) => ring.send(BURST),
        }
    }
}

fn submit(ring: &mut IoUring, messages: &[libc::mmsghdr], linked: bool, zero_copy: bool) -> io::Result<()> {
    for (index, message) in messages.iter().enumerate() {
        let header = &raw const message.msg_hdr;
        let mut entry = if zero_copy {
            opcode::SendMsgZc::new(Fixed(0), header).build()
        } else {
            opcode::SendMsg::new(Fixed(0), header).build()
        };
        if linked && index + 1 < messages.len() {
            entry = entry.flags(Flags::IO_LINK);
        }
        // SAFETY: the message, and what it points to, lives longer than the ring.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    }
    let mut awaited = messages.len();
    while awaited > 0 {
        ring.submit_and_wait(awaited)?;
        for entry in ring.completion() {
            // How many completions a refused send without a copy has depends on the refusal; a refusal ends the way.
            if entry.result() < 0 {
                return Err(io::Error::from_raw_os_error(-entry.result()));
            }
            // A send without a copy completes twice.
            if !io_uring::cqueue::more(entry.flags()) {
                awaited -= 1;
            }
        }
    }
    Ok(())
}

/// A packet socket bound to the near interface that receives nothing.
///
/// # Errors
/// What the kernel says.
pub fn packet_socket(neighbour: &Neighbour, bypass: bool) -> io::Result<OwnedFd> {
    // SAFETY: a plain call that returns a descriptor or an error.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return last();
    }
    // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `sockaddr_ll` is plain data for which all zeroes is a valid value.
    let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    name.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
    name.sll_ifindex = neighbour.if_index;
    let len = libc::socklen_t::try_from(size_of_val(&name)).unwrap_or_default();
    // SAFETY: the address lives through the call, and its length is passed along.
    if unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), len) } < 0 {
        return last();
    }
    nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::SndBufForce, &(8 << 20))?;
    if bypass {
        set_option(fd.as_fd(), libc::PACKET_QDISC_BYPASS, &1i32)?;
    }
    Ok(fd)
}

/// Sets an option of a packet socket that is plain data.
pub(crate) fn set_option<T: Copy>(fd: BorrowedFd<'_>, option: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the kernel reads `len` bytes of a value that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const *value).cast(),
            len,
        )
    };
    if set < 0 { last() } else { Ok(()) }
}
