//! Another program takes over: the monitor becomes what is installed now, with its process id and everything it holds.
//!
//! ```text
//!  old monitor                                          new program
//!    tries it: `--try-upgrade`, configuration in force --> version of the messages, reads the configuration, ends
//!    engine: ordered to hand over, ends                    (packets wait in queues and sockets)
//!    fills a socket with its holdings, makes it standard input, executes the new program
//!                                                      --> `--take-over`: takes them, starts an engine
//! ```
//!
//! Programs in the kernel carry on all the while: their links go along, and the new program puts its own into their places when its
//! engine has written rules ([`super::programs`]).
//!
//! A program that does not understand what it would be handed is refused, and nothing has happened. Whatever fails later
//! but before the jump makes the old monitor go on with a new engine of the old program.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isatap_engine::io::ebpf::Attachment;
use isatap_engine::io::passing::MessageSocket;

use super::binding::Left;
use super::holdings::{self, Holdings};
use super::wire::{Order, Setup, VERSION};
use crate::config::Loader;
use crate::config::kept::Kept;

/// The hidden first argument of a trial; standard input is the configuration in force.
pub const TRY: &str = "--try-upgrade";
/// The hidden first argument of a take-over; standard input is the socket with the holdings.
pub const TAKE_OVER: &str = "--take-over";

/// How long a trial may take, and how often to look.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);
const TRIAL_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Longest answer of a trial, in bytes.
const MAX_ANSWER_LEN: u64 = 256;

/// The arguments of the daemon, when a command line asks for a trial or a take-over. `arguments` begins with the name of
/// the program.
pub fn requested<'a>(flag: &str, arguments: &'a [OsString]) -> Option<&'a [OsString]> {
    let (first, rest) = arguments.get(1..)?.split_first()?;
    (first == flag).then_some(rest)
}

/// The trial, in the new program: whether it could take over. Says so on standard output.
///
/// # Errors
/// Why it could not, in words.
pub fn trial(loader: &Loader, kept: OwnedFd) -> Result<String, String> {
    let bytes = super::text::read(kept).map_err(|error| format!("the configuration in force: {error}"))?;
    let kept = Kept::decode(&bytes)?;
    loader.load_kept(&kept).map_err(|error| error.to_string())?;
    Ok(format!("{VERSION} {}\n", env!("CARGO_PKG_VERSION")))
}

/// Tries the program at `path`; its version if it could take over.
///
/// # Errors
/// Why not, in words for the operator.
pub fn check(path: &Path, arguments: &[OsString], holdings: &Holdings) -> Result<String, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    let owners = [0, nix::unistd::geteuid().as_raw()];
    if !owners.contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "{shown}: others could have written this file; chown root and chmod go-w it"
        ));
    }
    let text = holdings
        .text
        .try_clone()
        .map_err(|error| format!("no descriptor is left: {error}"))?;
    let mut child = Command::new(path)
        .arg0("isatapd-trial")
        .arg(TRY)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::from(text))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{shown} cannot be started: {error}"))?;
    let deadline = Instant::now() + TRIAL_LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(TRIAL_POLL_INTERVAL),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "{shown} does not say within {TRIAL_LIMIT:?} whether it could take over"
                ));
            }
        }
    };
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        // A program that says something else than text says nothing.
        let _ = output.take(MAX_ANSWER_LEN).read_to_string(&mut answer);
    }
    judge(&answer, status.success()).map_err(|why| format!("{shown} {why}"))
}

fn judge(answer: &str, success: bool) -> Result<String, String> {
    let mut words = answer.split_whitespace();
    let version = words.next().and_then(|word| word.parse::<u32>().ok());
    match (version, words.next(), success) {
        (Some(VERSION), Some(program), true) => Ok(program.to_owned()),
        (Some(other), _, _) if other != VERSION => Err(format!(
            "cannot take over: it speaks version {other} of the messages, this one {VERSION}; restart the daemon instead"
        )),
        _ if answer.trim().is_empty() => {
            Err("cannot take over: it does not know how; restart the daemon instead".to_owned())
        }
        _ => Err(format!("cannot take over: {}", answer.trim())),
    }
}

