//! The status document: one model for `isatapctl status --json` and `/api/v1/status`.
//!
//! `schema_version` grows when a field changes its meaning or goes away; new fields may appear at any time. The documentation of
//! the fields here is that of the schema ([`super::schema`]).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::reason::DropReason;
use isatap_engine::stats::{Direction, DirectionSnapshot, LoopEvent, WorkerSnapshot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::share::KernelShare;

mod programs;

pub use programs::{CarriesStatus, LeftStatus, ProgramsStatus};

/// The version of this document's schema.
pub const SCHEMA_VERSION: u32 = 1;

/// The daemon at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// [`SCHEMA_VERSION`] of the daemon that wrote it.
    pub schema_version: u32,
    /// Name of the machine.
    #[serde(default)]
    pub host: String,
    /// Version of the daemon.
    pub version: String,
    /// The process id of the daemon: its monitor's, which signals go to.
    pub pid: u32,
    /// The process id of the engine that wrote this; another one means that counters began anew.
    #[serde(default)]
    pub engine_pid: u32,
    /// Seconds since the start of that engine.
    pub uptime_seconds: f64,
    /// `host` or `router`.
    pub role: String,
    /// The lane in use: `ebpf` where programs in the kernel are there to carry packets, else that of the workers.
    pub lane: String,
    /// How the workers carry what is theirs: `uring` or `syscall`.
    #[serde(default)]
    pub workers_lane: String,
    /// Whether packets can be carried now.
    pub ready: bool,
    /// Why not, one sentence each; empty when ready.
    pub not_ready: Vec<String>,
    /// Seconds since an operator asked that this router be taken out of service; `None` while it is in service.
    #[serde(default)]
    pub draining_seconds: Option<f64>,
    /// The ISATAP interface.
    pub interface: InterfaceStatus,
    /// Our IPv4 address of the tunnel.
    pub locator: LocatorStatus,
    /// The potential router list.
    pub routers: Vec<RouterStatus>,
    /// The names that lead to routers.
    #[serde(default)]
    pub names: Vec<NameStatus>,
    /// Name servers and search domains that routers advertise.
    #[serde(default)]
    pub resolver: ResolverStatus,
    /// What this router tells hosts of itself.
    #[serde(default)]
    pub advertising: AdvertisingStatus,
    /// Prefixes with a route over the interface.
    pub route_count: usize,
    /// All workers and the kernel's programs together.
    pub total: Traffic,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
    /// Packets the kernel dropped before a worker saw them, by queue: the workers' raw sockets by number, `tun_txq` for
    /// the tunnel interface; and `tun_rx`, what that did not take from programs of the ebpf lane.
    #[serde(default)]
    pub kernel_drops: BTreeMap<String, u64>,
    /// Packets that the queueing disciplines of the underlay's devices dropped, ours and others'; ours are among the drops for
    /// `send_error` as well.
    #[serde(default)]
    pub qdisc_drops: u64,
    /// Packets that the underlay's devices did not send, ours and others': no room for one more IPv4 neighbour, or a device that
    /// refused them. Of what the kernel's programs send nobody else counts what was lost after them.
    #[serde(default)]
    pub device_drops: u64,
    /// Captures that run now.
    #[serde(default)]
    pub captures: usize,
    /// The programs of the `ebpf` lane, and the kernel's share of the packets.
    #[serde(default)]
    pub programs: ProgramsStatus,
    /// What the engine's process is confined by besides another user, another root and no capability.
    #[serde(default)]
    pub sandbox: SandboxStatus,
    /// The configuration in force, as the lines of a file would say it.
    #[serde(default)]
    pub configuration: Vec<SettingStatus>,
    /// What is known about the paths to peers.
    #[serde(default)]
    pub paths: PathsStatus,
    /// What control did.
    pub control: ControlStatus,
}

/// The layers of the engine's sandbox that may be waived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxStatus {
    /// Each layer.
    pub layers: Vec<LayerStatus>,
    /// Each kind of thread.
    pub threads: Vec<ThreadsStatus>,
}

/// One layer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerStatus {
    /// `landlock`, `seccomp` or `ring`.
    pub name: String,
    /// The configuration does without it (`SandboxWaive`).
    pub waived: bool,
    /// How it is in force, or why not, in words.
    pub detail: String,
}

/// What threads of one kind may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThreadsStatus {
    /// `control`, `worker (uring)`, `worker (syscall)` or `monitor-watch`.
    pub kind: String,
    /// How many system calls they may make, some with certain arguments only; `None` without a filter.
    pub system_calls: Option<usize>,
    /// How many operations they may ask of a ring; `None` without a restriction.
    pub ring_operations: Option<usize>,
}

/// What is known about the paths to peers; the list is cut off at a bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathsStatus {
    /// Peers of which our own link's MTU is known to be short.
    pub links: usize,
    /// Peers of which routers on the way said something.
    pub routers: usize,
    /// The first of both.
    pub list: Vec<PathStatus>,
}

