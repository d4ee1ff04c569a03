//! A packet: a window into a slot that grows to the front and shrinks from either end without moving a byte.

use super::pool::{HEAD_ROOM, Slot};

/// The bytes `start..end` of a slot. Offsets are checked on every change; a window never leaves its slot.
#[derive(Debug)]
pub struct Packet {
    slot: Slot,
    start: usize,
    end: usize,
}

impl Packet {
    /// What the kernel wrote: `len` bytes after the head room. Longer than the slot is cut to the slot.
    pub fn received(slot: Slot, len: usize) -> Self {
        let end = (HEAD_ROOM + len).min(slot.bytes().len());
        Self {
            slot,
            start: HEAD_ROOM,
            end,
        }
    }

    /// The bytes of the window.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.slot.bytes()[self.start..self.end]
    }

    /// The bytes of the window.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.end;
        &mut self.slot.bytes_mut()[range]
    }

    /// Length of the window in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the window is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Removes up to `count` bytes at the front.
    #[inline]
    pub fn strip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Adds up to `count` bytes at the front, to be written by the caller; fewer when the slot starts there.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> &mut [u8] {
        let old = self.start;
        self.start = old.saturating_sub(count);
        let range = self.start..old;
        &mut self.slot.bytes_mut()[range]
    }

    /// Cuts the window to `len` bytes: what follows is never sent anywhere.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Moves the end so that the window is `len` bytes long, at most to the end of the slot; for packets built in
    /// place. The bytes are what the slot held before: the caller writes every one.
    pub fn resize(&mut self, len: usize) {
        self.end = (self.start + len).min(self.slot.bytes().len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Pool;

    #[test]
    fn prepend_and_strip_move_the_window_only() {
        let pool = Pool::new(1, 256).unwrap();
        let mut packet = Packet::received(pool.take().unwrap(), 20);
        packet.bytes_mut().copy_from_slice(b"vvvvvvvvvvpayload-10");
        packet.strip(10);
        assert_eq!(packet.bytes(), b"payload-10");
        packet.prepend(20).copy_from_slice(b"iiiiiiiiiiiiiiiiiiii");
        assert_eq!(packet.bytes(), b"iiiiiiiiiiiiiiiiiiiipayload-10");
        packet.truncate(22);
        assert_eq!(packet.bytes(), b"iiiiiiiiiiiiiiiiiiiipa");
    }

    #[test]
    fn a_window_never_leaves_its_slot() {
        let pool = Pool::new(1, 64).unwrap();
        let mut packet = Packet::received(pool.take().unwrap(), 1000);
        assert_eq!(packet.len(), 64 - HEAD_ROOM);
        assert_eq!(packet.prepend(1000).len(), HEAD_ROOM);
        packet.strip(1000);
        assert!(packet.is_empty());
        packet.resize(1000);
        assert_eq!(packet.len(), 0);
    }
}
