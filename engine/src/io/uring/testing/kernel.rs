//! A kernel in a test: takes requests as they are, fills buffers, sends, writes, and answers as it is told to.
//!
//! It does what io_uring does: multishot requests that end, buffers out of shared rings, linked sends that are carried out one
//! after the other and cancelled behind one that fails, answers that wait in a list while their queue is full, calls that take
//! a part of the submission queue or nothing. Memory it was given is read as late as it may be, so that whoever used it again
//! too early is found out by the world.

mod input;
mod output;
mod stray;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;

use crate::io::ring::{Completion, Request, Ring};
use crate::io::testing::{Common, Dice, Fake, Trap};
use input::{Armed, Group};
use output::{Send, Write};
use stray::Past;

/// `IORING_CQE_F_BUFFER`, `IORING_CQE_F_MORE`.
const BUFFER: u32 = 1;
const MORE: u32 = 2;

/// The kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) common: Common,
    /// Sends and writes are taken and never answered.
    pub(crate) swallows: bool,
    lengths: (usize, usize),
    queue: VecDeque<(Request, u64)>,
    groups: [Option<Group>; 2],
    receives: [Option<Armed>; 2],
    bell: Option<u64>,
    chains: VecDeque<VecDeque<Send>>,
    writes: Vec<Write>,
    posted: VecDeque<Completion>,
    overflow: VecDeque<Completion>,
    /// Answers given before, for a kernel that gives them again.
    past: [VecDeque<Completion>; 4],
}

/// The lane's hold on the kernel.
#[derive(Debug)]
pub(crate) struct FakeRing(pub(crate) Rc<RefCell<Kernel>>);

impl Kernel {
    pub(crate) fn new(dice: Dice, submissions: usize, completions: usize) -> Self {
        Self {
            common: Common::new(dice),
            swallows: false,
            lengths: (submissions, completions),
            queue: VecDeque::with_capacity(submissions),
            groups: [None, None],
            receives: [None, None],
            bell: None,
            chains: VecDeque::new(),
            writes: Vec::new(),
            posted: VecDeque::with_capacity(completions),
            overflow: VecDeque::new(),
            past: std::array::from_fn(|_| VecDeque::new()),
        }
    }

    /// Buffers of a group that wait to be filled.
    pub(crate) fn available(&self, group: usize) -> usize {
        self.groups[group]
            .as_ref()
            .map_or(0, |group| usize::from(group.tail().wrapping_sub(group.head)))
    }

    /// Whether a receive is armed.
    pub(crate) fn is_armed(&self, group: usize) -> bool {
        self.receives[group].is_some()
    }

    /// Filled buffers on their way to the lane. Both groups together: what tells them apart is the lane's.
    pub(crate) fn filled(&self) -> usize {
        let answers = self.posted.iter().chain(&self.overflow);
        answers.filter(|answer| answer.flags & BUFFER != 0).count()
    }

    /// Sends and writes that were not answered.
    pub(crate) fn pending(&self) -> (usize, usize) {
        (self.chains.iter().map(VecDeque::len).sum(), self.writes.len())
    }

