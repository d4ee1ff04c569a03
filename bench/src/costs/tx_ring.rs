//! A transmit ring of a packet socket (packet(7), PACKET_TX_RING): packets are copied to shared memory, one call sends all
//! that is marked.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

use super::burst::{BURST, ethernet_header, ip_headers};
use super::link::Neighbour;
use super::send::set_option;
use super::{counted, last};

/// Bytes of one frame of the ring.
const FRAME_LEN: usize = 2048;
/// Frames in the ring.
const FRAMES: usize = 4 * BURST;
/// Where the packet begins in a frame: behind `tpacket2_hdr`, aligned (linux/if_packet.h, TPACKET2_HDRLEN less the
/// address).
const DATA_AT: usize = 32;

/// The ring, and the packet that is put into it.
#[derive(Debug)]
pub struct TxRing {
    socket: OwnedFd,
    base: NonNull<u8>,
    next: usize,
    packet: Vec<u8>,
}

impl TxRing {
    /// Sets the ring up for packets of `inner_len` bytes inside IPv4.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(socket: OwnedFd, neighbour: &Neighbour, inner_len: usize) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        set_option(socket.as_fd(), libc::PACKET_VERSION, &version)?;
        let number = |value: usize| u32::try_from(value).map_err(io::Error::other);
        let request = libc::tpacket_req {
            tp_block_size: number(FRAME_LEN * BURST)?,
            tp_block_nr: number(FRAMES / BURST)?,
            tp_frame_size: number(FRAME_LEN)?,
            tp_frame_nr: number(FRAMES)?,
        };
        set_option(socket.as_fd(), libc::PACKET_TX_RING, &request)?;
        // SAFETY: a new mapping at a place of the kernel's choice, of the length just agreed.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                FRAME_LEN * FRAMES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return last();
        }
        let mut packet = ethernet_header(neighbour);
        packet.extend(ip_headers(inner_len));
        let inner_payload = inner_len + 34 - packet.len();
        packet.extend(std::iter::repeat_n(0x5a, inner_payload));
        Ok(Self {
            socket,
            base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            next: 0,
            packet,
        })
    }

    /// Copies `count` packets into the ring and has the kernel send them.
    ///
    /// # Errors
    /// What the kernel says, or that it still holds a frame after it took the last burst.
    pub fn send(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let at = self.next % FRAMES * FRAME_LEN;
            self.next += 1;
            // SAFETY: `at` is the place of one whole frame in the mapping, aligned to it; a frame begins with its status.
            let (frame, status) = unsafe {
                let frame = self.base.add(at);
                (frame, AtomicU32::from_ptr(frame.cast::<u32>().as_ptr()))
            };
            if status.load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
                return Err(io::Error::other("the kernel still holds a frame of the ring"));
            }
            let len = u32::try_from(self.packet.len()).map_err(io::Error::other)?;
            // SAFETY: the frame is ours while its status says so, and has room for the packet: `inner_len` is below the
            // MTU. The length is the second field of `tpacket2_hdr`.
            unsafe {
                frame.cast::<u32>().add(1).write(len);
                frame
                    .add(DATA_AT)
                    .copy_from_nonoverlapping(NonNull::from(&self.packet[0]), self.packet.len());
            }
            status.store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        }
        // SAFETY: no data is passed along; the kernel reads the ring.
        counted(unsafe { libc::send(self.socket.as_raw_fd(), std::ptr::null(), 0, 0) })?;
        Ok(())
    }
}

impl Drop for TxRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and is not used any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), FRAME_LEN * FRAMES) };
    }
}
