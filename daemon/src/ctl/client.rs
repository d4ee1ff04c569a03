//! One connection to the daemon; every failure says what to do about it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use crate::exit::{ExitError, ExitStatus};
use crate::ops::protocol::{Command, FailureCode, Request, Response, VERSION};

/// How long an answer takes at most where the daemon works for it: a reload looks names up, an upgrade has the new program tried, and
/// before a router is out of service its hosts are told.
const PATIENCE_FOR_WORK: Duration = Duration::from_secs(70);
/// Everything else is answered at once, or, while a start has programs loaded, in a few seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer taken: the routes of a large router.
const MAX_ANSWER_LEN: u64 = 64 * 1024 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    /// In place of what the command is given.
    patience: Option<Duration>,
    ended: bool,
}

impl Client {
    /// Connects to the daemon's control socket.
    ///
    /// # Errors
    /// Status 69 when there is no daemon, 77 when this user may not ask it.
    pub fn connect(path: &Path) -> Result<Self, ExitError> {
        Self::connect_at(path, None)
    }

    /// The same with one patience for every answer.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(path: &Path, patience: Duration) -> Result<Self, ExitError> {
        Self::connect_at(path, Some(patience))
    }

    fn connect_at(path: &Path, patience: Option<Duration>) -> Result<Self, ExitError> {
        let shown = path.display();
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ExitError::unavailable(format!("no daemon: {shown} does not exist"))
                .with_remedy("start isatapd, or name its ControlSocket with --socket"),
            ErrorKind::ConnectionRefused => {
                ExitError::unavailable(format!("no daemon listens on {shown}")).with_remedy("start isatapd")
            }
            ErrorKind::PermissionDenied => ExitError::not_permitted(format!("may not connect to {shown}"))
                .with_remedy("run as root, or as a member of the group that ControlSocket names"),
            _ => ExitError::unavailable(format!("cannot connect to {shown}: {error}")),
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
            path: path.to_owned(),
            patience,
            ended: false,
        })
    }

    /// Whether the engine at the other end was gone before it had answered.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits for `limit`, or less when the daemon closes the connection: false then. Between answers only, when nothing is
    /// to be read.
    pub fn stays_open_for(&self, limit: Duration) -> bool {
        // The end of a stream counts as something to read.
        let mut polled = [PollFd::new(self.stream.get_ref().as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        matches!(poll(&mut polled, limit), Ok(0))
    }

    /// Waits no longer than this for whatever is sent or read next.
    fn be_patient(&self, patience: Duration) -> Result<(), ExitError> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(patience)))
            .map_err(|error| ExitError::other(format!("{}: {error}", self.path.display())))
    }

    /// The connection, and what was read of it beyond the last answer.
    pub fn into_parts(self) -> (UnixStream, Vec<u8>) {
        let rest = self.stream.buffer().to_vec();
        (self.stream.into_inner(), rest)
    }

    /// Sends a command and takes its result in the shape the command has.
    ///
    /// # Errors
    /// As [`Client::request`], and when the result has another shape.
    pub fn get<T: DeserializeOwned>(&mut self, command: Command) -> Result<T, ExitError> {
        serde_json::from_value(self.request(command)?).map_err(|error| {
            ExitError::other(format!("the daemon's answer has an unexpected shape: {error}"))
                .with_remedy("use the isatapctl of the same version as the daemon")
        })
    }

    /// Sends a command and takes its result.
    ///
    /// # Errors
    /// Status 1 when the daemon refuses, 69 when it does not answer.
    pub fn request(&mut self, command: Command) -> Result<serde_json::Value, ExitError> {
        let patience = self.patience.unwrap_or_else(|| patience_for(&command));
        self.be_patient(patience)?;
        let shown = self.path.display().to_string();
        let failed = |error: std::io::Error| {
            match error.kind() {
            // A monitor listens on while it has no engine.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ExitError::unavailable(format!("{shown}: the daemon is silent, with no answer within {patience:?}"))
                    .with_remedy("see whether its processes are stopped or get no time (ps -C isatapd -o pid,stat), and in its log whether its engine dies again and again; kill -CONT has a stopped one go on, a restart helps in any case")
            }
            _ if is_end(&error) => ExitError::unavailable(format!(
                "{shown}: the daemon has closed the connection instead of an answer: its engine ended"
            ))
            .with_remedy("try again; its log has the reason"),
            _ => ExitError::unavailable(format!("{shown}: the daemon does not answer: {error}")),
        }
        };
        let mut line = serde_json::to_vec(&Request {
            version: VERSION,
            command,
        })
        .map_err(|error| ExitError::other(error.to_string()))?;
        line.push(b'\n');
        // A full daemon answers and closes before it has read anything: what it said counts, not the broken pipe.
        let written = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let read = (&mut self.stream)
            .take(MAX_ANSWER_LEN)
            .read_until(b'\n', &mut answer);
        if answer.is_empty() {
            let error = written.and(read).err();
            let error = error.unwrap_or_else(|| ErrorKind::UnexpectedEof.into());
            self.ended = is_end(&error);
            return Err(failed(error));
        }
        read.map_err(failed)?;
        let response: Response = serde_json::from_slice(&answer).map_err(|error| {
            ExitError::unavailable(format!(
                "{}: no isatapd answers there: {error}",
                self.path.display()
            ))
        })?;
        match (response.ok, response.error) {
            (Some(value), None) => Ok(value),
            (_, Some(failure)) => Err(refusal(failure.code, failure.message)),
            (None, None) => Err(ExitError::other("the daemon's answer is empty")),
        }
    }
}

