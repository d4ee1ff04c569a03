//! A site with three routers, for tests of what happens when one goes, is drained, or comes: by their names, or as one
//! anycast address.
//!
//! ```text
//!   srv    every address of 2001:db8:99::/64, IPv6 only; BIRD: whoever announces 2001:db8:1::/64 gets the answers
//!   |||    2001:db8:e1::/64, 2001:db8:e2::/64, 2001:db8:e3::/64
//!  r1 r2 r3   isatapd (Advertise yes), isatapctl ready --hold isatap-up, BIRD with the snippet of doc/anycast
//!   |||    10.9.1.0/30, 10.9.2.0/30, 10.9.3.0/30; anycast: 10.1.1.1 on lo of each
//!  core    10.0.0.254; BIRD: whoever announces 10.1.1.1 gets the hosts' packets
//!   |
//!  -+---+---+---+---+-          10.0.0.0/24
//!       h1  h2  h3  dns         isatapd isatap.site.example, or isatapd 10.1.1.1; 10.0.0.53
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bird::Bird;
use crate::daemon::{Builder, Daemon, program};
use crate::metrics::Direction;
use crate::netns::Netns;
use crate::scene::SOON;
use crate::topology::{Site, connect, connect_v6};
use crate::wait;

/// Routers, and hosts.
pub const COUNT: usize = 3;
/// The address that all routers of an anycast fleet have.
pub const ANYCAST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
/// Where the name server is.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
/// The name of the routers.
pub const NAME: &str = "isatap.site.example";
/// The interface that exists while a router is ready.
pub const MARKER: &str = "isatap-up";

/// The address of router `index` (from 0) that no other has.
pub fn router_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, octet(index + 1), 2)
}

/// The locator of host `index`.
pub fn host_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, octet(index + 11))
}

/// One of the server's addresses.
pub fn server(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, number)
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).expect("a small number")
}

/// Namespaces without daemons yet.
#[derive(Debug)]
pub struct Fleet {
    /// The routers' namespaces.
    pub routers: Vec<Netns>,
    /// The hosts'.
    pub hosts: Vec<Netns>,
    /// The server's.
    pub server: Netns,
    /// The name server's.
    pub dns: Netns,
    core: Netns,
    site: Site,
    bfd: bool,
}

/// What routes between them: the server's BIRD, and the core's.
#[derive(Debug)]
pub struct Routing {
    /// Learns where the hosts are.
    pub server: Bird,
    /// Learns where the anycast address is.
    pub core: Bird,
}

/// A router at work.
#[derive(Debug)]
pub struct Router<'a> {
    /// Its daemon.
    pub daemon: Daemon<'a>,
    /// `isatapctl ready --hold`, once it is announced.
    pub holder: Option<Holder>,
    /// Its BIRD.
    pub bird: Bird,
}

impl Fleet {
    /// Builds the namespaces; `anycast`: every router has [`ANYCAST`] as well.
    pub fn new(anycast: bool) -> Self {
        let site = Site::new();
        let core = site.member("core", 254);
        core.sysctl("ipv4/ip_forward", "1");
        let server = Netns::new("srv");
        server.ip("route add local 2001:db8:99::/64 dev lo");
        server.sysctl("ipv6/ip_nonlocal_bind", "1");
        let routers: Vec<_> = (1..=COUNT)
            .map(|number| {
                let ns = Netns::new(&format!("r{number}"));
                ns.sysctl("ipv6/conf/all/forwarding", "1");
                connect(&core, &format!("r{number}"), &ns, "eth0");
                core.ip(&format!("addr add 10.9.{number}.1/30 dev r{number}"));
                ns.ip(&format!("addr add 10.9.{number}.2/30 dev eth0"));
                ns.ip(&format!("route add default via 10.9.{number}.1"));
                if anycast {
                    ns.ip(&format!("addr add {ANYCAST}/32 dev lo"));
                }
                let net = format!("2001:db8:e{number}:");
                let (out, eth) = (format!("{net}:1/64"), format!("{net}:2/64"));
                connect_v6(&ns, "out", &out, &server, &format!("eth{number}"), &eth);
                ns.ip(&format!("-6 route add 2001:db8:99::/64 via {net}:2"));
                ns
            })
            .collect();
        let member = |label: &str, last| {
            let ns = site.member(label, last);
            ns.ip("route add default via 10.0.0.254");
            ns
        };
        let hosts = (0..COUNT)
            .map(|index| member(&format!("h{}", index + 1), host_v4(index).octets()[3]))
            .collect();
        let dns = member("dns", DNS.octets()[3]);
        Self {
            routers,
            hosts,
            server,
            dns,
            core,
            site,
            bfd: false,
        }
    }

