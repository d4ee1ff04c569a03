//! Detaching: the launcher starts the same program again with one end of a socket as its standard input, and waits for
//! what the daemon says there: one message, then the end.
//!
//! ```text
//!  "ready\n"                    the daemon serves; the launcher exits 0
//!  "failed 78\nmessage..."      it does not; the launcher prints the message and exits with the number
//!  (nothing)                    it died; the launcher exits as the daemon did
//! ```

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};

use crate::exit::{ExitError, ExitStatus};

/// The hidden argument by which the daemon knows that standard input leads to its launcher.
pub const READY_ON_STDIN: &str = "ready-on-stdin";

/// Longest message taken from the daemon, in bytes.
const MAX_MESSAGE_LEN: u64 = 256 * 1024;

/// Starts this program again, detached, with the arguments of this one (without its name); waits until it is ready or
/// has failed.
///
/// # Errors
/// What the daemon failed with, or why it could not be started.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> Result<(), ExitError> {
    let failed =
        |error: std::io::Error| ExitError::from_io(&error, ExitStatus::Other, "the daemon cannot be started");
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .arg0("isatapd")
        .arg(format!("--{READY_ON_STDIN}"))
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(failed)?;
    let mut message = Vec::new();
    // An error means that the daemon closed its end in a hurry; what it said until then counts.
    let _ = ours.take(MAX_MESSAGE_LEN).read_to_end(&mut message);
    outcome(&String::from_utf8_lossy(&message), &mut child)
}

fn outcome(message: &str, child: &mut Child) -> Result<(), ExitError> {
    match parse(message) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            // The message comes before the end: whoever starts it again must not meet the rest of this one.
            let _ = child.wait();
            Err(error)
        }
        None => Err(died(child)),
    }
}

fn died(child: &mut Child) -> ExitError {
    let how = match child.wait() {
        Ok(status) => match (status.code().map(u8::try_from), status.signal()) {
            (Some(Ok(code)), _) if code != 0 => {
                let message = format!("the daemon ended with status {code} before it was ready");
                return ExitError::new(ExitStatus::from_code(code), message);
            }
            (_, Some(signal)) => format!("was killed by signal {signal}"),
            _ => "ended".to_owned(),
        },
        Err(error) => format!("was lost ({error})"),
    };
    ExitError::other(format!("the daemon {how} before it was ready"))
}

fn parse(message: &str) -> Option<Result<(), ExitError>> {
    if message == "ready\n" {
        return Some(Ok(()));
    }
    let (head, text) = message.strip_prefix("failed ")?.split_once('\n')?;
    let status = ExitStatus::from_code(head.parse().ok()?);
    Some(Err(ExitError::new(status, text)))
}

/// The daemon's end.
#[derive(Debug)]
pub struct Launcher {
    stream: UnixStream,
    null: OwnedFd,
}

impl Launcher {
    /// Takes over standard input, which the launcher has made a socket, and leaves the launcher's session and
    /// directory. To be called first of all: relative paths mean something else afterwards.
    ///
    /// # Errors
    /// Standard input is no socket: the hidden argument was given by hand.
    pub fn take_stdin() -> Result<Self, ExitError> {
        let wrong = || {
            ExitError::new(
                ExitStatus::Usage,
                format!("--{READY_ON_STDIN} is for isatapd itself"),
            )
        };
        close_inherited();
        let stdin = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|_| wrong())?;
        let kind = std::fs::File::from(stdin.try_clone().map_err(|_| wrong())?)
            .metadata()
            .map_err(|_| wrong())?;
        if !kind.file_type().is_socket() {
            return Err(wrong());
        }
        Self::leave(UnixStream::from(stdin))
            .map_err(|error| ExitError::other(format!("cannot detach: {error}")))
    }

    fn leave(stream: UnixStream) -> std::io::Result<Self> {
        // Opened now: there is no /dev in the chroot.
        let null = OwnedFd::from(
            std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?,
        );
        nix::unistd::dup2_stdin(&null)?;
        // Started by the launcher we lead no process group, so a session of our own is ours for the asking.
        nix::unistd::setsid()?;
        nix::unistd::chdir("/")?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Ok(Self { stream, null })
    }

    /// Lets the launcher go with success, and its terminal with it. That it is gone already is no error.
    pub fn ready(mut self) {
        let _ = self.stream.write_all(b"ready\n");
        let _ = nix::unistd::dup2_stdout(&self.null);
        let _ = nix::unistd::dup2_stderr(&self.null);
    }

    /// Lets the launcher go with `error`.
    pub fn failed(mut self, error: &ExitError) {
        let message = format!("failed {}\n{error}", error.status().code());
        let _ = self.stream.write_all(message.as_bytes());
    }
}

/// Closes what the caller's shell left open: whoever waits for the end of such a pipe would wait for the daemon's end.
///
/// Called before this process has opened anything, so nobody here owns these descriptors.
fn close_inherited() {
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let inherited: Vec<i32> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in inherited {
        // The listing's own descriptor is among them, and closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_daemon() {
        assert_eq!(parse("ready\n"), Some(Ok(())));
        let error = ExitError::config("line 1\nline 2").with_remedy("remedy");
        assert_eq!(
            parse(&format!("failed 78\n{error}")),
            Some(Err(ExitError::config("line 1\nline 2; remedy")))
        );
        for nonsense in ["", "ready", "failed\n", "failed x\ny", "failed 999\nx", "hello\n"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_daemon_that_dies_is_reported_as_it_died() {
        let run = |script: &str| Command::new("sh").args(["-c", script]).spawn().unwrap();
        let error = outcome("", &mut run("exit 77")).unwrap_err();
        assert_eq!(
            error,
            ExitError::not_permitted("the daemon ended with status 77 before it was ready")
        );
        let error = outcome("", &mut run("kill -9 $$")).unwrap_err();
        assert_eq!(
            error,
            ExitError::other("the daemon was killed by signal 9 before it was ready")
        );
        let error = outcome("", &mut run("exit 0")).unwrap_err();
        assert_eq!(error, ExitError::other("the daemon ended before it was ready"));
    }
}
