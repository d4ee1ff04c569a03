//! What every kernel of the tests has in common: its moods, the packets it brings, and what it does with those it is given.

use std::fmt::Debug;
use std::rc::Rc;

use nix::libc;

use super::dice::{Dice, Odds};
use super::faults::{self, Faults, Trap};
use super::world::{self, World};
use crate::buf::Pool;
use crate::io::lane::Lane;

/// Calls of one turn, beyond those that what it asks explains: more is a loop that does not end.
const CALLS_PER_TURN: u32 = 160;

/// What every kernel has.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) world: World,
    /// Packets come.
    pub(crate) flowing: bool,
    /// What is to go wrong for good.
    pub(crate) trap: Option<Trap>,
    /// Whether it has.
    pub(crate) sprung: bool,
    /// Answers given.
    pub(crate) answered: u64,
    /// Packets brought from the TUN queue and the raw socket.
    pub(crate) brought: [u32; 2],
    /// Calls since the turn began.
    pub(crate) calls: u32,
    /// Requests since the turn began: each may explain some calls.
    pub(crate) requests: u32,
    scratch: Vec<u8>,
}

/// A kernel of the tests.
pub(crate) trait Fake: Debug {
    fn common(&self) -> &Common;
    fn common_mut(&mut self) -> &mut Common;
}

/// A lane over one.
pub(crate) trait Subject: Lane + Debug + Sized {
    type Kernel: Fake;
    /// Whether a lane that is given up with something under way leaves its memory to the end of the process.
    const LEAVES_MEMORY: bool;

    /// The pools of the TUN side and of the raw side.
    fn pools(&self) -> [&Rc<Pool>; 2];
    /// Slots of the raw side that the lane holds for its next call.
    fn spare(&self) -> usize {
        0
    }

    /// What the kernel has of the lane is what the lane says it has.
    fn check(&self, kernel: &Self::Kernel);
    /// Whether nothing is under way.
    fn is_idle(&self, kernel: &Self::Kernel) -> bool;
    /// A lane at rest is ready for packets.
    fn check_rest(&self, kernel: &Self::Kernel);
    /// A lane that is quiet has nothing with the kernel.
    fn check_quiet(&self, kernel: &Self::Kernel);
}

impl Common {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            dice,
            faults: Faults::default(),
            world: World::default(),
            flowing: true,
            trap: None,
            sprung: false,
            answered: 0,
            brought: [0; 2],
            calls: 0,
            requests: 0,
            scratch: Vec::new(),
        }
    }

    /// A turn begins: what it may ask is counted anew.
    pub(crate) fn begin_turn(&mut self) {
        (self.calls, self.requests) = (0, 0);
    }

    /// The lane called.
    pub(crate) fn count_call(&mut self) {
        self.calls += 1;
        assert!(
            self.calls <= CALLS_PER_TURN + 4 * self.requests,
            "{} calls for {} requests",
            self.calls,
            self.requests
        );
    }

    /// The next packet of the TUN queue or the raw socket, into `buffer`; its length.
    pub(crate) fn bring(&mut self, at: usize, buffer: &mut [u8]) -> usize {
        let serial = self.brought[at];
        self.brought[at] += 1;
        let room = buffer.len() & !7;
        if at == 0 && self.dice.roll(4000) {
            let most = if self.dice.roll(2000) { 200 } else { 12 };
            let data = usize::from(world::GSO_SIZE) * (1 + self.dice.below(most)) + 8;
            let len = (world::HEADERS + data).min(room);
            world::fill_super(serial, &mut buffer[..len]);
            return len;
        }
        let most = if self.dice.roll(200) { 8000 } else { 30 };
        let len = (8 * (1 + self.dice.below(most))).min(room);
        world::fill(serial, &mut buffer[..len]);
        len
    }

    /// Writes a packet that lies in these parts: bytes taken, or an errno.
    pub(crate) fn write(&mut self, parts: &[&[u8]]) -> Result<usize, i32> {
        if self.trap == Some(Trap::WriteGone) {
            self.sprung = true;
            return Err(libc::EBADFD);
        }
        if self.dice.roll(self.faults.errno) {
            return Err(faults::errno(&mut self.dice));
        }
        let len = parts.iter().map(|part| part.len()).sum();
        if self.dice.roll(self.faults.short) {
            return Ok(self.dice.below(len));
        }
        self.world.wrote(parts);
        Ok(len)
    }

    /// Sends a message: bytes taken, or an errno.
    ///
    /// # Safety
    /// The message points to parts, and those to bytes, that can be read.
    pub(crate) unsafe fn send(&mut self, message: *const libc::msghdr) -> Result<usize, i32> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // SAFETY: the caller vouches for the message and its parts.
        let parts = unsafe {
            let message = &*message;
            assert_eq!(message.msg_namelen as usize, size_of::<libc::sockaddr_in>());
            std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen)
        };
        for part in parts {
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) };
            scratch.extend_from_slice(bytes);
        }
        let result = if self.dice.roll(self.faults.errno) {
            Err(faults::errno(&mut self.dice))
        } else {
            let short = self.dice.roll(self.faults.short);
            let taken = if short {
                self.dice.below(scratch.len())
            } else {
                scratch.len()
            };
            self.world.sent(&scratch, taken);
            Ok(taken)
        };
        self.scratch = scratch;
        result
    }

    /// Whether the bell rings by itself.
    pub(crate) fn rings(&mut self) -> bool {
        self.flowing && self.dice.roll(Odds::MAX / 100)
    }
}
