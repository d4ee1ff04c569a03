//! The lane over system calls that fail: with any errno, short, interrupted, for packets that are not there, in part
//! (FAULTS 29, 33, 39, 42).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::{Calls, Ready, SyscallLane};
use crate::buf::Pool;
use crate::io::lane::{LaneFault, RAW_SLOTS, TUN_SLOTS};
use crate::io::testing::faults;
use crate::io::testing::{Common, Dice, Fake, Faults, Rig, Seed, Subject, Trap, run};
use crate::io::wake::Bell;
use crate::stats::{IoOperation, LoopEvent};

/// Packets that wait to be read, of one side, at most.
const WAITING: usize = 200;

/// What is watched.
#[derive(Debug)]
struct Watches {
    tun: bool,
    raw: bool,
    room: bool,
}

/// The kernel behind the calls.
#[derive(Debug)]
struct Kernel {
    common: Common,
    /// Packets that wait: TUN, raw.
    waiting: [usize; 2],
    /// The send socket has no room.
    full: bool,
    watches: Watches,
}

#[derive(Debug)]
struct FakeCalls(Rc<RefCell<Kernel>>);

impl Fake for Kernel {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }
}

impl Kernel {
    /// What is ready now, or seems to be.
    fn ready(&mut self) -> Ready {
        let Common { dice, faults, .. } = &mut self.common;
        let ready = Ready {
            tun: self.watches.tun && (self.waiting[0] > 0 || dice.roll(faults.ends)),
            raw: self.watches.raw && (self.waiting[1] > 0 || dice.roll(faults.ends)),
            room: self.watches.room && !dice.roll(faults.late),
            bell: false,
        };
        self.full &= !ready.room;
        Ready {
            bell: self.common.rings(),
            ..ready
        }
    }

    /// Something happens because the lane waits for it.
    fn move_on(&mut self) -> Ready {
        let mut ready = Ready::default();
        if self.watches.room {
            (self.full, ready.room) = (false, true);
        } else {
            let heard = self.watches.tun || self.watches.raw;
            assert!(self.common.flowing && heard, "asleep for ever: {self:?}");
            (ready.tun, ready.raw) = (self.watches.tun, self.watches.raw);
            self.waiting = self.waiting.map(|waiting| waiting + 1);
        }
        ready
    }

    /// What a read gives when it gives no packet.
    fn instead(&mut self, at: usize) -> Option<Result<usize, Errno>> {
        self.common.count_call();
        self.common.answered += 1;
        let (result, springs) = match self.common.trap {
            Some(Trap::FailingReceive) => (Err(Errno::ENOMEM), true),
            Some(Trap::EmptyReceive) if at == 0 => (Ok(0), true),
            Some(Trap::ReadGone) if at == 0 => {
                (Err(Errno::from_raw(faults::gone(&mut self.common.dice))), true)
            }
            _ if self.waiting[at] == 0 => (Err(Errno::EAGAIN), false),
            _ if self.common.dice.roll(self.common.faults.errno) => {
                (Err(Errno::from_raw(faults::errno(&mut self.common.dice))), false)
            }
            _ => return None,
        };
        self.common.sprung |= springs;
        Some(result)
    }
}

impl Calls for FakeCalls {
    fn wait(&mut self, patience: Option<Duration>) -> Result<Ready, Errno> {
        let mut kernel = self.0.borrow_mut();
        kernel.common.count_call();
        kernel.common.answered += 1;
        if kernel.common.trap == Some(Trap::WaitFails) {
            kernel.common.sprung = true;
            return Err(Errno::ENOMEM);
        }
        let Common { dice, faults, .. } = &mut kernel.common;
        if dice.roll(faults.refused) {
            return Err(Errno::EINTR);
        }
        if kernel.common.flowing {
            for at in 0..2 {
                let more = kernel.common.dice.below(24);
                kernel.waiting[at] = (kernel.waiting[at] + more).min(WAITING);
            }
        }
        match kernel.ready() {
            ready if ready != Ready::default() || patience.is_some() => Ok(ready),
            _ => Ok(kernel.move_on()),
        }
    }

    fn watch_tun(&mut self, watch: bool) -> io::Result<()> {
        let watches = &mut self.0.borrow_mut().watches;
        assert_ne!(watches.tun, watch, "for nothing");
        watches.tun = watch;
        Ok(())
    }

    fn watch_room(&mut self, watch: bool) -> io::Result<()> {
        let watches = &mut self.0.borrow_mut().watches;
        assert_ne!(watches.room, watch, "EEXIST or ENOENT");
        watches.room = watch;
        Ok(())
    }

    fn forget_receiver(&mut self) {
        self.0.borrow_mut().watches.raw = false;
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut kernel = self.0.borrow_mut();
        if let Some(result) = kernel.instead(0) {
            return result;
        }
        kernel.waiting[0] -= 1;
        kernel.common.requests += 1;
        Ok(kernel.common.bring(0, into))
    }

    unsafe fn write(&mut self, parts: &[libc::iovec]) -> Result<usize, Errno> {
        let mut kernel = self.0.borrow_mut();
        kernel.common.requests += 1;
        kernel.common.count_call();
        kernel.common.answered += 1;
        let slices: Vec<&[u8]> = parts
            .iter()
            // SAFETY: the caller vouches for what the parts point to.
            .map(|part| unsafe { std::slice::from_raw_parts(part.iov_base.cast(), part.iov_len) })
            .collect();
        kernel.common.write(&slices).map_err(Errno::from_raw)
    }

