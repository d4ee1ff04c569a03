//! Ways to take packets that already wait in a raw socket: by system calls, and by receives of io_uring.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;

use super::last;

/// One way to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One `recv` a packet.
    Each,
    /// One `recvmmsg` for 64.
    Many,
    /// A receive of io_uring for each packet, up to 64 in one enter, into the same buffers as the next.
    Singles,
    /// Multishot into a buffer ring of slots of 68 KiB: what the engine does.
    Multishot,
    /// The same with slots of 2 KiB.
    MultishotSmall,
    /// Multishot of bundles.
    Bundle,
    /// Multishot into buffers that are used up bit by bit. What is left of a buffer cuts the packet that meets it: the
    /// kernel does not look for a buffer that has room for a whole datagram.
    Incremental,
}

impl Way {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 7] = [
        Self::Each,
        Self::Many,
        Self::Singles,
        Self::Multishot,
        Self::MultishotSmall,
        Self::Bundle,
        Self::Incremental,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Each => "recv each",
            Self::Many => "recvmmsg",
            Self::Singles => "io_uring, a receive each",
            Self::Multishot => "io_uring, multishot, slots of 68 KiB (the uring lane)",
            Self::MultishotSmall => "io_uring, multishot, slots of 2 KiB",
            Self::Bundle => "io_uring, multishot, bundles",
            Self::Incremental => "io_uring, multishot, buffers used up bit by bit",
        }
    }

    const fn slots(self) -> (u16, usize) {
        match self {
            Self::MultishotSmall | Self::Bundle => (128, 2 << 10),
            Self::Incremental => (8, 64 << 10),
            _ => (128, 68 << 10),
        }
    }
}

/// A way made ready. Field order is drop order: the ring closes before what it writes to is freed.
#[derive(Debug)]
pub struct Receiver {
    mover: Mover,
    socket: OwnedFd,
    way: Way,
}

enum Mover {
    Calls(Vec<[u8; 2048]>),
    Ring(Box<IoUring>, Slots),
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mover")
    }
}

const BATCH: usize = 64;
const BATCH_ENTRIES: u32 = 64;
/// linux/io_uring.h, IOU_PBUF_RING_INC.
const INCREMENTAL: u16 = 2;

impl Receiver {
    /// Makes buffers and, where there is one, the ring.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(socket: OwnedFd, way: Way) -> Result<Self> {
        let mover = match way {
            Way::Each | Way::Many => Mover::Calls(vec![[0; 2048]; BATCH]),
            _ => {
                let mut builder = IoUring::builder();
                builder
                    .setup_cqsize(1024)
                    .setup_single_issuer()
                    .setup_defer_taskrun();
                let ring = Box::new(builder.build(BATCH_ENTRIES)?);
                ring.submitter().register_files(&[socket.as_raw_fd()])?;
                let (count, len) = way.slots();
                let flags = if way == Way::Incremental { INCREMENTAL } else { 0 };
                let slots = Slots::register(&ring, count, len, flags)?;
                Mover::Ring(ring, slots)
            }
        };
        Ok(Self { mover, socket, way })
    }

    /// Takes `count` packets of `packet_len` bytes; returns when they are there.
    ///
    /// # Errors
    /// When the kernel refuses, or says anything else than that such a packet is there.
    pub fn take(&mut self, count: usize, packet_len: usize) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        match &mut self.mover {
            Mover::Calls(buffers) if self.way == Way::Each => {
                for _ in 0..count {
                    let buffer = &mut buffers[0];
                    // SAFETY: the kernel writes at most the buffer's length.
                    let len = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                    whole(super::counted(len)?, packet_len)?;
                }
                Ok(())
            }
            Mover::Calls(buffers) => take_many(fd, buffers, count, packet_len),
            Mover::Ring(ring, slots) if self.way == Way::Singles => {
                take_singly(ring, slots, count, packet_len)
            }
            Mover::Ring(ring, slots) => {
                let mut taken = 0;
                let mut armed = false;
                while taken < count {
                    slots.replenish();
                    if !armed {
                        let entry = match self.way {
                            Way::Bundle => opcode::RecvMultiBundle::new(Fixed(0), 0).build(),
                            _ => opcode::RecvMulti::new(Fixed(0), 0).build(),
                        };
                        // SAFETY: the buffers it may write to outlive the ring.
                        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                        armed = true;
                    }
                    ring.submit_and_wait(1)?;
                    for entry in ring.completion() {
                        armed &= cqueue::more(entry.flags());
                        match entry.result() {
                            len if len > 0 => {
                                whole(usize::try_from(len).unwrap_or_default(), packet_len)?;
                                slots.took(&entry);
                                taken += 1;
                            }
                            errno if errno == -libc::ENOBUFS => {}
                            errno => return Err(io::Error::from_raw_os_error(-errno)),
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

fn whole(len: usize, expected: usize) -> io::Result<()> {
    if len == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{len} bytes came instead of {expected}"
        )))
    }
}

fn take_many(fd: i32, buffers: &mut [[u8; 2048]], count: usize, packet_len: usize) -> io::Result<()> {
    let mut parts: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: `mmsghdr` is plain data for which all zeroes is a valid value.
            let mut message: libc::mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut taken = 0;
    while taken < count {
        let wanted = u32::try_from(BATCH.min(count - taken)).unwrap_or_default();
        // SAFETY: the messages point to parts, and those to buffers, that live through the call.
        let got = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), wanted, 0, std::ptr::null_mut()) };
        let got = usize::try_from(got).or_else(|_| last())?;
        for message in &messages[..got] {
            whole(message.msg_len as usize, packet_len)?;
        }
        taken += got;
    }
    Ok(())
}

