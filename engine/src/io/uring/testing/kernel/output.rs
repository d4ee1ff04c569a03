//! Sends and writes: carried out, refused, cut short, answered at once or late.

use nix::libc;

use super::super::faults::{self, Trap};
use super::Kernel;
use super::stray::Past;
use crate::io::ring::Completion;

#[derive(Debug)]
pub(super) struct Send {
    pub(super) message: *const libc::msghdr,
    pub(super) user_data: u64,
}

#[derive(Debug)]
pub(super) struct Write {
    pub(super) parts: Vec<(*const u8, usize)>,
    pub(super) bytes: Vec<u8>,
    pub(super) completion: Completion,
}

impl Kernel {
    /// Writes at once, and answers some time.
    pub(super) fn write(&mut self, parts: Vec<(*const u8, usize)>, user_data: u64) {
        let slices: Vec<&[u8]> = parts
            .iter()
            // SAFETY: the lane keeps the parts until the write is answered.
            .map(|(base, len)| unsafe { std::slice::from_raw_parts(*base, *len) })
            .collect();
        let bytes = slices.concat();
        let result = if self.trap == Some(Trap::WriteGone) {
            self.sprung = true;
            -libc::EBADFD
        } else if self.dice.roll(self.faults.errno) {
            -faults::errno(&mut self.dice)
        } else if self.dice.roll(self.faults.short) {
            i32::try_from(self.dice.below(bytes.len())).unwrap_or(0)
        } else {
            self.world.wrote(&slices);
            i32::try_from(bytes.len()).unwrap_or(i32::MAX)
        };
        let completion = Completion {
            user_data,
            result,
            flags: 0,
        };
        self.writes.push(Write {
            parts,
            bytes,
            completion,
        });
    }

    /// Answers a write, whose bytes must still be there.
    pub(super) fn answer_write(&mut self, at: usize) {
        let write = self.writes.swap_remove(at);
        let mut rest = &write.bytes[..];
        for (base, len) in write.parts {
            let (before, after) = rest.split_at(len);
            // SAFETY: the lane keeps the parts until the write is answered.
            let now = unsafe { std::slice::from_raw_parts(base, len) };
            assert!(now == before, "a packet changed while it was written");
            rest = after;
        }
        self.post(write.completion.user_data, write.completion.result, 0);
        self.remember(Past::Write);
    }

    /// Carries out the next send of a chain.
    pub(super) fn send(&mut self, at: usize) {
        let Some(send) = self.chains[at].pop_front() else {
            return;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // SAFETY: the lane keeps the message and its parts until the send is answered.
        let parts = unsafe {
            let message = &*send.message;
            assert_eq!(message.msg_namelen as usize, size_of::<libc::sockaddr_in>());
            std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen)
        };
        for part in parts {
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) };
            scratch.extend_from_slice(bytes);
        }
        let result = if self.dice.roll(self.faults.errno) {
            -faults::errno(&mut self.dice)
        } else {
            let short = self.dice.roll(self.faults.short);
            let taken = if short {
                self.dice.below(scratch.len())
            } else {
                scratch.len()
            };
            self.world.sent(&scratch, taken);
            i32::try_from(taken).unwrap_or(i32::MAX)
        };
        self.scratch = scratch;
        self.post(send.user_data, result, 0);
        self.remember(Past::Send);
        if result < 0 {
            for behind in std::mem::take(&mut self.chains[at]) {
                self.post(behind.user_data, -libc::ECANCELED, 0);
            }
        }
        if self.chains[at].is_empty() {
            self.chains.remove(at);
        }
    }
}