/// What is known about the path to one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathStatus {
    /// The peer.
    pub peer: Ipv4Addr,
    /// The largest IPv4 packet, in bytes.
    pub mtu: u16,
    /// Who says so: `router`, or `link` for this machine's kernel.
    pub said_by: String,
    /// Seconds since.
    pub said_seconds_ago: f64,
    /// Seconds until a larger one is tried.
    pub raise_seconds: f64,
}

/// One line of the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingStatus {
    /// The name.
    pub name: String,
    /// What follows it.
    pub value: String,
}

/// Name servers and search domains that routers advertise (RFC 8106).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolverStatus {
    /// Name servers in force.
    pub servers: Vec<Ipv6Addr>,
    /// Search domains in force.
    pub search: Vec<String>,
    /// What became of them; `None` before there were any.
    pub outcome: Option<String>,
}

/// What a router tells hosts of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdvertisingStatus {
    /// Solicitations are answered by this daemon.
    pub on: bool,
    /// Other routers have the same IPv4 address (it is on the loopback device): hosts are not told when this one goes.
    #[serde(default)]
    pub shared: bool,
    /// Hosts that solicited lately.
    pub clients: usize,
    /// Prefixes, each as the configuration says it.
    pub prefixes: Vec<String>,
}

/// The ISATAP interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Administratively up.
    pub up: bool,
    /// MTU of the device in bytes.
    pub mtu: u32,
    /// Tunnel MTU in bytes of inner packet.
    pub tunnel_mtu: u16,
    /// Its IPv6 addresses as `address/length`.
    pub addresses: Vec<String>,
}

/// Our IPv4 address of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocatorStatus {
    /// The address.
    pub address: Ipv4Addr,
    /// Whether it follows the machine's address.
    pub automatic: bool,
    /// Whether the machine has it now.
    pub present: bool,
    /// Other ISATAP interfaces of this machine with this locator, or with another one of the set, by name: of what arrives
    /// each has a copy, or one has all.
    #[serde(default)]
    pub shared_with: Vec<String>,
}

/// One router of the PRL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouterStatus {
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its link-local address on the tunnel.
    pub link_local: Ipv6Addr,
    /// `usable`, `probing`, `unreachable` or `unknown`.
    pub state: String,
    /// Its preference as a default router (RFC 4191 2.1): -1 low, 0 medium, 1 high.
    #[serde(default)]
    pub preference: i8,
    /// Seconds until its default route ends.
    pub lifetime_seconds: Option<f64>,
    /// Seconds since its last advertisement.
    pub advertised_seconds_ago: Option<f64>,
    /// Seconds until it is solicited next.
    pub next_solicitation_seconds: Option<f64>,
    /// Solicitations sent to it.
    pub solicitations: u64,
    /// Advertisements taken from it.
    pub advertisements: u64,
    /// Seconds since it last answered a probe.
    #[serde(default)]
    pub answered_seconds_ago: Option<f64>,
    /// How long that answer took, in seconds.
    #[serde(default)]
    pub round_trip_seconds: Option<f64>,
}

/// One name of the potential router list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NameStatus {
    /// As configured.
    pub name: String,
    /// What it leads to, as far as a router can have it.
    pub addresses: Vec<Ipv4Addr>,
    /// Seconds since the answer that said so.
    pub answered_seconds_ago: Option<f64>,
    /// Seconds until the answer's TTL ends; nothing for the hosts file, 0 when it has ended.
    pub ttl_seconds: Option<f64>,
    /// Seconds until it is looked up next; nothing while it is looked up.
    pub next_lookup_seconds: Option<f64>,
    /// Why the last lookup failed, if it did.
    pub error: Option<String>,
    /// Lookups that failed.
    pub failures: u64,
}

/// Both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// TUN to IPv4.
    pub encap: DirectionStatus,
    /// IPv4 to TUN.
    pub decap: DirectionStatus,
}

/// One direction. At rest `received = packets + punted + the sum of drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectionStatus {
    /// Packets read from the kernel, or taken by its programs.
    pub received: u64,
    /// Packets delivered.
    pub packets: u64,
    /// Packets given to control.
    pub punted: u64,
    /// Packets dropped for any reason.
    pub dropped: u64,
    /// Inner bytes delivered.
    pub bytes: u64,
    /// Delivered packets that stand for several.
    pub superpackets: u64,
    /// Their segments.
    pub segments: u64,
    /// Batches the packets came to workers in.
    #[serde(default)]
    pub batches: u64,
    /// Drops by reason; reasons that never happened are left out.
    pub drops: BTreeMap<String, u64>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// Its number, as on metrics.
    pub worker: usize,
    /// Its packets.
    pub traffic: Traffic,
    /// System calls it made.
    pub syscalls: u64,
    /// Loop events that happened, by name.
    pub events: BTreeMap<String, u64>,
    /// Failed system calls by `operation` and errno.
    pub errors: Vec<ErrorStatus>,
}

