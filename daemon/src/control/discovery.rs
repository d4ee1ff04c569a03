//! Router discovery and reachability on the wire: solicitations and probes out, advertisements and answers in.

use std::net::Ipv4Addr;
use std::time::Instant;

use isatap_engine::io::errqueue::SendFailure;
use isatap_engine::isatap::tos;
use isatap_engine::wire::ipv6::Ipv6View;
use tracing::{debug, info};

use super::daemon::Daemon;
use super::translate::{Outcome, is_delivery_failure};
use super::{icmp, punts};
use crate::config::resolved::Role;
use crate::prl::Health;

impl Daemon {
    /// An answer must be able to come back in.
    pub(super) fn can_solicit(&self) -> bool {
        self.settings.role == Role::Host && self.was_up && self.is_present()
    }

    /// Sends the solicitations and probes that are due.
    pub(super) fn discover(&mut self, now: Instant) {
        if !self.can_solicit() {
            return;
        }
        let before = self.routers.healths();
        let wait = self.must_ask_first(now);
        let traffic = self.packets_sent();
        let due = self.routers.due(now, traffic, wait);
        if !due.solicit.is_empty() {
            let packet = punts::solicitation(self.locator);
            for router in due.solicit {
                self.counters.solicitations += 1;
                self.send(router, &packet);
            }
        }
        for probe in due.probe {
            self.counters.probes += 1;
            self.send(probe.router, &punts::probe(self.locator, probe.target));
        }
        self.tell_health(&before);
    }

    /// Says what changed of the routers' health, and has it reach the workers and the engine that follows.
    fn tell_health(&mut self, before: &[Health]) {
        let views = self.routers.views();
        if views.iter().map(|view| view.health).eq(before.iter().copied()) {
            return;
        }
        for (view, old) in views
            .iter()
            .zip(before)
            .filter(|(view, old)| view.health != **old)
        {
            let (router, state, before) = (view.addr, view.health.name(), old.name());
            info!(%router, state, before, "router {router}: {before} -> {state}");
        }
        info!("routers: {}", super::report::router_counts(&self.routers));
        self.keep_settings();
        self.mark_changed();
    }

    /// Sends a packet to one router, from the locator that its source embeds; whether the kernel took it.
    fn send(&mut self, router: Ipv4Addr, packet: &[u8]) -> bool {
        let Ok(view) = Ipv6View::new(packet) else {
            return false;
        };
        let settings = &self.settings;
        let tos = tos::outer_tos(settings.dscp, settings.ecn.of(router), view.traffic_class());
        let ttl = tos::outer_ttl(settings.ttl, view.hop_limit());
        let rules = self.publisher.current();
        let source = rules.source_for(&view.src()).unwrap_or(self.locator);
        let sent = self.engine.control().send(source, router, tos, ttl, packet);
        if let Err(error) = &sent {
            debug!("cannot send to router {router}: {error}");
        }
        sent.is_ok()
    }

    /// Sends a neighbour discovery message from one of our locators.
    pub(super) fn send_from(&self, from: Ipv4Addr, to: Ipv4Addr, packet: &[u8]) -> std::io::Result<()> {
        let settings = &self.settings;
        let tos = tos::outer_tos(settings.dscp, settings.ecn.of(to), 0);
        let ttl = tos::outer_ttl(settings.ttl, u8::MAX);
        self.engine.control().send(from, to, tos, ttl, packet)
    }

    /// A router advertised itself.
    pub(super) fn advertised(&mut self, packet: &[u8]) {
        let clock = self.clock();
        // First of all, since in a flood this is all that is done.
        if !punts::sender(packet).is_some_and(|router| self.advertisement_limits.take(router, clock)) {
            return self.count_advertisement("rate_limited");
        }
        let before = self.routers.healths();
        let result = match punts::advertisement(packet) {
            None => "malformed",
            Some((router, heard)) => match self.routers.advertised(Instant::now(), router, &heard) {
                Ok(()) => {
                    self.learn(Instant::now(), packet);
                    "accepted"
                }
                Err(_) => "unknown_router",
            },
        };
        self.count_advertisement(result);
        self.tell_health(&before);
    }

    fn count_advertisement(&mut self, result: &str) {
        match self.counters.advertisements.get_mut(result) {
            Some(count) => *count += 1,
            None => _ = self.counters.advertisements.insert(result.to_owned(), 1),
        }
    }

    /// A router answered a probe, perhaps.
    pub(super) fn answered_probe(&mut self, packet: &[u8]) {
        let Some(router) = punts::solicited_answer(packet) else {
            return;
        };
        let before = self.routers.healths();
        let traffic = self.packets_sent();
        self.routers.confirmed(Instant::now(), router, traffic);
        self.tell_health(&before);
    }

    /// A solicitation that some program on this host sent to all routers: the link has no multicast, so each router
    /// of the PRL gets its own copy.
    pub(super) fn solicited_by_kernel(&mut self, packet: &[u8]) {
        if !self.can_solicit() || !self.solicitation_limit.take(self.clock()) {
            return;
        }
        for router in self.routers.views() {
            self.counters.solicitations += 1;
            self.send(router.addr, packet);
        }
    }

    /// Any other packet of a program on this host to all routers goes the same way.
    pub(super) fn tell_all_routers(&mut self, packet: &[u8]) {
        if !self.can_solicit() {
            return self.count_copy("not_ready");
        }
        if !self.all_routers_limit.take(self.clock()) {
            return self.count_copy("rate_limited");
        }
        for router in self.routers.views() {
            let sent = self.send(router.addr, packet);
            self.count_copy(if sent { "sent" } else { "failed" });
        }
    }

    fn count_copy(&mut self, result: &str) {
        *self.counters.all_routers.entry(result.to_owned()).or_insert(0) += 1;
    }

    /// An error queue had something to say.
    pub(super) fn icmp_error(&mut self, failure: &SendFailure) {
        if icmp::is_about_size(failure) {
            return self.refused_for_size(failure);
        }
        if icmp::is_fragmentation_needed(failure) {
            self.fragmentation_needed(failure);
        }
        if !icmp::is_about_us(failure, &self.locators()) {
            debug!(
                "an ICMP error about a packet that is not ours, for {}",
                failure.destination
            );
            return self.count_translation(Outcome::Foreign);
        }
        self.tell_sender(failure);
        *self
            .counters
            .icmp_errors
            .entry(icmp::kind(failure).to_owned())
            .or_insert(0) += 1;
        if icmp::is_unreachable(failure) {
            let before = self.routers.healths();
            self.routers.suspect(Instant::now(), failure.destination);
            self.tell_health(&before);
        }
        if is_delivery_failure(failure.icmp) {
            self.redirect_target_failed(failure.destination);
        }
    }
}
