//! The queueing discipline that holds filters at both ends of a device: whether there is one, of which kind, and its removal when it holds nothing.
//!
//! `aya` adds it and its filters; these are the requests it does not know. Messages are those of rtnetlink(7), whole and few.

use std::io;
use std::os::fd::AsRawFd;

use aya::programs::TcAttachType;
use libc::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, RTM_DELQDISC, RTM_GETQDISC,
    RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER,
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where `clsact` is, and `ingress`, its predecessor; the handle of either (linux/pkt_sched.h).
const PARENT: u32 = 0xffff_fff1;
const HANDLE: u32 = 0xffff_0000;
/// Parents of the filters of either direction: of what comes in, of what goes out.
pub(super) const BOTH_ENDS: [(TcAttachType, u32); 2] = [
    (TcAttachType::Ingress, 0xffff_fff2),
    (TcAttachType::Egress, 0xffff_fff3),
];
/// Attribute: the name of the kind.
const TCA_KIND: u16 = 1;

/// `struct nlmsghdr` and `struct tcmsg`: all there is to a request.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Message {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u32,
    device: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

const HEADER_LEN: usize = 16;
const MESSAGE_LEN: usize = size_of::<Message>();

/// The kind of what sits where `clsact` would, or `None`.
///
/// # Errors
/// What the kernel says.
pub(super) fn kind(device: u32) -> io::Result<Option<String>> {
    let mut all = kinds()?.into_iter();
    Ok(all.find(|(at, _)| *at == device).map(|(_, kind)| kind))
}

/// The devices that have something there, and its kind; in one question, however many devices there are.
///
/// # Errors
/// What the kernel says.
pub(super) fn kinds() -> io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    ask(RTM_GETQDISC, NLM_F_DUMP, 0, 0, 0, |message, attributes| {
        if (message.kind, message.parent) == (RTM_NEWQDISC, PARENT) {
            found.extend(name_of_kind(attributes).map(|kind| (message.device, kind)));
        }
    })?;
    Ok(found)
}

/// Takes it away, unless it holds a filter, whosoever.
///
/// # Errors
/// What the kernel says: no such device, for one.
pub(super) fn remove_if_empty(device: u32) -> io::Result<()> {
    for (_, parent) in BOTH_ENDS {
        if !filters(device, parent)?.is_empty() {
            return Ok(());
        }
    }
    ask(RTM_DELQDISC, NLM_F_ACK, device, HANDLE, PARENT, |_, _| {})
}

/// The filters below a parent: priority and handle.
///
/// # Errors
/// As above.
pub(super) fn filters(device: u32, parent: u32) -> io::Result<Vec<(u16, u32)>> {
    let mut found = Vec::new();
    ask(RTM_GETTFILTER, NLM_F_DUMP, device, 0, parent, |message, _| {
        if message.kind == RTM_NEWTFILTER {
            let [high, low, ..] = message.info.to_be_bytes();
            found.push((u16::from_be_bytes([high, low]), message.handle));
        }
    })?;
    Ok(found)
}

/// Sends a request and shows each part of the answer: its head, and its attributes.
fn ask(
    kind: u16,
    flags: i32,
    device: u32,
    handle: u32,
    parent: u32,
    mut answer: impl FnMut(&Message, &[u8]),
) -> io::Result<()> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkRoute);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let request = Message {
        len: u32::try_from(MESSAGE_LEN).map_err(io::Error::other)?,
        kind,
        flags: u16::try_from(NLM_F_REQUEST | flags).map_err(io::Error::other)?,
        sequence: 1,
        port: 0,
        family: 0,
        device,
        handle,
        parent,
        info: 0,
    };
    send(socket.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read(&buffer[..len], &mut answer)? {
            return Ok(());
        }
    }
}

/// Reads what one call has received; whether that was the end.
fn read(mut bytes: &[u8], answer: &mut impl FnMut(&Message, &[u8])) -> io::Result<bool> {
    while bytes.len() >= HEADER_LEN {
        let len = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([bytes[4], bytes[5]]));
        let Some(message) = bytes.get(..len).filter(|message| message.len() >= HEADER_LEN) else {
            break;
        };
        match (kind, message.get(HEADER_LEN..HEADER_LEN + 4)) {
            (NLMSG_DONE, _) => return Ok(true),
            (NLMSG_ERROR, Some(code)) => {
                let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            _ => {}
        }
        if let Ok((head, attributes)) = Message::read_from_prefix(message) {
            answer(&head, attributes);
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Whether somebody has chosen a queueing discipline for what goes out by a device: those that the kernel chooses have no handle.
///
/// # Errors
/// What the kernel says.
pub(super) fn is_chosen(device: u32) -> io::Result<bool> {
    let mut found = false;
    ask(RTM_GETQDISC, NLM_F_DUMP, 0, 0, 0, |message, _| {
        let is_for_output = message.kind == RTM_NEWQDISC && message.parent != PARENT;
        found |= is_for_output && message.device == device && message.handle != 0;
    })?;
    Ok(found)
}

fn name_of_kind(mut attributes: &[u8]) -> Option<String> {
    while let Some(&[len, len_high, kind, kind_high]) = attributes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([len, len_high]));
        if u16::from_ne_bytes([kind, kind_high]) == TCA_KIND {
            let name = attributes.get(4..len)?.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
    None
}