    /// Whether nothing of the lane's is in the kernel's hands but receives and buffers.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.chains.is_empty() && self.writes.is_empty() && self.filled() == 0
    }

    fn call(&mut self, want: usize, patience: Option<Duration>) -> io::Result<usize> {
        self.common.count_call();
        let refuse = |errno| Err(io::Error::from_raw_os_error(errno));
        match self.common.trap {
            Some(Trap::TakesNothing) => {
                self.common.sprung = true;
                return refuse(self.common.dice.pick(&[libc::EAGAIN, libc::EBUSY]));
            }
            Some(Trap::WaitFails) => {
                self.common.sprung = true;
                return refuse(libc::ENOMEM);
            }
            Some(Trap::CompletionLost) if self.queue.is_empty() => {
                self.common.sprung = true;
                return refuse(libc::EBADR);
            }
            _ => {}
        }
        let offered = self.queue.len();
        if self.common.dice.roll(self.common.faults.refused) {
            let all = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
            return refuse(self.common.dice.pick(&all[..if offered == 0 { 1 } else { 3 }]));
        }
        let taken = if self.common.dice.roll(self.common.faults.partial) {
            self.common.dice.below(offered + 1)
        } else {
            offered
        };
        self.issue(taken);
        self.work();
        self.flush();
        if taken < offered {
            // Who took a part does not wait.
            return if taken == 0 {
                refuse(libc::EAGAIN)
            } else {
                Ok(taken)
            };
        }
        while self.posted.len() < want.min(self.lengths.1) {
            let out_of_time = patience.is_some() && self.common.dice.roll(self.common.faults.late);
            if out_of_time || !self.move_on() {
                break;
            }
            self.flush();
        }
        if self.posted.len() >= want || taken > 0 {
            return Ok(taken);
        }
        assert!(patience.is_some(), "asleep for ever: {self:?}");
        refuse(libc::ETIME)
    }

    /// Takes so many requests off the submission queue.
    fn issue(&mut self, count: usize) {
        let mut chain = VecDeque::new();
        for _ in 0..count {
            let Some((request, user_data)) = self.queue.pop_front() else {
                break;
            };
            let output = matches!(
                request,
                Request::Send { .. } | Request::Write { .. } | Request::WriteParts { .. }
            );
            if output && self.swallows {
                continue;
            }
            match request {
                Request::ReadTun { group } | Request::ReceiveRaw { group } => {
                    let at = usize::from(group);
                    assert!(self.receives[at].is_none(), "armed twice");
                    self.receives[at] = Some(Armed { user_data, group });
                }
                Request::HearBell => {
                    assert!(self.bell.is_none(), "heard twice");
                    self.bell = Some(user_data);
                }
                Request::Cancel { user_data: target } => self.cancel(target, user_data),
                Request::Write { bytes, len } => self.write(vec![(bytes, len as usize)], user_data),
                Request::WriteParts { parts, count } => {
                    // SAFETY: the lane keeps the parts until the write is answered.
                    let parts = unsafe { std::slice::from_raw_parts(parts, count as usize) };
                    let parts = parts
                        .iter()
                        .map(|part| (part.iov_base.cast_const().cast(), part.iov_len));
                    self.write(parts.collect(), user_data);
                }
                Request::Send { message, linked } => {
                    chain.push_back(Send { message, user_data });
                    if !linked {
                        self.begin_chain(std::mem::take(&mut chain));
                    }
                }
            }
        }
        if !chain.is_empty() {
            // A chain ends with its submission: what follows is a chain of its own.
            assert!(!self.queue.is_empty(), "the lane cut a chain");
            self.common.world.disorder = true;
            self.begin_chain(chain);
        }
    }

    fn begin_chain(&mut self, chain: VecDeque<Send>) {
        assert!(
            self.chains.is_empty() || self.common.world.disorder,
            "a chain before the last one is done"
        );
        self.chains.push_back(chain);
    }

    fn cancel(&mut self, target: u64, user_data: u64) {
        let at = self
            .receives
            .iter()
            .position(|armed| armed.as_ref().is_some_and(|armed| armed.user_data == target));
        let result = match at {
            None => -libc::ENOENT,
            // It is just being carried out.
            Some(_) if self.common.dice.roll(self.common.faults.late) => -libc::EALREADY,
            Some(at) => {
                self.end(at, -libc::ECANCELED, 0);
                0
            }
        };
        self.post(user_data, result, 0);
    }

    /// Ends a receive.
    fn end(&mut self, at: usize, result: i32, flags: u32) {
        if let Some(armed) = self.receives[at].take() {
            self.post(armed.user_data, result, flags);
            self.remember(Past::End);
        }
    }

    /// What happens by itself while the lane calls.
    fn work(&mut self) {
        self.spring();
        if self.has_strayed() {
            return;
        }
        let mut at = 0;
        while at < self.chains.len() {
            let before = self.chains.len();
            while self.chains.len() == before && !self.common.dice.roll(self.common.faults.late) {
                self.send(at);
            }
            at += usize::from(self.chains.len() == before);
        }
        let mut left = self.writes.len();
        while left > 0 {
            left -= 1;
            if !self.common.dice.roll(self.common.faults.late) {
                let at = self.common.dice.below(left + 1);
                self.answer_write(at);
            }
        }
        if self.common.flowing {
            for at in 0..2 {
                for _ in 0..self.common.dice.below(24) {
                    if !self.receive(at) {
                        break;
                    }
                }
            }
        }
        let deaf = self.common.trap == Some(Trap::DeafBell);
        if deaf || self.common.rings() {
            self.ring_bell();
        }
    }

    /// One thing happens because the lane waits for it; false when nothing can.
    fn move_on(&mut self) -> bool {
        if self.has_strayed() {
            return false;
        }
        if !self.chains.is_empty() {
            let at = self.common.dice.below(self.chains.len());
            self.send(at);
        } else if !self.writes.is_empty() {
            let at = self.common.dice.below(self.writes.len());
            self.answer_write(at);
        } else if self.common.flowing {
            let at = self.common.dice.below(2);
            return self.receive(at) || self.receive(1 - at);
        } else {
            return false;
        }
        true
    }

    fn post(&mut self, user_data: u64, result: i32, flags: u32) {
        self.common.answered += 1;
        let answer = Completion {
            user_data,
            result,
            flags,
        };
        if self.overflow.is_empty() && self.posted.len() < self.lengths.1 {
            self.posted.push_back(answer);
        } else {
            self.overflow.push_back(answer);
        }
    }

    fn flush(&mut self) {
        while self.posted.len() < self.lengths.1 {
            let Some(answer) = self.overflow.pop_front() else {
                return;
            };
            self.posted.push_back(answer);
        }
    }
}

