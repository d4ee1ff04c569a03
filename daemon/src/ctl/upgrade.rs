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
/// Status 1 when the daemon refuses, with its reason, or goes on as it is; 69 when nothing serves afterwards.
pub(super) fn run(socket: &Path) -> Result<String, ExitError> {
    let asked = Instant::now();
    // One connection: both answers are of the same engine. One that ends before the second question was not asked.
    let (mut client, before) = loop {
        let mut client = Client::connect(socket)?;
        match client.get::<Status>(Command::Status) {
            Ok(before) => break (client, before),
            Err(_) if client.has_ended() && asked.elapsed() < LIMIT => std::thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    };
    // It answers no more though it may be for an upgrade: what somebody else asked for serves as well.
    let unanswered = match client.get::<String>(Command::Upgrade) {
        Ok(_) => None,
        Err(error) if client.has_ended() => Some(error),
        Err(error) => return Err(error),
    };
    while asked.elapsed() < LIMIT {
        // Connections of the moment in between die with the engine that took them.
        let status = Client::connect(socket).and_then(|mut client| client.get::<Status>(Command::Status));
        if let Ok(now) = status {
            if now.control.upgrades > before.control.upgrades {
                return Ok(format!(
                    "isatapd {} has taken over from {} ({:.0?})\n",
                    now.version,
                    before.version,
                    asked.elapsed()
                ));
            }
            if let Some(error) = unanswered {
                return Err(error);
            }
            if let Some(instead) = instead(&before, &now) {
                return Err(ExitError::other(instead).with_remedy("the daemon's log has the reason"));
            }
        }
        std::thread::sleep(RETRY);
    }
    Err(ExitError::unavailable("the new program does not serve")
        .with_remedy("look into the log, restart isatapd"))
}

/// What came of it instead; nothing as long as that is open.
fn instead(before: &Status, now: &Status) -> Option<&'static str> {
    if now.pid != before.pid {
        // A service manager did that.
        Some(
            "the new program ended instead of taking over; isatapd was started anew, and its interface made anew",
        )
    } else if now.engine_pid != before.engine_pid {
        Some("the new program did not take over; the one of before goes on")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::tests::example;

    #[test]
    fn who_serves_instead_is_told_by_process_ids() {
        let before = example();
        assert_eq!(instead(&before, &example()), None);
        let mut other = example();
        other.engine_pid += 1;
        assert!(instead(&before, &other).is_some_and(|said| said.contains("the one of before goes on")));
        other.pid += 1;
        assert!(instead(&before, &other).is_some_and(|said| said.contains("made anew")));
    }
}