    unsafe fn receive(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
        let mut kernel = self.0.borrow_mut();
        if let Some(result) = kernel.instead(1) {
            return result;
        }
        let most = messages.len().min(kernel.waiting[1]);
        let Common { dice, faults, .. } = &mut kernel.common;
        let count = if dice.roll(faults.ends) {
            1 + dice.below(most)
        } else {
            most
        };
        for message in &mut messages[..count] {
            assert_eq!(message.msg_hdr.msg_iovlen, 1);
            // SAFETY: the caller vouches for the parts, and that nobody else uses what they point to.
            let buffer = unsafe {
                let part = &*message.msg_hdr.msg_iov;
                std::slice::from_raw_parts_mut(part.iov_base.cast::<u8>(), part.iov_len)
            };
            message.msg_len = u32::try_from(kernel.common.bring(1, buffer)).unwrap_or(u32::MAX);
        }
        kernel.waiting[1] -= count;
        kernel.common.answered += count as u64;
        kernel.common.requests += 1;
        Ok(count)
    }

    unsafe fn send(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
        let mut kernel = self.0.borrow_mut();
        kernel.common.count_call();
        let Common { dice, faults, .. } = &mut kernel.common;
        if dice.roll(faults.refused) {
            return Err(Errno::EINTR);
        }
        let blocks = dice.roll(faults.late);
        if kernel.full || blocks {
            kernel.full = true;
            return Err(Errno::EAGAIN);
        }
        for (count, message) in messages.iter_mut().enumerate() {
            let Common { dice, faults, .. } = &mut kernel.common;
            if count > 0 && dice.roll(faults.partial) {
                return Ok(count);
            }
            kernel.common.answered += 1;
            kernel.common.requests += 1;
            // SAFETY: the caller vouches for what the message points to.
            match unsafe { kernel.common.send(&raw const message.msg_hdr) } {
                Ok(taken) => message.msg_len = u32::try_from(taken).unwrap_or(u32::MAX),
                Err(errno) if count == 0 => return Err(Errno::from_raw(errno)),
                // Said of the first one only, which it is next time.
                Err(_) => return Ok(count),
            }
        }
        Ok(messages.len())
    }
}

impl Subject for SyscallLane<FakeCalls> {
    type Kernel = Kernel;
    /// The kernel has nothing of a lane between two calls.
    const LEAVES_MEMORY: bool = false;

    fn pools(&self) -> [&Rc<Pool>; 2] {
        [&self.tun_pool, &self.raw_pool]
    }

    fn spare(&self) -> usize {
        self.batch.spare()
    }

    fn check(&self, kernel: &Kernel) {
        assert!(self.writes.is_empty());
        assert_eq!(kernel.watches.room, self.blocked, "room that nobody waits for");
        assert_eq!(kernel.watches.tun, self.watching_tun);
    }

    fn is_idle(&self, kernel: &Kernel) -> bool {
        self.sends.is_empty() && kernel.waiting == [0, 0]
    }

    fn check_rest(&self, kernel: &Kernel) {
        assert!(kernel.watches.tun && kernel.watches.raw, "silent for ever");
        let free = [&self.tun_pool, &self.raw_pool].map(|pool| pool.census().free);
        let all = [usize::from(TUN_SLOTS), usize::from(RAW_SLOTS)];
        assert_eq!([free[0], free[1] + self.spare()], all, "slots lost");
    }

    fn check_quiet(&self, kernel: &Kernel) {
        assert!(!kernel.watches.raw);
    }
}

fn rig(dice: Dice) -> Rig<SyscallLane<FakeCalls>> {
    let kernel = Rc::new(RefCell::new(Kernel {
        common: Common::new(dice),
        waiting: [0; 2],
        full: false,
        watches: Watches {
            tun: true,
            raw: true,
            room: false,
        },
    }));
    let bell = Bell::new().unwrap();
    let lane = SyscallLane::over(FakeCalls(Rc::clone(&kernel)), bell).unwrap();
    Rig::over(lane, kernel)
}

/// Ways to end this lane.
const TRAPS: [Trap; 5] = [
    Trap::ReadGone,
    Trap::WriteGone,
    Trap::WaitFails,
    Trap::FailingReceive,
    Trap::EmptyReceive,
];

/// FAULTS 29, 33, 39: calls that fail, are interrupted, take less or give nothing: no slot, no packet and no order is lost, the
/// lane rests when the faults do, and ends when it is told.
#[test]
fn call_faults_lose_nothing() {
    run(rig, &TRAPS);
}

/// FAULTS 29, 56: what no worker survives ends the lane with its fault; each packet is counted once.
#[test]
fn call_faults_that_end_a_lane() {
    for trap in TRAPS {
        for seed in 0..4 {
            let _shown = Seed(seed);
            let mut rig = rig(Dice::seeded(seed));
            let late = Faults {
                late: 8000,
                ..Faults::default()
            };
            rig.suffer(late, 20).unwrap();
            let fault = rig.fall_into(trap);
            let expected = match trap {
                Trap::ReadGone | Trap::WriteGone => matches!(fault, LaneFault::TunGone(_)),
                Trap::WaitFails => matches!(fault, LaneFault::Wait(_)),
                _ => matches!(fault, LaneFault::Persistent { .. }),
            };
            assert!(expected, "{trap:?}: {fault}");
            let stats = rig.abandon();
            assert_eq!(stats.event(LoopEvent::StrayCompletion).get(), 0);
            if trap == Trap::EmptyReceive {
                assert!(stats.error(IoOperation::TunRead, 0).get() > 0);
            }
        }
    }
}
