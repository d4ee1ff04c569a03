//! Autoconfiguration of a host: what its routers advertise becomes addresses and routes of the interface, and stays that
//! way whatever else happens to it (RFC 4861 6.3, RFC 4862 5.5, RFC 4191).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::daemon::Daemon;
use crate::advertise::own;
use crate::config::Settings;
use crate::config::resolved::Role;
use crate::exit::ExitError;
use crate::link::apply::{self, Op};
use crate::link::dns::DnsHandover;
use crate::ops::status::ResolverStatus;
use crate::slaac::{Advert, SlaacConfig, Wanted};

/// How soon the kernel's state is looked at again after something else changed it: a burst of changes is one look.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Pause after an operation that the kernel refused.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What autoconfiguration is to know of the configuration.
pub(super) fn slaac_config(settings: &Settings) -> SlaacConfig {
    SlaacConfig {
        default_route: settings.default_route,
        mtu_ceiling: settings.mtu,
    }
}

impl Daemon {
    /// Takes in an advertisement of a router of the PRL.
    pub(super) fn learn(&mut self, now: Instant, packet: &[u8]) {
        let Some(advert) = Advert::parse(packet) else {
            return;
        };
        let before = self.slaac.refused();
        self.slaac.advertised(now, &advert);
        let refused = self.slaac.refused().since(&before);
        let ignored = advert.ignored.by_cause();
        let ignored = ignored.map(|(cause, count)| (cause, u64::from(count)));
        for (cause, count) in ignored.into_iter().chain(refused) {
            *self.counters.ignored_options.entry(cause.to_owned()).or_insert(0) += count;
        }
        // Also when nothing new is wanted: lifetimes begin anew.
        self.configure_at = Some(now);
    }

    /// The kernel's state may be another one than this daemon left it in.
    pub(super) fn look_at_kernel(&mut self) {
        // What was refused before may be possible now.
        let soon = Instant::now() + LOOK_AGAIN;
        self.configure_at = Some(self.configure_at.map_or(soon, |at| at.min(soon)));
    }

    /// A router left the PRL: what it promised for itself ends.
    pub(super) fn forget_router(&mut self, now: Instant, router: Ipv4Addr) {
        if self.slaac.forget_router(now, router) {
            self.configure_at = Some(now);
        }
    }

    /// When [`Daemon::configure`] is due.
    pub(super) fn configure_due(&self) -> Option<Instant> {
        let ends = self
            .slaac
            .next_deadline()
            .filter(|_| self.settings.role == Role::Host);
        [self.configure_at, ends].into_iter().flatten().min()
    }

    /// Makes the kernel's state what is wanted now.
    ///
    /// # Errors
    /// When the workers cannot be told.
    pub(super) async fn configure(&mut self, now: Instant) -> Result<(), ExitError> {
        self.configure_at = None;
        self.slaac.set_locators(&self.locators());
        self.slaac.expire(now);
        let wanted = self.wanted(now);
        match &self.name_servers {
            Some(handover) => handover.set(&wanted.dns, &wanted.search),
            None if !wanted.dns.is_empty() => {
                debug!("advertised name servers are not used: the helper for them could not be started");
            }
            None => {}
        }
        let ops = apply::plan(
            &self.installed,
            self.watch.state(),
            &wanted,
            self.settings.mtu,
            now,
        );
        if ops.is_empty() {
            return Ok(());
        }
        let has = |addr| self.watch.state().has_own6(addr);
        if ops
            .iter()
            .any(|op| matches!(op, Op::SetAddress(wanted) if !has(wanted.addr)))
        {
            // Workers know an address before any program can send from it: as a stranger's it would be dropped.
            self.publish(now)?;
        }
        let before = self.installed.counts();
        let failures = apply::apply(&mut self.installed, &self.link, &ops, now).await;
        if self.installed.counts() != before {
            self.tell_configuration(&ops);
        }
        for failure in &failures {
            warn!("{}", failure.error);
        }
        if !failures.is_empty() {
            self.configure_at = Some(now + TRY_AGAIN);
        }
        Ok(())
    }

    /// What the kernel should have.
    fn wanted(&self, now: Instant) -> Wanted {
        match self.settings.role {
            Role::Host => self.slaac.wanted(now),
            Role::Router => own::wanted(&self.settings.advertise, &self.locators()),
        }
    }

    /// Addresses that the kernel is about to get.
    pub(super) fn coming_addresses(&self, now: Instant) -> impl Iterator<Item = Ipv6Addr> {
        let state = self.watch.state();
        let addresses = self.wanted(now).addresses.into_iter().map(|wanted| wanted.addr);
        addresses.filter(|addr| !state.has_own6(*addr))
    }

    /// Name servers and search domains in force.
    pub(super) fn resolver_status(&self) -> ResolverStatus {
        let wanted = self.slaac.wanted(Instant::now());
        let outcome = self.name_servers.as_ref().and_then(DnsHandover::outcome);
        ResolverStatus {
            servers: wanted.dns,
            search: wanted.search,
            outcome: outcome.map(|outcome| outcome.name().to_owned()),
        }
    }

    fn tell_configuration(&self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::SetAddress(wanted) => {
                    info!(address = %wanted.addr, "address {}/{}", wanted.addr, wanted.prefix_len);
                }
                Op::RemoveAddress(addr, _) => info!(address = %addr, "address {addr} ended"),
                _ => {}
            }
        }
        let (addresses, routes) = self.installed.counts();
        match self.settings.role {
            Role::Host => info!("configured by routers: {addresses} address(es), {routes} route(s)"),
            Role::Router => {
                info!("advertised prefixes: {addresses} address(es), {routes} route(s) of our own")
            }
        }
    }
}
