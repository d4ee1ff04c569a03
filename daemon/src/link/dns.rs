//! Name servers and search domains of advertisements, handed to whoever keeps this machine's (RFC 8106 6.3).
//!
//! ```text
//!  control --> DnsHandover (task) --socket pair--> helper process: resolvectl, or resolvconf, or nobody
//!                                                  its parent: starts it, again when it died
//! ```
//!
//! Both are this program again. The monitor has started the parent, and keeps the way to it for the engines to come. The helper takes lists of addresses and
//! names and nothing else, asks for the one in force when it begins, and withdraws what it handed over when the daemon is gone in whatever way.

mod helper;
mod message;
mod parent;

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isatap_engine::io::passing::MessageSocket;
use nix::net::if_::if_nametoindex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub use self::helper::Request;
use self::message::Word;
pub use self::message::{Names, Outcome};

/// Where the programs are looked for.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a predecessor's names stay with a daemon that hears of none. It has asked routers several times by then.
pub const INHERITED_LIMIT: Duration = Duration::from_secs(60);

/// The parent of helpers, which waits for the first message.
#[derive(Debug)]
pub struct DnsHelper {
    stream: UnixStream,
    child: Child,
}

/// What the hidden command lines of this program ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// To be the parent of helpers.
    Parent(Request),
    /// To be a helper.
    Helper(Request),
}

/// The daemon's side while it runs. Dropping it has the names withdrawn.
#[derive(Debug)]
pub struct DnsHandover {
    names: watch::Sender<Option<Names>>,
    outcome: watch::Receiver<Option<Outcome>>,
    task: JoinHandle<()>,
}

impl DnsHelper {
    /// Makes helpers possible for the interface of this name; needs root, and the file system as it is.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(interface: &str) -> std::io::Result<Self> {
        Self::start_program(&std::env::current_exe()?, interface, SEARCH_PATH)
    }

    /// The same with a program that is `isatapd`, and other places to look for programs; for tests.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_program(program: &Path, interface: &str, search_path: &str) -> std::io::Result<Self> {
        // Whole messages: a helper that dies takes no half of one along.
        let (ours, theirs) = MessageSocket::pair()?;
        let ours = UnixStream::from(OwnedFd::from(ours));
        // There may be none in tests.
        let if_index = if_nametoindex(interface).unwrap_or(0);
        let mut command = Command::new(program);
        command
            .arg0("isatapd-dns")
            .args([parent::ARGUMENT, &if_index.to_string(), interface, search_path])
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It is another program by then, whatever becomes of this process.
        let child = command.spawn()?;
        Ok(Self { stream: ours, child })
    }

    /// The parent's process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The way to it, and its process.
    pub fn into_parts(self) -> (OwnedFd, Child) {
        (self.stream.into(), self.child)
    }
}

impl Errand {
    /// The errand of a command line, when it is of such a kind. `arguments` begins with the name of the program.
    pub fn requested(arguments: &[OsString]) -> Option<Self> {
        parent::requested(arguments)
            .map(Self::Parent)
            .or_else(|| helper::requested(arguments).map(Self::Helper))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Privileges cannot be given up, or standard input is not what the daemon would have it be.
    pub fn run(self) -> std::io::Result<()> {
        match self {
            Self::Parent(request) => parent::run(request),
            Self::Helper(request) => helper::run(request),
        }
    }
}

impl DnsHandover {
    /// Begins to hand names over to the helper at the other end; to be called inside the control runtime. Names that a
    /// predecessor handed over are withdrawn when there are none for `inherited`.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn begin(mut stream: UnixStream, inherited: Option<Duration>) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Answers that a predecessor did not live to read.
        while std::io::Read::read(&mut stream, &mut [0; 16]).is_ok_and(|len| len > 0) {}
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (names, changes) = watch::channel(None);
        let (said, outcome) = watch::channel(None);
        let carrier = Carrier {
            stream,
            wanted: None,
            due: false,
            sent: Names::default(),
            awaited: false,
            said,
        };
        Ok(Self {
            names,
            outcome,
            task: tokio::spawn(carrier.carry(changes, inherited)),
        })
    }

    /// Hands these names over instead of those before; the same again is nothing. Never waits: while the helper is busy
    /// the last ones count.
    pub fn set(&self, servers: &[Ipv6Addr], search: &[String]) {
        let names = Names::new(servers, search);
        self.names.send_if_modified(|current| {
            let changed = current
                .as_ref()
                .map_or(!names.is_empty(), |current| *current != names);
            if changed {
                *current = Some(names);
            }
            changed
        });
    }

    /// What became of the last names that reached the helper; `None` before the first.
    pub fn outcome(&self) -> Option<Outcome> {
        *self.outcome.borrow()
    }
}

impl Drop for DnsHandover {
    fn drop(&mut self) {
        // The socket goes with the task: the helper withdraws what it handed over.
        self.task.abort();
    }
}

/// What goes on between the two.
struct Carrier {
    stream: tokio::net::UnixStream,
    /// What is to be handed over, once that is known.
    wanted: Option<Names>,
    /// It was not said, or not to the helper of now.
    due: bool,
    /// What was said last, and whether the helper has not answered.
    sent: Names,
    awaited: bool,
    said: watch::Sender<Option<Outcome>>,
}

impl Carrier {
    async fn carry(mut self, mut changes: watch::Receiver<Option<Names>>, inherited: Option<Duration>) {
        let mut until = inherited.map(|limit| Box::pin(tokio::time::sleep(limit)));
        loop {
            let mut word = [0];
            let exchanged = tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    until = None;
                    self.wanted.clone_from(&changes.borrow_and_update());
                    self.due = true;
                    Ok(())
                }
                read = self.stream.read_exact(&mut word) => read.map(|_| self.hear(Word::from_byte(word[0]))),
                () = async { if let Some(until) = &mut until { until.await } }, if until.is_some() => {
                    until = None;
                    self.wanted = Some(Names::default());
                    self.due = true;
                    Ok(())
                }
            };
            let exchanged = match exchanged {
                Ok(()) => self.say().await,
                failed => failed,
            };
            if let Err(error) = exchanged {
                warn!(
                    "the helper for name servers is gone ({error}): advertised ones are not used; a restart of isatapd brings it back"
                );
                self.said.send_replace(Some(Outcome::Failed));
                return;
            }
        }
    }

    async fn say(&mut self) -> std::io::Result<()> {
        match &self.wanted {
            Some(names) if self.due && !self.awaited => {
                self.stream.write_all(&names.encode()).await?;
                self.sent.clone_from(names);
                (self.due, self.awaited) = (false, true);
            }
            _ => {}
        }
        Ok(())
    }

    fn hear(&mut self, word: Option<Word>) {
        let outcome = match word {
            Some(Word::Did(outcome)) => outcome,
            Some(asks @ (Word::Asks | Word::AsksAgain)) => {
                if asks == Word::AsksAgain {
                    warn!("the helper for name servers died and was started again");
                }
                (self.due, self.awaited) = (true, false);
                return;
            }
            None => Outcome::Failed,
        };
        self.awaited = false;
        self.said.send_replace(Some(outcome));
        let names = &self.sent;
        match outcome {
            Outcome::Done if names.is_empty() => info!("no name servers are handed over any more"),
            Outcome::Done => info!("name servers handed over: {names}"),
            Outcome::Nobody => {
                debug!("neither resolvectl nor resolvconf takes name servers; advertised: {names}");
            }
            Outcome::Failed => warn!("name servers cannot be handed over: {names}"),
        }
    }
}
