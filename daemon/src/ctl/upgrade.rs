//! `isatapctl upgrade`: has the daemon become what is installed, and waits until that serves.

use std::path::Path;
use std::time::{Duration, Instant};

use super::client::Client;
use crate::exit::ExitError;
use crate::ops::protocol::Command;
use crate::ops::status::Status;

/// How long the new program may take to serve, and how often it is asked.
const LIMIT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(5);

/// Asks for it, and says what came of it.
///
/// # Errors
/// Status 1 when the daemon refuses, with its reason; 69 when nothing serves afterwards.
pub(super) fn run(socket: &Path) -> Result<String, ExitError> {
    let before: Status = Client::connect(socket)?.get(Command::Status)?;
    let asked = Instant::now();
    let _: String = Client::connect(socket)?.get(Command::Upgrade)?;
    while asked.elapsed() < LIMIT {
        // Connections of the moment in between die with the engine that took them.
        let status = Client::connect(socket).and_then(|mut client| client.get::<Status>(Command::Status));
        if let Ok(now) = status
            && now.control.upgrades > before.control.upgrades
        {
            return Ok(format!(
                "isatapd {} has taken over from {} ({:.0?})\n",
                now.version,
                before.version,
                asked.elapsed()
            ));
        }
        std::thread::sleep(RETRY);
    }
    Err(ExitError::unavailable("the new program does not serve")
        .with_remedy("look into the log, restart isatapd"))
}
