//! System calls made by a process that runs, not by one like it: a tracer stops it, has it make one, and looks what came of it.
//!
//! ```text
//!   poll(...) interrupted -> registers of another call, back by one instruction -> one step -> its value, or the end
//! ```
//!
//! What ends the process that makes it is tried by a copy: the process forks, and is under the same filters, rules and user as
//! before. The processor's registers are those of x86_64.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::wait;

/// Bytes of the instruction that makes a system call, and what they are.
const INSTRUCTION_LEN: u64 = 2;
const INSTRUCTION: u64 = 0x050f;
/// How soon a process is where it can be used.
const SOON: Duration = Duration::from_secs(10);

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this; an error is negative.
    Value(i64),
    /// It ended the process by this signal.
    Ended(Signal),
}

impl Outcome {
    /// It failed with this.
    pub const fn error(errno: i32) -> Self {
        Self::Value(-(errno as i64))
    }
}

/// A process that stands still between two system calls of its own until this is dropped. For the thread that made it alone:
/// the kernel lets no other one trace.
#[derive(Debug)]
pub struct Inside {
    process: Pid,
    registers: libc::user_regs_struct,
    has_ended: Cell<bool>,
    _of_this_thread: PhantomData<*const ()>,
}

impl Inside {
    /// Stops `process` in a system call that can be interrupted, such as waiting for something.
    ///
    /// # Panics
    /// When it does not get there, or may not be traced.
    #[track_caller]
    pub fn of(process: i32) -> Self {
        let process = Pid::from_raw(process);
        // Whatever becomes of the test: nothing is left standing still.
        let options = Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACEFORK;
        let registers = wait::until("a process between two calls", SOON, || {
            ptrace::attach(process).map_err(|errno| format!("it cannot be traced: {errno}"))?;
            let stopped = waitpid(process, Some(WaitPidFlag::__WALL));
            assert_eq!(stopped, Ok(WaitStatus::Stopped(process, Signal::SIGSTOP)));
            let registers = ptrace::getregs(process).expect("its registers");
            if is_after_call(process, &registers) {
                return Ok(registers);
            }
            ptrace::detach(process, None).expect("let it go");
            Err("it computes".to_owned())
        });
        ptrace::setoptions(process, options).expect("options of a tracer");
        Self::new(process, registers)
    }

    fn new(process: Pid, registers: libc::user_regs_struct) -> Self {
        Self {
            process,
            registers,
            has_ended: Cell::new(false),
            _of_this_thread: PhantomData,
        }
    }

    /// Has it make a call.
    ///
    /// # Panics
    /// When it has ended, or something else happens than a call.
    #[track_caller]
    pub fn call(&self, number: i64, arguments: [u64; 6]) -> Outcome {
        self.prepare(number, arguments);
        ptrace::step(self.process, None).expect("go on");
        // Its end is left to whoever started it.
        let seen = waitid(
            Id::Pid(self.process),
            WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL,
        );
        match seen.expect("what came of it") {
            WaitStatus::Signaled(_, signal, _) => {
                self.has_ended.set(true);
                Outcome::Ended(signal)
            }
            _ => {
                let stopped = waitpid(self.process, Some(WaitPidFlag::__WALL));
                assert_eq!(stopped, Ok(WaitStatus::Stopped(self.process, Signal::SIGTRAP)));
                Outcome::Value(self.value())
            }
        }
    }