/// One kind of failed system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorStatus {
    /// What failed.
    pub operation: String,
    /// With which errno.
    pub errno: i32,
    /// In words.
    pub message: String,
    /// How often.
    pub count: u64,
}

/// Counters of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlStatus {
    /// Router solicitations sent.
    pub solicitations: u64,
    /// Neighbour solicitations sent to routers, to see whether they answer.
    #[serde(default)]
    pub probes: u64,
    /// Router advertisements by result.
    pub advertisements: BTreeMap<String, u64>,
    /// Router solicitations of hosts that reached this router's control, by result.
    #[serde(default)]
    pub solicitations_received: BTreeMap<String, u64>,
    /// Router advertisements sent to hosts, or meant to be, by result.
    #[serde(default)]
    pub advertisements_sent: BTreeMap<String, u64>,
    /// What other routers advertise otherwise than this one, by field.
    #[serde(default)]
    pub disagreements: BTreeMap<String, u64>,
    /// Options of accepted advertisements that were left out, by cause.
    #[serde(default)]
    pub ignored_options: BTreeMap<String, u64>,
    /// Configuration reloads by result.
    pub reloads: BTreeMap<String, u64>,
    /// How often the monitor started another engine since it was started, by what ended the one before. Everything else
    /// here is counted anew by each engine.
    #[serde(default)]
    pub engine_restarts: BTreeMap<String, u64>,
    /// How often the program was exchanged while the daemon ran.
    #[serde(default)]
    pub upgrades: u64,
    /// Failures to refresh the PRL.
    pub prl_refresh_failures: u64,
    /// What was heard about paths, by result: believed from a `router` or a `link`, or why not.
    #[serde(default)]
    pub path_messages: BTreeMap<String, u64>,
    /// What became of what is known about paths: `lowered`, `raised`, `evicted`.
    #[serde(default)]
    pub path_changes: BTreeMap<String, u64>,
    /// ICMPv4 errors read from the send sockets, by kind.
    pub icmp_errors: BTreeMap<String, u64>,
    /// What became of them for the senders of the packets that they are about, by result.
    #[serde(default)]
    pub icmp_translations: BTreeMap<String, u64>,
    /// Packets of this host to all routers, one for each router, by result.
    #[serde(default)]
    pub all_routers: BTreeMap<String, u64>,
    /// Redirects of first hops that reached control, by result.
    #[serde(default)]
    pub redirects: BTreeMap<String, u64>,
    /// Netlink notifications that were lost; each made a fresh dump.
    pub netlink_overruns: u64,
    /// Rulebooks published.
    pub rulebooks: u64,
}

/// One route as the workers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// The destination prefix.
    pub prefix: String,
    /// `on-link`, `unreachable`, or the IPv4 addresses packets go to, each flow to one of them.
    pub next_hop: String,
}

/// The routes of the interface, cut off at a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// The first of them, in order of prefix.
    pub routes: Vec<RouteStatus>,
    /// How many there are altogether.
    pub total: usize,
}

impl Status {
    /// Routers in the state of this name.
    pub fn routers_in(&self, state: &str) -> usize {
        self.routers.iter().filter(|router| router.state == state).count()
    }
}

impl From<&DirectionSnapshot> for DirectionStatus {
    fn from(snapshot: &DirectionSnapshot) -> Self {
        let drops = DropReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), snapshot.dropped(*reason)));
        Self {
            received: snapshot.received,
            packets: snapshot.delivered,
            punted: snapshot.punted,
            dropped: snapshot.dropped_total(),
            bytes: snapshot.bytes,
            superpackets: snapshot.superpackets,
            segments: snapshot.segments,
            batches: snapshot.batches.iter().sum(),
            drops: drops.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl Traffic {
    /// The sum over all workers, and the kernel's programs if there are any.
    pub fn total(workers: &[WorkerSnapshot], kernel: Option<&KernelShare>) -> Self {
        let [encap, decap] = Direction::ALL.map(|direction| {
            let mut sum = DirectionSnapshot::default();
            for worker in workers {
                sum.merge(worker.direction(direction));
            }
            if let Some(kernel) = kernel {
                sum.merge(&kernel.direction(direction).traffic);
            }
            DirectionStatus::from(&sum)
        });
        Self { encap, decap }
    }
}

impl WorkerStatus {
    /// One worker's counters.
    pub fn new(worker: usize, snapshot: &WorkerSnapshot) -> Self {
        let events = LoopEvent::ALL
            .iter()
            .map(|event| (event.name().to_owned(), snapshot.event(*event)));
        let errors = snapshot.errors.iter().map(|error| ErrorStatus {
            operation: error.operation.name().to_owned(),
            errno: error.errno,
            message: std::io::Error::from_raw_os_error(error.errno).to_string(),
            count: error.count,
        });
        Self {
            worker,
            traffic: Traffic {
                encap: (&snapshot.encap).into(),
                decap: (&snapshot.decap).into(),
            },
            syscalls: snapshot.syscalls,
            events: events.filter(|(_, count)| *count > 0).collect(),
            errors: errors.collect(),
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
pub(crate) mod tests;
