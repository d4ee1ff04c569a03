//! Receives and the bell: packets into buffers, ends, errors, pools that are empty.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use nix::libc;

use super::stray::Past;
use super::{BUFFER, Kernel, MORE};
use crate::io::testing::{Odds, Trap, faults};

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
        match self.common.trap {
            Some(Trap::FailingReceive) => {
                self.common.sprung = true;
                self.end(at, -libc::ENOMEM, 0);
                return true;
            }
            Some(Trap::EmptyReceive) => {
                self.common.sprung = true;
                self.end(at, 0, 0);
                return true;
            }
            Some(Trap::ReadGone) if at == 0 => {
                self.common.sprung = true;
                let errno = faults::gone(&mut self.common.dice);
                self.end(at, -errno, 0);
                return true;
            }
            _ => {}
        }
        if self.common.dice.roll(self.common.faults.errno) {
            // Some paths of the kernel give the buffer back with the error.
            let flags = match self.common.dice.roll(Odds::MAX / 8) {
                true => self
                    .take_buffer(group)
                    .map_or(0, |(_, _, id)| BUFFER | u32::from(id) << 16),
                false => 0,
            };
            let errno = faults::errno(&mut self.common.dice);
            self.end(at, -errno, flags);
            return true;
        }
        let Some((addr, len, id)) = self.take_buffer(group) else {
            self.end(at, -libc::ENOBUFS, 0);
            return true;
        };
        // SAFETY: the entry lends `len` bytes at `addr` to the kernel until the completion.
        let buffer = unsafe { std::slice::from_raw_parts_mut(addr, len) };
        let result = i32::try_from(self.common.bring(at, buffer)).unwrap_or(i32::MAX);
        let flags = BUFFER | u32::from(id) << 16;
        if self.common.dice.roll(self.common.faults.ends) {
            self.end(at, result, flags);
        } else {
            self.post(user_data, result, flags | MORE);
        }
        self.remember(Past::Packet);
        true
    }

    /// The next buffer of a group: address, length, number.
    pub(super) fn take_buffer(&mut self, group: usize) -> Option<(*mut u8, usize, u16)> {
        self.groups[group].as_mut()?.take()
    }

    pub(super) fn ring_bell(&mut self) {
        let Some(user_data) = self.bell else { return };
        if self.common.trap == Some(Trap::DeafBell) {
            self.common.sprung = true;
            self.bell = None;
            return self.post(user_data, -libc::EINVAL, 0);
        }
        if self.common.dice.roll(self.common.faults.errno / 8) {
            self.bell = None;
            let errno = faults::errno(&mut self.common.dice);
            return self.post(user_data, -errno, 0);
        }
        let more = if self.common.dice.roll(self.common.faults.ends) {
            0
        } else {
            MORE
        };
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
