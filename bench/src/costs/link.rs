//! Two namespaces joined by a veth pair; at the far end raw sockets as a daemon has them.
//!
//! ```text
//!   left  eth0 10.0.0.1/24 ------------ eth0 10.0.0.2/24  right
//!         the way being measured        receiving sockets
//! ```

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use isatap_engine::fib::Locator;
use isatap_engine::io::raw::RawReceiver;
use isatap_engine::io::steer::{self, Shard};
use isatap_tests::netns::Netns;
use isatap_tests::topology::{UNDERLAY, connect};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;
use socket2::Socket;

/// The near end's address.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The far end's address.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Bytes a receiving socket queues: everything one measurement of receiving sends.
const RECEIVE_BUFFER: usize = 256 << 20;

/// What packet sockets need to know of the link.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// The near interface's index.
    pub if_index: i32,
    /// The near interface's own address.
    pub own_mac: [u8; 6],
    /// The far interface's address.
    pub peer_mac: [u8; 6],
}

/// Both ends.
#[derive(Debug)]
pub struct Link {
    /// The near end.
    pub left: Netns,
    /// The far end.
    pub right: Netns,
    /// As seen from the near end.
    pub neighbour: Neighbour,
}

impl Link {
    /// Builds the link, with permanent neighbour entries so that nothing is resolved while it is measured.
    ///
    /// # Errors
    /// When `ip` prints what we do not understand.
    pub fn new() -> Result<Self> {
        let (left, right) = (Netns::new("left"), Netns::new("right"));
        connect(&left, UNDERLAY, &right, UNDERLAY);
        let [(if_index, own_mac), (_, peer_mac)] = [(&left, LEFT), (&right, RIGHT)].map(|(ns, v4)| {
            ns.ip(&format!("addr add {v4}/24 dev {UNDERLAY}"));
            interface(ns)
        });
        for (ns, v4, mac) in [(&left, RIGHT, &peer_mac), (&right, LEFT, &own_mac)] {
            ns.ip(&format!(
                "neigh add {v4} lladdr {mac} dev {UNDERLAY} nud permanent"
            ));
        }
        Ok(Self {
            neighbour: Neighbour {
                if_index,
                own_mac: bytes_of(&own_mac)?,
                peer_mac: bytes_of(&peer_mac)?,
            },
            left,
            right,
        })
    }
}

/// Index and address, as text, of a namespace's underlay.
fn interface(ns: &Netns) -> (i32, String) {
    let shown = ns.ip(&format!("-o link show dev {UNDERLAY}"));
    let index = shown
        .split(':')
        .next()
        .and_then(|index| index.trim().parse().ok());
    let mut words = shown.split_whitespace();
    let mac = words
        .find(|word| *word == "link/ether")
        .and_then(|_| words.next());
    (index.unwrap_or_default(), mac.unwrap_or_default().to_owned())
}

fn bytes_of(mac: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("`{mac}` is no address of an interface"))?;
    bytes
        .try_into()
        .ok()
        .with_context(|| format!("`{mac}` is no address of an interface"))
}

/// Who takes the packets at the far end while sending is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FarEnd {
    /// A socket whose filter keeps nothing: the sender pays for the way there and for the filter.
    Deaf,
    /// A socket that a thread on another CPU reads: the sender pays for its queue and for waking it as well.
    Reading,
}

impl FarEnd {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deaf => "filtered out",
            Self::Reading => "read by another CPU",
        }
    }
}

/// The far end at work; ends when dropped.
#[derive(Debug)]
pub struct Far {
    _deaf: Option<RawReceiver>,
    reader: Option<JoinHandle<()>>,
    done: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
}

impl Far {
    /// Opens the far end's socket, and starts its reader.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(link: &Link, end: FarEnd) -> Result<Self> {
        let (done, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (mut deaf, mut reader) = (None, None);
        match end {
            FarEnd::Deaf => deaf = Some(link.right.enter(RawReceiver::open)?),
            FarEnd::Reading => {
                let socket = receiver(link)?;
                setsockopt(
                    &socket,
                    sockopt::ReceiveTimeout,
                    &nix::sys::time::TimeVal::new(0, 10_000),
                )?;
                let (done, taken) = (done.clone(), taken.clone());
                reader = Some(std::thread::spawn(move || {
                    pin(1);
                    read_all(&socket, &done, &taken);
                }));
            }
        }
        Ok(Self {
            _deaf: deaf,
            reader,
            done,
            taken,
        })
    }

    /// Packets read so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A receiving socket of the far end, with the filter a single worker has.
///
/// # Errors
/// When the kernel refuses.
pub fn receiver(link: &Link) -> Result<OwnedFd> {
    let (socket, handle) = link.right.enter(|| -> Result<_> {
        let receiver = RawReceiver::open()?;
        let handle = receiver.handle(Shard {
            index: 0,
            count: 1,
            key: steer::random_key(),
        })?;
        Ok((receiver, handle))
    })?;
    handle.attach_filter(&[Locator {
        addr: RIGHT,
        if_index: 0,
    }])?;
    let fd = socket.as_fd().try_clone_to_owned()?;
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    Ok(fd)
}

fn read_all(socket: &OwnedFd, done: &AtomicBool, taken: &AtomicU64) {
    const BATCH: usize = 64;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffers = vec![[0u8; 2048]; BATCH];
    while !done.load(Ordering::Relaxed) {
        let mut parts: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| [io::IoSliceMut::new(buffer)])
            .collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        if let Ok(messages) = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            parts.iter_mut(),
            flags,
            None::<TimeSpec>,
        ) {
            taken.fetch_add(messages.count() as u64, Ordering::Relaxed);
        }
    }
}

/// A raw socket of the near end, as a worker sends by.
///
/// # Errors
/// When the kernel refuses.
pub fn sender(link: &Link) -> Result<OwnedFd> {
    let sender = link.left.enter(isatap_engine::io::raw::RawSender::open)?;
    Ok(sender.as_fd().try_clone_to_owned()?)
}

/// The same, connected to the far end.
///
/// # Errors
/// When the kernel refuses.
pub fn connected_sender(link: &Link) -> Result<OwnedFd> {
    let fd = sender(link)?;
    let socket = Socket::from(fd);
    socket.connect(&std::net::SocketAddrV4::new(RIGHT, 0).into())?;
    Ok(socket.into())
}

/// Keeps the calling thread on one CPU; on a machine that has no such CPU it stays free.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}
