//! Name servers and search domains of advertisements, handed to whoever keeps this machine's (RFC 8106 6.3).
//!
//! ```text
//!  control --> DnsHandover (task) --socket pair--> helper process: resolvectl, or resolvconf, or nobody
//! ```
//!
//! The helper is this program again, started by the monitor, which keeps the way to it for the engines to come. It takes lists of addresses and names and nothing
//! else, and withdraws them when the daemon is gone in whatever way.

mod helper;
mod message;

use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub use helper::{ARGUMENT, Request, requested, run};
pub use message::{Names, Outcome};

/// Where the programs are looked for.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the helper may take to say that it is set up.
const START_LIMIT: Duration = Duration::from_secs(2);

/// A helper that waits for its first message.
#[derive(Debug)]
pub struct DnsHelper {
    stream: UnixStream,
    child: Child,
}

/// The daemon's side while it runs. Dropping it has the names withdrawn.
#[derive(Debug)]
pub struct DnsHandover {
    names: watch::Sender<Names>,
    outcome: watch::Receiver<Option<Outcome>>,
    task: JoinHandle<()>,
}

impl DnsHelper {
    /// Starts a helper for the interface of this name; needs root, and the file system as it is.
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
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command
            .arg0("isatapd-dns")
            .args([ARGUMENT, interface, search_path])
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        drop(command);
        ours.set_read_timeout(Some(START_LIMIT))?;
        if let Err(error) = std::io::Read::read_exact(&mut ours, &mut [0]) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { stream: ours, child })
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The way to it, and its process.
    pub fn into_parts(self) -> (OwnedFd, Child) {
        (self.stream.into(), self.child)
    }
}

impl DnsHandover {
    /// Begins to hand names over to the helper at the other end, perhaps as the successor of another daemon's process; to be
    /// called inside the control runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn begin(mut stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Answers that a predecessor did not live to read.
        while std::io::Read::read(&mut stream, &mut [0; 16]).is_ok_and(|len| len > 0) {}
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (names, changes) = watch::channel(Names::default());
        let (said, outcome) = watch::channel(None);
        Ok(Self {
            names,
            outcome,
            task: tokio::spawn(carry(stream, changes, said)),
        })
    }

    /// Hands these names over instead of those before; the same again is nothing. Never waits: while the helper is busy
    /// the last ones count.
    pub fn set(&self, servers: &[Ipv6Addr], search: &[String]) {
        let names = Names::new(servers, search);
        self.names.send_if_modified(|current| {
            let changed = *current != names;
            *current = names;
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

async fn carry(
    mut stream: tokio::net::UnixStream,
    mut changes: watch::Receiver<Names>,
    said: watch::Sender<Option<Outcome>>,
) {
    while changes.changed().await.is_ok() {
        let names = changes.borrow_and_update().clone();
        let mut reply = [0];
        let exchanged = async {
            stream.write_all(&names.encode()).await?;
            stream.read_exact(&mut reply).await
        };
        if let Err(error) = exchanged.await {
            warn!("the helper for name servers is gone ({error}): advertised ones are not used");
            said.send_replace(Some(Outcome::Failed));
            return;
        }
        let outcome = Outcome::from_byte(reply[0]);
        said.send_replace(outcome.or(Some(Outcome::Failed)));
        match outcome {
            Some(Outcome::Done) => info!("name servers handed over: {names}"),
            Some(Outcome::Nobody) => {
                debug!("neither resolvectl nor resolvconf takes name servers; advertised: {names}");
            }
            Some(Outcome::Failed) | None => warn!("name servers cannot be handed over: {names}"),
        }
    }
}