    /// Has the routing daemons look after each other (BFD), so that they find out when a machine is silent.
    #[must_use]
    pub fn with_bfd(mut self) -> Self {
        self.bfd = true;
        self
    }

    /// Nothing gets in or out of router `index` any more, and nobody is told; or again.
    pub fn silence(&self, index: usize, silent: bool) {
        let ns = &self.routers[index];
        if silent {
            ns.run("nft add table inet t");
            for hook in ["input", "output", "forward"] {
                ns.run(&format!(
                    "nft add chain inet t {hook} {{ type filter hook {hook} priority -200; policy drop; }}"
                ));
            }
        } else {
            ns.run("nft delete table inet t");
        }
    }

    /// What a session says besides its ends, and what the daemon needs for that.
    fn timers(&self) -> (String, &'static str) {
        if self.bfd {
            (format!("{TIMERS} bfd on;"), BFD)
        } else {
            (TIMERS.to_owned(), "")
        }
    }

    /// The IPv4 network; more members can be added.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Starts the routing daemons of server and core.
    #[track_caller]
    pub fn route(&self) -> Routing {
        let kernel = "protocol device { scan time 60; }\n\
                      protocol kernel { ipv4 { import none; export all; }; merge paths on; }\n\
                      protocol kernel { ipv6 { import none; export all; }; merge paths on; }\n";
        let (timers, bfd) = self.timers();
        let sessions = |asn: u32, channel: &str, address: &dyn Fn(usize, usize) -> String| {
            let session = |number| {
                format!(
                    "protocol bgp r{number} {{ local {} as {asn}; neighbor {} as {};\n  {timers}\n  \
                     {channel} {{ import all; export none; }}; }}\n",
                    address(number, 0),
                    address(number, 1),
                    64600 + number
                )
            };
            (1..=COUNT).map(session).collect::<String>()
        };
        let v6 = |number: usize, end: usize| format!("2001:db8:e{number}::{}", 2 - end);
        let v4 = |number: usize, end: usize| format!("10.9.{number}.{}", 1 + end);
        let server = format!(
            "router id 10.255.0.1;\n{kernel}{bfd}{}",
            sessions(64701, "ipv6", &v6)
        );
        let core = format!(
            "router id 10.255.0.2;\n{kernel}{bfd}{}",
            sessions(64702, "ipv4", &v4)
        );
        Routing {
            server: Bird::start(&self.server, &server),
            core: Bird::start(&self.core, &core),
        }
    }

    /// Router `index` about to be started, at `v4`.
    pub fn router(&self, index: usize, v4: Ipv4Addr) -> Builder<'_> {
        Daemon::router(&self.routers[index], v4)
            .workers(1)
            .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link")
    }

    /// Starts everything of router `index`, at `v4`; returns when it is ready and announced.
    #[track_caller]
    pub fn start(&self, index: usize, v4: Ipv4Addr) -> Router<'_> {
        let mut router = self.start_unannounced(index, v4);
        router.announce();
        router
    }

    /// The same for a router that nothing leads to yet.
    #[track_caller]
    pub fn start_unannounced(&self, index: usize, v4: Ipv4Addr) -> Router<'_> {
        let daemon = self.router(index, v4).start();
        daemon.wait_ready();
        Router {
            bird: Bird::start(&self.routers[index], &router_bird(index + 1, self.timers())),
            daemon,
            holder: None,
        }
    }

    /// Host `index` about to be started, with `router` (an address or a name) as its list.
    pub fn host(&self, index: usize, router: &str) -> Builder<'_> {
        Daemon::host(&self.hosts[index], host_v4(index), &[])
            .workers(1)
            .config(&format!("ServerAddress {router}"))
    }

    /// How many next hops the server's kernel has for the site.
    pub fn ways_back(&self) -> usize {
        let text = self.server.ip("-6 route show 2001:db8:1::/64");
        text.matches("via ").count()
    }

    /// How many next hops the core's kernel has for the anycast address.
    pub fn ways_to_anycast(&self) -> usize {
        self.core
            .ip(&format!("route show {ANYCAST}"))
            .matches("via ")
            .count()
    }

    /// Waits until packets to the site, and with `anycast` from it, can go by `count` routers.
    #[track_caller]
    pub fn wait_ways(&self, count: usize, anycast: bool) {
        wait::until(&format!("{count} ways"), SOON * 6, || {
            let ways = (self.ways_back(), self.ways_to_anycast());
            if ways.0 == count && (!anycast || ways.1 == count) {
                Ok(())
            } else {
                Err(format!("{ways:?}"))
            }
        });
    }
}

