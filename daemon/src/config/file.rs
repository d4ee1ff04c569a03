//! Reads a configuration file into what it says: every value valid by itself, with its place; nothing looked up yet.
//!
//! All errors of a file are found in one go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::advertise::AdvertiseText;
use super::diagnostic::{Diagnostic, MAX_DIAGNOSTICS, Origin, Sourced, did_you_mean, quoted};
use super::engine_types::{DscpPolicy, EcnMode, Ipv4Prefix, PathMtuMode, TtlPolicy};
use super::lines::{self, Line, Word};
use super::names::{Key, Repeat};
use super::resolved::{Facility, Lane, Layer, LogLevel};
use super::values::{self, Host, Refusal};

/// What a file says. `None` and empty lists: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "one field per name of the file, documented in names.rs"
)]
pub struct FileConfig {
    pub interface: Option<Sourced<String>>,
    pub bind: Option<Sourced<BindText>>,
    pub servers: Vec<Sourced<Host>>,
    pub facility: Option<Sourced<Facility>>,
    pub log_level: Option<Sourced<LogLevel>>,
    pub workers: Option<Sourced<usize>>,
    pub lane: Option<Sourced<Lane>>,
    pub mtu: Option<Sourced<u16>>,
    pub ttl: Option<Sourced<TtlPolicy>>,
    pub dscp: Option<Sourced<DscpPolicy>>,
    pub path_mtu: PerNetworkText<PathMtuMode>,
    pub ecn: PerNetworkText<EcnMode>,
    pub prl_refresh_interval: Option<Sourced<u32>>,
    pub min_router_solicit_interval: Option<Sourced<u32>>,
    pub site: Vec<Sourced<SiteText>>,
    pub peer_routers: Vec<Sourced<Host>>,
    pub nested: Option<Sourced<bool>>,
    pub loop_checks: Option<Sourced<bool>>,
    pub strict_ingress: Option<Sourced<bool>>,
    pub default_route: Option<Sourced<Option<u32>>>,
    pub metrics_listen: Option<Sourced<Option<SocketAddr>>>,
    pub control_socket: Option<Sourced<SocketText>>,
    pub user: Option<Sourced<String>>,
    pub chroot_dir: Option<Sourced<PathBuf>>,
    pub pidfile: Option<Sourced<PathBuf>>,
    pub sandbox_waive: Vec<Sourced<Layer>>,
    pub advertise: AdvertiseText,
}

/// Most networks that `PathMtu`, and that `Ecn`, may name: each is compared with each.
pub const MAX_PEER_NETWORKS: usize = 1024;

/// A value, and the values of some networks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `PerNetwork`")]
pub struct PerNetworkText<T> {
    pub everywhere: Option<Sourced<T>>,
    pub networks: Vec<(Ipv4Prefix, Sourced<T>)>,
}

impl<T> Default for PerNetworkText<T> {
    fn default() -> Self {
        Self {
            everywhere: None,
            networks: Vec::new(),
        }
    }
}

/// `BindAddress` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindText {
    /// Follow the machine.
    Auto,
    /// This one.
    Host(Host),
}

/// One value of `SiteNetwork`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of the file")]
pub enum SiteText {
    Any,
    Private,
    Network(Ipv4Prefix),
}

/// `ControlSocket` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of the file")]
pub struct SocketText {
    pub path: PathBuf,
    pub group: Option<String>,
    pub mode: Option<u32>,
}

/// Reads the bytes of `file` (the name is for messages only).
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn parse(file: &Arc<str>, bytes: &[u8]) -> Result<FileConfig, Vec<Diagnostic>> {
    let (lines, wrong) = lines::split(file, bytes);
    let mut parser = Parser {
        config: FileConfig::default(),
        wrong,
        first: HashMap::new(),
    };
    for line in &lines {
        parser.line(line);
    }
    if parser.wrong.is_empty() {
        return Ok(parser.config);
    }
    parser.wrong.sort_by_key(|diagnostic| match diagnostic.origin {
        Origin::File { line, column, .. } => (line, column),
        _ => (u32::MAX, 0),
    });
    Err(parser.wrong)
}

struct Parser {
    config: FileConfig,
    wrong: Vec<Diagnostic>,
    first: HashMap<Key, u32>,
}

impl Parser {
    fn line(&mut self, line: &Line) {
        let Some(key) = Key::from_text(&line.name.text) else {
            return self.unknown_name(&line.name);
        };
        let words = if key.takes_path() {
            line.values.clone()
        } else {
            line.values.iter().flat_map(Word::split_commas).collect()
        };
        let mut words = Words::new(key, line.name.origin.clone(), words);
        if self.repeated(key, &words) {
            return;
        }
        self.value(key, &mut words);
        self.wrong.extend(words.into_wrong());
    }

