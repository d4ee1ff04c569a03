//! What follows from changes of the machine: the interface repaired, the locator kept or moved.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::isatap::iid;
use tracing::{info, warn};

use super::daemon::Daemon;
use super::locator::{self, Choice, Way};
use crate::config::machine::{Machine as _, ThisMachine};
use crate::exit::ExitError;
use crate::link::change::{Change, Changer as _};
use crate::link::{Effect, NetlinkError};

/// Least time between two repairs of the interface, and between failed attempts.
const REPAIR_INTERVAL: Duration = Duration::from_millis(100);
const REPAIR_AGAIN: Duration = Duration::from_millis(500);
/// How often to look for a way to a router while the machine has addresses but not the locator.
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);

impl Daemon {
    pub(super) fn mirrored(&mut self, effect: Result<Effect, NetlinkError>) -> Result<(), ExitError> {
        let name = &self.interface.name;
        match effect {
            Ok(Effect::Gone) => {
                return Err(ExitError::other(format!("interface {name} was deleted"))
                    .with_remedy("start isatapd again to create it"));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(ExitError::other(format!(
                    "interface {name} can be watched no longer: {error}"
                )));
            }
        }
        self.counters.netlink_overruns = self.watch.overruns();
        self.look_at_kernel();
        self.follow_interface();
        self.follow_locator();
        self.follow_own_addresses();
        self.forget_links();
        self.mark_changed();
        Ok(())
    }

    fn follow_interface(&mut self) {
        let called = self.watch.state().name();
        if let Some(name) = called.filter(|name| *name != self.interface.name) {
            info!(interface = %name, "interface {} is called {name} now", self.interface.name);
            name.clone_into(&mut self.interface.name);
        }
        let (up, name) = (self.watch.state().is_up(), &self.interface.name);
        if up != self.was_up {
            if up {
                info!(interface = %name, "interface {name} is up again");
                self.routers.solicit_all(Instant::now());
            } else {
                warn!(interface = %name, "interface {name} was set down: nothing is carried until it is up again");
            }
            self.was_up = up;
        }
        let mtu = self.watch.state().link().map_or(0, |link| link.mtu);
        let is_ours = self.installed.mtu().is_some_and(|ours| u32::from(ours) == mtu);
        let is_news = std::mem::replace(&mut self.was_mtu, mtu) != mtu;
        // A smaller one than IPv6 needs is repaired, and told then.
        if is_news && !is_ours && mtu >= u32::from(isatap_engine::isatap::mtu::TUNNEL_MTU_MIN) {
            warn!(
                interface = %name,
                mtu,
                "interface {name} was given MTU {mtu}; the tunnel carries packets of {}, senders of longer ones are told",
                self.settings.mtu
            );
        }
        self.look_at_interface();
    }

    /// Keeps the locator what the configuration and the machine make it.
    pub(super) fn follow_locator(&mut self) {
        let members = self.names.members();
        // The source the kernel would take towards a router tells several addresses apart.
        let way = || match members {
            [] => Way::NoRouter,
            routers => routers
                .iter()
                .find_map(|router| ThisMachine.source_towards(router.addr))
                .map_or(Way::NoRoute, Way::From),
        };
        let choice = locator::choose(self.watch.state(), self.settings.bind, self.locator, way);
        self.follow_at = None;
        match choice {
            Choice::Keep => self.warned_ambiguous = false,
            Choice::Move(next) => {
                info!(locator = %next, "the tunnel moves from {} to {next}", self.locator);
                self.locator = next;
                self.keep_settings();
                self.configure_at = Some(Instant::now());
                self.warned_ambiguous = false;
                self.solicit_anew();
                self.mark_changed();
            }
            Choice::Ambiguous(candidates) => {
                if !std::mem::replace(&mut self.warned_ambiguous, true) {
                    let list: Vec<_> = candidates.iter().map(ToString::to_string).collect();
                    warn!(
                        "{} is gone and this machine has several addresses: {}; choose one with BindAddress",
                        self.locator,
                        list.join(", ")
                    );
                }
            }
            // Nobody tells when a route comes.
            Choice::Wait => self.follow_at = Some(Instant::now() + FOLLOW_AGAIN),
        }
        let present = self.is_present();
        if present != self.was_present {
            if present {
                info!(locator = %self.locator, "this machine has {} again", self.locator);
                self.solicit_anew();
            } else {
                warn!(
                    locator = %self.locator,
                    "this machine has lost {}: nothing is carried until it is back",
                    self.locator
                );
            }
            self.was_present = present;
        }
        self.look_for_others();
        self.look_at_interface();
    }

    /// The network may be another one: the routers are asked, and soon who they are.
    pub(super) fn solicit_anew(&mut self) {
        let now = Instant::now();
        self.routers.solicit_all(now);
        self.names.refresh_soon(now);
    }

