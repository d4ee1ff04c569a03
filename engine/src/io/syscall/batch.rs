//! What one `recvmmsg` fills: messages, their parts, and a slot for each.

use std::mem::zeroed;
use std::rc::Rc;

use nix::errno::Errno;
use nix::libc;

use super::calls::Calls;
use crate::buf::{HEAD_ROOM, Packet, Pool, Slot};
use crate::io::lane::Inbox;

/// The structures of one `recvmmsg`, with the slots it fills.
pub(super) struct ReceiveBatch {
    messages: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveBatch")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// How many outer packets one `recvmmsg` takes.
const RECEIVE_BATCH: usize = 32;

impl ReceiveBatch {
    pub(super) fn new() -> Self {
        // SAFETY: `mmsghdr` and `iovec` are plain data for which all zeroes is a valid value.
        let (message, part): (libc::mmsghdr, libc::iovec) = unsafe { (zeroed(), zeroed()) };
        Self {
            messages: vec![message; RECEIVE_BATCH],
            parts: vec![part; RECEIVE_BATCH],
            slots: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// Slots that wait for the next call.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.slots.len()
    }

    /// Takes slots for the next call; slots left over from the last one are used first.
    pub(super) fn load(&mut self, pool: &Rc<Pool>, room: usize) -> usize {
        let wanted = room.min(RECEIVE_BATCH);
        while self.slots.len() < wanted {
            let Some(slot) = pool.take() else { break };
            self.slots.push(slot);
        }
        self.slots.len().min(wanted)
    }

    /// Slots left over from the last call go back to the pool.
    pub(super) fn unload(&mut self) {
        self.slots.clear();
    }

    pub(super) fn receive(&mut self, calls: &mut impl Calls, inbox: &mut Inbox) -> Result<usize, Errno> {
        for ((message, part), slot) in self.messages.iter_mut().zip(&mut self.parts).zip(&mut self.slots) {
            let bytes = &mut slot.bytes_mut()[HEAD_ROOM..];
            *part = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let wanted = self.slots.len();
        // SAFETY: the first `wanted` messages point to parts, and those into slots, that we own through the call.
        let received = unsafe { calls.receive(&mut self.messages[..wanted]) }?;
        for (slot, message) in self.slots.drain(..received).zip(&self.messages) {
            inbox.raw.push(Packet::received(slot, message.msg_len as usize));
        }
        Ok(received)
    }
}