    /// A copy of it, standing still as it does.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[track_caller]
    pub fn copy(&self) -> Copied<'_> {
        let as_fork = u64::try_from(libc::SIGCHLD).expect("a signal");
        self.prepare(libc::SYS_clone, [as_fork, 0, 0, 0, 0, 0]);
        ptrace::cont(self.process, None).expect("go on");
        let forked = waitpid(self.process, Some(WaitPidFlag::__WALL));
        let event = libc::PTRACE_EVENT_FORK;
        assert_eq!(
            forked,
            Ok(WaitStatus::PtraceEvent(self.process, Signal::SIGTRAP, event))
        );
        let copy = ptrace::getevent(self.process).expect("the copy's process id");
        let copy = Pid::from_raw(i32::try_from(copy).expect("a process id"));
        let stopped = waitpid(copy, Some(WaitPidFlag::__WALL));
        assert_eq!(stopped, Ok(WaitStatus::Stopped(copy, Signal::SIGSTOP)));
        ptrace::step(self.process, None).expect("go on");
        let stopped = waitpid(self.process, Some(WaitPidFlag::__WALL));
        assert_eq!(stopped, Ok(WaitStatus::Stopped(self.process, Signal::SIGTRAP)));
        Copied {
            inside: Self::new(copy, self.registers),
            original: self,
        }
    }

    /// Puts a text into memory of it; where that is. For a call that takes a path.
    ///
    /// # Panics
    /// When it gets no memory.
    #[track_caller]
    pub fn text(&self, text: &str) -> u64 {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let [protection, flags] = [protection, flags].map(|bits| u64::from(bits.cast_unsigned()));
        let len = u64::try_from(text.len()).expect("a length") + 8;
        let Outcome::Value(at @ 1..) = self.call(libc::SYS_mmap, [0, len, protection, flags, u64::MAX, 0])
        else {
            panic!("there is no memory")
        };
        // What follows the text is zero: nobody has written there.
        for (at, bytes) in (at.cast_unsigned()..).step_by(8).zip(text.as_bytes().chunks(8)) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let word = i64::from_ne_bytes(word);
            ptrace::write(self.process, at as ptrace::AddressType, word).expect("write its memory");
        }
        at.cast_unsigned()
    }

    fn as_argument(&self) -> u64 {
        u64::from(self.process.as_raw().cast_unsigned())
    }

    fn prepare(&self, number: i64, arguments: [u64; 6]) {
        assert!(!self.has_ended.get(), "it has ended");
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let registers = libc::user_regs_struct {
            rip: self.registers.rip - INSTRUCTION_LEN,
            rax: number.cast_unsigned(),
            // In no call, so that the kernel does not make the interrupted one once more.
            orig_rax: u64::MAX,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.registers
        };
        ptrace::setregs(self.process, registers).expect("registers");
    }

    fn value(&self) -> i64 {
        ptrace::getregs(self.process)
            .expect("its registers")
            .rax
            .cast_signed()
    }
}

fn is_after_call(process: Pid, registers: &libc::user_regs_struct) -> bool {
    let at = registers.rip - INSTRUCTION_LEN;
    let word = ptrace::read(process, at as ptrace::AddressType).expect("its code");
    word.cast_unsigned() & 0xffff == INSTRUCTION
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.has_ended.get() {
            return;
        }
        // Interrupted, as by a signal; whoever waits with a loop around it waits again.
        let registers = libc::user_regs_struct {
            rax: i64::from(-libc::EINTR).cast_unsigned(),
            orig_rax: u64::MAX,
            ..self.registers
        };
        let _ = ptrace::setregs(self.process, registers);
        let _ = ptrace::detach(self.process, None);
    }
}

/// A copy of a process that stands still. It is gone when this is dropped, and the one it was made of knows nothing of it.
#[derive(Debug)]
pub struct Copied<'a> {
    inside: Inside,
    original: &'a Inside,
}

impl Deref for Copied<'_> {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        let process = self.inside.process;
        let _ = kill(process, Signal::SIGKILL);
        let _ = waitpid(process, Some(WaitPidFlag::__WALL));
        self.inside.has_ended.set(true);
        if !thread::panicking() {
            // It has a parent that did not make it, and has to take it from the kernel.
            let taken = self
                .original
                .call(libc::SYS_wait4, [self.as_argument(), 0, 0, 0, 0, 0]);
            assert_eq!(taken, Outcome::Value(process.as_raw().into()));
        }
    }
}
