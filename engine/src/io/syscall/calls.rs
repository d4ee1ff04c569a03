//! The system calls of the lane, and nothing else of the kernel: what tests put a kernel of their own in the place of
//! (FAULTS 29, 33, 39).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::io::raw::{RawReceiver, RawSender};
use crate::io::wake::Bell;

/// What can be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The TUN queue has packets, or an error.
    pub tun: bool,
    /// The receive socket has.
    pub raw: bool,
    /// The send socket has room.
    pub room: bool,
    /// The bell rings.
    pub bell: bool,
}

/// What the lane asks of the kernel. None of it blocks but [`Calls::wait`].
pub trait Calls {
    /// Waits until something watched is ready, for `patience` at most (for ever if `None`).
    ///
    /// # Errors
    /// What the kernel says.
    fn wait(&mut self, patience: Option<Duration>) -> Result<Ready, Errno>;

    /// Watches the TUN queue, or does not.
    ///
    /// # Errors
    /// What the kernel says.
    fn watch_tun(&mut self, watch: bool) -> io::Result<()>;

    /// Watches for room in the send socket, or does not.
    ///
    /// # Errors
    /// What the kernel says.
    fn watch_room(&mut self, watch: bool) -> io::Result<()>;

    /// Watches the receive socket no more.
    fn forget_receiver(&mut self);

    /// Reads one packet of the TUN queue; its length.
    ///
    /// # Errors
    /// What the kernel says, `EAGAIN` when there is none.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno>;

    /// Writes one packet to the TUN queue; how many bytes were taken.
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Safety
    /// The parts point to memory that can be read through the call.
    unsafe fn write(&mut self, parts: &[libc::iovec]) -> Result<usize, Errno>;

    /// Receives packets of the raw socket; how many.
    ///
    /// # Errors
    /// What the kernel says, `EAGAIN` when there is none.
    ///
    /// # Safety
    /// The messages point to parts, and those to memory that nobody else uses, through the call.
    unsafe fn receive(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno>;

    /// Sends datagrams; how many of the first ones were taken.
    ///
    /// # Errors
    /// What the kernel says of the first, `EAGAIN` when the socket is full.
    ///
    /// # Safety
    /// The messages point to names and parts, and those to memory that can be read through the call.
    unsafe fn send(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno>;
}

const TOKEN_TUN: u64 = 0;
const TOKEN_RAW: u64 = 1;
const TOKEN_SEND: u64 = 2;
const TOKEN_BELL: u64 = 3;

/// The kernel's.
#[derive(Debug)]
pub struct KernelCalls {
    epoll: Epoll,
    tun: OwnedFd,
    receiver: RawReceiver,
    sender: RawSender,
}

impl KernelCalls {
    /// Watches everything there is to read.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(tun: OwnedFd, receiver: RawReceiver, sender: RawSender, bell: &Bell) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&tun, FcntlArg::F_GETFL)?) | OFlag::O_NONBLOCK;
        fcntl(&tun, FcntlArg::F_SETFL(flags))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&tun, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_TUN))?;
        epoll.add(&receiver, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_RAW))?;
        epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_BELL))?;
        Ok(Self {
            epoll,
            tun,
            receiver,
            sender,
        })
    }
}

impl Calls for KernelCalls {
    fn wait(&mut self, patience: Option<Duration>) -> Result<Ready, Errno> {
        let mut events = [EpollEvent::empty(); 4];
        let timeout = match patience {
            None => EpollTimeout::NONE,
            Some(patience) => EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::MAX),
        };
        let count = self.epoll.wait(&mut events, timeout)?;
        let mut ready = Ready::default();
        for event in &events[..count] {
            match event.data() {
                TOKEN_TUN => ready.tun = true,
                TOKEN_RAW => ready.raw = true,
                TOKEN_SEND => ready.room = true,
                _ => ready.bell = true,
            }
        }
        Ok(ready)
    }

    fn watch_tun(&mut self, watch: bool) -> io::Result<()> {
        let flags = if watch {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::empty()
        };
        let mut event = EpollEvent::new(flags, TOKEN_TUN);
        Ok(self.epoll.modify(&self.tun, &mut event)?)
    }

    fn watch_room(&mut self, watch: bool) -> io::Result<()> {
        if watch {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, TOKEN_SEND);
            Ok(self.epoll.add(&self.sender, event)?)
        } else {
            Ok(self.epoll.delete(&self.sender)?)
        }
    }

    fn forget_receiver(&mut self) {
        let _ = self.epoll.delete(&self.receiver);
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        nix::unistd::read(&self.tun, into)
    }

    unsafe fn write(&mut self, parts: &[libc::iovec]) -> Result<usize, Errno> {
        let count = libc::c_int::try_from(parts.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the caller vouches for what the parts point to.
        let taken = unsafe { libc::writev(self.tun.as_raw_fd(), parts.as_ptr(), count) };
        usize::try_from(taken).map_err(|_| Errno::last())
    }

    unsafe fn receive(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
        let count = u32::try_from(messages.len()).unwrap_or_default();
        // SAFETY: the caller vouches for what the messages point to; no names or ancillary data are asked for.
        let received = unsafe {
            libc::recvmmsg(
                self.receiver.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| Errno::last())
    }

    unsafe fn send(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
        let count = u32::try_from(messages.len()).unwrap_or_default();
        // SAFETY: the caller vouches for what the messages point to.
        let sent = unsafe {
            libc::sendmmsg(
                self.sender.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| Errno::last())
    }
}
