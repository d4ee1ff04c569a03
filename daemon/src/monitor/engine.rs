//! The engine's process as the monitor sees it: started, spoken with, listened to, ended.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use isatap_engine::io::passing::MessageSocket;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wire::{Asked, Cause, MAX_MESSAGE_LEN, Order, Say};
use crate::launch::address_space;

/// The hidden first argument that makes this program the engine's process; the daemon's own arguments follow.
pub const ARGUMENT: &str = "--engine-of-monitor";

/// This very program, also when its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";

/// How often to look whether one that is about to be gone is gone.
const GONE_POLL_INTERVAL: Duration = Duration::from_micros(500);
/// How long one that was killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// What it says of its own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// What it was.
    pub cause: Cause,
    /// The exit status that goes with it.
    pub status: u8,
    /// In words.
    pub text: String,
    /// When they were said.
    pub said_at: Instant,
}

impl LastWords {
    /// Said now.
    pub fn new(cause: Cause, status: u8, text: String) -> Self {
        Self {
            cause,
            status,
            text,
            said_at: Instant::now(),
        }
    }
}

/// A process that was started, until it has been waited for.
#[derive(Debug)]
pub struct EngineProcess {
    child: Child,
    socket: MessageSocket,
    /// Since when it has everything that it needs to serve.
    pub equipped_at: Instant,
    /// When it began to serve.
    pub ready_at: Option<Instant>,
    /// What it said of its end.
    pub last_words: Option<LastWords>,
}

/// What came from it.
#[derive(Debug)]
pub enum Heard {
    /// A message, and what came along.
    Said(Say, Vec<OwnedFd>),
    /// Bytes that are no message.
    Nonsense,
    /// Nothing more for now.
    Nothing,
    /// Its end of the socket is closed.
    End,
}

impl EngineProcess {
    /// Starts one with the daemon's arguments.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(arguments: &[OsString]) -> io::Result<Self> {
        let (socket, theirs) = MessageSocket::pair()?;
        let child = Command::new(PROGRAM)
            .arg0("isatapd-engine")
            .arg(ARGUMENT)
            .args(arguments)
            .current_dir("/")
            .envs(address_space::limit().map(|_| address_space::ONE_ARENA))
            // What a terminal sends to the foreground is for the monitor alone.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self {
            child,
            socket,
            equipped_at: Instant::now(),
            ready_at: None,
            last_words: None,
        })
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The monitor's end.
    pub fn socket(&self) -> &MessageSocket {
        &self.socket
    }

    /// Says something, and never waits for one that does not listen: there is room for hundreds of messages.
    ///
    /// # Errors
    /// It is gone, or, `WouldBlock`, does not listen.
    pub fn order(&self, order: &Order, along: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.send(&order.encode(), along)
    }

    /// Passes on what was asked for; one that does not listen is found out by its silence.
    pub fn ask(&self, asked: Asked) {
        if let Err(error) = self.order(&Order::Signal(asked), &[]) {
            tracing::warn!("the engine does not hear ({error})");
        }
    }

    /// The next thing it said.
    pub fn hear(&self) -> Heard {
        let mut buffer = [0; MAX_MESSAGE_LEN];
        match self.socket.receive(&mut buffer) {
            Ok(Some(received)) => match Say::decode(&buffer[..received.len]) {
                Ok(say) => Heard::Said(say, received.descriptors),
                Err(_) => Heard::Nonsense,
            },
            Ok(None) => Heard::End,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Heard::Nonsense,
            Err(_) => Heard::End,
        }
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, and has it killed if that takes longer than `limit`; `None` when it is not gone soon after
    /// that either.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        for limit in [limit, KILL_LIMIT] {
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                if let Some(status) = self.ended() {
                    return Some(status);
                }
                std::thread::sleep(GONE_POLL_INTERVAL);
            }
            self.signal(Signal::SIGKILL);
        }
        None
    }

    /// Takes words for its last ones, unless it has said some: the first reason is the reason.
    pub fn say_for_it(&mut self, words: LastWords) {
        self.last_words.get_or_insert(words);
    }

    /// Since when it should be about to end.
    pub fn dying_since(&self) -> Option<Instant> {
        self.last_words.as_ref().map(|words| words.said_at)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(process) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(process), signal);
        }
    }

    /// How long it served.
    pub fn served(&self) -> Option<Duration> {
        self.ready_at.map(|at| at.elapsed())
    }
}

impl AsFd for EngineProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The cause and the words for an end: the engine's own, or what its exit status says if there is one.
pub fn cause_of(status: Option<ExitStatus>, last_words: Option<&LastWords>) -> (Cause, String) {
    if let Some(words) = last_words {
        return (words.cause, words.text.clone());
    }
    let status = status.map(|status| (status.signal(), status.code()));
    match status.unwrap_or_default() {
        (Some(signal), _) if signal == Signal::SIGSYS as i32 => (
            Cause::ForbiddenCall,
            "it made a system call that nothing in it makes, and was ended for it (SIGSYS): an attack or a fault; \
             the kernel's log names the call (audit, type=1326)"
                .to_owned(),
        ),
        (Some(signal), _) => {
            let name =
                Signal::try_from(signal).map_or_else(|_| signal.to_string(), |known| known.to_string());
            (Cause::Signal, format!("it was killed by {name}"))
        }
        (None, Some(code)) => (Cause::Exit, format!("it ended with status {code}")),
        (None, None) => (Cause::Exit, "it ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str) -> ExitStatus {
        Command::new("sh").args(["-c", script]).status().unwrap()
    }

    #[test]
    fn each_end_has_its_cause() {
        let words = LastWords::new(Cause::Panic, 1, "it panicked".into());
        for (script, words, cause, text) in [
            ("kill -9 $$", None, Cause::Signal, "it was killed by SIGKILL"),
            (
                "kill -SYS $$",
                None,
                Cause::ForbiddenCall,
                "it made a system call that nothing in it makes, and was ended for it (SIGSYS): an attack or a fault; \
                 the kernel's log names the call (audit, type=1326)",
            ),
            ("exit 3", None, Cause::Exit, "it ended with status 3"),
            ("exit 0", None, Cause::Exit, "it ended with status 0"),
            ("exit 101", Some(&words), Cause::Panic, "it panicked"),
        ] {
            assert_eq!(
                cause_of(Some(ended(script)), words),
                (cause, text.to_owned()),
                "{script}"
            );
        }
    }
}
