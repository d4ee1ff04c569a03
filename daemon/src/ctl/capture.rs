//! `isatapctl capture`: takes the daemon's chunks and puts them where they belong, until somebody has enough.
//!
//! The daemon makes whole blocks, so that a file can be read whenever it ends; a disk that is full costs the last chunk.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal as _, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::cli::CaptureOptions;
use super::client::Client;
use crate::exit::ExitError;
use crate::ops::capture::{CHUNK_HEADER_LEN, Started, Summary};
use crate::ops::protocol::{Command, Response};

/// Longest chunk taken: the daemon's are far shorter.
const MAX_CHUNK_LEN: usize = 64 << 20;
/// Bytes read at once.
const READ_LEN: usize = 256 << 10;

/// Captures until the end; says what was captured.
///
/// # Errors
/// When the file cannot be written, or the daemon refuses or ends.
pub fn run(options: &CaptureOptions, socket: &Path, out: &mut impl Write) -> Result<String, ExitError> {
    let to_stdout = options.file.as_os_str() == "-";
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(ExitError::other("packets are not for terminals")
            .with_remedy("name a file with -w, or pipe -w - into tcpdump -nr -"));
    }
    // Before the capture starts, so that nothing is missed between.
    let signals = Signals::block()?;
    let mut target = if to_stdout {
        Target::Stdout(out)
    } else {
        Target::File(create(&options.file)?, 0)
    };
    let mut client = Client::connect(socket)?;
    let started: Started = client.get(Command::Capture(options.request()))?;
    let (stream, rest) = client.into_parts();
    let mut chunks = Chunks { stream, rest };
    let mut packets = 0;
    let shown = options.file.display();
    loop {
        if let Some(chunk) = chunks.take()? {
            if chunk.bytes.is_empty() {
                return finish(&mut chunks, &started, packets);
            }
            match target.write(&chunk.bytes) {
                Ok(()) => packets += u64::from(chunk.packets),
                Err(error) if to_stdout && error.kind() == ErrorKind::BrokenPipe => {
                    return Ok(format!("whoever read the packets has ended; {packets} captured"));
                }
                Err(error) => {
                    let message = format!("cannot write to {shown}: {error}; {packets} packets are in it");
                    return Err(ExitError::other(message));
                }
            }
            continue;
        }
        let event = signals.wait(&chunks.stream, to_stdout)?;
        if event.reader_left {
            return Ok(format!("whoever read the packets has ended; {packets} captured"));
        }
        if event.signal {
            // The first one asks for the end, the second one does not wait for it.
            if signals.again.replace(true) {
                return Err(ExitError::other(format!(
                    "interrupted; {packets} packets are in {shown}"
                )));
            }
            let _ = chunks.stream.shutdown(Shutdown::Write);
        }
        if event.data && !chunks.read()? {
            let message = format!(
                "the daemon's engine ended during the capture (isatapctl status says what became of it); {packets} packets are in {shown}"
            );
            return Err(ExitError::unavailable(message));
        }
    }
}

/// The last words: what was captured, and what was missed.
fn finish(chunks: &mut Chunks, started: &Started, packets: u64) -> Result<String, ExitError> {
    let line = chunks.line()?;
    let unreadable = |error| ExitError::other(format!("the daemon's last answer cannot be read: {error}"));
    let response: Response = serde_json::from_slice(&line).map_err(unreadable)?;
    let summary: Summary = serde_json::from_value(response.ok.unwrap_or_default()).map_err(unreadable)?;
    debug_assert_eq!(summary.captured, packets);
    Ok(told(&summary, started))
}

fn told(summary: &Summary, started: &Started) -> String {
    let mut text = format!(
        "{} packets captured of {} that were wanted, of {} seen",
        summary.captured, summary.matched, summary.seen
    );
    for (count, why) in [
        (
            summary.over_rate,
            format!("over the rate of {} a second and worker", started.rate),
        ),
        (
            summary.no_room,
            "since they could not be written fast enough".to_owned(),
        ),
    ] {
        if count > 0 {
            text.push_str(&format!("\n{count} missed {why}"));
        }
    }
    text
}

/// Whoever captures sees what people say to each other: the file is for its owner alone.
fn create(file: &Path) -> Result<File, ExitError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(file)
        .map_err(|error| ExitError::other(format!("cannot write to {}: {error}", file.display())))
}

/// Where packets go.
enum Target<'a, W> {
    Stdout(&'a mut W),
    /// With the bytes written so far.
    File(File, u64),
}

impl<W: Write> Target<'_, W> {
    /// Writes a chunk; of one that does not fit, nothing stays in a file.
    fn write(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        match self {
            Target::Stdout(out) => out.write_all(chunk).and_then(|()| out.flush()),
            Target::File(file, len) => {
                if let Err(error) = file.write_all(chunk) {
                    // A special file cannot be cut, and needs not.
                    let _ = file.set_len(*len);
                    return Err(error);
                }
                *len += chunk.len() as u64;
                Ok(())
            }
        }
    }
}