    fn unknown_name(&mut self, name: &Word) {
        let text = quoted(&name.text);
        let message = if let Some((before, _)) = name.text.split_once('=')
            && Key::from_text(before).is_some()
        {
            format!("{text}: expected a blank, not \"=\", between name and value")
        } else {
            // Only for what will be printed: a file that is none of ours is wrong in every line.
            let near = || did_you_mean(&name.text, Key::ALL.iter().map(|key| key.name()));
            match (self.wrong.len() < MAX_DIAGNOSTICS).then(near).flatten() {
                Some(known) => format!("{text} is no name of this file; did you mean {known}?"),
                None => format!("{text} is no name of this file; isatapd.conf(5) lists them"),
            }
        };
        self.wrong.push(Diagnostic {
            origin: name.origin.clone(),
            message,
        });
    }

    /// Whether the line repeats one that may appear once; says so.
    fn repeated(&mut self, key: Key, words: &Words) -> bool {
        let once = match key.repeat() {
            Repeat::Once => true,
            Repeat::Many => false,
            Repeat::OncePlusNetworks => words.len() < 2,
        };
        let Origin::File { line, .. } = words.name_at else {
            return false;
        };
        if !once {
            return false;
        }
        let first = *self.first.entry(key).or_insert(line);
        if first == line {
            return false;
        }
        let message = format!("{key} is in line {first} already; it may appear once");
        self.wrong.push(Diagnostic {
            origin: words.name_at.clone(),
            message,
        });
        true
    }

    fn value(&mut self, key: Key, words: &mut Words) {
        let config = &mut self.config;
        match key {
            Key::InterfaceName => set(&mut config.interface, words.only(values::interface_name)),
            Key::BindAddress => set(&mut config.bind, words.only(bind)),
            Key::ServerAddress => config.servers.extend(words.list(values::host)),
            Key::SyslogFacility => set(&mut config.facility, words.only(values::facility)),
            Key::LogLevel => set(&mut config.log_level, words.only(values::log_level)),
            Key::Workers => set(&mut config.workers, words.only(values::workers)),
            Key::Lane => set(
                &mut config.lane,
                words.only(|text| values::one_of(text, &Lane::WORDS)),
            ),
            Key::Mtu => set(&mut config.mtu, words.only(values::mtu)),
            Key::Ttl => set(&mut config.ttl, words.only(values::ttl)),
            Key::Dscp => set(&mut config.dscp, words.only(values::dscp)),
            Key::PathMtu => per_network(&mut config.path_mtu, words, values::path_mtu),
            Key::Ecn => per_network(&mut config.ecn, words, values::ecn),
            Key::PrlRefreshInterval => set(&mut config.prl_refresh_interval, words.only(values::interval)),
            Key::MinRouterSolicitInterval => {
                set(
                    &mut config.min_router_solicit_interval,
                    words.only(values::interval),
                );
            }
            Key::SiteNetwork => config.site.extend(words.list(site)),
            Key::PeerRouter => config.peer_routers.extend(words.list(values::host)),
            Key::NestedTunnels => set(&mut config.nested, words.only(values::yes_no)),
            Key::LoopChecks => set(&mut config.loop_checks, words.only(values::yes_no)),
            Key::StrictIngress => set(&mut config.strict_ingress, words.only(values::yes_no)),
            Key::DefaultRoute => set(&mut config.default_route, default_route(words)),
            Key::MetricsListen => set(&mut config.metrics_listen, words.only(values::listen_address)),
            Key::ControlSocket => set(&mut config.control_socket, control_socket(words)),
            Key::User => set(&mut config.user, words.only(values::account_name)),
            Key::ChrootDir => set(&mut config.chroot_dir, words.only(values::absolute_path)),
            Key::PidFile => set(&mut config.pidfile, words.only(values::absolute_path)),
            Key::SandboxWaive => config.sandbox_waive.extend(words.list(values::layer)),
            Key::Advertise
            | Key::AdvertisePrefix
            | Key::AdvertiseRoute
            | Key::AdvertiseDns
            | Key::AdvertiseSearch
            | Key::AdvertiseMtu
            | Key::RouterLifetime
            | Key::RouterPreference => config.advertise.read(key, words),
        }
    }
}

/// A value, with a network if it is for that only; a network named twice contradicts itself.
fn per_network<T>(
    field: &mut PerNetworkText<T>,
    words: &mut Words,
    read: impl Fn(&str) -> Result<T, Refusal>,
) {
    let Some(value) = words.next(read) else {
        return;
    };
    if words.len() == 0 {
        field.everywhere = Some(value);
        return;
    }
    let Some(network) = words.next(values::ipv4_network) else {
        return;
    };
    words.end();
    if field.networks.iter().any(|(known, _)| *known == network.value) {
        let message = format!("{} for {} is said already", words.key, network.value);
        words.refuse(network.origin, message);
    } else if field.networks.len() == MAX_PEER_NETWORKS {
        let message = format!(
            "one {} with a network too many: at most {MAX_PEER_NETWORKS}",
            words.key
        );
        words.refuse(network.origin, message);
    } else {
        field.networks.push((network.value, value));
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

fn bind(text: &str) -> Result<BindText, Refusal> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(BindText::Auto);
    }
    values::host(text).map(BindText::Host)
}

