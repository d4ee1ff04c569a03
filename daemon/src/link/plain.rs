//! Netlink without a runtime: sockets that wait for the kernel within limits, questions to any netlink family, and the
//! messages of a datagram.

use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{
    Emitable, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkHeader, NlasIterator, parse_i32,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// How long the kernel may take to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The kernel puts no more into a datagram of a dump, in bytes (netlink_recvmsg of net/netlink/af_netlink.c).
const MAX_DATAGRAM_LEN: usize = 32 << 10;
/// Most that is read of one answer, in bytes: 10 000 chains of netfilter are a fifth of it.
const MAX_ANSWER_LEN: usize = 4 << 20;
/// Most word of one thing taken at once; more than the kernel keeps.
const MAX_NOTICES: usize = 4096;
/// How often a question is asked again when things changed while the kernel answered.
const MAX_ATTEMPTS: usize = 3;

/// A socket of this netlink family that gives up waiting for an answer after `limit`.
///
/// # Errors
/// When the kernel gives no socket: EPROTONOSUPPORT where it does not have the family.
pub fn open(family: isize, limit: Duration) -> io::Result<Socket> {
    let mut socket = Socket::new(family)?;
    socket.bind_auto()?;
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::new(seconds, limit.subsec_micros().into()),
    )?;
    Ok(socket)
}

/// The netlink message of this type and these flags around `payload`.
pub fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let header_len = header.buffer_len();
    let len = header_len + payload.len();
    header.length = u32::try_from(len).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = flags;
    let mut bytes = vec![0; len];
    header.emit(&mut bytes[..header_len]);
    bytes[header_len..].copy_from_slice(payload);
    bytes
}

/// A netlink attribute around `value`, with its padding.
pub fn encode_attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The messages of a datagram, each whole. What follows one that is cut off, or says a length that cannot be, is not read.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let header = NetlinkBuffer::new_checked(datagram).ok()?;
        let len = usize::try_from(header.length()).ok()?;
        let message = datagram.get(..len)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Asks the kernel, and shows `search` each part of the answer, by type and payload, until it finds something. A question
/// that is no dump must ask for an acknowledgement, which ends the answer.
///
/// Each question has a socket of its own: what is left unread of an answer goes with it.
///
/// # Errors
/// What the kernel says; what `search` says; an answer that is too long, or does not come; things that change all the time.
pub fn find<T>(
    family: isize,
    question: &[u8],
    mut search: impl FnMut(u16, &[u8]) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    for _ in 0..MAX_ATTEMPTS {
        let socket = open(family, ANSWER_LIMIT)?;
        socket.send(question, 0)?;
        let mut answer = Answer::default();
        match answer.read(&socket, &mut search)? {
            None if answer.interrupted => {}
            found => return Ok(found),
        }
    }
    Err(io::Error::other("it changes while it is read"))
}

/// How far an answer has been read.
#[derive(Debug, Default)]
struct Answer {
    /// The kernel says that it is not consistent.
    interrupted: bool,
    /// Nothing follows.
    ended: bool,
}

