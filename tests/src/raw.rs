//! Crafted bytes onto an interface, and what passes there: packet sockets inside a namespace.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isatap_engine::wire::vnet::{self, VnetHeader};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, recvfrom, send,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::{libc, setsockopt_impl, sockopt_impl};

use crate::netns::Netns;
use crate::packet::{Inner, Outer, PROTO_IPV6, SeenInner, SeenOuter};
use crate::topology::mac;

/// Packet type of a frame this host sends (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERNET_LEN: usize = 14;
/// Larger than any superpacket.
const LARGEST: usize = 128 * 1024;
/// Room for what arrives while the capture thread does not run.
const SNIFFER_BUFFER: usize = 64 << 20;

sockopt_impl!(
    /// Whether what is sent begins with a vnet header.
    PacketVnetHdr,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool
);

/// A socket that puts whole packets on one interface.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Past every rule of the kernel's own stack, with this Ethernet header in front.
    Ethernet(Vec<u8>),
    /// As if a program of this host had sent it; the kernel routes by this address and leaves the packet alone.
    Tun(SockaddrIn6),
}

impl Injector {
    /// Sends on `device`, always to the given Ethernet address.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn ethernet(ns: &Netns, device: &str, to: [u8; 6]) -> Self {
        let mut link_header = vec![0; ETHERNET_LEN];
        link_header[..6].copy_from_slice(&to);
        link_header[6..12].copy_from_slice(&mac(ns, device));
        link_header[12..].copy_from_slice(&ETHERTYPE_IPV4);
        let socket = ns.enter(|| {
            let link = getifaddrs().expect("getifaddrs").find_map(|entry| {
                let link = *entry.address.as_ref()?.as_link_addr()?;
                (entry.interface_name == device).then_some(link)
            });
            let link = link.unwrap_or_else(|| panic!("{} has no interface {device}", ns.name()));
            // A protocol nobody sends: nothing is ever queued for reading.
            let socket = packet_socket(SockType::Raw, SockProtocol::EthLoop);
            // The address of getifaddrs() says protocol 0, which bind(2) takes as "as the socket was opened".
            bind(socket.as_raw_fd(), &link).expect("bind a packet socket");
            socket
        });
        Self {
            socket,
            way: Way::Ethernet(link_header),
        }
    }

    /// From now on what is sent has the tag of a VLAN (IEEE 802.1Q) with this number.
    ///
    /// # Panics
    /// When this sends out of a TUN device.
    pub fn tagged(mut self, vlan: u16) -> Self {
        let Way::Ethernet(before) = &mut self.way else {
            panic!("a TUN device has no link header");
        };
        let at = before.len() - ETHERTYPE_IPV4.len();
        before.splice(at..at, [ETHERTYPE_VLAN, vlan.to_be_bytes()].concat());
        self
    }

    /// From now on nothing but the Ethernet header of what is sent lies in one piece with the packet, where a packet is larger than a page.
    ///
    /// # Panics
    /// When this sends out of a TUN device, or the kernel refuses it.
    pub fn in_pieces(mut self) -> Self {
        let Way::Ethernet(before) = &mut self.way else {
            panic!("a TUN device is sent whole packets");
        };
        setsockopt(&self.socket, PacketVnetHdr, &true).expect("PACKET_VNET_HDR");
        let mut header = [0; vnet::LEN];
        let all_that_is_linear = VnetHeader {
            hdr_len: u16::try_from(ETHERNET_LEN).expect("a short header"),
            ..VnetHeader::NONE
        };
        all_that_is_linear.emit(&mut header);
        before.splice(0..0, header);
        self
    }

    /// From now on frames are of this type (RFC 894: 0x0800 is IPv4), and what is sent is what they carry.
    ///
    /// # Panics
    /// When this sends out of a TUN device.
    pub fn of_type(mut self, ethertype: u16) -> Self {
        let Way::Ethernet(before) = &mut self.way else {
            panic!("a TUN device has no frames");
        };
        before[12..ETHERNET_LEN].copy_from_slice(&ethertype.to_be_bytes());
        self
    }

    /// Sends IPv6 packets of any content out of a TUN device; its reader gets them unchanged. The device must have
    /// a link-local address.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn tun(ns: &Netns, device: &str) -> Self {
        ns.enter(|| {
            let index =
                if_nametoindex(device).unwrap_or_else(|e| panic!("{} has no {device}: {e}", ns.name()));
            let raw = Some(socket2::Protocol::from(libc::IPPROTO_RAW));
            let socket =
                socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, raw).expect("a raw socket");
            socket.set_header_included_v6(true).expect("IPV6_HDRINCL");
            socket
                .bind_device(Some(device.as_bytes()))
                .expect("SO_BINDTODEVICE");
            let towards = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
            Self {
                socket: socket.into(),
                way: Way::Tun(towards.into()),
            }
        })
    }

    /// Puts one packet on the interface.
    ///
    /// # Panics
    /// When the interface does not take it.
    #[track_caller]
    pub fn send(&self, packet: &[u8]) {
        self.try_send(packet)
            .unwrap_or_else(|e| panic!("sending a crafted packet of {} bytes: {e}", packet.len()));
    }

    /// Puts one packet on the interface, or tells why not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_send(&self, packet: &[u8]) -> Result<(), Errno> {
        let fd = self.socket.as_raw_fd();
        loop {
            let sent = match &self.way {
                Way::Ethernet(header) => send(fd, &[header.as_slice(), packet].concat(), MsgFlags::empty()),
                Way::Tun(towards) => sendto(fd, packet, towards, MsgFlags::empty()),
            };
            match sent {
                Err(Errno::EINTR | Errno::ENOBUFS) => std::thread::yield_now(),
                Err(e) => return Err(e),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// A site member without a daemon: sends crafted packets to one other member and swallows protocol 41 silently.
#[derive(Debug)]
pub struct Crafter {
    /// Its own IPv4 address, the default outer source.
    pub v4: Ipv4Addr,
    target: Ipv4Addr,
    injector: Injector,
    /// Held open so that the kernel does not answer protocol 41 with "protocol unreachable".
    _sink: OwnedFd,
}

impl Crafter {
    /// In `ns`, which has `v4` on `device`; towards `target`, which is the owner of the Ethernet address `to`.
    pub fn new(ns: &Netns, device: &str, v4: Ipv4Addr, to: [u8; 6], target: Ipv4Addr) -> Self {
        let sink = ns.enter(|| {
            let raw = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::RAW,
                Some(socket2::Protocol::from(i32::from(PROTO_IPV6))),
            );
            let raw = raw.expect("a raw socket");
            // A full buffer would not do: the kernel asks a socket with one no more, and answers after all.
            // `ret 0`: keep no byte of anything.
            let refuse = socket2::SockFilter::new(0x06, 0, 0, 0);
            raw.attach_filter(&[refuse]).expect("a filter");
            OwnedFd::from(raw)
        });
        Self {
            v4,
            target,
            injector: Injector::ethernet(ns, device, to),
            _sink: sink,
        }
    }

    /// The outer header this member would use.
    pub fn outer(&self) -> Outer {
        Outer::new(self.v4, self.target)
    }

    /// Sends an inner packet with a correct outer header.
    #[track_caller]
    pub fn send_inner(&self, inner: &[u8]) {
        self.injector.send(&self.outer().wrap(inner));
    }

    /// Sends a whole outer packet.
    #[track_caller]
    pub fn send(&self, packet: &[u8]) {
        self.injector.send(packet);
    }

    /// An inner header from this member's address under `prefix` to `dst`.
    pub fn inner(&self, prefix: &str, dst: Ipv6Addr) -> Inner {
        Inner::new(crate::packet::isatap(prefix, false, self.v4), dst)
    }
}

/// A packet that passed an interface.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Whether this host sent it out of the interface (else it came in).
    pub outgoing: bool,
    /// The network-layer packet, without a link header. Large before segmentation and after merging.
    pub packet: Vec<u8>,
    /// When the capture thread read it.
    pub at: Instant,
}

