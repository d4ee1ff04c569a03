//! What is heard about paths reaches the Rulebook, and is shown (M4, M6; FAULTS 25, 28).

use std::time::Instant;

use isatap_engine::fib::RulebookBuilder;
use isatap_engine::io::errqueue::SendFailure;
use isatap_engine::isatap::mtu::OVERHEAD;
use tracing::debug;

use super::daemon::Daemon;
use crate::ops::status::{PathStatus, PathsStatus};
use crate::pmtu::{self, Entry, Outcome};

/// Paths shown at most: the answer must fit one line of the control socket.
const MAX_PATHS_SHOWN: usize = 256;

impl Daemon {
    /// A router on the way says that a packet of ours was too big.
    pub(super) fn fragmentation_needed(&mut self, failure: &SendFailure) {
        match pmtu::read(failure, &self.publisher.current()) {
            Ok(claim) => {
                self.count_path_message("router");
                let now = Instant::now();
                let outcome = self.paths.routers.lower(now, claim.peer, claim.mtu);
                self.path_changed(outcome);
                // How long it holds has changed in any case.
                self.paths.keeping.changed(now);
            }
            Err(refusal) => {
                let (peer, reason) = (failure.destination, refusal.name());
                debug!(%peer, reason, "\"fragmentation needed\" about {peer} is not believed: {reason}");
                self.count_path_message(refusal.name());
            }
        }
    }

    /// Our own kernel refused a packet: the link it leaves by takes less.
    pub(super) fn refused_for_size(&mut self, failure: &SendFailure) {
        let now = Instant::now();
        let links = self.watch.state().mtus();
        if self.paths.former_mtus.is_outdated(now, failure.info, links) {
            return self.count_path_message("outdated");
        }
        let mtu = u16::try_from(failure.info).unwrap_or(u16::MAX);
        self.count_path_message("link");
        let outcome = self.paths.links.lower(now, failure.destination, mtu);
        self.path_changed(outcome);
    }

    fn path_changed(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Unchanged => return,
            Outcome::Lowered => {}
            Outcome::LoweredFull => self.count_path_change("evicted", 1),
        }
        self.count_path_change("lowered", 1);
        self.mark_changed();
    }

    /// Leaves what is known of paths to the engine that follows, where it is time.
    pub(super) fn keep_paths(&mut self, now: Instant) {
        if self.paths.keeping.take(now) {
            self.keep_settings();
        }
    }

    /// Tries larger sizes where it is time.
    pub(super) fn raise_paths(&mut self, now: Instant) {
        let raised = self.paths.raise(now, self.settings.mtu + OVERHEAD);
        if raised > 0 {
            self.count_path_change("raised", u64::try_from(raised).unwrap_or(u64::MAX));
            self.mark_changed();
        }
    }

    /// A device changed: what was said about links may hold no longer. The next packet that is too big tells again.
    pub(super) fn forget_links(&mut self) {
        let ended = self.watch.take_ended_mtus();
        let have_changed = ended.missed || !ended.mtus.is_empty();
        self.paths
            .former_mtus
            .add(Instant::now(), ended.mtus, ended.missed);
        if have_changed && self.paths.links.clear() {
            debug!("a link takes packets of another size now");
        }
    }

    pub(super) fn add_paths(&self, builder: &mut RulebookBuilder) {
        builder.paths = self.paths.known();
        builder.mark = self.mark;
    }

    fn count_path_message(&mut self, result: &str) {
        *self.counters.path_messages.entry(result.to_owned()).or_insert(0) += 1;
    }

    fn count_path_change(&mut self, change: &str, by: u64) {
        *self.counters.path_changes.entry(change.to_owned()).or_insert(0) += by;
    }

    pub(super) fn paths_status(&self) -> PathsStatus {
        let now = Instant::now();
        let show = |said_by: &'static str| {
            move |(peer, entry): (_, Entry)| PathStatus {
                peer,
                mtu: entry.mtu,
                said_by: said_by.to_owned(),
                said_seconds_ago: now.saturating_duration_since(entry.heard_at).as_secs_f64(),
                raise_seconds: entry.raise_at.saturating_duration_since(now).as_secs_f64(),
            }
        };
        let links = self.paths.links.iter().map(show("link"));
        let all = links.chain(self.paths.routers.iter().map(show("router")));
        PathsStatus {
            links: self.paths.links.len(),
            routers: self.paths.routers.len(),
            list: all.take(MAX_PATHS_SHOWN).collect(),
        }
    }
}
