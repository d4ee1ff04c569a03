//! Receives and the bell: packets into buffers, ends, errors, pools that are empty.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use nix::libc;

use super::super::dice::Odds;
use super::super::faults::{self, Trap};
use super::super::world;
use super::stray::Past;
use super::{BUFFER, Kernel, MORE};

/// A buffer ring as the kernel sees it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) entries: NonNull<BufRingEntry>,
    pub(super) mask: u16,
    pub(super) head: u16,
}

/// A receive under way.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) user_data: u64,
    pub(super) group: u16,
}

impl Kernel {
    /// Brings a packet for a receive, or what comes instead; false when none is armed.
    pub(super) fn receive(&mut self, at: usize) -> bool {
        let Some(armed) = &self.receives[at] else {
            return false;
        };
        let (user_data, group) = (armed.user_data, usize::from(armed.group));
        match self.trap {
            Some(Trap::FailingReceive) => {
                self.sprung = true;
                self.end(at, -libc::ENOMEM, 0);
                return true;
            }
            Some(Trap::EmptyReceive) => {
                self.sprung = true;
                self.end(at, 0, 0);
                return true;
            }
            Some(Trap::ReadGone) if at == 0 => {
                self.sprung = true;
                let errno = faults::gone(&mut self.dice);
                self.end(at, -errno, 0);
                return true;
            }
            _ => {}
        }
        if self.dice.roll(self.faults.errno) {
            // Some paths of the kernel give the buffer back with the error.
            let flags = match self.dice.roll(Odds::MAX / 8) {
                true => self
                    .take_buffer(group)
                    .map_or(0, |(_, _, id)| BUFFER | u32::from(id) << 16),
                false => 0,
            };
            let errno = faults::errno(&mut self.dice);
            self.end(at, -errno, flags);
            return true;
        }
        let Some((addr, len, id)) = self.take_buffer(group) else {
            self.end(at, -libc::ENOBUFS, 0);
            return true;
        };
        let packet = self.packet(at, len);
        // SAFETY: the entry lends `len` bytes at `addr` to the kernel until the completion.
        let buffer = unsafe { std::slice::from_raw_parts_mut(addr, packet.1) };
        if packet.2 {
            world::fill_super(packet.0, buffer);
        } else {
            world::fill(packet.0, buffer);
        }
        let result = i32::try_from(packet.1).unwrap_or(i32::MAX);
        let flags = BUFFER | u32::from(id) << 16;
        if self.dice.roll(self.faults.ends) {
            self.end(at, result, flags);
        } else {
            self.post(user_data, result, flags | MORE);
        }
        self.remember(Past::Packet);
        true
    }

    /// The next packet: its serial, its length, and whether it is a superpacket.
    pub(super) fn packet(&mut self, at: usize, room: usize) -> (u32, usize, bool) {
        let serial = self.brought[at];
        self.brought[at] += 1;
        let is_super = at == 0 && self.dice.roll(4000);
        let len = if is_super {
            let most = if self.dice.roll(2000) { 200 } else { 12 };
            world::HEADERS + usize::from(world::GSO_SIZE) * (1 + self.dice.below(most)) + 8
        } else if self.dice.roll(200) {
            8 * (1 + self.dice.below(8000))
        } else {
            8 * (1 + self.dice.below(30))
        };
        (serial, len.min(room & !7), is_super)
    }

    /// The next buffer of a group: address, length, number.
    pub(super) fn take_buffer(&mut self, group: usize) -> Option<(*mut u8, usize, u16)> {
        self.groups[group].as_mut()?.take()
    }

    pub(super) fn ring_bell(&mut self) {
        let Some(user_data) = self.bell else { return };
        if self.trap == Some(Trap::DeafBell) {
            self.sprung = true;
            self.bell = None;
            return self.post(user_data, -libc::EINVAL, 0);
        }
        if self.dice.roll(self.faults.errno / 8) {
            self.bell = None;
            let errno = faults::errno(&mut self.dice);
            return self.post(user_data, -errno, 0);
        }
        let more = if self.dice.roll(self.faults.ends) { 0 } else { MORE };
        if more == 0 {
            self.bell = None;
        }
        self.post(user_data, i32::from(libc::POLLIN), more);
    }
}

impl Group {
    pub(super) fn tail(&self) -> u16 {
        // SAFETY: the tail lies in the first entry of a ring that outlives its kernel, aligned to 2 bytes.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.load(Ordering::Acquire)
    }

    pub(super) fn take(&mut self) -> Option<(*mut u8, usize, u16)> {
        if self.head == self.tail() {
            return None;
        }
        // SAFETY: entries below the tail are whole, and the lane does not write to them again before they are used.
        let entry = unsafe { &*self.entries.as_ptr().add(usize::from(self.head & self.mask)) };
        self.head = self.head.wrapping_add(1);
        Some((entry.addr() as *mut u8, entry.len() as usize, entry.bid()))
    }
}