impl Captured {
    /// Reads it as an outer packet.
    pub fn outer(&self) -> Option<SeenOuter<'_>> {
        SeenOuter::read(&self.packet)
    }

    /// Reads it as an inner packet, as on a TUN interface.
    pub fn inner(&self) -> Option<SeenInner<'_>> {
        SeenInner::read(&self.packet)
    }
}

#[derive(Debug, Default)]
struct Capture {
    packets: Mutex<Vec<Captured>>,
    arrived: Condvar,
    stop: AtomicBool,
}

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Vec<Captured>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Captures everything that passes an interface, both ways, on a thread of its own, until dropped.
#[derive(Debug)]
pub struct Sniffer {
    what: String,
    shared: Arc<Capture>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Starts capturing; when this returns, nothing that passes later is missed.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn start(ns: &Netns, device: &str) -> Self {
        // TUN devices have no link address, which a safe bind(2) would need: the socket listens to the whole
        // namespace, and the capture thread keeps what belongs to this interface.
        let (socket, index) = ns.enter(|| {
            let index =
                if_nametoindex(device).unwrap_or_else(|e| panic!("{} has no {device}: {e}", ns.name()));
            (
                packet_socket(SockType::Datagram, SockProtocol::EthAll),
                usize::try_from(index).expect("an index"),
            )
        });
        setsockopt(&socket, sockopt::RcvBufForce, &SNIFFER_BUFFER).expect("root may enlarge buffers");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).expect("a timeout");
        let shared = Arc::new(Capture::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || capture(&socket, index, &shared)
        });
        Self {
            what: format!("{} in {}", device, ns.name()),
            shared,
            thread: Some(thread),
        }
    }

    /// Everything seen so far.
    pub fn packets(&self) -> Vec<Captured> {
        self.shared.lock().clone()
    }

    /// Forgets what was seen so far.
    pub fn clear(&self) {
        self.shared.lock().clear();
    }

    /// How many of the packets seen so far satisfy `predicate`.
    pub fn count(&self, mut predicate: impl FnMut(&Captured) -> bool) -> usize {
        self.shared
            .lock()
            .iter()
            .filter(|packet| predicate(packet))
            .count()
    }

    /// Waits until a packet seen (before or from now on) satisfies `predicate`, and returns the first that does.
    ///
    /// # Panics
    /// After `timeout`, with a summary of what was seen instead.
    #[track_caller]
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut predicate: impl FnMut(&Captured) -> bool,
    ) -> Captured {
        let deadline = Instant::now() + timeout;
        let mut packets = self.shared.lock();
        let mut looked_at = 0;
        loop {
            if let Some(found) = packets[looked_at..].iter().find(|packet| predicate(packet)) {
                return found.clone();
            }
            looked_at = packets.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "on {}: no {what} within {timeout:?}; seen: {}",
                self.what,
                summary(&packets)
            );
            packets = self
                .shared
                .arrived
                .wait_timeout(packets, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until `count` packets satisfy `predicate`.
    ///
    /// # Panics
    /// After `timeout`, with a summary of what was seen instead.
    #[track_caller]
    pub fn wait_count(
        &self,
        what: &str,
        count: usize,
        timeout: Duration,
        mut predicate: impl FnMut(&Captured) -> bool,
    ) {
        crate::wait::until(&format!("{count} x {what} on {}", self.what), timeout, || {
            let packets = self.shared.lock();
            let seen = packets.iter().filter(|packet| predicate(packet)).count();
            if seen >= count {
                Ok(())
            } else {
                Err(format!("{seen} of {}", summary(&packets)))
            }
        });
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One short text for failures: how many packets, and the last few in a line each.
fn summary(packets: &[Captured]) -> String {
    let line = |captured: &Captured| {
        let way = if captured.outgoing { "out" } else { "in" };
        let text = if let Some(outer) = captured.outer() {
            let inner = outer
                .inner()
                .map(|i| format!("{} > {} nh {}", i.src(), i.dst(), i.header.next_header().0));
            format!(
                "{} > {} [{}]",
                outer.src(),
                outer.dst(),
                inner.unwrap_or_else(|| "not IPv6".into())
            )
        } else if let Some(inner) = captured.inner() {
            format!(
                "{} > {} nh {}",
                inner.src(),
                inner.dst(),
                inner.header.next_header().0
            )
        } else {
            format!("{:02x?}", &captured.packet[..captured.packet.len().min(24)])
        };
        format!("\n  {way} {} bytes: {text}", captured.packet.len())
    };
    let last = packets.len().saturating_sub(8);
    format!(
        "{} packets{}",
        packets.len(),
        packets[last..].iter().map(line).collect::<String>()
    )
}

fn capture(socket: &OwnedFd, index: usize, shared: &Capture) {
    let mut buffer = vec![0; LARGEST];
    while !shared.stop.load(Ordering::Relaxed) {
        let (len, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok(read) => read,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(_) => return,
        };
        let Some(from) = from.filter(|from| from.ifindex() == index) else {
            continue;
        };
        let captured = Captured {
            outgoing: from.pkttype() == OUTGOING,
            packet: buffer[..len].to_vec(),
            at: Instant::now(),
        };
        shared.lock().push(captured);
        shared.arrived.notify_all();
    }
}

fn packet_socket(kind: SockType, protocol: SockProtocol) -> OwnedFd {
    socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, protocol)
        .expect("a packet socket (needs root)")
}