fn site(text: &str) -> Result<SiteText, Refusal> {
    let words = [("any", SiteText::Any), ("private", SiteText::Private)];
    match values::one_of(text, &words) {
        Ok(word) => Ok(word),
        Err(Refusal::Expected(Some(near))) => Err(Refusal::Expected(Some(near))),
        Err(_) => values::ipv4_network(text).map(SiteText::Network),
    }
}

/// `yes`, `no`, `yes metric N`, `yes N`, `metric N`.
fn default_route(words: &mut Words) -> Option<Sourced<Option<u32>>> {
    let metric_next = words
        .peek()
        .is_some_and(|text| text.eq_ignore_ascii_case("metric"));
    let (wanted, origin) = if metric_next {
        (true, words.name_at.clone())
    } else {
        let word = words.next(values::yes_no)?;
        (word.value, word.origin)
    };
    let mut metric = super::resolve::DEFAULT_ROUTE_METRIC;
    if wanted && words.len() > 0 {
        if words
            .peek()
            .is_some_and(|text| text.eq_ignore_ascii_case("metric"))
        {
            words.skip();
        }
        metric = words.next(|text| values::number(text, 1..=u32::MAX))?.value;
    }
    words.end();
    Some(Sourced {
        value: wanted.then_some(metric),
        origin,
    })
}

fn control_socket(words: &mut Words) -> Option<Sourced<SocketText>> {
    let path = words.next(values::socket_path)?;
    let group = if words.len() > 0 {
        Some(words.next(values::account_name)?.value)
    } else {
        None
    };
    let mode = if words.len() > 0 {
        Some(words.next(values::mode)?.value)
    } else {
        None
    };
    words.end();
    Some(Sourced {
        value: SocketText {
            path: path.value,
            group,
            mode,
        },
        origin: path.origin,
    })
}

/// The values of one line, taken one by one; collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Words {
    key: Key,
    pub(super) name_at: Origin,
    words: std::vec::IntoIter<Word>,
    wrong: Vec<Diagnostic>,
}

impl Words {
    fn new(key: Key, name_at: Origin, words: Vec<Word>) -> Self {
        Self {
            key,
            name_at,
            words: words.into_iter(),
            wrong: Vec::new(),
        }
    }

    fn into_wrong(self) -> Vec<Diagnostic> {
        self.wrong
    }

    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The next one's text.
    pub(super) fn peek(&self) -> Option<&str> {
        self.words.as_slice().first().map(|word| word.text.as_str())
    }

    /// Passes over one.
    pub(super) fn skip(&mut self) {
        self.words.next();
    }

    /// The next value, read by `read`; says so if there is none or if it is wrong.
    pub(super) fn next<T>(&mut self, read: impl Fn(&str) -> Result<T, Refusal>) -> Option<Sourced<T>> {
        let key = self.key;
        let Some(word) = self.words.next() else {
            self.refuse(
                self.name_at.clone(),
                format!("{key} has no value; expected {}", key.takes()),
            );
            return None;
        };
        match read(&word.text) {
            Ok(value) => Some(Sourced {
                value,
                origin: word.origin,
            }),
            Err(refusal) => {
                let text = quoted(&word.text);
                let message = match refusal {
                    Refusal::Because(reason) => format!("{key} {text}: {reason}"),
                    Refusal::Expected(None) => format!("{key} {text}: expected {}", key.takes()),
                    Refusal::Expected(Some(near)) => {
                        format!("{key} {text}: expected {}; did you mean {near}?", key.takes())
                    }
                };
                self.refuse(word.origin, message);
                None
            }
        }
    }

    /// The only value.
    pub(super) fn only<T>(&mut self, read: impl Fn(&str) -> Result<T, Refusal>) -> Option<Sourced<T>> {
        let value = self.next(read);
        self.end();
        value
    }

    /// All values: one or more.
    pub(super) fn list<T>(&mut self, read: impl Fn(&str) -> Result<T, Refusal>) -> Vec<Sourced<T>> {
        let mut values = Vec::new();
        values.extend(self.next(&read));
        while self.len() > 0 {
            values.extend(self.next(&read));
        }
        values
    }

    /// Says so if something is left.
    pub(super) fn end(&mut self) {
        if let Some(word) = self.words.next() {
            let key = self.key;
            let message = format!(
                "{} after the value of {key}; expected {}",
                quoted(&word.text),
                key.takes()
            );
            self.refuse(word.origin, message);
        }
        self.words = Vec::new().into_iter();
    }

    /// Adds a finding.
    pub(super) fn refuse(&mut self, origin: Origin, message: String) {
        self.wrong.push(Diagnostic { origin, message });
    }
}
