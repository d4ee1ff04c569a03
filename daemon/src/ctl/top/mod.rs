//! `isatapctl top`: the daemon in a terminal, once a second, until somebody presses q.

mod model;
mod view;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::client::Client;
use crate::exit::ExitError;
use crate::ops::latency::LatencyRow;
use crate::ops::protocol::Command;
use model::Model;

/// How long an answer may take before the daemon counts as silent. Nobody hears the keys meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows the daemon behind `socket` until told to stop. A daemon that goes away is waited for.
///
/// # Errors
/// No terminal, or no daemon at the beginning.
pub fn run(socket: &Path, interval: Duration) -> Result<(), ExitError> {
    if !std::io::stdout().is_terminal() {
        return Err(ExitError::other("top needs a terminal")
            .with_remedy("isatapctl status --rate shows the same numbers as text"));
    }
    let mut client = Some(connect(socket)?);
    let mut model = Model::default();
    if let Some(client) = &mut client {
        look(client, &mut model)?;
    }
    let mut terminal = ratatui::try_init()
        .map_err(|error| ExitError::other(format!("the terminal cannot be used: {error}")))?;
    let outcome = watch(&mut terminal, socket, interval, client, &mut model);
    ratatui::restore();
    outcome.map_err(|error| ExitError::other(format!("the terminal cannot be used: {error}")))
}

fn watch(
    terminal: &mut DefaultTerminal,
    socket: &Path,
    interval: Duration,
    mut client: Option<Client>,
    model: &mut Model,
) -> std::io::Result<()> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| view::draw(frame, model))?;
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                match (key.code, key.modifiers) {
                    (KeyCode::Char('q') | KeyCode::Esc, _) | (KeyCode::Char('c'), KeyModifiers::CONTROL) => {
                        return Ok(());
                    }
                    (KeyCode::Char('p' | ' '), _) => model.paused = !model.paused,
                    (KeyCode::Char('j') | KeyCode::Down, _) => model.scroll(1),
                    (KeyCode::Char('k') | KeyCode::Up, _) => model.scroll(-1),
                    _ => {}
                }
            }
            continue;
        }
        next = Instant::now() + interval;
        if model.paused {
            continue;
        }
        let looked = match &mut client {
            Some(client) => look(client, model),
            None => connect(socket).and_then(|mut fresh| {
                let looked = look(&mut fresh, model);
                client = Some(fresh);
                looked
            }),
        };
        model.trouble = looked.err().map(|error| error.to_string());
        if model.trouble.is_some() {
            client = None;
        }
    }
}

fn connect(socket: &Path) -> Result<Client, ExitError> {
    Client::connect_with(socket, PATIENCE)
}

fn look(client: &mut Client, model: &mut Model) -> Result<(), ExitError> {
    let latencies: Vec<LatencyRow> = client.get(Command::Histogram)?;
    model.take(client.get(Command::Status)?, &latencies);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// FAULTS 64: a daemon that stands still keeps nobody from the keys for longer.
    #[test]
    fn a_silent_daemon_is_given_up_soon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _silent = UnixListener::bind(&path).unwrap();
        let error = look(&mut connect(&path).unwrap(), &mut Model::default()).unwrap_err();
        assert!(
            error.message().ends_with("is silent, with no answer within 2s"),
            "{error}"
        );
    }
}
