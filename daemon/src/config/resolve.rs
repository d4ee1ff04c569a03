//! From what file and command line say to [`Settings`]: defaults filled in, contradictions refused.
//!
//! Names of servers stay names: whether they can be looked up changes with time, and must not keep a machine that boots
//! from starting. Our own names and those of accounts are resolved here.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::advertise::{self, AdvertiseText};
use super::diagnostic::{ConfigError, Diagnostic, Origin, Sourced, quoted};
use super::file::{BindText, FileConfig, PerNetworkText, SiteText, SocketText};
use super::machine::{Candidate, Machine};
use super::resolved::{
    Bind, ControlSocket, DscpPolicy, EcnMode, Facility, Lane, Layer, LogLevel, MAX_SERVERS, PathMtuMode,
    PerNetwork, Role, Settings, SiteNetworks, TtlPolicy, User,
};
use super::values::Host;

/// `InterfaceName`.
pub const DEFAULT_INTERFACE: &str = "is0";
/// `Mtu`: the smallest IPv6 allows and the only one that never needs fragments in sight of RFC 4213 3.2.1.
pub const DEFAULT_MTU: u16 = 1280;
/// `Ttl` (the value of RFC 1700, kept by RFC 4213 3.5's reference to the assigned numbers).
pub const DEFAULT_TTL: u8 = 64;
/// `PrlRefreshInterval` in seconds (RFC 5214 8.3.2 and 9).
pub const DEFAULT_PRL_REFRESH_INTERVAL: u32 = 3600;
/// `MinRouterSolicitInterval` in seconds (RFC 5214 8.3.4 and 9).
pub const DEFAULT_MIN_ROUTER_SOLICIT_INTERVAL: u32 = 120;
/// `DefaultRoute`: the metric of the kernel's own router discovery.
pub const DEFAULT_ROUTE_METRIC: u32 = 1024;
/// `MetricsListen`.
pub const DEFAULT_METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9441);
/// `ControlSocket`.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/isatapd/control.sock";
/// Permission bits of the control socket.
pub const DEFAULT_CONTROL_MODE: u32 = 0o660;
/// `User`.
pub const DEFAULT_USER: &str = "nobody";
/// `ChrootDir`.
pub const DEFAULT_CHROOT_DIR: &str = "/var/empty/isatapd";
/// `PidFile`.
pub const DEFAULT_PIDFILE: &str = "/var/run/isatapd.pid";

