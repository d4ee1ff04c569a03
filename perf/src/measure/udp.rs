//! Small UDP packets of several flows: how many are delivered a second.
//!
//! With a window the sender is never further ahead of the receiver. Nothing is lost to congestion then, no time goes into
//! packets that never arrive, and each peer is offered what it can carry. What is missing all the same is counted.
//! Without one it is a flood: what counts is how much of it comes through.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isatap_tests::traffic::{FLOW_PORT, write_flow_header};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn6, recvmmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use super::Reading;
use crate::link::Link;
use crate::plan::Plan;

/// Packets taken by one call of the receiver, which must not be the bottleneck.
const RECEIVE_BATCH: usize = 64;
/// Without an arrival for so long, what is on the way is lost.
const STALL: Duration = Duration::from_millis(100);
/// Before packets are counted, so that neighbours are known and memory is touched.
const WARM_UP: Duration = Duration::from_millis(300);

pub(super) fn measure(plan: &Plan, link: &Link, window: u64) -> Result<Reading> {
    ensure!(
        plan.size >= 14,
        "a packet of {} bytes has no room for its number",
        plan.size
    );
    let receiver = link
        .right
        .enter(|| UdpSocket::bind((link.destination(), FLOW_PORT)))
        .context("bind the receiver")?;
    receiver.set_read_timeout(Some(Duration::from_millis(10)))?;
    setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20)).context("enlarge the receive buffer")?;
    let to = SocketAddrV6::new(link.destination(), FLOW_PORT, 0, 0);
    let sockets: Vec<UdpSocket> = link
        .left
        .enter(|| {
            (0..plan.flows)
                .map(|_| connected(link, to))
                .collect::<std::io::Result<_>>()
        })
        .context("open the flows")?;
    let (arrived, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| receive(&receiver, plan.size, &arrived, &done));
        let sent = send(plan, window, &sockets, &arrived);
        done.store(true, Ordering::Relaxed);
        let received = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        let sent = sent?;
        received?;
        ensure!(sent.delivered > 0, "nothing arrived");
        // Far below 2^52 packets.
        #[allow(clippy::cast_precision_loss)]
        Ok(Reading {
            value: sent.delivered as f64 / sent.elapsed.as_secs_f64() / 1e3,
            details: [("lost", sent.lost as f64), ("delivered", sent.delivered as f64)].into(),
        })
    })
}

fn connected(link: &Link, to: SocketAddrV6) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV6::new(link.source(), 0, 0, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

struct Sent {
    delivered: u64,
    lost: u64,
    elapsed: Duration,
}

fn send(plan: &Plan, window: u64, sockets: &[UdpSocket], arrived: &AtomicU64) -> Result<Sent> {
    let mut data = vec![0x5a; plan.size];
    let (mut sent, mut lost) = (0u64, 0u64);
    let mut sequence = 0u32;
    let mut counted_from: Option<(Instant, u64, u64)> = None;
    let began = Instant::now();
    loop {
        for (flow, socket) in (0u16..).zip(sockets) {
            write_flow_header(&mut data, flow, sequence);
            lost += wait_below(window, sent - lost, arrived);
            match socket.send(&data) {
                Ok(_) => {}
                // A queue is full: the kernel says so, and the packet is lost.
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        || error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(error).context("send"),
            }
            sent += 1;
        }
        sequence = sequence.wrapping_add(1);
        let now = Instant::now();
        match counted_from {
            None if now - began >= WARM_UP => {
                counted_from = Some((now, arrived.load(Ordering::Relaxed), lost))
            }
            Some((start, arrived_before, lost_before))
                if now - start >= Duration::from_secs(plan.seconds.into()) =>
            {
                return Ok(Sent {
                    delivered: arrived.load(Ordering::Relaxed) - arrived_before,
                    lost: lost - lost_before,
                    elapsed: now - start,
                });
            }
            _ => {}
        }
    }
}

/// Waits until fewer than `window` of the `expected` packets are missing; returns how many were given up.
fn wait_below(window: u64, expected: u64, arrived: &AtomicU64) -> u64 {
    let mut last = arrived.load(Ordering::Relaxed);
    let mut since = Instant::now();
    loop {
        let now = arrived.load(Ordering::Relaxed);
        let missing = expected.saturating_sub(now);
        if missing < window {
            return 0;
        }
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > STALL {
            return missing;
        }
        // On few CPUs the peer needs this one.
        thread::sleep(Duration::from_micros(20));
    }
}

fn receive(socket: &UdpSocket, size: usize, arrived: &AtomicU64, done: &AtomicBool) -> Result<()> {
    let mut headers = MultiHeaders::<SockaddrIn6>::preallocate(RECEIVE_BATCH, None);
    let mut buffers = vec![vec![0u8; size]; RECEIVE_BATCH];
    while !done.load(Ordering::Relaxed) {
        let mut slices: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None::<TimeSpec>,
        );
        match received {
            Ok(messages) => {
                let whole = messages.filter(|message| message.bytes == size).count() as u64;
                arrived.fetch_add(whole, Ordering::Relaxed);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("receive"),
        }
    }
    Ok(())
}
