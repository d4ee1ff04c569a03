//! The helper's parent: starts it when there is a first list to hand over, and another one when it died.
//!
//! ```text
//!  daemon ====socket==== parent: looks whether there is something to be read, and whether the other end is there; reads nothing but
//!                 \               withdrawals before the first helper, when there is nothing to withdraw
//!                 \----- helper: its standard input is the same socket
//! ```
//!
//! The monitor is confined and could start none that may run the programs of others; this process was started before, and is small so
//! that nothing happens to it.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caps::CapSet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::helper::Request;
use super::message::{Names, Outcome, Word};

/// The hidden first argument that makes this program the parent; index and name of the interface, and the search path follow.
pub(super) const ARGUMENT: &str = "--keep-names";

/// This very program, also when its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";

/// How long to wait before another helper is started: ever longer while they die young. Never less: a program that the one before
/// started is done by then.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How many may die in withdrawing, once the daemon is gone.
const LAST_HELPERS: u32 = 3;

/// What a command line asks for, when it asks for a parent at all. `arguments` begins with the name of the program.
pub(super) fn requested(arguments: &[OsString]) -> Option<Request> {
    let [_, flag, if_index, interface, search_path] = arguments else {
        return None;
    };
    (flag == ARGUMENT).then_some(Request {
        again: false,
        if_index: if_index.to_str()?.parse().ok()?,
        interface: interface.to_str()?.to_owned(),
        search_path: search_path.to_str()?.to_owned(),
    })
}

/// Serves until the daemon's end of standard input is closed and its names are withdrawn. Standard input must be the socket of
/// [`DnsHelper::start`](super::DnsHelper::start).
///
/// # Errors
/// Privileges cannot be given up, or standard input is not usable.
pub(super) fn run(mut request: Request) -> std::io::Result<()> {
    let _ = nix::sys::prctl::set_name(c"isatapd-dns");
    // Whoever ends the daemon ends its whole group or unit: what was handed over is still to be withdrawn.
    let _ = nix::unistd::setsid();
    nix::sys::signal::SigSet::all().thread_block()?;
    // The programs need the user, root, and no capability; nothing they start gets one back.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(std::io::Error::other)?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    let stdin = std::io::stdin();
    let mut socket = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
    while withdraws_nothing(&mut socket)? {}
    let mut pause = FIRST_PAUSE;
    let mut last_helpers = 0;
    loop {
        if has_ended(&socket)? {
            // Before the first one there is nothing to withdraw.
            if !request.again || last_helpers == LAST_HELPERS {
                return Ok(());
            }
            last_helpers += 1;
        }
        let started_at = Instant::now();
        let served = serve(&request, &socket);
        let ended = has_ended(&socket)?;
        match served {
            Ok(true) if ended => return Ok(()),
            // The daemon is not to wait for an answer.
            Err(_) if !ended => socket.write_all(&[Word::Did(Outcome::Failed).byte()])?,
            _ => {}
        }
        request.again = true;
        if started_at.elapsed() > LAST_PAUSE {
            pause = FIRST_PAUSE;
        }
        ready(&socket, PollFlags::empty(), Some(pause))?;
        pause = LAST_PAUSE.min(pause * 2);
    }
}

/// Waits for the first message, or the daemon's end. Whether it was an empty list, of an engine that does not know what the one before it
/// handed over: that was nothing, and done is done.
fn withdraws_nothing(socket: &mut UnixStream) -> std::io::Result<bool> {
    ready(socket, PollFlags::POLLIN, None)?;
    let withdrawal = Names::default().encode();
    // Longer ones are cut off at a byte more.
    let mut bytes = vec![0; withdrawal.len() + 1];
    let seen = recv(
        socket.as_raw_fd(),
        &mut bytes,
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
    );
    if !seen.is_ok_and(|len| bytes[..len] == withdrawal) {
        return Ok(false);
    }
    recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
    socket.write_all(&[Word::Did(Outcome::Done).byte()])?;
    Ok(true)
}

/// Runs one helper to its end; whether that was a good one.
fn serve(request: &Request, socket: &UnixStream) -> std::io::Result<bool> {
    let status = Command::new(PROGRAM)
        .arg0("isatapd-names")
        .args(request.arguments())
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone()?)))
        .status()?;
    Ok(status.success())
}

/// Whether the daemon is gone.
fn has_ended(socket: &UnixStream) -> std::io::Result<bool> {
    ready(socket, PollFlags::empty(), Some(Duration::ZERO))
}

/// Waits for `events`, or the end of the daemon, which needs no asking; whether there was one before `limit`.
fn ready(socket: &UnixStream, events: PollFlags, limit: Option<Duration>) -> std::io::Result<bool> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(socket.as_fd(), events)], timeout) {
            Err(Errno::EINTR) => {}
            Ok(0) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            waited => return Ok(waited? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let request = Request {
            again: false,
            if_index: 7,
            interface: "is0".into(),
            search_path: "/bin".into(),
        };
        assert_eq!(
            requested(&words(&["isatapd", ARGUMENT, "7", "is0", "/bin"])),
            Some(request)
        );
        for other in [
            &[][..],
            &["isatapd"],
            &["isatapd", ARGUMENT, "7", "is0"],
            &["isatapd", ARGUMENT, "is0", "is0", "/bin"],
            &["isatapd", "-f", "7", "is0", "/bin"],
        ] {
            assert_eq!(requested(&words(other)), None);
        }
    }
}
