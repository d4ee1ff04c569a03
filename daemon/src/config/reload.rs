//! What a reload changes: a pure function of the settings in force and those of the file.

use std::collections::BTreeSet;
use std::fmt;

use super::names::{Key, Reload};
use super::resolved::Settings;

/// Values up to so many bytes together are told as they were and as they are. In longer ones nobody finds what changed, and
/// the log cuts them off before it.
const MAX_WHOLE_LEN: usize = 240;
/// So many that came, and so many that went, are told one by one.
const MAX_TOLD: usize = 4;

/// One changed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// The value in force, as lines of the file would say it.
    pub old: String,
    /// The value wanted.
    pub new: String,
    /// What is in the wanted one alone.
    pub come: Vec<String>,
    /// What is in the one in force alone.
    pub gone: Vec<String>,
}

impl Change {
    fn new(key: Key, old: &Settings, new: &Settings) -> Self {
        let (before, after) = (old.items_of(key), new.items_of(key));
        let without = |these: &[String], those: &[String]| {
            let those: BTreeSet<_> = those.iter().collect();
            let rest = these.iter().filter(|item| !those.contains(item));
            rest.cloned().collect()
        };
        Self {
            key,
            old: old.lines_of(key).join("; "),
            new: new.lines_of(key).join("; "),
            come: without(&after, &before),
            gone: without(&before, &after),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.key)?;
        let is_one = self.gone == [self.old.as_str()] && self.come == [self.new.as_str()];
        if is_one || self.old.len() + self.new.len() <= MAX_WHOLE_LEN {
            return write!(f, "{} -> {}", or_none(&self.old), or_none(&self.new));
        }
        match (self.come.as_slice(), self.gone.as_slice()) {
            ([], []) => f.write_str("the same in another order"),
            (come, []) => write!(f, "now also {}", told(come)),
            ([], gone) => write!(f, "no longer {}", told(gone)),
            (come, gone) => write!(f, "now also {}; no longer {}", told(come), told(gone)),
        }
    }
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

/// The first few, and how many more there are.
fn told(items: &[String]) -> String {
    let (shown, more) = items.split_at(items.len().min(MAX_TOLD));
    let shown = shown.join(", ");
    match more.len() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What to do about a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What takes effect now, in the order of the manual.
    pub live: Vec<Change>,
    /// What waits for the next start.
    pub restart: Vec<Change>,
    /// What is in force once `live` is done: the new values, but for what waits.
    pub settings: Settings,
}

impl Plan {
    /// Whether nothing at all changed.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

/// Compares the settings in force with the wanted ones.
pub fn plan(old: &Settings, new: &Settings) -> Plan {
    let mut plan = Plan {
        live: Vec::new(),
        restart: Vec::new(),
        settings: new.clone(),
    };
    for key in Key::ALL.iter().copied() {
        if !changed(key, old, new) {
            continue;
        }
        let change = Change::new(key, old, new);
        match key.reload() {
            Reload::Live => plan.live.push(change),
            Reload::Restart => {
                keep(key, &mut plan.settings, old);
                plan.restart.push(change);
            }
        }
    }
    plan
}

fn changed(key: Key, old: &Settings, new: &Settings) -> bool {
    match key {
        Key::InterfaceName => old.interface != new.interface,
        // One that follows the machine is the same wherever that has led it.
        Key::BindAddress => old.bind != new.bind && !(old.bind.is_auto() && new.bind.is_auto()),
        Key::ServerAddress => {
            old.servers != new.servers || old.server_names != new.server_names || old.role != new.role
        }
        Key::SyslogFacility => old.syslog_facility != new.syslog_facility,
        Key::LogLevel => old.log_level != new.log_level,
        Key::Workers => old.workers != new.workers,
        Key::Lane => old.lane != new.lane,
        Key::Mtu => old.mtu != new.mtu,
        Key::Ttl => old.ttl != new.ttl,
        Key::Dscp => old.dscp != new.dscp,
        Key::Ecn => old.ecn != new.ecn,
        Key::PrlRefreshInterval => old.prl_refresh_interval != new.prl_refresh_interval,
        Key::MinRouterSolicitInterval => old.min_router_solicit_interval != new.min_router_solicit_interval,
        Key::SiteNetwork => old.site != new.site,
        Key::PeerRouter => old.peer_routers != new.peer_routers,
        Key::NestedTunnels => old.nested != new.nested,
        Key::LoopChecks => old.loop_checks != new.loop_checks,
        Key::StrictIngress => old.strict_ingress != new.strict_ingress,
        Key::DefaultRoute => old.default_route != new.default_route,
        Key::MetricsListen => old.metrics_listen != new.metrics_listen,
        Key::ControlSocket => old.control_socket != new.control_socket,
        Key::User => old.user != new.user,
        Key::ChrootDir => old.chroot_dir != new.chroot_dir,
        Key::PidFile => old.pidfile != new.pidfile,
        Key::SandboxWaive => old.sandbox_waive != new.sandbox_waive,
        Key::PathMtu => old.path_mtu != new.path_mtu,
        Key::Advertise => old.advertise.on != new.advertise.on,
        Key::AdvertisePrefix => old.advertise.prefixes != new.advertise.prefixes,
        Key::AdvertiseRoute => old.advertise.routes != new.advertise.routes,
        Key::AdvertiseDns => old.advertise.dns != new.advertise.dns,
        Key::AdvertiseSearch => old.advertise.search != new.advertise.search,
        Key::AdvertiseMtu => old.advertise.mtu != new.advertise.mtu,
        Key::RouterLifetime => old.advertise.router_lifetime != new.advertise.router_lifetime,
        Key::RouterPreference => old.advertise.preference != new.advertise.preference,
    }
}

/// Puts the value in force back for a key that needs a restart.
fn keep(key: Key, settings: &mut Settings, old: &Settings) {
    match key {
        Key::InterfaceName => settings.interface.clone_from(&old.interface),
        Key::Workers => settings.workers = old.workers,
        Key::Lane => settings.lane = old.lane,
        Key::ControlSocket => settings.control_socket.clone_from(&old.control_socket),
        Key::User => settings.user.clone_from(&old.user),
        Key::ChrootDir => settings.chroot_dir.clone_from(&old.chroot_dir),
        Key::PidFile => settings.pidfile.clone_from(&old.pidfile),
        Key::SandboxWaive => settings.sandbox_waive.clone_from(&old.sandbox_waive),
        _ => {}
    }
}
