//! The configuration in force: only states the daemon can run in. Names of servers are names still.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use super::advertise::Advertise;
use super::engine_types::LaneChoice;
pub use super::engine_types::{DscpPolicy, EcnMode, Ipv4Prefix, PathMtuMode, Role, TtlPolicy};
pub use super::per_network::PerNetwork;

/// Largest number of routers in the list; further answers of a resolver are ignored.
pub const MAX_SERVERS: usize = 64;

/// `PrlRefreshInterval` and `MinRouterSolicitInterval` that mean "never again" (RFC 5214 8.3).
pub const INTERVAL_INFINITE: u32 = u32::MAX;

/// Everything the daemon was told to do. Two values compare equal when a reload has nothing to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the TUN interface.
    pub interface: String,
    /// Host when there is at least one server, else router.
    pub role: Role,
    /// Our own IPv4 address: the locator.
    pub bind: Bind,
    /// The addresses in the potential router list: unicast, no duplicates, none of them `bind`; empty for a router.
    pub servers: Vec<Ipv4Addr>,
    /// The names in it, each once, to be looked up again and again. A host has at least one of either.
    pub server_names: Vec<String>,
    /// Router role: the other routers of the site.
    pub peer_routers: Vec<Ipv4Addr>,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// How packets are carried.
    pub lane: Lane,
    /// Tunnel MTU in bytes, 1280..=65515.
    pub mtu: u16,
    /// Outer TTL.
    pub ttl: TtlPolicy,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// Outer ECN.
    pub ecn: PerNetwork<EcnMode>,
    /// Whether paths to peers are explored (RFC 4213 3.2).
    pub path_mtu: PerNetwork<PathMtuMode>,
    /// Whose packets may use the tunnel.
    pub site: SiteNetworks,
    /// Whether an ISATAP source must also be on-link (RFC 5214 7.3).
    pub strict_ingress: bool,
    /// Whether inner packets that are tunnels themselves are carried.
    pub nested: bool,
    /// Whether packets that would go round between tunnels are dropped (RFC 6324).
    pub loop_checks: bool,
    /// Router role: what is advertised.
    pub advertise: Advertise,
    /// Metric of the host's default route; `None` installs none.
    pub default_route: Option<u32>,
    /// Seconds between two looks at the potential router list; [`INTERVAL_INFINITE`] for never.
    pub prl_refresh_interval: u32,
    /// Least seconds between two refreshing solicitations to one router.
    pub min_router_solicit_interval: u32,
    /// Where `/metrics` is served; `None` for nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where `isatapctl` connects.
    pub control_socket: ControlSocket,
    /// Who the daemon becomes.
    pub user: User,
    /// Its root directory.
    pub chroot_dir: PathBuf,
    /// Where the process id is written and locked.
    pub pidfile: PathBuf,
    /// Layers of the sandbox that the engine does without; each once, in the order of [`Layer::ALL`].
    pub sandbox_waive: Vec<Layer>,
    /// Under which name the system log files our lines.
    pub syslog_facility: Facility,
    /// Which lines are written.
    pub log_level: LogLevel,
    /// The file read, or `None` when there was none.
    pub config_path: Option<PathBuf>,
}

/// Our own IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Follows the machine; this is the candidate when the configuration was resolved. With names alone as servers it is
    /// a guess until the first of them is known.
    Auto(Ipv4Addr),
    /// This one, whether the machine has it already or not.
    Fixed(Ipv4Addr),
}

impl Bind {
    /// The address to begin with.
    pub const fn addr(self) -> Ipv4Addr {
        match self {
            Self::Auto(addr) | Self::Fixed(addr) => addr,
        }
    }

    /// Whether the address follows the machine's.
    pub const fn is_auto(self) -> bool {
        matches!(self, Self::Auto(_))
    }
}

/// Networks whose hosts may use the tunnel (`SiteNetwork`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SiteNetworks {
    /// Every address.
    pub any: bool,
    /// RFC 1918, RFC 6598, 169.254/16 and the directly connected networks.
    pub private: bool,
    /// These besides.
    pub list: Vec<Ipv4Prefix>,
}

/// `ControlSocket PATH [GROUP [MODE]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket {
    /// Path of the socket.
    pub path: PathBuf,
    /// Group that owns it, as written.
    pub group: Option<String>,
    /// The same, looked up.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

/// An account of this machine, never root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Never 0.
    pub uid: u32,
    /// Its primary group, never 0.
    pub gid: u32,
}

/// How packets are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// The best that works on this machine.
    #[default]
    Auto,
    /// By programs in the kernel, with workers for the rest; the daemon does not start without them.
    Ebpf,
    /// By workers with io_uring.
    Uring,
    /// By workers with epoll, `recvmmsg` and `sendmmsg`.
    Syscall,
}

impl Lane {
    /// The words of the file and of `--lane`.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("ebpf", Self::Ebpf),
        ("uring", Self::Uring),
        ("syscall", Self::Syscall),
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Uring => "uring",
            Self::Syscall => "syscall",
        }
    }

    /// What the workers have: packets that the programs leave are theirs.
    pub const fn of_workers(self) -> LaneChoice {
        match self {
            Self::Auto | Self::Ebpf => LaneChoice::Auto,
            Self::Uring => LaneChoice::Uring,
            Self::Syscall => LaneChoice::Syscall,
        }
    }

    /// Whether the kernel may carry packets by programs.
    pub const fn has_programs(self) -> bool {
        matches!(self, Self::Auto | Self::Ebpf)
    }
}

/// A layer of the sandbox without which the daemon starts only if it is told to (`SandboxWaive`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Filters of system calls.
    Seccomp,
    /// Rules for files, ports, signals and sockets.
    Landlock,
    /// Rings that take the operations of their lane only.
    Ring,
}

impl Layer {
    /// All of them, in the order in which they are entered.
    pub const ALL: [Self; 3] = [Self::Landlock, Self::Seccomp, Self::Ring];

    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Ring => "ring",
        }
    }
}

/// `LogLevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what stops the daemon or a part of it.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what changed.
    Info,
    /// And why.
    Debug,
}

/// `SyslogFacility`, with the numbers of RFC 3164 4.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// What daemons use.
    pub const DAEMON: Self = Self(3);

    /// Every name with its number, in the order the manual lists them.
    pub const NAMES: [(&'static str, u8); 20] = [
        ("daemon", 3),
        ("local0", 16),
        ("local1", 17),
        ("local2", 18),
        ("local3", 19),
        ("local4", 20),
        ("local5", 21),
        ("local6", 22),
        ("local7", 23),
        ("kern", 0),
        ("user", 1),
        ("mail", 2),
        ("auth", 4),
        ("syslog", 5),
        ("lpr", 6),
        ("news", 7),
        ("uucp", 8),
        ("cron", 9),
        ("authpriv", 10),
        ("ftp", 11),
    ];

    /// The facility of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let (_, number) = Self::NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(Self(*number))
    }

    /// The number, not yet shifted.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES
            .iter()
            .find(|(_, number)| *number == self.0)
            .map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}