fn take_singly(ring: &mut IoUring, slots: &mut Slots, count: usize, packet_len: usize) -> io::Result<()> {
    let mut taken = 0;
    while taken < count {
        slots.replenish();
        let wanted = BATCH.min(count - taken);
        for _ in 0..wanted {
            // Without an address and with length 0: a buffer of the group, as long as it is.
            let entry = opcode::Recv::new(Fixed(0), std::ptr::null_mut(), 0)
                .buf_group(0)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
            // SAFETY: the buffers it may write to outlive the ring.
            unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        ring.submit_and_wait(wanted)?;
        for entry in ring.completion() {
            let len =
                usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()))?;
            whole(len, packet_len)?;
            slots.took(&entry);
            taken += 1;
        }
    }
    Ok(())
}

/// A buffer ring with its slots.
#[derive(Debug)]
struct Slots {
    entries: Mapping,
    memory: Mapping,
    slot_len: usize,
    mask: u16,
    tail: u16,
    free: Vec<u16>,
}

impl Slots {
    fn register(ring: &IoUring, count: u16, slot_len: usize, flags: u16) -> io::Result<Self> {
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * slot_len)?;
        let address = entries.base.as_ptr() as u64;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and is dropped after the ring.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, 0, flags)
        }?;
        Ok(Self {
            entries,
            memory,
            slot_len,
            mask: count - 1,
            tail: 0,
            free: (0..count).collect(),
        })
    }

    /// Lends every free slot to the kernel.
    fn replenish(&mut self) {
        let base = self.entries.base.cast::<BufRingEntry>().as_ptr();
        for id in self.free.drain(..) {
            // SAFETY: the masked tail is the number of a whole entry, which the kernel does not read before the tail
            // moves past it; and the slot lies within the memory.
            let (entry, slot) = unsafe {
                (
                    &mut *base.add(usize::from(self.tail & self.mask)),
                    self.memory.base.add(usize::from(id) * self.slot_len),
                )
            };
            entry.set_addr(slot.as_ptr() as u64);
            entry.set_len(u32::try_from(self.slot_len).unwrap_or(u32::MAX));
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the first entry's reserved field is the tail, aligned to 2 bytes, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Takes the slot of a completion back, unless the kernel goes on filling it.
    fn took(&mut self, entry: &cqueue::Entry) {
        if let Some(id) = cqueue::buffer_select(entry.flags())
            && !cqueue::buffer_more(entry.flags())
        {
            self.free.push(id);
        }
    }
}

/// Memory of its own pages.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return last();
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and is not used any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
