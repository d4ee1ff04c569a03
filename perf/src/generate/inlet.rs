//! Where packets are counted: a UDP socket behind the tunnel, or a raw socket that sees outer packets.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use isatap_tests::packet::UDP;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use super::ledger::Ledger;
use super::outlet::STAMP_AT;
use super::stamp::{Stamp, now_ns};

/// Packets taken by one call.
const RECEIVE_BATCH: usize = 64;
/// Any packet of ours fits.
const BUFFER_LEN: usize = 2048;
/// Latencies between these are kept with three digits.
const LATENCY_NS: (u64, u64) = (100, 60_000_000_000);

/// A way in.
#[derive(Debug)]
pub(crate) enum Inlet {
    /// Data of packets that the tunnel delivered.
    Udp(UdpSocket),
    /// Outer packets as they come from the IPv4 network, for the inner destination port.
    Outer(Socket, u16),
}

/// What the sender sees of the receiver, and says to it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Distinct packets so far.
    pub(crate) arrived: AtomicU64,
    /// Latencies of packets sent since are recorded; 0: not yet.
    pub(crate) record_from_ns: AtomicU64,
    pub(crate) done: AtomicBool,
}

/// What arrived.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) ledger: Ledger,
    /// From sending to receiving, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// The longest time without an arrival, in nanoseconds.
    pub(crate) longest_gap_ns: u64,
    /// Receive calls that returned packets: as many as packets where the counter fell asleep after each.
    pub(crate) calls: u64,
}

/// A histogram for latencies in nanoseconds.
pub(crate) fn latency_histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(LATENCY_NS.0, LATENCY_NS.1, 3)?)
}

impl Inlet {
    fn fd(&self) -> RawFd {
        match self {
            Self::Udp(socket) => socket.as_raw_fd(),
            Self::Outer(socket, _) => socket.as_raw_fd(),
        }
    }

    fn stamp(&self, packet: &[u8]) -> Option<Stamp> {
        match self {
            Self::Udp(_) => Stamp::read(packet),
            Self::Outer(_, port) => {
                let ours = *packet.get(20 + 6)? == UDP
                    && packet.get(STAMP_AT - 6..STAMP_AT - 4)? == port.to_be_bytes().as_slice();
                ours.then(|| Stamp::read(&packet[STAMP_AT..]))?
            }
        }
    }

    /// Counts until it is told that it is done. The socket has a read timeout, so that it hears that.
    pub(crate) fn count(&self, run: u16, flows: usize, shared: &Shared) -> Result<Arrivals> {
        let mut arrivals = Arrivals {
            ledger: Ledger::new(flows),
            latency: latency_histogram()?,
            longest_gap_ns: 0,
            calls: 0,
        };
        let mut last_ns = None;
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(RECEIVE_BATCH, None);
        let mut buffers = vec![vec![0u8; BUFFER_LEN]; RECEIVE_BATCH];
        let mut lens = [0; RECEIVE_BATCH];
        while !shared.done.load(Ordering::Relaxed) {
            let count = match receive(self.fd(), &mut headers, &mut buffers, &mut lens) {
                Ok(count) => count,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("receive"),
            };
            arrivals.calls += 1;
            let now = now_ns();
            let from = shared.record_from_ns.load(Ordering::Relaxed);
            let mut fresh = 0;
            for (buffer, len) in buffers.iter().zip(&lens[..count]) {
                let Some(stamp) = self.stamp(&buffer[..*len]).filter(|stamp| stamp.run == run) else {
                    continue;
                };
                if !arrivals.ledger.observe(stamp.flow, stamp.sequence) {
                    continue;
                }
                fresh += 1;
                if from != 0 && stamp.sent_ns >= from {
                    arrivals
                        .latency
                        .saturating_record(now.saturating_sub(stamp.sent_ns));
                }
            }
            if fresh > 0 {
                let gap = now.saturating_sub(last_ns.replace(now).unwrap_or(now));
                arrivals.longest_gap_ns = arrivals.longest_gap_ns.max(gap);
            }
            shared.arrived.fetch_add(fresh, Ordering::Relaxed);
        }
        Ok(arrivals)
    }
}

fn receive(
    fd: RawFd,
    headers: &mut MultiHeaders<SockaddrStorage>,
    buffers: &mut [Vec<u8>],
    lens: &mut [usize],
) -> nix::Result<usize> {
    let mut slices: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| [IoSliceMut::new(buffer)])
        .collect();
    let timeout = None::<TimeSpec>;
    let messages = recvmmsg(fd, headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, timeout)?;
    let mut count = 0;
    for (len, message) in lens.iter_mut().zip(messages) {
        *len = message.bytes;
        count += 1;
    }
    Ok(count)
}