/// No host has this address (RFC 5737): the way there is the way to everywhere.
const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What the command line says. It wins over the file; routers are added to those of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--workers`.
    pub workers: Option<usize>,
    /// `--lane`.
    pub lane: Option<Lane>,
    /// `--user`.
    pub user: Option<String>,
    /// `--chrootdir`, absolute.
    pub chroot_dir: Option<PathBuf>,
    /// `--pidfile`, absolute.
    pub pidfile: Option<PathBuf>,
    /// ROUTER.
    pub routers: Vec<Host>,
}

/// Builds the settings.
///
/// # Errors
/// Everything that is wrong, in the order of the manual.
pub fn resolve(
    file: FileConfig,
    overrides: &Overrides,
    config_path: Option<PathBuf>,
    machine: &dyn Machine,
) -> Result<Settings, ConfigError> {
    let mut resolver = Resolver {
        machine,
        wrong: Vec::new(),
    };
    let server_texts = server_texts(&file, overrides);
    let mut servers = resolver.fixed(&server_texts);
    let server_names = names_of(&server_texts);
    let role = if server_texts.is_empty() {
        Role::Router
    } else {
        Role::Host
    };
    let peer_routers = resolver.routers(&file.peer_routers);
    if let (Role::Host, Some(peer)) = (role, file.peer_routers.first()) {
        resolver.refuse(
            &peer.origin,
            "PeerRouter is for routers, but with a ServerAddress or ROUTER this is a host; name them all there".into(),
        );
    }
    resolver.advertise(&file.advertise, role);
    let bind = resolver.bind(file.bind, &servers, role, !server_names.is_empty());
    if let Some(bind) = bind {
        if server_names.is_empty() {
            resolver.refuse_ourselves(&server_texts, &servers, bind.addr());
        }
        servers.retain(|server| *server != bind.addr());
    }
    let control_socket = resolver.control_socket(file.control_socket);
    let user = resolver.user(choose(overrides.user.clone(), "--user", file.user));
    let lane = choose(overrides.lane, "--lane", file.lane).map_or(Lane::Auto, |text| text.value);

    let (Some(bind), Some(control_socket), Some(user), true) =
        (bind, control_socket, user, resolver.wrong.is_empty())
    else {
        return Err(ConfigError::new(resolver.wrong));
    };
    Ok(Settings {
        interface: or(file.interface, || DEFAULT_INTERFACE.to_owned()),
        role,
        bind,
        servers,
        server_names: server_names.into_iter().map(|name| name.value).collect(),
        peer_routers: peer_routers
            .into_iter()
            .filter(|peer| *peer != bind.addr())
            .collect(),
        workers: overrides
            .workers
            .unwrap_or_else(|| or(file.workers, || default_workers(machine))),
        lane,
        mtu: or(file.mtu, || DEFAULT_MTU),
        ttl: or(file.ttl, || TtlPolicy::Fixed(DEFAULT_TTL)),
        dscp: or(file.dscp, || DscpPolicy::Fixed(0)),
        ecn: per_network(file.ecn, EcnMode::Normal),
        path_mtu: per_network(file.path_mtu, PathMtuMode::Static),
        advertise: file.advertise.resolve(),
        site: site_networks(&file.site),
        strict_ingress: or(file.strict_ingress, || true),
        nested: or(file.nested, || false),
        loop_checks: or(file.loop_checks, || true),
        default_route: or(file.default_route, || Some(DEFAULT_ROUTE_METRIC)),
        prl_refresh_interval: or(file.prl_refresh_interval, || DEFAULT_PRL_REFRESH_INTERVAL),
        min_router_solicit_interval: or(file.min_router_solicit_interval, || {
            DEFAULT_MIN_ROUTER_SOLICIT_INTERVAL
        }),
        metrics_listen: or(file.metrics_listen, || Some(DEFAULT_METRICS_LISTEN)),
        control_socket,
        user,
        chroot_dir: overrides
            .chroot_dir
            .clone()
            .unwrap_or_else(|| or(file.chroot_dir, || DEFAULT_CHROOT_DIR.into())),
        pidfile: overrides
            .pidfile
            .clone()
            .unwrap_or_else(|| or(file.pidfile, || DEFAULT_PIDFILE.into())),
        sandbox_waive: layers(&file.sandbox_waive),
        syslog_facility: or(file.facility, || Facility::DAEMON),
        log_level: or(file.log_level, || LogLevel::Info),
        config_path,
    })
}

fn server_texts(file: &FileConfig, overrides: &Overrides) -> Vec<Sourced<Host>> {
    let routers = overrides
        .routers
        .iter()
        .map(|host| from_argument(host.clone(), "ROUTER"));
    file.servers.iter().cloned().chain(routers).collect()
}

fn names_of(servers: &[Sourced<Host>]) -> Vec<Sourced<String>> {
    let mut names: Vec<Sourced<String>> = Vec::new();
    for server in servers {
        if let Host::Name(name) = &server.value
            && !names.iter().any(|known| known.value.eq_ignore_ascii_case(name))
        {
            names.push(Sourced {
                value: name.clone(),
                origin: server.origin.clone(),
            });
        }
    }
    names.truncate(MAX_SERVERS);
    names
}

/// The names among the servers, each once, and where they are written.
pub fn server_names(file: &FileConfig, overrides: &Overrides) -> Vec<Sourced<String>> {
    names_of(&server_texts(file, overrides))
}

fn or<T>(value: Option<Sourced<T>>, default: impl FnOnce() -> T) -> T {
    value.map_or_else(default, |value| value.value)
}

fn per_network<T>(text: PerNetworkText<T>, default: T) -> PerNetwork<T> {
    let networks = text.networks.into_iter();
    PerNetwork {
        everywhere: or(text.everywhere, || default),
        networks: networks.map(|(network, value)| (network, value.value)).collect(),
    }
}

fn from_argument<T>(value: T, name: &'static str) -> Sourced<T> {
    Sourced {
        value,
        origin: Origin::Argument(name),
    }
}

fn choose<T>(argument: Option<T>, name: &'static str, file: Option<Sourced<T>>) -> Option<Sourced<T>> {
    argument.map(|value| from_argument(value, name)).or(file)
}

fn unique<T: Copy + Eq + Hash>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(*item)).collect()
}

fn layers(texts: &[Sourced<Layer>]) -> Vec<Layer> {
    let is_named = |layer: &Layer| texts.iter().any(|text| text.value == *layer);
    Layer::ALL.into_iter().filter(is_named).collect()
}

fn default_workers(machine: &dyn Machine) -> usize {
    machine.usable_cores().clamp(1, super::engine_types::MAX_WORKERS)
}

fn site_networks(texts: &[Sourced<SiteText>]) -> SiteNetworks {
    if texts.is_empty() {
        return SiteNetworks {
            any: false,
            private: true,
            list: Vec::new(),
        };
    }
    let networks = texts.iter().filter_map(|text| match text.value {
        SiteText::Network(network) => Some(network),
        SiteText::Any | SiteText::Private => None,
    });
    SiteNetworks {
        any: texts.iter().any(|text| text.value == SiteText::Any),
        private: texts.iter().any(|text| text.value == SiteText::Private),
        list: unique(networks),
    }
}

/// Whether a host can have this address and be reached at it: not 0/8, 127/8, multicast, 240/4 or broadcast.
fn is_usable(addr: Ipv4Addr) -> bool {
    let first = addr.octets()[0];
    first != 0 && first != 127 && first < 224
}

struct Resolver<'a> {
    machine: &'a dyn Machine,
    wrong: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn refuse(&mut self, origin: &Origin, message: String) {
        self.wrong.push(Diagnostic {
            origin: origin.clone(),
            message,
        });
    }

    /// The usable addresses of one host; says so if there is none.
    fn host(&mut self, host: &Sourced<Host>) -> Vec<Ipv4Addr> {
        let name = match &host.value {
            Host::Addr(addr) if is_usable(*addr) => return vec![*addr],
            Host::Addr(addr) => {
                self.refuse(
                    &host.origin,
                    format!("{addr} is not the address of a host; a unicast one is expected"),
                );
                return Vec::new();
            }
            Host::Name(name) => name,
        };
        match self.machine.resolve(name) {
            Err(reason) => self.refuse(
                &host.origin,
                format!(
                    "the name {} cannot be resolved: {reason}; put it into /etc/hosts, or write its address here",
                    quoted(name)
                ),
            ),
            Ok(answers) => {
                let usable: Vec<_> = answers.iter().copied().filter(|addr| is_usable(*addr)).collect();
                if !usable.is_empty() {
                    return usable;
                }
                let message = if answers.is_empty() {
                    format!("the name {} has no IPv4 address", quoted(name))
                } else {
                    format!(
                        "the name {} has no IPv4 address that a host can have ({})",
                        quoted(name),
                        list(&answers)
                    )
                };
                self.refuse(&host.origin, message);
            }
        }
        Vec::new()
    }

    /// The addresses among the servers.
    fn fixed(&mut self, servers: &[Sourced<Host>]) -> Vec<Ipv4Addr> {
        let addresses = servers
            .iter()
            .filter(|server| matches!(server.value, Host::Addr(_)));
        self.routers(&addresses.cloned().collect::<Vec<_>>())
    }

    fn routers(&mut self, hosts: &[Sourced<Host>]) -> Vec<Ipv4Addr> {
        let mut all = Vec::new();
        for host in hosts {
            all.extend(self.host(host));
        }
        let mut routers = unique(all.into_iter());
        routers.truncate(MAX_SERVERS);
        routers
    }

    /// A host that lists only itself would be its own router.
    fn refuse_ourselves(&mut self, texts: &[Sourced<Host>], servers: &[Ipv4Addr], ourselves: Ipv4Addr) {
        if servers.contains(&ourselves) && servers.iter().all(|server| *server == ourselves) {
            let origin = texts.first().map_or(Origin::Default, |text| text.origin.clone());
            self.refuse(
                &origin,
                format!(
                    "{ourselves} is our own address; to be a router, name no ServerAddress and no ROUTER"
                ),
            );
        }
    }

    fn advertise(&mut self, text: &AdvertiseText, role: Role) {
        if let (Role::Host, Some(on)) = (role, text.on.as_ref().filter(|on| on.value)) {
            let message = "Advertise is for routers, but with a ServerAddress or ROUTER this is a host";
            self.refuse(&on.origin, message.into());
        }
        if let Some(route) = text.routes.get(advertise::MAX_ROUTES) {
            let message = format!(
                "one AdvertiseRoute too many: hosts need take only {} (RFC 4191 4); leave out, or merge, some",
                advertise::MAX_ROUTES
            );
            self.refuse(&route.origin, message);
        }
        if let Some(prefix) = text.prefixes.get(advertise::MAX_PREFIXES) {
            let message = format!(
                "one AdvertisePrefix too many: at most {}",
                advertise::MAX_PREFIXES
            );
            self.refuse(&prefix.origin, message);
        } else if let Some((origin, message)) = advertise::too_long(text) {
            self.refuse(&origin, message);
        }
    }

    fn bind(
        &mut self,
        text: Option<Sourced<BindText>>,
        servers: &[Ipv4Addr],
        role: Role,
        more_servers: bool,
    ) -> Option<Bind> {
        if let Some(Sourced {
            value: BindText::Host(host),
            origin,
        }) = text
        {
            let is_name = matches!(host, Host::Name(_));
            let addresses = self.host(&Sourced {
                value: host,
                origin: origin.clone(),
            });
            return match addresses.as_slice() {
                [] => None,
                [addr] => Some(Bind::Fixed(*addr)),
                several if is_name => self.among_ours(several, &origin).map(Bind::Fixed),
                [addr, ..] => Some(Bind::Fixed(*addr)),
            };
        }
        if let Some(first) = servers.first()
            && let Some(source) = self
                .machine
                .source_towards(*first)
                .filter(|source| is_usable(*source))
        {
            return Some(Bind::Auto(source));
        }
        if role == Role::Host && servers.is_empty() && !more_servers {
            // What is wrong with the servers has been said; our own address depends on them.
            return None;
        }
        let origin = text.map_or(Origin::Default, |text| text.origin);
        self.only_candidate(&origin, more_servers).map(Bind::Auto)
    }

    /// Our own name often has several addresses; the one this machine has is meant.
    fn among_ours(&mut self, addresses: &[Ipv4Addr], origin: &Origin) -> Option<Ipv4Addr> {
        let ours = self.machine.addresses().unwrap_or_default();
        let both: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|addr| ours.iter().any(|our| our.addr == *addr))
            .collect();
        if let [addr] = both.as_slice() {
            return Some(*addr);
        }
        self.refuse(
            origin,
            format!(
                "BindAddress has several addresses ({}); name the one to use",
                list(addresses)
            ),
        );
        None
    }

    /// The only address the machine could use, or the list of candidates as an error. With `for_now` one of several does:
    /// it is chosen anew when the first name of a router is known.
    fn only_candidate(&mut self, origin: &Origin, for_now: bool) -> Option<Ipv4Addr> {
        let candidates = match self.machine.addresses() {
            Ok(candidates) => pick_candidates(candidates),
            Err(reason) => {
                self.refuse(
                    origin,
                    format!("the addresses of this machine cannot be listed: {reason}"),
                );
                return None;
            }
        };
        if let [candidate] = candidates.as_slice() {
            return Some(candidate.addr);
        }
        if for_now && let Some(first) = candidates.first() {
            let source = self.machine.source_towards(SOMEWHERE);
            let likely = source.filter(|source| candidates.iter().any(|one| one.addr == *source));
            return Some(likely.unwrap_or(first.addr));
        }
        let message = if candidates.is_empty() {
            "this machine has no IPv4 address to use; give it one, or name the one it will get with BindAddress".into()
        } else {
            let listed: Vec<_> = candidates
                .iter()
                .map(|one| format!("{} ({})", one.addr, one.interface))
                .collect();
            format!(
                "this machine has several IPv4 addresses: {}; choose one with BindAddress",
                listed.join(", ")
            )
        };
        self.refuse(origin, message);
        None
    }

    fn control_socket(&mut self, text: Option<Sourced<SocketText>>) -> Option<ControlSocket> {
        let (text, origin) = match text {
            Some(text) => (text.value, text.origin),
            None => {
                let path = DEFAULT_CONTROL_SOCKET.into();
                (
                    SocketText {
                        path,
                        group: None,
                        mode: None,
                    },
                    Origin::Default,
                )
            }
        };
        let gid = match text
            .group
            .as_deref()
            .map(|group| (group, self.machine.group(group)))
        {
            None => None,
            Some((_, Ok(Some(gid)))) => Some(gid),
            Some((group, Ok(None))) => {
                self.refuse(
                    &origin,
                    format!(
                        "ControlSocket: there is no group {}; create it, or name another",
                        quoted(group)
                    ),
                );
                return None;
            }
            Some((group, Err(reason))) => {
                let group = quoted(group);
                self.refuse(
                    &origin,
                    format!("ControlSocket: the group {group} cannot be looked up: {reason}"),
                );
                return None;
            }
        };
        let mode = text.mode.unwrap_or(DEFAULT_CONTROL_MODE);
        Some(ControlSocket {
            path: text.path,
            group: text.group,
            gid,
            mode,
        })
    }

    fn user(&mut self, text: Option<Sourced<String>>) -> Option<User> {
        let text = text.unwrap_or_else(|| Sourced {
            value: DEFAULT_USER.to_owned(),
            origin: Origin::Default,
        });
        let name = quoted(&text.value);
        let message = match self.machine.user(&text.value) {
            Ok(Some(user)) if user.uid != 0 && user.gid != 0 => return Some(user),
            Ok(Some(_)) => {
                format!("the user {name} is root or in its group; choose an account without privileges")
            }
            Ok(None) => format!("there is no user {name}; create it, or choose another with User"),
            Err(reason) => format!("the user {name} cannot be looked up: {reason}"),
        };
        self.refuse(&text.origin, message);
        None
    }
}

/// What could be our locator: usable addresses once each; link-local ones (169.254/16) only if there is nothing else.
fn pick_candidates(all: Vec<Candidate>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for candidate in all {
        if is_usable(candidate.addr) && !candidates.iter().any(|known| known.addr == candidate.addr) {
            candidates.push(candidate);
        }
    }
    if candidates.iter().any(|candidate| !candidate.addr.is_link_local()) {
        candidates.retain(|candidate| !candidate.addr.is_link_local());
    }
    candidates
}

fn list(addresses: &[Ipv4Addr]) -> String {
    addresses
        .iter()
        .take(8)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