/// Becomes the program at `path`; `descriptors` are those of [`Taken`], `attachments` those of the programs in the kernel. Returns only
/// when that failed: nothing is lost then.
pub fn jump<'a>(
    path: &Path,
    arguments: &[OsString],
    holdings: &Holdings,
    setup: Setup,
    left: &Left,
    descriptors: &[BorrowedFd<'_>],
    attachments: impl Iterator<Item = &'a Attachment>,
) -> io::Error {
    let prepared = move || -> io::Result<()> {
        let (ours, theirs) = MessageSocket::pair()?;
        holdings.hand_out(setup, &ours)?;
        for attachment in attachments {
            let (place, link) = attachment.place()?;
            holdings::send(&ours, &Order::Attached(place), link.as_slice())?;
        }
        holdings::send(&ours, &Order::Left(left.clone()), descriptors)?;
        Ok(nix::unistd::dup2_stdin(theirs)?)
    };
    match prepared() {
        Ok(()) => {
            let error = Command::new(path)
                .arg0("isatapd")
                .arg(TAKE_OVER)
                .args(arguments)
                .exec();
            take_back();
            error
        }
        Err(error) => error,
    }
}

/// What lies in standard input is held there: a program in the kernel would stay where it is to be taken away.
fn take_back() {
    if let Ok((nothing, _)) = MessageSocket::pair() {
        // That takes no descriptor more.
        let _ = nix::unistd::dup2_stdin(nothing);
    }
}

/// What a predecessor left.
#[derive(Debug)]
pub struct Taken {
    /// What to tell engines.
    pub setup: Setup,
    /// What it held.
    pub holdings: Holdings,
    /// Which addresses may carry the tunnel.
    pub left: Left,
    /// Its locked pid file.
    pub lock: OwnedFd,
    /// The directory of the sysctls: rules about it hold as long as it is open somewhere.
    pub sysctls: Option<OwnedFd>,
    /// Its programs in the kernel, which carry on.
    pub attachments: Vec<Attachment>,
}

/// Takes what a predecessor left.
///
/// # Errors
/// Standard input is not what it should be, in words.
pub fn take(stdin: OwnedFd) -> Result<Taken, String> {
    let socket = MessageSocket::from_fd(stdin).map_err(|_| format!("{TAKE_OVER} is for isatapd itself"))?;
    let failed = |error: holdings::TakeError| format!("what the monitor before left {error}");
    let (setup, holdings) = Holdings::take(&socket).map_err(failed)?;
    let mut attachments = Vec::new();
    let (left, along) = loop {
        match holdings::next(&socket).map_err(failed)? {
            (Order::Attached(place), link) => {
                let tunnel = &holdings.descriptors.shape.interface;
                // A device may have gone meanwhile.
                attachments.extend(Attachment::taken(place, link.into_iter().next(), tunnel));
            }
            (Order::Left(left), along) => break (left, along),
            _ => return Err("which addresses may carry the tunnel was not left".to_owned()),
        }
    };
    let mut along = along.into_iter();
    let lock = along.next().ok_or("the pid file was not left")?;
    let sysctls = along.next();
    Ok(Taken {
        setup,
        holdings,
        left,
        lock,
        sysctls,
        attachments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_judged_by_what_it_says() {
        let ours = format!("{VERSION} 9.9.9\n");
        assert_eq!(judge(&ours, true), Ok("9.9.9".to_owned()));
        for (answer, success, why) in [
            (ours.clone(), false, "cannot take over: "),
            (format!("{} 9.9.9\n", VERSION + 1), true, "it speaks version"),
            (String::new(), true, "it does not know how"),
            ("Mtu 9: too small".to_owned(), false, "Mtu 9: too small"),
        ] {
            let error = judge(&answer, success).unwrap_err();
            assert!(error.contains(why), "{answer}: {error}");
        }
    }

    #[test]
    fn command_lines() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            requested(TRY, &words(&["isatapd", TRY, "-f"])),
            Some(&words(&["-f"])[..])
        );
        for other in [
            &[][..],
            &["isatapd"],
            &["isatapd", "-f", TRY],
            &["isatapd", TAKE_OVER],
        ] {
            assert_eq!(requested(TRY, &words(other)), None);
        }
    }
}
