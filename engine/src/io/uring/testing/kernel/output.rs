//! Sends and writes: carried out, refused, cut short, answered at once or late.

use nix::libc;

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
        let result = answer(self.common.write(&slices));
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
        // SAFETY: the lane keeps the message and its parts until the send is answered.
        let result = answer(unsafe { self.common.send(send.message) });
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

/// As completions say it.
fn answer(result: Result<usize, i32>) -> i32 {
    result.map_or_else(|errno| -errno, |len| i32::try_from(len).unwrap_or(i32::MAX))
}
