//! The TUN interface: one multi-queue device with vnet header and offloads, one descriptor per worker.
//!
//! The offloads make the kernel hand over 64 KiB superpackets, and accept merged ones (DESIGN D3, D4).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;

use super::errors::SetupError;
use super::steer;
use crate::wire::vnet;

const TUN_DEVICE: &str = "/dev/net/tun";

/// linux/if_tun.h: offloads the reader of the TUN accepts.
const TUN_F_CSUM: u64 = 0x01;
const TUN_F_TSO6: u64 = 0x04;
const TUN_F_TSO_ECN: u64 = 0x08;
const TUN_F_USO4: u64 = 0x20;
const TUN_F_USO6: u64 = 0x40;

mod ioctl {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, libc::ifreq);
    nix::ioctl_write_ptr_bad!(tun_set_vnet_hdr_sz, 0x4004_54d8, libc::c_int);
    nix::ioctl_write_ptr_bad!(tun_set_steering_ebpf, 0x8004_54e0, libc::c_int);
    // TUNSETOFFLOAD takes its argument by value.
    nix::ioctl_write_int_bad!(tun_set_offload, 0x4004_54d0);
}

/// The device and its queues, before they are dealt out to workers.
#[derive(Debug)]
pub struct Tun {
    /// The name the kernel gave it.
    pub name: String,
    /// Its interface index.
    pub if_index: u32,
    /// One descriptor per worker; the device disappears when the last is closed.
    pub queues: Vec<OwnedFd>,
    /// UDP superpackets are exchanged too (Linux 6.2).
    pub udp_offload: bool,
    /// Flows are pinned to queues by our own steering program; without it the kernel learns where a flow belongs, and
    /// may reorder one packet when it learns.
    pub steered: bool,
}

impl Tun {
    /// Creates interface `name` with `queues` queues.
    ///
    /// # Errors
    /// [`SetupError`] when the name is taken or unusable, `/dev/net/tun` cannot be opened, or the kernel lacks a feature.
    pub fn create(name: &str, queues: usize) -> Result<Self, SetupError> {
        if nix::net::if_::if_nametoindex(name).is_ok() {
            return Err(SetupError::InterfaceTaken { name: name.into() });
        }
        let mut opened = Vec::with_capacity(queues);
        for _ in 0..queues {
            opened.push(open_queue(name)?);
        }
        let first = opened
            .first()
            .ok_or_else(|| SetupError::InterfaceName { name: name.into() })?;
        let udp_offload = set_offloads(first, name)?;
        let steered = steer_queues(first, queues);
        let if_index =
            nix::net::if_::if_nametoindex(name).map_err(|errno| kernel(name, "find the index of", errno))?;
        Ok(Self {
            name: name.into(),
            if_index,
            queues: opened.into_iter().map(OwnedFd::from).collect(),
            udp_offload,
            steered,
        })
    }
}

/// Creates interface `name` with one queue, without vnet header and offloads: one packet per read and write, as programs
/// used it before there were offloads. For loops the engine is compared with.
///
/// # Errors
/// As [`Tun::create`].
pub fn create_plain(name: &str) -> Result<OwnedFd, SetupError> {
    attach_queue(name, libc::IFF_TUN | libc::IFF_NO_PI).map(OwnedFd::from)
}

fn open_queue(name: &str) -> Result<File, SetupError> {
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let file = attach_queue(name, flags)?;
    let header_len = libc::c_int::try_from(vnet::LEN).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open, and the kernel reads one `int`.
    unsafe { ioctl::tun_set_vnet_hdr_sz(file.as_raw_fd(), &raw const header_len) }
        .map_err(|errno| kernel(name, "set the vnet header size of", errno))?;
    Ok(file)
}

/// A descriptor of interface `name`, which is created if it does not exist.
fn attach_queue(name: &str, flags: libc::c_int) -> Result<File, SetupError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(TUN_DEVICE)
        .map_err(|source| SetupError::TunDevice { source })?;
    let request = interface_request(name, flags)?;
    // SAFETY: the descriptor is open, and `request` is a whole `ifreq` that outlives the call.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw const request) }.map_err(|errno| match errno {
        Errno::EBUSY => SetupError::InterfaceTaken { name: name.into() },
        errno => kernel(name, "create", errno),
    })?;
    Ok(file)
}

fn interface_request(name: &str, flags: libc::c_int) -> Result<libc::ifreq, SetupError> {
    let refused = || SetupError::InterfaceName { name: name.into() };
    let text = CString::new(name).map_err(|_| refused())?;
    let bytes = text.as_bytes_with_nul();
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if bytes.len() < 2 || bytes.len() > request.ifr_name.len() || name.contains(['%', '/', ':']) {
        return Err(refused());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| refused())?;
    Ok(request)
}

/// Asks for checksum and TCP offload, and for UDP where the kernel has it; says whether it has.
fn set_offloads(queue: &File, name: &str) -> Result<bool, SetupError> {
    let tcp = TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let set = |bits: u64| {
        let bits = libc::c_int::try_from(bits).unwrap_or(0);
        // SAFETY: the descriptor is open; the argument is a plain number.
        unsafe { ioctl::tun_set_offload(queue.as_raw_fd(), bits) }
    };
    if set(tcp | TUN_F_USO4 | TUN_F_USO6).is_ok() {
        return Ok(true);
    }
    set(tcp)
        .map(|_| false)
        .map_err(|errno| kernel(name, "set the offloads of", errno))
}

/// Without permission to load a program the kernel's own choice of queue remains: slower to settle, never wrong.
fn steer_queues(queue: &File, queues: usize) -> bool {
    if queues < 2 {
        return true;
    }
    let Ok(program) = steer::load_tun_steering() else {
        return false;
    };
    let fd = program.as_raw_fd();
    // SAFETY: both descriptors are open, and the kernel reads one `int`; it keeps its own reference to the program.
    unsafe { ioctl::tun_set_steering_ebpf(queue.as_raw_fd(), &raw const fd) }.is_ok()
}

fn kernel(name: &str, action: &'static str, errno: Errno) -> SetupError {
    SetupError::Interface {
        name: name.into(),
        action,
        source: io::Error::from(errno),
    }
}
