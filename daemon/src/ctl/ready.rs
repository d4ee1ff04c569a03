//! `isatapctl ready`: whether packets can be carried, for scripts, and as an interface that exists as long, for routing
//! daemons.
//!
//! ```text
//!  isatapd <-- control socket, ten times a second -> isatapctl ready --hold isatap-up
//!                                                        | holds the only descriptor
//!                                                   TUN interface isatap-up  <-- BIRD: route 10.1.1.1/32 via "isatap-up"
//! ```
//!
//! The kernel takes the interface away when the descriptor is closed, and closes it when this program ends in whatever
//! way; it closes the connection when the daemon does. So nothing is announced that nobody answers for, also after kill -9
//! of either, and nothing has to be cleaned up.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use isatap_engine::io::tun;
use nix::net::if_::if_nametoindex;

use super::client::Client;
use crate::exit::{ExitError, ExitStatus};
use crate::launch::log::escaped;
use crate::link::change::Change;
use crate::link::change::direct::Direct;
use crate::ops::protocol::Command;

/// Time between two looks. A daemon that stops carries on for a little longer, so that nothing is lost.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer may take before the daemon counts as gone: one that hangs carries nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// MTU of the interface in bytes: the least that IPv6 lives with. Nothing is sent through it.
const MTU: u16 = 1280;

/// `isatapctl ready [--wait SECONDS]`.
///
/// # Errors
/// Status 1 with the obstacles when not ready in time, 69 when there is no daemon.
pub fn wait(socket: &Path, limit: Option<Duration>) -> Result<String, ExitError> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let outcome = Client::connect_with(socket, PATIENCE).and_then(|mut client| look(&mut client));
        let refusal = match outcome {
            Ok(obstacles) if obstacles.is_empty() => return Ok("ready\n".to_owned()),
            Ok(obstacles) => ExitError::other(format!("not ready: {}", obstacles.join("; "))),
            Err(error) => error,
        };
        if deadline.is_none_or(|at| Instant::now() + INTERVAL > at) {
            return Err(refusal);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Why packets cannot be carried; nothing when they can.
fn look(client: &mut Client) -> Result<Vec<String>, ExitError> {
    client.get(Command::Ready)
}

/// `isatapctl ready --hold INTERFACE`: goes on until it is ended.
///
/// # Errors
/// When the interface cannot be made: 77 without CAP_NET_ADMIN, 69 when the name is taken.
pub fn hold(socket: &Path, name: &str, out: &mut impl Write) -> Result<(), ExitError> {
    let mut say = |line: &str| {
        // Whoever reads may have gone; the routes must not go with it.
        let _ = writeln!(out, "{}", escaped(line)).and_then(|()| out.flush());
    };
    let mut connection: Option<Client> = None;
    let mut marker: Option<Marker> = None;
    let mut told = None;
    loop {
        let why = match state(socket, &mut connection) {
            Ok(obstacles) if obstacles.is_empty() => None,
            Ok(obstacles) => Some(obstacles.join("; ")),
            Err(error) => Some(error.to_string()),
        };
        match &why {
            None if marker.as_ref().is_some_and(Marker::is_there) => {}
            None => {
                marker = Some(Marker::make(name)?);
                say(&format!("{name} is up: packets can be carried"));
            }
            Some(why) => {
                // Gone before anything else is done, and be it to say so.
                if marker.take().is_some() || told.as_ref() != Some(&Some(why.clone())) {
                    say(&format!("{name} is not there: {why}"));
                }
            }
        }
        told = Some(why);
        match &connection {
            Some(client) if client.stays_open_for(INTERVAL) => {}
            Some(_) => connection = None,
            None => std::thread::sleep(INTERVAL),
        }
    }
}

/// Asks over `connection`, which is made where there is none and given up when it fails.
fn state(socket: &Path, connection: &mut Option<Client>) -> Result<Vec<String>, ExitError> {
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect_with(socket, PATIENCE)?,
    };
    let obstacles = look(&mut client)?;
    *connection = Some(client);
    Ok(obstacles)
}

/// The interface.
struct Marker {
    if_index: u32,
    name: String,
    _queue: OwnedFd,
}

impl Marker {
    /// Makes it and sets it up.
    fn make(name: &str) -> Result<Self, ExitError> {
        let failed = |why: String| ExitError::unavailable(format!("cannot hold {name}: {why}"));
        if if_nametoindex(name).is_ok() {
            return Err(failed("there is an interface of this name already".to_owned())
                .with_remedy("choose another name, unless it is held by another isatapctl"));
        }
        let queue = tun::create_plain(name).map_err(|error| {
            let status = if error.is_permission() {
                ExitStatus::NotPermitted
            } else {
                ExitStatus::Unavailable
            };
            ExitError::new(status, error.to_string())
        })?;
        let if_index = if_nametoindex(name).map_err(|errno| failed(errno.to_string()))?;
        let direct = Direct::open(if_index).map_err(|error| failed(error.to_string()))?;
        for change in [Change::Shape(MTU), Change::Up] {
            direct
                .carry_out(&change)
                .map_err(|error| failed(format!("{change}: {error}")))?;
        }
        Ok(Self {
            if_index,
            name: name.to_owned(),
            _queue: queue,
        })
    }

    /// Whether nobody has deleted it meanwhile.
    fn is_there(&self) -> bool {
        if_nametoindex(self.name.as_str()) == Ok(self.if_index)
    }
}
