//! Loading the configuration again: read aside, checked whole, then only the differences applied.

use std::os::fd::AsFd as _;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::configure::slaac_config;
use super::daemon::Daemon;
use crate::config::diagnostic::{MAX_DIAGNOSTICS, Origin};
use crate::config::kept::Kept;
use crate::config::names::Key;
use crate::config::reload::{Change, Plan, plan};
use crate::config::{ConfigError, Loaded, Loader};
use crate::launch::notify::Notice;
use crate::link::change::{self, Changer as _};
use crate::link::rulebook;
use crate::monitor::known_hosts::epoch;
use crate::monitor::text;
use crate::monitor::wire::Say;
use crate::prl::SolicitConfig;
use crate::prl::names::NameBook;

/// Where the answer to a reload goes: what changed, or why nothing did.
pub(super) type Reply = oneshot::Sender<Result<Vec<String>, String>>;

/// A configuration being read.
pub(super) struct Loading {
    task: JoinHandle<(Loader, Result<Loaded, ConfigError>)>,
    replies: Vec<Reply>,
}

/// A configuration that was read, or could not be.
pub(super) struct Outcome {
    loader: Option<Loader>,
    loaded: Result<Loaded, ConfigError>,
    replies: Vec<Reply>,
}

impl Loading {
    pub(super) fn start(loader: Loader, reply: Option<Reply>) -> Self {
        let task = tokio::task::spawn_blocking(move || {
            let loaded = loader.load();
            (loader, loaded)
        });
        Self {
            task,
            replies: reply.into_iter().collect(),
        }
    }

    /// One more asks while the reading goes on.
    pub(super) fn also_tell(&mut self, reply: Reply) {
        self.replies.push(reply);
    }

    /// Waits for the reader. May be dropped and called again until it has answered once.
    pub(super) async fn finished(&mut self) -> Box<Outcome> {
        let (loader, loaded) = match (&mut self.task).await {
            Ok((loader, loaded)) => (Some(loader), loaded),
            Err(error) => {
                let message = format!("the reader of the configuration failed: {error}");
                (None, Err(ConfigError::single(message)))
            }
        };
        Box::new(Outcome {
            loader,
            loaded,
            replies: std::mem::take(&mut self.replies),
        })
    }
}

