//! Things that go wrong on demand, for tests of what follows. No release build has this.

use std::time::Duration;

use isatap_engine::worker::WorkerFault;

use super::daemon::Daemon;
use crate::link::change::{Change, Changer as _};
use crate::ops::fault::Fault;

impl Daemon {
    /// Does what a test wishes; says what came of it where there is somebody left to say it.
    pub(super) async fn go_wrong(&mut self, fault: Fault) -> Result<Vec<String>, String> {
        match fault {
            Fault::WorkerPanic => self.engine.inject(0, WorkerFault::Panic),
            Fault::WorkerWedge => self.engine.inject(0, WorkerFault::Wedge),
            Fault::ControlPanic => panic!("as a test wished"),
            Fault::ControlWedge => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Fault::Abort => std::process::abort(),
            Fault::Program => {
                let started = std::process::Command::new("/bin/true").spawn();
                return Ok(vec![
                    started.map_or_else(|error| error.to_string(), |_| "done".to_owned()),
                ]);
            }
            Fault::Nonsense => self.link.babble(),
            Fault::Forbidden => return Ok(self.ask_too_much().await),
        }
        Ok(Vec::new())
    }

    async fn ask_too_much(&self) -> Vec<String> {
        let mut answers = Vec::new();
        for change in [
            Change::Mtu(0),
            Change::LinkLocal([127, 0, 0, 1].into()),
            Change::RemoveAddress(
                "2001:db8:1::1".parse().unwrap_or(std::net::Ipv6Addr::LOCALHOST),
                64,
            ),
            Change::HopLimit(Some(0)),
        ] {
            answers.push(match self.link.change(change).await {
                Ok(()) => format!("{change}: done"),
                Err(error) => error.to_string(),
            });
        }
        let listened = self.link.listen_at(([127, 0, 0, 1], 80).into()).await;
        answers.push(listened.map_or_else(|why| format!("listen: {why}"), |_| "listen: done".to_owned()));
        answers
    }
}
