//! Router advertisements on the wire: solicitations of hosts in, answers, changes and last words out (RFC 4861 6.2).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isatap_engine::fib::Ipv4Prefix;
use isatap_engine::wire::ipv6::Ipv6View;
use isatap_engine::worker::Punt;
use tracing::{debug, info, warn};

use super::daemon::Daemon;
use super::punts;
use crate::advertise::message::Tone;
use crate::advertise::{FINAL_ROUNDS, MAX_CLIENTS, Outgoing, Solicitation, consistency};
use crate::config::resolved::{Advertise, Role};
use crate::ops::hosts::{HostStatus, Hosts};
use crate::ops::status::AdvertisingStatus;

/// Between the last words at the stop: the RFC asks for three seconds (MIN_DELAY_BETWEEN_RAS), and a stop has one. Three
/// are said at all so that one that is lost is made up for.
const LAST_WORDS_INTERVAL: Duration = Duration::from_millis(50);
/// When no more last words begin: routes, workers and interface have to go as well.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(300);
/// How often it is told that hosts cannot be advertised to; all of it is counted.
const UNSENT_INTERVAL: Duration = Duration::from_secs(600);
/// Between two looks at the clock while they are said.
const LAST_WORDS_BURST: usize = 64;

impl Daemon {
    /// Whether this daemon answers solicitations.
    fn is_advertising(&self) -> bool {
        self.settings.role == Role::Router && self.settings.advertise.on
    }

    /// Whether it does now: by its configuration, or in another program's place while it is drained.
    pub(super) fn answers_solicitations(&self) -> bool {
        self.is_advertising() || self.takes_leave_of_hosts()
    }

    /// Says from now on what the configuration says, or that hosts should leave.
    pub(super) fn set_advertising(&mut self, now: Instant) {
        let nothing = Advertise::default();
        let says = if self.is_advertising() {
            Some(&self.settings.advertise)
        } else {
            self.takes_leave_of_hosts().then_some(&nothing)
        };
        let tone = if self.takes_leave_of_hosts() {
            Tone::Final
        } else {
            Tone::Normal
        };
        let says = says.map(|says| (says, self.settings.mtu));
        self.advertiser.set(now, says, tone);
    }

    /// Remembers the hosts that the engine before this one knew.
    pub(super) fn recall_hosts(&mut self, now: Instant) {
        match self.known_hosts.read() {
            Ok(kept) => self.advertiser.recall(now, &kept),
            Err(error) => warn!("the hosts that the engine before this one knew cannot be read: {error}"),
        }
        if self.advertiser.clients() > 0 {
            info!(
                "known from the engine before: {} host(s)",
                self.advertiser.clients()
            );
        }
    }

    /// A host asked for a router.
    pub(super) fn solicited_by_host(&mut self, punt: &Punt) {
        let heard = Ipv6View::new(&punt.packet).ok().zip(punt.outer);
        let result = match heard {
            None => "malformed",
            Some((inner, outer)) => {
                let solicitation = Solicitation {
                    from: outer.src,
                    src: inner.src(),
                    locator: outer.dst,
                };
                let heard = self.advertiser.solicited(Instant::now(), &solicitation);
                if let Some((offset, bytes)) = self.advertiser.kept(solicitation.from) {
                    self.known_hosts.keep(offset, bytes.as_ref());
                }
                heard.name()
            }
        };
        count(&mut self.counters.solicitations_received, result);
    }

    /// The hosts known, of one network or all.
    ///
    /// # Errors
    /// When this is a host.
    pub(super) fn hosts(&self, now: Instant, within: Option<Ipv4Prefix>) -> Result<Hosts, String> {
        if self.settings.role == Role::Host {
            return Err("this is a host: it knows routers (isatapctl routers)".to_owned());
        }
        let mut known: Vec<_> = self.advertiser.known(now).collect();
        known.retain(|host| within.is_none_or(|network| network.contains(host.v4)));
        known.sort_unstable_by_key(|host| host.v4);
        let shown = known.into_iter().map(|host| HostStatus {
            addr: host.v4.to_string(),
            link_local: host.link_local.map(|addr| addr.to_string()),
            locator: host.locator.to_string(),
            solicited_seconds_ago: host.silent_for.as_secs_f64(),
            came_back: host.came_back,
        });
        Ok(Hosts {
            hosts: shown.collect(),
            total: self.advertiser.clients(),
            room: MAX_CLIENTS,
        })
    }

