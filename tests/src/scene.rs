//! The topologies most tests share: an ISATAP router, hosts, and an IPv6-only server behind the router; or one
//! daemon opposite a crafter.
//!
//! ```text
//!   srv  2001:db8:99::2                                 IPv6 only
//!    |
//!   out  2001:db8:99::1
//!   rtr  10.0.0.1   is0: fe80::5efe:a00:1, 2001:db8:1::5efe:a00:1/64, forwards
//!    |
//!   -+---------------+---------------+--                10.0.0.0/24
//!    |               |
//!   h1 10.0.0.2     h2 10.0.0.3     is0: 2001:db8:1::5efe:a00:<n>/64, default via fe80::5efe:a00:1
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::daemon::{Builder, Daemon, TUNNEL};
use crate::metrics::Direction;
use crate::netns::Netns;
use crate::packet::{Inner, isatap, link_local};
use crate::ping::ping_direct_until;
use crate::raw::{Crafter, Sniffer};
use crate::topology::{Site, UNDERLAY, connect_v6, mac};
use crate::wait;

/// The prefix of the ISATAP link.
pub const PREFIX: &str = "2001:db8:1::";
/// The router's locator.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The IPv6-only server behind it.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 2);
/// Long enough for anything that should happen at once on a busy machine.
pub const SOON: Duration = Duration::from_secs(5);

/// The locator of host `index` (0 or 1).
pub fn host_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(index + 2).expect("few hosts"))
}

/// The address of a locator on the ISATAP link.
pub fn on_link(v4: Ipv4Addr) -> Ipv6Addr {
    isatap(PREFIX, false, v4)
}

/// Namespaces without daemons yet.
#[derive(Debug)]
pub struct Scene {
    /// The IPv4 network; more members can be added.
    pub site: Site,
    /// The router's namespace.
    pub router: Netns,
    /// The hosts' namespaces.
    pub hosts: Vec<Netns>,
    /// The server's namespace.
    pub server: Netns,
}

/// The daemons of a scene.
#[derive(Debug)]
pub struct Running<'a> {
    /// The router's.
    pub router: Daemon<'a>,
    /// The hosts'.
    pub hosts: Vec<Daemon<'a>>,
}

impl Scene {
    /// Builds the namespaces, with `hosts` hosts.
    pub fn new(hosts: usize) -> Self {
        let site = Site::new();
        let router = site.member("rtr", 1);
        let server = Netns::new("srv");
        router.sysctl("ipv6/conf/all/forwarding", "1");
        connect_v6(
            &router,
            "out",
            "2001:db8:99::1/64",
            &server,
            "eth0",
            &format!("{SERVER}/64"),
        );
        server.ip("route add default via 2001:db8:99::1");
        // As on a card that does not cut tunnelled packets itself: the programs of the ebpf lane leave forwarded superpackets else.
        router.run("ethtool -K out tx-ipxip4-segmentation off");
        let hosts = (0..hosts)
            .map(|index| site.member(&format!("h{}", index + 1), host_v4(index).octets()[3]))
            .collect();
        Self {
            site,
            router,
            hosts,
            server,
        }
    }

    /// Starts every daemon with further configuration by `options`, and gives the interfaces static addresses and
    /// routes. Returns when the link works between any two.
    #[track_caller]
    pub fn start(&self, options: impl Fn(Builder<'_>) -> Builder<'_>) -> Running<'_> {
        let router = options(Daemon::router(&self.router, ROUTER)).start();
        set_address(&self.router, ROUTER);
        let host = |(index, ns)| {
            let daemon = options(Daemon::host(ns, host_v4(index), &[ROUTER])).start();
            set_address(ns, host_v4(index));
            ns.ip(&format!(
                "route add default via {} dev {TUNNEL}",
                link_local(ROUTER)
            ));
            daemon
        };
        let hosts: Vec<_> = self.hosts.iter().enumerate().map(host).collect();
        // Everybody reaches everybody without a detour: each daemon has seen the new addresses.
        let members = || std::iter::once((ROUTER, &self.router)).chain((0..).map(host_v4).zip(&self.hosts));
        for (from, ns) in members() {
            for (to, _) in members().filter(|(to, _)| *to != from) {
                ping_direct_until(ns, &on_link(to).to_string(), SOON);
            }
        }
        Running { router, hosts }
    }
}

impl Running<'_> {
    /// Every daemon.
    pub fn all(&self) -> impl Iterator<Item = &Daemon<'_>> {
        std::iter::once(&self.router).chain(&self.hosts)
    }

    /// Everything received is accounted for, in each daemon.
    #[track_caller]
    pub fn conservation(&self) {
        self.all().for_each(Daemon::conservation);
    }
}

/// A daemon under test opposite a site member that sends crafted packets.
///
/// ```text
///   dut 10.0.0.1 ------ x 10.0.0.9 (crafted)
/// ```
#[derive(Debug)]
pub struct Opposite {
    /// The IPv4 network; more members can be added.
    pub site: Site,
    /// The daemon's namespace.
    pub dut: Netns,
    /// The crafter's namespace.
    pub x: Netns,
}

/// The locator of the daemon under test opposite a crafter.
pub const DUT: Ipv4Addr = ROUTER;
/// The crafter's IPv4 address.
pub const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

impl Opposite {
    /// Builds the namespaces.
    pub fn new() -> Self {
        let site = Site::new();
        let (dut, x) = (
            site.member("dut", DUT.octets()[3]),
            site.member("x", X.octets()[3]),
        );
        Self { site, dut, x }
    }

    /// Starts a router with an on-link prefix and further configuration by `options`; returns when it accepts
    /// packets under the prefix.
    #[track_caller]
    pub fn router(&self, options: impl Fn(Builder<'_>) -> Builder<'_>) -> Daemon<'_> {
        let daemon = options(Daemon::router(&self.dut, DUT)).start();
        set_address(&self.dut, DUT);
        self.wait_prefix(&daemon);
        daemon
    }

    /// Sees a packet through the daemon, and every packet accounted for.
    #[track_caller]
    pub fn carries(&self, daemon: &Daemon<'_>) {
        let before = daemon.counters(Direction::Decap);
        let inner = Inner::new(on_link(X), on_link(DUT)).udp(1, 9, b"carried");
        self.crafter().send_inner(&inner);
        let since = daemon.wait_received(Direction::Decap, &before, 1);
        assert_eq!(since.delivered, 1, "{since}");
        daemon.conservation();
    }

    /// The crafter.
    pub fn crafter(&self) -> Crafter {
        Crafter::new(&self.x, UNDERLAY, X, mac(&self.dut, UNDERLAY), DUT)
    }

    /// Waits until packets from an on-link address are accepted: the daemon knows the prefix.
    #[track_caller]
    pub fn wait_prefix(&self, daemon: &Daemon<'_>) {
        let crafter = self.crafter();
        let sniffer = Sniffer::start(&self.dut, TUNNEL);
        let probe = Inner::new(on_link(X), on_link(DUT)).udp(9, 9, b"is the prefix known?");
        wait::holds("packets under the on-link prefix to be accepted", SOON, || {
            crafter.send_inner(&probe);
            sniffer.count(|c| c.packet == probe) > 0
        });
        daemon.conservation();
    }
}

impl Default for Opposite {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives the tunnel interface the on-link address of `v4`, as an operator would.
#[track_caller]
pub fn set_address(ns: &Netns, v4: Ipv4Addr) {
    ns.ip(&format!("addr add {}/64 dev {TUNNEL} nodad", on_link(v4)));
}