impl Fake for Kernel {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }
}

impl Ring for FakeRing {
    fn lengths(&self) -> (usize, usize) {
        self.0.borrow().lengths
    }

    unsafe fn register_buffers(&self, entries: NonNull<u8>, count: u16, group: u16) -> io::Result<()> {
        self.0.borrow_mut().groups[usize::from(group)] = Some(Group {
            entries: entries.cast(),
            mask: count - 1,
            head: 0,
        });
        Ok(())
    }

    fn room(&mut self) -> usize {
        let kernel = self.0.borrow();
        kernel.lengths.0 - kernel.queue.len()
    }

    unsafe fn push(&mut self, request: &Request, user_data: u64) -> bool {
        let mut kernel = self.0.borrow_mut();
        if kernel.queue.len() == kernel.lengths.0 {
            return false;
        }
        kernel.common.requests += 1;
        kernel.queue.push_back((*request, user_data));
        true
    }

    fn enter(&mut self, want: usize, patience: Option<Duration>) -> io::Result<usize> {
        self.0.borrow_mut().call(want, patience)
    }

    fn pause(&mut self, _patience: Duration) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        kernel.common.count_call();
        if !matches!(kernel.common.trap, Some(Trap::TakesNothing | Trap::WaitFails)) {
            kernel.work();
            kernel.flush();
        }
        Ok(0)
    }

    fn acts_in_calls(&self) -> bool {
        true
    }

    fn has_overflowed(&mut self) -> bool {
        !self.0.borrow().overflow.is_empty()
    }

    fn take(&mut self, into: &mut Vec<Completion>) {
        let mut kernel = self.0.borrow_mut();
        let room = into.capacity() - into.len();
        let count = room.min(kernel.posted.len());
        into.extend(kernel.posted.drain(..count));
    }
}