impl Daemon {
    /// Applies what was read, or keeps everything as it is; says so in the log, the counters and the answers.
    pub(super) async fn finish_reload(&mut self, outcome: Outcome) {
        self.loader = self.loader.take().or(outcome.loader);
        let result = match outcome.loaded {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
                let applied = self.apply(plan(&self.settings, &loaded.settings)).await;
                applied.map_err(ConfigError::single)
            }
            Err(error) => Err(error),
        };
        let label = match &result {
            Ok(changes) if changes.is_empty() => {
                info!("configuration loaded again: nothing changed");
                "success"
            }
            Ok(changes) => {
                changes.iter().for_each(|change| info!("configuration: {change}"));
                "success"
            }
            Err(error) => {
                tell(error);
                error!("the running configuration stays in force");
                "failure"
            }
        };
        *self.counters.reloads.entry(label.to_owned()).or_insert(0) += 1;
        if result.is_ok() {
            self.link.report(&Say::Reloaded);
        }
        self.keep_settings();
        self.service.tell(Notice::Ready);
        self.link.attend().await;
        for reply in outcome.replies {
            let _ = reply.send(result.clone().map_err(|error| error.to_string()));
        }
    }

    /// Leaves what is in force to the engine that follows should this one die.
    pub(super) fn keep_settings(&self) {
        let Some(loader) = &self.loader else { return };
        let settings = &self.settings;
        // An address of our own among the routers would be refused there.
        let moved = settings.bind.is_auto() && !settings.servers.contains(&self.locator);
        let kept = Kept {
            locator: if moved { self.locator } else { settings.bind.addr() },
            routers: self.names.answers(),
            heard: self.routers.known(),
            paths: self.paths.routers.known(epoch()),
            drained: self.drained_at.is_some(),
            drained_at: self
                .drained_at
                .and_then(|at| u64::try_from(at.saturating_duration_since(epoch()).as_millis()).ok()),
            taken_back: self.advertiser.taken_back(),
            ..loader.keep(settings)
        };
        let kept = text::keep(&kept.encode());
        if let Err(error) = kept.and_then(|text| self.link.keep(text.as_fd())) {
            warn!("an engine that follows this one would work by the configuration of before: {error}");
        }
    }

    /// Everything that can be refused is tried before anything is changed.
    async fn apply(&mut self, plan: Plan) -> Result<Vec<String>, String> {
        let changed = |key| plan.live.iter().any(|change: &Change| change.key == key);
        let routers = self.routers.views();
        rulebook::compile(self.watch.state(), &plan.settings, &self.locators(), &routers)
            .build()
            .map_err(|error| error.to_string())?;
        let listen_at = plan
            .settings
            .metrics_listen
            .filter(|_| changed(Key::MetricsListen));
        let listener = match listen_at {
            Some(addr) => {
                let listened = self.link.listen_at(addr).await;
                Some(listened.map_err(|error| format!("cannot listen on MetricsListen {addr}: {error}"))?)
            }
            None => None,
        };
        if changed(Key::Mtu) {
            let set = self.link.change(change::Change::Mtu(plan.settings.mtu)).await;
            set.map_err(|error| error.to_string())?;
            self.installed.set_mtu(plan.settings.mtu);
        }

        let old = std::mem::replace(&mut self.settings, plan.settings.clone());
        let settings = &self.settings;
        if changed(Key::SyslogFacility) || changed(Key::LogLevel) {
            (self.set_log)(settings.log_level, settings.syslog_facility);
        }
        let changed_role = (settings.role != old.role).then_some(settings.role);
        self.slaac.set_config(slaac_config(settings));
        if changed(Key::MinRouterSolicitInterval) {
            self.routers
                .set_config(SolicitConfig::from_secs(settings.min_router_solicit_interval));
        }
        let now = Instant::now();
        self.names
            .set_refresh(NameBook::refresh_from_secs(settings.prl_refresh_interval));
        self.names
            .set_servers(now, &settings.servers, &settings.server_names);
        // The operator may have changed resolv.conf or the hosts file, or mended a router.
        self.names.refresh_all(now);
        self.routers.solicit_all(now);
        match listener {
            Some(listener) => {
                if let Err(error) = self.serve_metrics(listener) {
                    warn!("metrics are served no longer: {error}");
                }
            }
            None if changed(Key::MetricsListen) => {
                self.stop_metrics();
                self.link.report(&Say::StopListening);
            }
            None => {}
        }
        if let Some(role) = changed_role
            && let Err(error) = self.link.change(change::Change::Sysctls(role)).await
        {
            warn!("{error}");
        }
        self.follow_prl(now);
        self.follow_role();
        self.set_advertising(now);
        self.configure_at = Some(now);
        self.follow_locator();
        self.follow_own_addresses();
        Ok(describe(&plan))
    }
}

/// One line for each finding, with its place for those who look for it by file and line.
fn tell(error: &ConfigError) {
    for finding in error.diagnostics().iter().take(MAX_DIAGNOSTICS) {
        match &finding.origin {
            Origin::File { file, line, column } => error!(%file, line, column, "{finding}"),
            _ => error!("{finding}"),
        }
    }
    if let Some(more @ 1..) = error.diagnostics().len().checked_sub(MAX_DIAGNOSTICS) {
        error!("... and {more} more");
    }
}

fn describe(plan: &Plan) -> Vec<String> {
    let live = plan.live.iter().map(Change::to_string);
    let restart = plan
        .restart
        .iter()
        .map(|change| format!("{change} (waits for a restart)"));
    live.chain(restart).collect()
}