    /// Another ISATAP interface with one of our locators is told of, whenever it comes (FAULTS 36).
    pub(super) fn look_for_others(&mut self) {
        let others: Vec<_> = self
            .watch
            .state()
            .also_at(&self.locators())
            .into_iter()
            .map(str::to_owned)
            .collect();
        if others == self.shared_with {
            return;
        }
        let name = &self.interface.name;
        if others.is_empty() {
            info!(interface = %name, "{name} is the only tunnel interface with its address again");
        } else {
            warn!(
                interface = %name,
                "{} has an address of {name} as well: of what arrives there each has a copy, or one has all; stop one of the two, \
                 or give each its own BindAddress",
                others.join(", ")
            );
        }
        self.shared_with = others;
    }

    /// Whoever has set routes that cannot be honoured is told so.
    pub(super) fn tell_not_honoured(&mut self) {
        let now = self.watch.state().not_honoured();
        let name = &self.interface.name;
        for what in now.iter().filter(|what| !self.not_honoured.contains(what)) {
            warn!(interface = %name, "of the routes of {name}: {what}; packets do not say which route they took");
        }
        self.not_honoured = now;
    }

    /// The interface may need repair; what was refused before may be possible now.
    pub(super) fn look_at_interface(&mut self) {
        let now = Instant::now();
        let soon = self.repaired_at.map_or(now, |at| now.max(at + REPAIR_INTERVAL));
        self.repair_at = Some(self.repair_at.map_or(soon, |at| at.min(soon)));
    }

    /// Makes the interface what it should be: the link-local address of each locator and no other's, an MTU that IPv6
    /// can live with (A4, A6, FAULTS 54, 57, 58).
    pub(super) async fn repair(&mut self, now: Instant) {
        self.repair_at = None;
        self.repaired_at = Some(now);
        let outcome = self.try_repair().await;
        match outcome {
            Ok(false) => {}
            // The kernel's notification of what was done comes back here; then there is nothing left to do.
            Ok(true) => self.repair_at = Some(now + REPAIR_INTERVAL),
            Err(error) => {
                warn!("cannot repair interface {}: {error}", self.interface.name);
                self.repair_at = Some(now + REPAIR_AGAIN);
            }
        }
    }

    async fn try_repair(&mut self) -> Result<bool, NetlinkError> {
        let state = self.watch.state();
        let (Some(link), locators) = (state.link(), self.locators()) else {
            return Ok(false);
        };
        if link.mtu < u32::from(isatap_engine::isatap::mtu::TUNNEL_MTU_MIN) {
            self.revive(link).await?;
            return Ok(true);
        }
        let stale = super::report::stale_addresses(state, &locators);
        let missing: Vec<_> = locators
            .into_iter()
            .filter(|locator| link.up && !state.has_own6(iid::link_local(*locator)))
            .collect();
        for own in &stale {
            self.link
                .change(Change::RemoveAddress(own.addr, own.prefix_len))
                .await?;
        }
        for locator in &missing {
            self.add_link_local(*locator).await?;
        }
        if missing.contains(&self.locator) {
            // Whatever took it away took the addresses from advertisements as well.
            self.routers.solicit_all(Instant::now());
        }
        Ok(!missing.is_empty() || !stale.is_empty())
    }

    /// Adds the link-local address of `locator`, on an interface that somebody may have switched IPv6 off on: all that it is for, so
    /// that it is switched on as at the start.
    async fn add_link_local(&self, locator: Ipv4Addr) -> Result<(), NetlinkError> {
        let add = || self.interface.add_link_local(&self.link, &self.netlink, locator);
        match add().await {
            // What the kernel answers where IPv6 is off, and to nothing else that has the privilege.
            Err(error) if error.errno() == Some(nix::libc::EACCES) => {
                let name = &self.interface.name;
                warn!(
                    interface = %name,
                    "IPv6 was switched off on interface {name} (net.ipv6.conf.{name}.disable_ipv6): it is switched on again"
                );
                self.link.change(Change::Sysctls(self.settings.role)).await?;
                add().await
            }
            added => added,
        }
    }

    /// Below an MTU of 1280 the kernel ends IPv6 on the interface and forgets its settings. All is made anew, and while
    /// the interface is down, or the kernel would choose a link-local address first.
    async fn revive(&mut self, link: crate::link::mirror::LinkState) -> Result<(), NetlinkError> {
        let (name, mtu) = (&self.interface.name, self.settings.mtu);
        warn!(
            interface = %name,
            mtu = link.mtu,
            "interface {name} was given MTU {}, and IPv6 needs 1280: it is set up anew with {mtu}",
            link.mtu
        );
        self.link.change(Change::Down).await?;
        self.link.change(Change::Mtu(mtu)).await?;
        self.installed.set_mtu(mtu);
        self.link.change(Change::Sysctls(self.settings.role)).await?;
        if link.up {
            let locator = self.is_present().then_some(self.locator);
            self.interface
                .set_up(&self.link, &self.netlink, mtu, locator)
                .await?;
            self.routers.solicit_all(Instant::now());
        }
        Ok(())
    }

    /// Whether the machine has the preferred locator now.
    pub(super) fn is_present(&self) -> bool {
        self.watch.state().device_of(self.locator).is_some()
    }

    /// Every address that carries the tunnel now, the preferred one first.
    pub(super) fn locators(&self) -> Vec<Ipv4Addr> {
        locator::set(self.watch.state(), self.settings.bind, self.locator)
    }
}
