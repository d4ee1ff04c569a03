//! A socket between two of our processes: whole messages, and descriptors along with them (unix(7), SCM_RIGHTS).
//!
//! What a message means is its owner's business. A message that does not fit, or brings more descriptors than may be,
//! is an error, never a part of itself; descriptors that came with it are closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SockType as SocketType;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, getsockopt,
    recvmsg, sendmsg, socketpair,
};

/// Most descriptors in one message.
pub const MAX_DESCRIPTORS: usize = 8;

/// Most descriptors the kernel passes in one message (SCM_MAX_FD): with room for all of them none is left open unseen.
const KERNEL_LIMIT: usize = 253;

/// One end. It never blocks by itself; [`MessageSocket::wait`] does.
#[derive(Debug)]
pub struct MessageSocket {
    fd: OwnedFd,
}

/// A message as it came.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the buffer it takes.
    pub len: usize,
    /// What came along, in the sender's order; closed on exec.
    pub descriptors: Vec<OwnedFd>,
}

impl MessageSocket {
    /// Two ends that lead to each other.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self { fd: one }, Self { fd: other }))
    }

    /// Takes over an end that was inherited.
    ///
    /// # Errors
    /// `InvalidInput` when it is no such socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        match getsockopt(&fd, SocketType) {
            Ok(SockType::SeqPacket) => Ok(Self { fd }),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// A second handle to the same end.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
        })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `WouldBlock` when the other end is slower; what the kernel says when it is gone.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let along: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &[IoSlice::new(bytes)], along, flags, None) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(|_| ()).map_err(io::Error::from),
            }
        }
    }

    /// Takes the next message; `None` when the other end is gone and nothing is left.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `InvalidData` for one that does not fit, which is lost.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut space = nix::cmsg_space!([RawFd; KERNEL_LIMIT]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(buffer)];
        let message = loop {
            match recvmsg::<UnixAddr>(self.fd.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for along in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = along {
                descriptors.extend(raw.into_iter().map(|fd| {
                    // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows it.
                    unsafe { OwnedFd::from_raw_fd(fd) }
                }));
            }
        }
        let cut = message
            .flags
            .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        if cut || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let len = message.bytes;
        // No message of ours is empty: this is the end.
        Ok((len > 0).then_some(Received { len, descriptors }))
    }

    /// Waits until a message, or the end, can be received; says whether it can before `limit` has passed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        self.ready(PollFlags::POLLIN, limit)
    }

    /// Waits until a message can be sent, or the other end is gone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_for_room(&self, limit: Duration) -> io::Result<bool> {
        self.ready(PollFlags::POLLOUT, limit)
    }

    /// Waits until the other end is gone, whatever lies unread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_for_end(&self) -> io::Result<()> {
        let mut sockets = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        loop {
            match poll(&mut sockets, PollTimeout::NONE) {
                Err(Errno::EINTR) | Ok(0) => {}
                waited => return waited.map(|_| ()).map_err(io::Error::from),
            }
        }
    }

    fn ready(&self, events: PollFlags, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut sockets = [PollFd::new(self.fd.as_fd(), events)];
            match poll(&mut sockets, timeout) {
                Err(Errno::EINTR) => {}
                Ok(0) if !left.is_zero() => {}
                waited => return Ok(waited? > 0),
            }
        }
    }
}

impl AsFd for MessageSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<MessageSocket> for OwnedFd {
    fn from(socket: MessageSocket) -> Self {
        socket.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    #[test]
    fn messages_stay_whole_and_bring_descriptors() {
        let (one, other) = MessageSocket::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        one.send(b"first", &[writer.as_fd(), reader.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        drop(writer);
        assert!(other.wait(Duration::ZERO).unwrap());
        let mut buffer = [0; 16];
        let first = other.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (&buffer[..first.len], first.descriptors.len()),
            (&b"first"[..], 2)
        );
        let mut passed = File::from(first.descriptors.into_iter().next().unwrap());
        passed.write_all(b"x").unwrap();
        drop(passed);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(
            text, "x",
            "the descriptor is the pipe's, and no other is left open"
        );
        let second = other.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..second.len], b"second");
        let nothing = other.receive(&mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        one.send(b"left behind", &[]).unwrap();
        drop(one);
        assert!(
            other.receive(&mut buffer).unwrap().is_some(),
            "what was said still counts"
        );
        assert!(other.receive(&mut buffer).unwrap().is_none());
        other.wait_for_end().unwrap();
        assert!(other.send(b"nobody", &[]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_the_next_one_is_whole() {
        let (one, other) = MessageSocket::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        one.send(&[1; 32], &[]).unwrap();
        one.send(&[2; 4], &[null.as_fd(); MAX_DESCRIPTORS + 4]).unwrap();
        one.send(&[3; 4], &[]).unwrap();
        let mut buffer = [0; 16];
        for _ in 0..2 {
            let error = other.receive(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let last = other.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..last.len], [3; 4]);
    }

    #[test]
    fn other_descriptors_are_refused() {
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(MessageSocket::from_fd(stream.into()).is_err());
        assert!(MessageSocket::from_fd(File::open("/dev/null").unwrap().into()).is_err());
        let (one, _other) = MessageSocket::pair().unwrap();
        assert!(MessageSocket::from_fd(one.into()).is_ok());
    }
}
