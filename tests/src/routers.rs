//! A site with several routers before one network of servers, for tests of who is used and what happens when one goes.
//!
//! ```text
//!   srv   every address of 2001:db8:99::/64, IPv6 only
//!   | |   2001:db8:e1::/64, 2001:db8:e2::/64
//!  r1 r2  10.0.0.1, 10.0.0.2   isatapd, radvd; forward
//!   | |
//!  -+-+--------+--              10.0.0.0/24
//!              h  10.0.0.10    isatapd 10.0.0.1 10.0.0.2
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::daemon::{Builder, Daemon, TUNNEL};
use crate::metrics::Direction;
use crate::netns::Netns;
use crate::ping::ping;
use crate::radvd::Radvd;
use crate::scene::{SOON, set_address};
use crate::topology::{Site, connect_v6};
use crate::wait;

/// The host's locator.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// The locator of router `index`, from 0.
pub fn router_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1).expect("few routers"))
}

/// One of the server's addresses.
pub fn server(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, n)
}

/// Namespaces without daemons yet.
#[derive(Debug)]
pub struct Routers {
    /// The IPv4 network.
    pub site: Site,
    /// The routers' namespaces.
    pub routers: Vec<Netns>,
    /// The host's.
    pub host: Netns,
    /// The server's.
    pub server: Netns,
}

/// A router at work.
#[derive(Debug)]
pub struct Running<'a> {
    /// Its daemon.
    pub daemon: Daemon<'a>,
    /// What answers solicitations.
    pub radvd: Radvd,
}

impl Routers {
    /// Builds the namespaces with `count` routers.
    pub fn new(count: usize) -> Self {
        let site = Site::new();
        let server = Netns::new("srv");
        server.ip("route add local 2001:db8:99::/64 dev lo");
        server.ip("link set lo up");
        let routers: Vec<_> = (1..=count)
            .map(|number| {
                let ns = site.member(&format!("r{number}"), u8::try_from(number).expect("few routers"));
                ns.sysctl("ipv6/conf/all/forwarding", "1");
                let net = format!("2001:db8:e{number}:");
                let (out, eth) = (format!("{net}:1/64"), format!("{net}:2/64"));
                connect_v6(&ns, "out", &out, &server, &format!("eth{number}"), &eth);
                ns.ip(&format!("route add 2001:db8:99::/64 via {net}:2"));
                ns
            })
            .collect();
        let host = site.member("h", HOST.octets()[3]);
        let scene = Self {
            site,
            routers,
            host,
            server,
        };
        scene.answer_through(count - 1);
        scene
    }

    /// Has the server's answers go through router `index`, whatever way the questions came.
    pub fn answer_through(&self, index: usize) {
        self.server.ip(&format!(
            "route replace 2001:db8:1::/64 via 2001:db8:e{}::1",
            index + 1
        ));
    }

    /// Starts router `index` with its radvd; `preference` is radvd's word for it, and lifetimes are those of the lines given.
    pub fn start(&self, index: usize, preference: &str) -> Running<'_> {
        self.start_with(index, &radvd_conf(preference, 1800, 86400))
    }

    /// The same with a whole radvd configuration.
    pub fn start_with(&self, index: usize, radvd: &str) -> Running<'_> {
        let ns = &self.routers[index];
        let daemon = Daemon::router(ns, router_v4(index)).workers(1).start();
        set_address(ns, router_v4(index));
        daemon.wait_route("2001:db8:1::/64");
        Running {
            daemon,
            radvd: Radvd::start(ns, radvd),
        }
    }

    /// The host's daemon with all routers as its list, not started yet.
    pub fn host(&self) -> Builder<'_> {
        let list: Vec<_> = (0..self.routers.len()).map(router_v4).collect();
        Daemon::host(&self.host, HOST, &list).workers(1)
    }

    /// Waits until the host has its address and `count` default routers are usable.
    #[track_caller]
    pub fn wait_usable(&self, host: &Daemon<'_>, count: u64) {
        wait::until(&format!("{count} usable routers"), SOON * 4, || {
            let usable = host.metrics().sum("isatapd_routers", &[("state", "usable")]);
            let state = self.host.ip(&format!("-6 addr show dev {TUNNEL}"));
            if usable == count && state.contains("2001:db8:1:") {
                Ok(())
            } else {
                Err(format!("{usable} usable; {state}"))
            }
        });
    }
}

/// Packets that came in from the site at each router.
fn arrived(routers: &[&Daemon<'_>]) -> Vec<u64> {
    let counters = routers.iter().map(|router| router.counters(Direction::Decap));
    counters.map(|counters| counters.delivered).collect()
}

/// What each router got from the site while `f` ran.
#[track_caller]
pub fn share(routers: &[&Daemon<'_>], f: impl FnOnce()) -> Vec<u64> {
    let before = arrived(routers);
    f();
    routers.iter().for_each(|router| router.conservation());
    arrived(routers)
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect()
}

/// 64 destinations, one packet of the host each.
#[track_caller]
pub fn many_destinations(scene: &Routers) {
    for n in 1..=64 {
        ping(&scene.host, &server(n).to_string(), 1);
    }
}

/// radvd for the tunnel interface with one on-link prefix.
pub fn radvd_conf(preference: &str, router_lifetime: u32, valid: u32) -> String {
    let preferred = valid / 2;
    format!(
        "interface {TUNNEL} {{ AdvSendAdvert on; UnicastOnly on; MaxRtrAdvInterval 1800; AdvDefaultLifetime {router_lifetime};\n\
         AdvDefaultPreference {preference};\n\
         prefix 2001:db8:1::/64 {{ AdvOnLink on; AdvAutonomous on; AdvValidLifetime {valid}; \
         AdvPreferredLifetime {preferred}; }}; }};\n"
    )
}
