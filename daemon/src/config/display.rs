//! Settings as the lines of a configuration file that would give them: for `--check-config`, logs and the reload plan.

use std::fmt;
use std::net::Ipv4Addr;

use super::advertise::preference_word;
use super::engine_types::{DscpPolicy, EcnMode, PathMtuMode, TtlPolicy};
use super::names::Key;
use super::per_network::one_each;
use super::resolved::{Bind, INTERVAL_INFINITE, LogLevel, Role, Settings};

/// Bytes of the words of a list in one line: with the name before them even the program of 2006 could read it (1056).
const LIST_LINE_LEN: usize = 1000;

impl Settings {
    /// What follows `key` in each of its lines, as the file would have them; empty when the name would be left out.
    pub fn lines_of(&self, key: Key) -> Vec<String> {
        let advertise = &self.advertise;
        let lines = match key {
            Key::PathMtu => self.path_mtu.lines(path_mtu),
            Key::Ecn => self.ecn.lines(ecn),
            Key::AdvertisePrefix => one_each(&advertise.prefixes),
            Key::AdvertiseRoute => one_each(&advertise.routes),
            Key::AdvertiseDns => one_each(&advertise.dns),
            Key::AdvertiseSearch => one_each(&advertise.search),
            Key::ServerAddress | Key::PeerRouter | Key::SiteNetwork => in_lines(self.words_of(key)),
            _ => vec![self.words_of(key)],
        };
        let said = lines.into_iter().filter(|words| !words.is_empty());
        said.map(|words| words.join(" ")).collect()
    }

    /// What a name says, one by one: its lines, or what a list in lines has.
    pub(super) fn items_of(&self, key: Key) -> Vec<String> {
        match key {
            Key::ServerAddress | Key::PeerRouter | Key::SiteNetwork => self.words_of(key),
            _ => self.lines_of(key),
        }
    }

    /// The words of a name that stands in one line.
    fn words_of(&self, key: Key) -> Vec<String> {
        let advertise = &self.advertise;
        match key {
            Key::InterfaceName => vec![self.interface.clone()],
            Key::BindAddress => vec![match self.bind {
                Bind::Auto(_) => "auto".to_owned(),
                Bind::Fixed(addr) => addr.to_string(),
            }],
            Key::ServerAddress => {
                let addresses = self.servers.iter().map(ToString::to_string);
                addresses.chain(self.server_names.iter().cloned()).collect()
            }
            Key::SyslogFacility => vec![self.syslog_facility.to_string()],
            Key::LogLevel => vec![self.log_level.to_string()],
            Key::Workers => vec![self.workers.to_string()],
            Key::Lane => vec![self.lane.name().to_owned()],
            Key::Mtu => vec![self.mtu.to_string()],
            Key::Ttl => vec![match self.ttl {
                TtlPolicy::Inherit => "inherit".to_owned(),
                TtlPolicy::Fixed(ttl) => ttl.to_string(),
            }],
            Key::Dscp => vec![match self.dscp {
                DscpPolicy::Inherit => "inherit".to_owned(),
                DscpPolicy::Fixed(dscp) => dscp.to_string(),
            }],
            Key::PrlRefreshInterval => vec![interval(self.prl_refresh_interval)],
            Key::MinRouterSolicitInterval => vec![interval(self.min_router_solicit_interval)],
            Key::SiteNetwork => self.site_words(),
            Key::PeerRouter => self.peer_routers.iter().map(ToString::to_string).collect(),
            Key::NestedTunnels => vec![yes_no(self.nested)],
            Key::LoopChecks => vec![yes_no(self.loop_checks)],
            Key::StrictIngress => vec![yes_no(self.strict_ingress)],
            Key::DefaultRoute => match self.default_route {
                None => vec!["no".to_owned()],
                Some(metric) => vec!["yes".to_owned(), "metric".to_owned(), metric.to_string()],
            },
            Key::MetricsListen => {
                vec![
                    self.metrics_listen
                        .map_or_else(|| "off".to_owned(), |address| address.to_string()),
                ]
            }
            Key::ControlSocket => self.control_socket_words(),
            Key::User => vec![self.user.name.clone()],
            Key::ChrootDir => vec![self.chroot_dir.display().to_string()],
            Key::PidFile => vec![self.pidfile.display().to_string()],
            Key::SandboxWaive => self
                .sandbox_waive
                .iter()
                .map(|layer| layer.name().to_owned())
                .collect(),
            Key::Advertise => vec![yes_no(advertise.on)],
            Key::AdvertiseMtu => advertise.mtu.iter().map(ToString::to_string).collect(),
            Key::RouterLifetime => vec![advertise.router_lifetime.to_string()],
            Key::RouterPreference => vec![preference_word(advertise.preference).to_owned()],
            // Several lines each; see `lines_of`.
            Key::PathMtu
            | Key::Ecn
            | Key::AdvertisePrefix
            | Key::AdvertiseRoute
            | Key::AdvertiseDns
            | Key::AdvertiseSearch => Vec::new(),
        }
    }

    /// What would run, as [`fmt::Display`] writes it, with `routers` as what the servers lead to.
    pub fn with_routers(&self, routers: &[Ipv4Addr]) -> String {
        let mut lines = vec![match self.role {
            Role::Host => format!("# ISATAP host at {}", self.bind.addr()),
            Role::Router => format!("# ISATAP router at {}", self.bind.addr()),
        }];
        if !routers.is_empty() {
            let routers: Vec<_> = routers.iter().map(ToString::to_string).collect();
            lines.push(format!("# potential router list: {}", routers.join(" ")));
        }
        for key in Key::ALL.iter().copied() {
            lines.extend(self.lines_of(key).iter().map(|line| format!("{key} {line}")));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn site_words(&self) -> Vec<String> {
        let words = [("any", self.site.any), ("private", self.site.private)];
        let words = words
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(word, _)| word.to_owned());
        words
            .chain(self.site.list.iter().map(ToString::to_string))
            .collect()
    }

    fn control_socket_words(&self) -> Vec<String> {
        let socket = &self.control_socket;
        let mut words = vec![socket.path.display().to_string()];
        if let Some(group) = &socket.group {
            words.push(group.clone());
            words.push(format!("{:04o}", socket.mode));
        }
        words
    }
}

/// What would run: a valid configuration file, a comment says what was found out.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_routers(&self.servers))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

/// The words of a list in lines that can be read again.
fn in_lines(words: Vec<String>) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut len = LIST_LINE_LEN;
    for word in words {
        len += word.len() + 1;
        match lines.last_mut() {
            Some(line) if len <= LIST_LINE_LEN => line.push(word),
            _ => {
                len = word.len() + 1;
                lines.push(vec![word]);
            }
        }
    }
    lines
}

fn path_mtu(mode: PathMtuMode) -> &'static str {
    match mode {
        PathMtuMode::Static => "static",
        PathMtuMode::Dynamic => "dynamic",
    }
}

fn ecn(mode: EcnMode) -> &'static str {
    match mode {
        EcnMode::Normal => "normal",
        EcnMode::Compat => "compat",
    }
}

fn interval(seconds: u32) -> String {
    if seconds == INTERVAL_INFINITE {
        "infinite".to_owned()
    } else {
        seconds.to_string()
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
