//! The loop every tunnel daemon starts with, to compare the engine with: poll(2), one packet per system call, one TUN
//! without offloads, one raw socket.
//!
//! It carries real traffic, and no more: on-link ISATAP destinations only (RFC 5214 7.1), a source check that compares
//! the embedded address (RFC 5214 7.3), no routers, no ECN, no answers, no counters. The interface it makes gets the
//! link-local address of the locator, and one under `--prefix`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use isatap_engine::io::tun;
use isatap_engine::isatap::iid;
use isatap_engine::wire::ipv4::{Ipv4View, PROTO_IPV6};
use isatap_engine::wire::ipv6::Ipv6View;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

/// Any IPv4 packet fits.
const BUFFER_LEN: usize = 65_536;
/// Bytes a socket queues: the same as the engine asks for, so that loops are compared and not queues.
const SOCKET_BUFFER: usize = 8 << 20;
/// Packets the interface queues, as the daemon sets it.
const TX_QUEUE_LEN: u32 = 1000;

/// ISATAP with one packet per system call.
#[derive(Debug, Parser)]
struct Arguments {
    /// Name of the tunnel interface to create.
    #[arg(short, long, default_value = "is0")]
    interface: String,
    /// IPv4 address to send from and receive at.
    #[arg(short, long)]
    local: Ipv4Addr,
    /// A /64 to take an ISATAP address from, for example 2001:db8:1::/64.
    #[arg(long)]
    prefix: Option<String>,
    /// MTU of the interface.
    #[arg(long, default_value_t = 1480)]
    mtu: u16,
    /// Packets taken from one side after one poll before the other side is looked at.
    #[arg(long, default_value_t = 1)]
    burst: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tun = std::fs::File::from(tun::create_plain(&arguments.interface)?);
    let raw = open_raw(arguments.local)?;
    for fd in [tun.as_fd(), raw.as_fd()] {
        let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    set_up(&arguments)?;
    eprintln!("isatap-baseline: {} at {}", arguments.interface, arguments.local);
    carry(&tun, &raw, arguments.local, arguments.burst.max(1))
}

fn open_raw(local: Ipv4Addr) -> Result<Socket> {
    let raw = Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(Protocol::from(i32::from(PROTO_IPV6))),
    )
    .context("open a raw socket (root is needed)")?;
    raw.bind(&SocketAddrV4::new(local, 0).into())
        .with_context(|| format!("bind to {local}"))?;
    for set in [nix_buffer(&raw, false), nix_buffer(&raw, true)] {
        set.context("enlarge the socket buffers")?;
    }
    Ok(raw)
}

fn nix_buffer(raw: &Socket, send: bool) -> nix::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    if send {
        setsockopt(raw, sockopt::SndBufForce, &SOCKET_BUFFER)
    } else {
        setsockopt(raw, sockopt::RcvBufForce, &SOCKET_BUFFER)
    }
}

/// Addresses and MTU by iproute2: a loop to compare with needs no netlink code.
fn set_up(arguments: &Arguments) -> Result<()> {
    let device = &arguments.interface;
    let mut lines = format!(
        "link set {device} mtu {} txqueuelen {TX_QUEUE_LEN} addrgenmode none up\naddr add {}/64 dev {device} nodad\n",
        arguments.mtu,
        iid::link_local(arguments.local)
    );
    if let Some(prefix) = &arguments.prefix {
        let address = prefix.trim_end_matches("/64");
        let address: Ipv6Addr = address
            .parse()
            .with_context(|| format!("{prefix} is no IPv6 /64"))?;
        let address = iid::address(&address, arguments.local);
        lines.push_str(&format!("addr add {address}/64 dev {device} nodad\n"));
    }
    for line in lines.lines() {
        let done = Command::new("ip")
            .args(line.split_whitespace())
            .status()
            .context("run ip (iproute2)")?;
        ensure!(done.success(), "`ip {line}` failed");
    }
    Ok(())
}

fn carry(mut tun: &std::fs::File, mut raw: &Socket, local: Ipv4Addr, burst: usize) -> Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let mut ready = [
            PollFd::new(tun.as_fd(), PollFlags::POLLIN),
            PollFd::new(raw.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        let [outward, inward] = ready.map(|fd| fd.any().unwrap_or(false));
        for _ in 0..if outward { burst } else { 0 } {
            let Some(len) = taken(tun.read(&mut buffer)).context("read the TUN")? else {
                break;
            };
            // A packet that cannot be sent is lost, as on any link.
            if let Some(to) = next_hop(&buffer[..len]) {
                let _ = raw.send_to(&buffer[..len], &SocketAddrV4::new(to, 0).into());
            }
        }
        for _ in 0..if inward { burst } else { 0 } {
            let Some(len) = taken(raw.read(&mut buffer)).context("read the raw socket")? else {
                break;
            };
            if let Some(inner) = accepted(&buffer[..len], local) {
                let _ = tun.write(inner);
            }
        }
    }
}

/// The length of what was read; `None` when there was nothing.
fn taken(read: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match read {
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn next_hop(inner: &[u8]) -> Option<Ipv4Addr> {
    iid::embedded(&Ipv6View::new(inner).ok()?.dst())
}

fn accepted(packet: &[u8], local: Ipv4Addr) -> Option<&[u8]> {
    let outer = Ipv4View::new(packet).ok()?;
    let inner = Ipv6View::new(outer.payload()).ok()?;
    let honest = outer.dst() == local && iid::embedded(&inner.src()) == Some(outer.src());
    honest.then(|| inner.packet())
}