/// How long the answer to a command may take.
fn patience_for(command: &Command) -> Duration {
    match command {
        Command::Reload | Command::Upgrade | Command::Drain { .. } => PATIENCE_FOR_WORK,
        _ => PATIENCE,
    }
}

/// Whether the other end is gone.
fn is_end(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn refusal(code: FailureCode, message: String) -> ExitError {
    match code {
        // A daemon of another age (FAULTS 75).
        FailureCode::Version | FailureCode::BadRequest => {
            let own = env!("CARGO_PKG_VERSION");
            ExitError::other(message).with_remedy(format!(
                "this is isatapctl {own}: use the isatapctl of the same version as the daemon"
            ))
        }
        FailureCode::Busy => ExitError::new(ExitStatus::Unavailable, message),
        FailureCode::Refused | FailureCode::Other => ExitError::other(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answered_with(answer: &'static [u8]) -> Result<serde_json::Value, ExitError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut line)
                .unwrap();
            stream.write_all(answer).unwrap();
            line
        });
        let result = Client::connect(&path).unwrap().request(Command::Status);
        assert_eq!(server.join().unwrap(), "{\"version\":1,\"command\":\"status\"}\n");
        result
    }

    #[test]
    fn answers_by_kind() {
        assert_eq!(
            answered_with(b"{\"version\":1,\"ok\":[1]}\n").unwrap(),
            serde_json::json!([1])
        );
        let refused = answered_with(b"{\"version\":1,\"error\":{\"code\":\"refused\",\"message\":\"no\"}}\n");
        assert_eq!(refused.unwrap_err().status(), ExitStatus::Other);
        let busy = answered_with(b"{\"version\":1,\"error\":{\"code\":\"busy\",\"message\":\"no\"}}\n");
        assert_eq!(busy.unwrap_err().status(), ExitStatus::Unavailable);
        let version = answered_with(b"{\"version\":2,\"error\":{\"code\":\"version\",\"message\":\"no\"}}\n");
        assert!(version.unwrap_err().remedy().unwrap().contains("same version"));
        let ended = answered_with(b"").unwrap_err();
        assert!(ended.message().ends_with("its engine ended"), "{ended}");
        for silence in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n"] {
            assert_eq!(
                answered_with(silence).unwrap_err().status(),
                ExitStatus::Unavailable
            );
        }
    }

    /// A monitor without an engine listens on.
    #[test]
    fn patience_that_ends_is_no_number_of_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect_with(&path, Duration::from_millis(10)).unwrap();
        let error = client.request(Command::Status).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Unavailable);
        assert!(
            error.message().ends_with("is silent, with no answer within 10ms"),
            "{error}"
        );
    }

    #[test]
    fn who_only_asks_is_not_patient_for_long() {
        assert_eq!(patience_for(&Command::Status), PATIENCE);
        assert_eq!(patience_for(&Command::Solicit), PATIENCE);
        for works in [Command::Reload, Command::Upgrade, Command::Drain { undo: false }] {
            assert_eq!(patience_for(&works), PATIENCE_FOR_WORK);
        }
    }

    #[test]
    fn no_daemon_is_69_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Client::connect(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.status(), ExitStatus::Unavailable);
        assert!(missing.remedy().unwrap().contains("--socket"));
        let stale = dir.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        assert_eq!(
            Client::connect(&stale).unwrap_err().status(),
            ExitStatus::Unavailable
        );
    }
}