/// A chunk of whole blocks.
struct Chunk {
    packets: u32,
    bytes: Vec<u8>,
}

/// What comes from the daemon.
struct Chunks {
    stream: UnixStream,
    rest: Vec<u8>,
}

impl Chunks {
    /// The next chunk, if all of it is there.
    fn take(&mut self) -> Result<Option<Chunk>, ExitError> {
        let Some(header) = self.rest.first_chunk::<CHUNK_HEADER_LEN>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, p0, p1, p2, p3] = *header;
        let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if len > MAX_CHUNK_LEN {
            return Err(ExitError::other(format!(
                "a chunk of {len} bytes is none of isatapd's"
            )));
        }
        if self.rest.len() < CHUNK_HEADER_LEN + len {
            return Ok(None);
        }
        let bytes = self.rest[CHUNK_HEADER_LEN..][..len].to_vec();
        self.rest.drain(..CHUNK_HEADER_LEN + len);
        Ok(Some(Chunk {
            packets: u32::from_be_bytes([p0, p1, p2, p3]),
            bytes,
        }))
    }

    /// Reads more; false at the end of the connection.
    fn read(&mut self) -> Result<bool, ExitError> {
        let old = self.rest.len();
        self.rest.resize(old + READ_LEN, 0);
        let read = self.stream.read(&mut self.rest[old..]);
        self.rest.truncate(old + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(ExitError::unavailable(format!("the control socket: {error}"))),
        }
    }

    /// The line that follows the last chunk.
    fn line(&mut self) -> Result<Vec<u8>, ExitError> {
        while !self.rest.contains(&b'\n') && self.read()? {}
        Ok(std::mem::take(&mut self.rest))
    }
}

/// What happened.
struct Event {
    signal: bool,
    data: bool,
    /// The pipe that takes the packets has no other end any more.
    reader_left: bool,
}

/// Ctrl-C and TERM as something to wait for.
struct Signals {
    fd: SignalFd,
    again: std::cell::Cell<bool>,
}

impl Signals {
    fn block() -> Result<Self, ExitError> {
        let failed = |error: Errno| ExitError::other(format!("cannot wait for signals: {error}"));
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block().map_err(failed)?;
        let fd =
            SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        Ok(Self {
            fd,
            again: std::cell::Cell::new(false),
        })
    }

    /// Waits for the next thing to happen; with `to_stdout` also for the end of whoever reads there.
    fn wait(&self, stream: &UnixStream, to_stdout: bool) -> Result<Event, ExitError> {
        let stdout = std::io::stdout();
        let mut fds = vec![
            PollFd::new(self.fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(stream.as_fd(), PollFlags::POLLIN),
        ];
        if to_stdout {
            // No event is asked for: errors come by themselves.
            fds.push(PollFd::new(stdout.as_fd(), PollFlags::empty()));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(ExitError::other(format!("cannot wait for packets: {error}"))),
        }
        let happened = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok(Event {
            signal: matches!(self.fd.read_signal(), Ok(Some(_))),
            data: happened(1),
            reader_left: happened(2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(bytes: &[u8]) -> Chunks {
        let (stream, mut far) = UnixStream::pair().unwrap();
        far.write_all(bytes).unwrap();
        Chunks {
            stream,
            rest: Vec::new(),
        }
    }

    #[test]
    fn chunks_are_taken_whole() {
        let mut chunks = chunks(b"\0\0\0\x03\0\0\0\x02abc\0\0\0\0\0\0\0\0{}\n");
        assert!(chunks.take().unwrap().is_none());
        chunks.rest = b"\0\0\0".to_vec();
        assert!(chunks.take().unwrap().is_none());
        chunks.rest.clear();
        assert!(chunks.read().unwrap());
        let chunk = chunks.take().unwrap().unwrap();
        assert_eq!((chunk.packets, &chunk.bytes[..]), (2, &b"abc"[..]));
        let end = chunks.take().unwrap().unwrap();
        assert!(end.bytes.is_empty());
        assert_eq!(chunks.line().unwrap(), b"{}\n");
        assert!(!chunks.read().unwrap(), "the daemon has gone");
        chunks.rest = b"HTTP/1.1 400".to_vec();
        assert!(chunks.take().is_err(), "that is no chunk");
    }

    #[test]
    fn what_was_missed_is_told_by_cause() {
        let started = Started {
            workers: 2,
            snaplen: 100,
            rate: 50,
        };
        let mut summary = Summary {
            seen: 9,
            matched: 8,
            captured: 8,
            ..Summary::default()
        };
        assert_eq!(
            told(&summary, &started),
            "8 packets captured of 8 that were wanted, of 9 seen"
        );
        summary.over_rate = 3;
        summary.no_room = 2;
        let text = told(&summary, &started);
        assert!(
            text.contains("\n3 missed over the rate of 50 a second and worker\n2 missed since"),
            "{text}"
        );
    }
}