/// Short, so that a session that was refused while the other end started is tried again soon.
const TIMERS: &str =
    "direct; connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 30;";

/// A machine that is silent for so long is gone: a second, for a machine that is busy.
const BFD: &str = "protocol bfd { interface \"*\" { interval 200 ms; multiplier 5; }; }\n";

/// The BIRD of router `number`, from 1: the snippet as it is shipped, and a session with each side. Everything goes to the
/// kernel as well, as on many a router: the snippet must not lead packets astray there.
fn router_bird(number: usize, (timers, bfd): (String, &str)) -> String {
    let asn = 64600 + number;
    format!(
        "router id 10.9.{number}.2;\n{}\n{bfd}\
         protocol device {{ scan time 60; }}\n\
         protocol direct {{ ipv4; ipv6; }}\n\
         protocol kernel {{ ipv4 {{ import none; export all; }}; }}\n\
         protocol kernel {{ ipv6 {{ import none; export all; }}; }}\n\
         protocol bgp core {{ local 10.9.{number}.2 as {asn}; neighbor 10.9.{number}.1 as 64702;\n  {timers}\n  \
         ipv4 {{ import none; export where proto = \"isatap_router\"; next hop self; }}; }}\n\
         protocol bgp upstream {{ local 2001:db8:e{number}::1 as {asn}; neighbor 2001:db8:e{number}::2 as 64701;\n  {timers}\n  \
         ipv6 {{ import none; export where proto = \"isatap_prefix\"; next hop self; }}; }}\n",
        Bird::snippet(&format!("{ANYCAST}/32"), "2001:db8:1::/64")
    )
}

impl Router<'_> {
    /// Has routing lead to it as long as it is ready.
    #[track_caller]
    pub fn announce(&mut self) {
        self.holder = Some(Holder::start(&self.daemon));
        self.wait_announced(true);
    }

    /// Ends every process of the daemon at once, so that none of them can take leave for another.
    #[track_caller]
    pub fn kill(&mut self) {
        for pid in self.daemon.ns().pids() {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if program.ends_with("isatapd") {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        self.daemon.wait_exit(SOON);
    }

    /// Waits until it is announced, or is no longer.
    #[track_caller]
    pub fn wait_announced(&self, announced: bool) {
        let what = if announced { "up" } else { "gone" };
        wait::holds(&format!("{MARKER} to be {what}"), SOON * 2, || {
            self.daemon.ns().has_link(MARKER) == announced
        });
    }

    /// Packets that came in from the site.
    pub fn arrived(&self) -> u64 {
        self.daemon.counters(Direction::Decap).delivered
    }

    /// Takes it out of service, or back; returns what was said.
    #[track_caller]
    pub fn drain(&self, undo: bool) -> String {
        let output = self.daemon.ctl(if undo { "drain --undo" } else { "drain" });
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A running `isatapctl ready --hold`, ended on drop.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Starts it for `daemon`, in its namespace.
    pub fn start(daemon: &Daemon<'_>) -> Self {
        let mut command = Command::new(program("isatapctl"));
        command.arg("--socket").arg(daemon.folder().join("control.sock"));
        command.args(["ready", "--hold", MARKER]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(daemon.ns().spawn(&mut command))
    }

    /// Ends it the hard way.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// What each router got from the site while `f` ran.
#[track_caller]
pub fn shares(routers: &[&Router<'_>], f: impl FnOnce()) -> Vec<u64> {
    let before: Vec<_> = routers.iter().map(|router| router.arrived()).collect();
    f();
    let now = routers.iter().map(|router| router.arrived());
    now.zip(before).map(|(now, then)| now - then).collect()
}

/// Time between two questions of a flow in the tests of a fleet: outages are known to within it.
pub const INTERVAL: Duration = Duration::from_millis(10);
