//! What no kernel may do: answers to nothing, again, or that cannot be.

use std::collections::VecDeque;

use super::{BUFFER, Kernel, MORE};
use crate::io::ring::Completion;
use crate::io::testing::Trap;
use crate::io::ticket;

/// Which of [`Kernel::past`].
#[derive(Clone, Copy)]
pub(super) enum Past {
    Send,
    Write,
    Packet,
    End,
}

impl Kernel {
    /// Whether an answer was given that no request explains: nothing else happens then, so that the lane has no other sign of it.
    pub(super) fn has_strayed(&self) -> bool {
        self.common.sprung && self.common.trap.is_some_and(Trap::is_stray)
    }

    /// Does what no kernel may do, once there is something to do it with.
    pub(super) fn spring(&mut self) {
        if self.common.sprung {
            return;
        }
        let Some(trap) = self.common.trap else { return };
        let any = |kernel: &mut Self, past: Past| {
            let past = &kernel.past[past as usize];
            let at = kernel.common.dice.below(past.len());
            past.get(at).copied()
        };
        let made = |user_data, result, flags| Completion {
            user_data,
            result,
            flags,
        };
        let receiving = self.receives[1].as_ref().map(|armed| armed.user_data);
        let answer = match trap {
            Trap::UnknownToken => Some(made(
                self.common.dice.pick(&[0, 7 << 32, 5 << 32 | 0xff, u64::MAX]),
                0,
                0,
            )),
            Trap::DoubledSend => {
                let sends = self.chains.iter().flatten().map(|send| send.user_data);
                again(&self.past[Past::Send as usize], sends)
            }
            Trap::DoubledWrite => {
                let writes = self.writes.iter().map(|write| write.completion.user_data);
                again(&self.past[Past::Write as usize], writes)
            }
            Trap::DoubledReceive => any(self, Past::Packet),
            Trap::DoubledEnd => any(self, Past::End),
            // A slot that is lent, by another loan.
            Trap::ImpossibleBuffer => receiving.and_then(|data| {
                let (_, _, id) = self.take_buffer(1)?;
                Some(made(data, 64, BUFFER | MORE | u32::from(id ^ 0x8000) << 16))
            }),
            Trap::NoBuffer => receiving.map(|data| made(data, 64, MORE)),
            Trap::ImpossibleLength => receiving.and_then(|data| {
                let (_, len, id) = self.take_buffer(1)?;
                let result = i32::try_from(len + 1).unwrap_or(i32::MAX);
                Some(made(data, result, BUFFER | MORE | u32::from(id) << 16))
            }),
            _ => None,
        };
        if let Some(answer) = answer {
            self.common.sprung = true;
            // It may come before what it repeats.
            self.common.world.disorder = true;
            self.posted.push_back(answer);
        }
    }

    /// Keeps the last answer for later.
    pub(super) fn remember(&mut self, past: Past) {
        if self.common.trap.is_none() {
            return;
        }
        let last = self.overflow.back().or(self.posted.back()).copied();
        let past = &mut self.past[past as usize];
        past.extend(last);
        if past.len() > 300 {
            past.pop_front();
        }
    }
}

/// An answer from the past to a place that is in use again: the worst moment for it to come.
fn again(past: &VecDeque<Completion>, in_use: impl Iterator<Item = u64> + Clone) -> Option<Completion> {
    let same_place = |old: u64, now: u64| old != now && place(old) == place(now);
    let is_worst = |old: &&Completion| in_use.clone().any(|now| same_place(old.user_data, now));
    past.iter().find(is_worst).copied()
}

/// The place that the lane's tickets name.
fn place(user_data: u64) -> usize {
    ticket::place(u32::try_from(user_data & u64::from(u32::MAX)).unwrap_or(0))
}
