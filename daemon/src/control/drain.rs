//! A router is taken out of service without loss: hosts hear that it is no default router any more, `/ready` says no, and
//! whatever still comes is carried. It lasts until it is undone, or the daemon ends.
//!
//! ```text
//!             drain                                       whose address is its own
//!  in service -----> draining: /ready 503 --+--> lifetime 0 to all known hosts, and to whoever solicits,
//!       ^              |                    |    also where radvd answered before
//!       `--------------'                    `--> whose address others have, too (anycast): not a word; routing leads
//!           undo                                 hosts elsewhere
//! ```

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::daemon::Daemon;
use crate::config::resolved::Role;
use crate::link::rulebook;

/// The obstacle to readiness.
pub(super) const DRAINING: &str =
    "this router is being drained; isatapctl drain --undo takes it back into service";

/// Somebody who asks for readiness this often routes by the answer.
const WATCHED_WITHIN: Duration = Duration::from_secs(1);
/// How long packets are carried after the stop was told: `isatapctl ready --hold` asks within 100 ms, and then routes have to be
/// withdrawn. A stop has one second for everything.
const HAND_OVER: Duration = Duration::from_millis(250);

impl Daemon {
    /// Until when a router that stops carries what routing still leads to it; `None` when nobody routes by its readiness.
    pub(super) fn handed_over_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let is_watched = self
            .watched_at
            .is_some_and(|at| now.saturating_duration_since(at) <= WATCHED_WITHIN);
        (is_watched && self.settings.role == Role::Router).then(|| now + HAND_OVER)
    }

    /// Takes this router out of service (`on`), or back; says what that means for hosts.
    ///
    /// # Errors
    /// When this is a host.
    pub(super) fn drain(&mut self, on: bool) -> Result<Vec<String>, String> {
        if self.settings.role == Role::Host {
            return Err("this is a host: nothing has to be led away from it".to_owned());
        }
        let now = Instant::now();
        match (on, self.drained_at) {
            (true, Some(since)) => {
                let seconds = now.saturating_duration_since(since).as_secs();
                return Ok(vec![format!("this router has been drained for {seconds} s")]);
            }
            (false, None) => return Ok(vec!["this router is in service".to_owned()]),
            (true, None) => self.drained_at = Some(now),
            (false, Some(_)) => self.drained_at = None,
        }
        self.set_advertising(now);
        // It outlives this engine.
        self.keep_settings();
        // Who answers solicitations is a rule of the workers.
        self.mark_changed();
        let lines = if on { self.leave() } else { self.come_back() };
        for line in &lines {
            info!("{line}");
        }
        Ok(lines)
    }

    fn leave(&self) -> Vec<String> {
        warn!("{DRAINING}");
        let mut lines = vec!["draining: /ready answers 503, packets that still come are carried".to_owned()];
        if self.is_shared() {
            lines.push(format!(
                "{} is on the loopback device, as an address that several routers have: hosts are told nothing, routing \
                 has to lead them elsewhere",
                self.locator
            ));
            return lines;
        }
        lines.push(format!(
            "telling {} host(s) to use another router",
            self.advertiser.clients()
        ));
        if !self.settings.advertise.on {
            lines.push("solicitations are answered here instead of by radvd".to_owned());
        }
        lines
    }

    fn come_back(&self) -> Vec<String> {
        let mut lines = vec!["back in service".to_owned()];
        if !self.is_shared() {
            lines.push(if self.settings.advertise.on {
                format!("telling {} host(s)", self.advertiser.clients())
            } else {
                "hosts come back when they solicit next, and radvd answers".to_owned()
            });
        }
        lines
    }

    /// A router that became a host has nobody to lead away.
    pub(super) fn follow_role(&mut self) {
        if self.settings.role == Role::Host && self.drained_at.take().is_some() {
            info!("no router any more, so not drained either");
        }
    }

    /// Whether hosts are told that this router goes.
    pub(super) fn takes_leave_of_hosts(&self) -> bool {
        self.drained_at.is_some() && self.settings.role == Role::Router && !self.is_shared()
    }

    /// Whether other routers have our address, too.
    pub(super) fn is_shared(&self) -> bool {
        self.settings.role == Role::Router && rulebook::is_shared(self.watch.state(), self.locator)
    }
}