impl Answer {
    fn read<T>(
        &mut self,
        socket: &Socket,
        search: &mut impl FnMut(u16, &[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let mut buffer = Vec::with_capacity(MAX_DATAGRAM_LEN);
        let mut total = 0;
        while total < MAX_ANSWER_LEN {
            buffer.clear();
            let len = match socket.recv(&mut buffer, libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            if len != buffer.len() {
                return Err(nonsense("it is cut off"));
            }
            if let Some(found) = self.take(&buffer, search)? {
                return Ok(Some(found));
            }
            if self.ended {
                return Ok(None);
            }
            // An empty datagram counts as well, so that this ends.
            total += len.max(1);
        }
        Err(nonsense("it is too long"))
    }

    /// Takes one datagram of the answer.
    fn take<T>(
        &mut self,
        datagram: &[u8],
        search: &mut impl FnMut(u16, &[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        for message in messages(datagram) {
            let message = NetlinkBuffer::new(message);
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_NOOP => {}
                NLMSG_OVERRUN => return Err(nonsense("some of it is lost")),
                NLMSG_DONE | NLMSG_ERROR => {
                    self.ended = true;
                    return match outcome(message.payload())? {
                        0 => Ok(None),
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    };
                }
                kind => {
                    if let Some(found) = search(kind, message.payload())? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// The errno at the beginning of an error or of the end of a dump, 0 for none.
fn outcome(payload: &[u8]) -> io::Result<i32> {
    match payload.get(..4) {
        Some(code) => parse_i32(code)
            .ok()
            .and_then(i32::checked_neg)
            .ok_or_else(|| nonsense("its end cannot be read")),
        // A kernel may end a dump without one.
        None if payload.is_empty() => Ok(0),
        None => Err(nonsense("its end cannot be read")),
    }
}

/// The value of the first attribute of this type.
///
/// # Errors
/// These are no attributes.
pub fn attribute(attributes: &[u8], kind: u16) -> io::Result<Option<&[u8]>> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|error| nonsense(&error.to_string()))?;
        if attribute.kind() == kind {
            return Ok(attribute.into_inner().get(4..usize::from(attribute.length())));
        }
    }
    Ok(None)
}

/// An answer that is none.
pub fn nonsense(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the kernel's answer is not as expected: {why}"),
    )
}

/// Word that the kernel has of something, whatever it is: whoever has heard of it asks.
#[derive(Debug)]
pub struct Word {
    socket: Socket,
}

impl Word {
    /// Of what `groups` of routing netlink tell, as bits (`RTMGRP_`).
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn of(groups: i32) -> io::Result<Self> {
        Self::of_family(NETLINK_ROUTE, groups.cast_unsigned())
    }

    /// Of what `groups` of a netlink family tell, as bits: group 1 is the lowest.
    ///
    /// # Errors
    /// When the kernel gives no socket: EPROTONOSUPPORT where it does not have the family.
    pub fn of_family(family: isize, groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(family)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Whether there is any, or some was lost; takes all there is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn came(&self) -> io::Result<bool> {
        for taken in 0..MAX_NOTICES {
            // What it says does not matter, and is cut off.
            match self.socket.recv(&mut [0u8; 16].as_mut_slice(), 0) {
                Ok(_) => {}
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOBUFS)
                        || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken > 0),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl AsFd for Word {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
    use rtnetlink::sys::protocols::NETLINK_ROUTE;

    const DATA: u16 = 0x50;

    /// What a datagram means to somebody who looks for a payload that begins with 7.
    fn taken(datagram: &[u8]) -> (io::Result<Option<usize>>, Answer) {
        let mut answer = Answer::default();
        let mut seen = 0;
        let found = answer.take(datagram, &mut |kind, payload| {
            assert_eq!(kind, DATA);
            seen += 1;
            Ok((payload.first() == Some(&7)).then_some(seen))
        });
        (found, answer)
    }

    fn errno(found: io::Result<Option<usize>>) -> Option<i32> {
        found.unwrap_err().raw_os_error()
    }

    #[test]
    fn messages_are_taken_one_by_one() {
        // Padded to 4 bytes, except for the last.
        let mut datagram = message(DATA, 0, &[1, 2, 3, 0]);
        datagram[0] -= 1;
        datagram.extend(message(DATA, 0, &[7]));
        let lens: Vec<_> = messages(&datagram).map(<[u8]>::len).collect();
        assert_eq!(lens, [19, 17]);
        let (found, answer) = taken(&datagram);
        assert_eq!(found.unwrap(), Some(2));
        assert!(!answer.ended && !answer.interrupted);
    }

    #[test]
    fn an_end_is_an_end_and_an_error_an_error() {
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let (found, answer) = taken(&message(kind, 0, &0i32.to_ne_bytes()));
            assert!(answer.ended && found.unwrap().is_none());
            let refusal = message(kind, 0, &(-libc::EPERM).to_ne_bytes());
            assert_eq!(errno(taken(&refusal).0), Some(libc::EPERM));
            for payload in [&[0, 0][..], &i32::MIN.to_ne_bytes()] {
                let error = taken(&message(kind, 0, payload)).0.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            }
        }
        let (found, answer) = taken(&message(NLMSG_DONE, NLM_F_DUMP_INTR, &[]));
        assert!(answer.ended && answer.interrupted && found.unwrap().is_none());
        let mut more = message(NLMSG_NOOP, 0, &[]);
        more.extend(message(DATA, NLM_F_DUMP_INTR, &[]));
        let (found, answer) = taken(&more);
        assert!(!answer.ended && answer.interrupted && found.unwrap().is_none());
        assert!(taken(&message(NLMSG_OVERRUN, 0, &[])).0.is_err());
    }

    #[test]
    fn the_kernel_is_asked() {
        let question = |kind| message(kind, NLM_F_REQUEST | NLM_F_DUMP, &[0; 16]);
        let links = find(NETLINK_ROUTE, &question(libc::RTM_GETLINK), |kind, payload| {
            Ok((kind == libc::RTM_NEWLINK).then_some(payload.len()))
        });
        assert!(links.unwrap() > Some(16), "the loopback interface is one");
        let nothing: Option<()> = find(NETLINK_ROUTE, &question(libc::RTM_GETLINK), |_, _| Ok(None)).unwrap();
        assert_eq!(nothing, None);
        let unknown = find(NETLINK_ROUTE, &question(u16::MAX), |_, _| Ok(Some(())));
        assert_eq!(unknown.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        // No kernel has as many families.
        let none = find(31, &question(DATA), |_, _| Ok(Some(())));
        assert_eq!(none.unwrap_err().raw_os_error(), Some(libc::EPROTONOSUPPORT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole: usize = messages(&datagram).map(<[u8]>::len).sum();
            prop_assert!(whole <= datagram.len());
            let _ = Answer::default().take::<()>(&datagram, &mut |_, _| Ok(None));
        }

        #[test]
        fn any_header_is_read_to_an_end(len in 0u32..80, kind in 0u16..6, rest in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut datagram = message(kind, 0, &rest);
            datagram[..4].copy_from_slice(&len.to_ne_bytes());
            let _ = Answer::default().take::<()>(&datagram, &mut |_, _| Ok(None));
        }
    }
}
