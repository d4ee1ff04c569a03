//! Names of the PRL in the control loop: lookups that are due are started, answers become routers to solicit.

use std::net::Ipv4Addr;
use std::time::Instant;

use tracing::{info, warn};

use super::daemon::Daemon;
use crate::config::machine::{Machine as _, ThisMachine};
use crate::prl::names::{Answer, LookupError, NameBook};

impl Daemon {
    /// Starts the lookups that are due.
    pub(super) fn look_up(&mut self, now: Instant) {
        self.lookups.start(self.names.due(now));
    }

    /// Whether a solicitation that is due waits for lookups (P3); they are started.
    pub(super) fn must_ask_first(&mut self, now: Instant) -> bool {
        let wait = self.routers.must_solicit(now) && self.names.ask_before_solicitation(now);
        if wait {
            self.look_up(now);
        }
        wait
    }

    /// A lookup has ended.
    pub(super) fn looked_up(&mut self, name: &str, result: Result<Answer, LookupError>) {
        let now = Instant::now();
        let changed = self.names.answered(now, name, result);
        self.counters.prl_refresh_failures = self.names.failures();
        if changed {
            self.follow_prl(now);
        }
        tell(&mut self.names);
    }

    /// The machine's addresses may have changed: none of them can be a router's.
    pub(super) fn follow_own_addresses(&mut self) {
        let now = Instant::now();
        if self.names.set_own(now, &self.own_addresses()) {
            self.follow_prl(now);
        }
        tell(&mut self.names);
    }

    fn own_addresses(&self) -> Vec<Ipv4Addr> {
        let mut own: Vec<Ipv4Addr> = self.watch.state().v4().map(|v4| v4.addr).collect();
        own.push(self.locator);
        own.sort_unstable();
        own.dedup();
        own
    }

    /// The PRL has changed: new routers are solicited, others are heard no longer.
    pub(super) fn follow_prl(&mut self, now: Instant) {
        self.settle_locator();
        let members = self.names.addrs();
        for router in self.routers.views() {
            if !members.contains(&router.addr) {
                self.forget_router(now, router.addr);
            }
        }
        self.routers.set_routers(now, &members);
        self.advertisement_limits.keep(&members);
        self.keep_settings();
        self.mark_changed();
    }

    /// With names alone as servers the locator was a guess at start; the first router known decides.
    fn settle_locator(&mut self) {
        let Some(first) = self.names.members().first().map(|member| member.addr) else {
            return;
        };
        if !std::mem::take(&mut self.locator_is_guess) {
            return;
        }
        let state = self.watch.state();
        let is_ours = |addr: &Ipv4Addr| {
            state
                .device_of(*addr)
                .is_some_and(|device| device != state.if_index())
        };
        let source = ThisMachine.source_towards(first).filter(is_ours);
        if let Some(source) = source.filter(|source| *source != self.locator) {
            info!(
                router = %first,
                locator = %source,
                "the way to the router {first} starts at {source}: the tunnel moves there from {}",
                self.locator
            );
            self.locator = source;
            self.was_present = true;
            self.look_at_interface();
        }
    }

    /// What keeps routers from being known, or why none of the known can be used.
    pub(super) fn router_obstacle(&self) -> String {
        if !self.names.members().is_empty() {
            return format!(
                "no usable router ({})",
                super::report::router_counts(&self.routers)
            );
        }
        let waits = self.names.name_views().map(|view| match view.last_error {
            Some(error) => format!("{}: {error}", view.name),
            None => format!("{}: not looked up yet", view.name),
        });
        format!("no router is known ({})", waits.collect::<Vec<_>>().join("; "))
    }
}

/// Tells the operator what the names have to say.
pub(super) fn tell(names: &mut NameBook) {
    for note in names.take_notes() {
        let name = note.name();
        if note.is_warning() {
            warn!(name, "{note}");
        } else {
            info!(name, "{note}");
        }
    }
}
