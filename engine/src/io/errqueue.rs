//! The error queue of a send socket: ICMPv4 errors about what we sent, and the kernel's own refusals.
//!
//! The worker never reads it; control drains it, or it fills its share of memory and errors are lost (DESIGN D2).

use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// How much of the offending packet is kept: outer header with options, and an inner header.
pub const QUOTE_LEN: usize = 128;

/// Who says that a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// This kernel.
    Local,
    /// An ICMPv4 message.
    Icmp,
    /// Anything else.
    Other,
}

/// One entry of the error queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// Whose word it is.
    pub origin: ErrorOrigin,
    /// The error number a caller of `send` would see.
    pub errno: i32,
    /// ICMPv4 type and code, when the origin is ICMP.
    pub icmp: (u8, u8),
    /// Additional value: the MTU of a "fragmentation needed".
    pub info: u32,
    /// Where the offending packet was going.
    pub destination: Ipv4Addr,
    /// The beginning of the offending packet as quoted, at most [`QUOTE_LEN`] bytes.
    pub quote: Vec<u8>,
}

/// Takes the next entry; `None` when the queue is empty.
///
/// # Errors
/// What the kernel says, but for "empty".
pub fn next(fd: BorrowedFd<'_>) -> io::Result<Option<SendFailure>> {
    let mut quote = [0u8; QUOTE_LEN];
    let mut ancillary = [0u64; 32];
    // SAFETY: `sockaddr_in` and `msghdr` are plain data for which all zeroes is a valid value.
    let (mut name, mut message): (libc::sockaddr_in, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut part = libc::iovec {
        iov_base: quote.as_mut_ptr().cast(),
        iov_len: quote.len(),
    };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).map_err(io::Error::other)?;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&ancillary);
    // SAFETY: every pointer in `message` is to memory of the length given beside it that lives through the call.
    let len = unsafe {
        libc::recvmsg(
            fd.as_raw_fd(),
            &raw mut message,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(error)
        };
    };
    let extended = extended_error(&message);
    let origin = match extended.ee_origin {
        libc::SO_EE_ORIGIN_LOCAL => ErrorOrigin::Local,
        libc::SO_EE_ORIGIN_ICMP => ErrorOrigin::Icmp,
        _ => ErrorOrigin::Other,
    };
    Ok(Some(SendFailure {
        origin,
        errno: i32::try_from(extended.ee_errno).unwrap_or_default(),
        icmp: (extended.ee_type, extended.ee_code),
        info: extended.ee_info,
        destination: Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr)),
        quote: quote[..len.min(QUOTE_LEN)].to_vec(),
    }))
}

/// The `IP_RECVERR` record of a received message; all zeroes when there is none.
fn extended_error(message: &libc::msghdr) -> libc::sock_extended_err {
    // SAFETY: `message` was filled by `recvmsg`, so that its ancillary data is a well-formed list or empty.
    let mut record = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !record.is_null() {
        // SAFETY: a non-null record of a well-formed list can be read.
        let header = unsafe { record.read_unaligned() };
        if header.cmsg_level == libc::IPPROTO_IP && header.cmsg_type == libc::IP_RECVERR {
            // SAFETY: the data of an IP_RECVERR record begins with a `sock_extended_err` (ip(7)).
            return unsafe {
                libc::CMSG_DATA(record)
                    .cast::<libc::sock_extended_err>()
                    .read_unaligned()
            };
        }
        // SAFETY: `record` belongs to `message`.
        record = unsafe { libc::CMSG_NXTHDR(message, record) };
    }
    // SAFETY: plain data for which all zeroes is a valid value.
    unsafe { std::mem::zeroed() }
}