    /// A program on this machine advertised to all nodes.
    pub(super) fn spread(&mut self, packet: Bytes) {
        if self.settings.role == Role::Router {
            self.advertiser.spread(Instant::now(), packet);
        }
    }

    /// Sends what is due.
    pub(super) fn advertise(&mut self, now: Instant) {
        if self.advertiser.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        let limited = self.advertiser.limited();
        for outgoing in self.advertiser.due(now) {
            self.send_advertisement(&outgoing);
        }
        let limited = self.advertiser.limited() - limited;
        if limited > 0 {
            *self
                .counters
                .advertisements_sent
                .entry("limited".to_owned())
                .or_insert(0) += limited;
        }
    }

    fn send_advertisement(&mut self, outgoing: &Outgoing) {
        let result = match self.send_from(outgoing.from, outgoing.to, &outgoing.packet) {
            Ok(()) => outgoing.kind.name(),
            Err(error) => {
                self.tell_unsent(outgoing.to, &error);
                "failed"
            }
        };
        count(&mut self.counters.advertisements_sent, result);
    }

    /// Whatever keeps one host from being answered keeps others, too: the first of them is told about.
    fn tell_unsent(&mut self, to: Ipv4Addr, error: &std::io::Error) {
        let now = Instant::now();
        let was_told = |at| now.saturating_duration_since(at) < UNSENT_INTERVAL;
        if self.unsent_told_at.is_some_and(was_told) {
            return debug!("cannot advertise to {to}: {error}");
        }
        self.unsent_told_at = Some(now);
        warn!(
            peer = %to,
            "cannot advertise to {to}: {error}; others are counted (isatapctl status: told, failed), isatapctl doctor knows causes"
        );
    }

    /// Tells every host known that this router goes, up to three times (T7).
    pub(super) async fn take_leave(&mut self) {
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        for round in 0..FINAL_ROUNDS {
            let words: Vec<_> = self.advertiser.last_words().collect();
            if words.is_empty() {
                return;
            }
            if round == 0 {
                info!("telling {} host(s) that this router goes", words.len());
            } else {
                tokio::time::sleep(LAST_WORDS_INTERVAL).await;
            }
            for burst in words.chunks(LAST_WORDS_BURST) {
                if Instant::now() >= deadline {
                    return;
                }
                burst
                    .iter()
                    .for_each(|outgoing| self.send_advertisement(outgoing));
            }
        }
    }

    /// Another router of the link advertised itself: compared, told, and otherwise ignored (RFC 4861 6.2.7).
    pub(super) fn peer_advertised(&mut self, packet: &[u8]) {
        let clock = self.clock();
        if !punts::sender(packet).is_some_and(|router| self.advertisement_limits.take(router, clock)) {
            return count(&mut self.counters.advertisements, "rate_limited");
        }
        if !self.is_advertising() {
            // Answering in another program's place, there is nothing of our own to compare with.
            return count(&mut self.counters.advertisements, "ignored");
        }
        let Some((router, found)) = consistency::compare(packet, &self.settings.advertise, self.settings.mtu)
        else {
            return count(&mut self.counters.advertisements, "malformed");
        };
        count(&mut self.counters.advertisements, "compared");
        let now = Instant::now();
        for what in found {
            count(&mut self.counters.disagreements, what.field());
            if self.disagreements.is_news(now, router, &what) {
                warn!(%router, "router {router} advertises {what}: hosts believe whoever spoke last");
            }
        }
    }

    /// For `isatapctl status`.
    pub(super) fn advertising_status(&self) -> AdvertisingStatus {
        let says = &self.settings.advertise;
        let on = self.is_advertising();
        AdvertisingStatus {
            on,
            shared: self.is_shared(),
            clients: self.advertiser.clients(),
            prefixes: says
                .prefixes
                .iter()
                .filter(|_| on)
                .map(ToString::to_string)
                .collect(),
        }
    }
}

fn count(counts: &mut std::collections::BTreeMap<String, u64>, result: &str) {
    match counts.get_mut(result) {
        Some(count) => *count += 1,
        None => _ = counts.insert(result.to_owned(), 1),
    }
}
