//! What control sends itself, past the workers: packets to the IPv4 network, and packets to the kernel.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use super::errors::SetupError;
use super::outgoing::{MAX_ATTEMPTS, is_foreign};
use super::raw::RawSender;
use crate::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use crate::wire::vnet::{self, VnetHeader};

/// Control's own send socket.
#[derive(Debug)]
pub struct ControlSender {
    socket: RawSender,
}

impl ControlSender {
    /// Takes over a socket that hears.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self {
            socket: RawSender::from_fd(fd),
        }
    }

    /// Sends `inner` (a whole IPv6 packet) from locator `src` to `dst` with the given outer TOS and TTL. A send that fails for
    /// an ICMP error about a packet before it is tried again: many answers to hosts that are not there must not cost a host
    /// that is its own.
    ///
    /// # Errors
    /// What the kernel says, or `InvalidInput` when the packet is larger than IPv4 can carry.
    pub fn send(&self, src: Ipv4Addr, dst: Ipv4Addr, tos: u8, ttl: u8, inner: &[u8]) -> io::Result<()> {
        let payload_len = u16::try_from(inner.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut header = [0u8; MIN_HEADER_LEN];
        OuterHeader {
            src,
            dst,
            tos,
            ttl,
            dont_fragment: false,
            id: 0,
            payload_len,
        }
        .emit(&mut header);
        let packet = [&header[..], inner].concat();
        let mut outcome = self.socket.send(&packet, src, dst);
        for _ in 1..MAX_ATTEMPTS {
            let errno = outcome.as_ref().err().and_then(io::Error::raw_os_error);
            if !errno.is_some_and(is_foreign) {
                break;
            }
            outcome = self.socket.send(&packet, src, dst);
        }
        outcome
    }

    /// The socket's error queue: the ICMPv4 errors about everything we sent, workers included.
    ///
    /// # Errors
    /// [`SetupError::Socket`] when no descriptor is left.
    pub fn error_handle(&self) -> Result<OwnedFd, SetupError> {
        self.socket.error_handle()
    }
}

/// Control's own way into the TUN interface, beside the workers'. What is written here is in no worker's counters.
#[derive(Debug)]
pub struct ControlWriter {
    queue: OwnedFd,
}

impl ControlWriter {
    /// Uses a handle to one of the interface's queues.
    pub(crate) fn from_queue(queue: OwnedFd) -> Self {
        Self { queue }
    }

    /// Hands `inner` (a whole IPv6 packet with its checksums) to the kernel, as if it had arrived on the interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, inner: &[u8]) -> io::Result<()> {
        let mut header = [0; vnet::LEN];
        VnetHeader::NONE.emit(&mut header);
        nix::unistd::write(&self.queue, &[&header[..], inner].concat())?;
        Ok(())
    }
}
