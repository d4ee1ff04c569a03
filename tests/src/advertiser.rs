//! A host among routers that are scripts: they advertise what a test makes them say.
//!
//! ```text
//!   host 10.0.0.10 (isatapd 10.0.0.1 10.0.0.2) ---+--- r1 10.0.0.1 (crafted)
//!                                                 +--- r2 10.0.0.2 (crafted)
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::daemon::{Daemon, TUNNEL};
use crate::nd::{Advertisement, prefix_option};
use crate::netns::Netns;
use crate::packet::{isatap, link_local};
use crate::raw::{Crafter, Sniffer};
use crate::routers::{HOST, router_v4};
use crate::scene::SOON;
use crate::topology::{Site, UNDERLAY, mac};
use crate::wait;

/// Control takes ten advertisements a second; one that came too soon is sent again after this.
const LIMIT_PAUSE: Duration = Duration::from_millis(60);

/// A day in seconds.
pub const DAY: u32 = 86400;

/// 2001:db8:`n`::/64 as a prefix, and the host's address in it.
pub fn net(n: u16) -> (Ipv6Addr, Ipv6Addr) {
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 0);
    (prefix, isatap(&prefix.to_string(), false, HOST))
}

/// That prefix as most routers advertise it: on-link and autonomous, for a day.
pub fn usual(n: u16) -> Vec<u8> {
    prefix_option(net(n).0, 64, DAY, DAY / 2)
}

/// The address router `index` speaks from.
pub fn router(index: usize) -> Ipv6Addr {
    link_local(router_v4(index))
}

/// Namespaces without a daemon yet.
#[derive(Debug)]
pub struct Stage {
    /// The IPv4 network; more members can be added.
    pub site: Site,
    /// The host's namespace.
    pub host: Netns,
    /// The routers' namespaces.
    pub routers: Vec<Netns>,
    crafters: Vec<Crafter>,
}

impl Stage {
    /// With `count` routers.
    pub fn new(count: usize) -> Self {
        let site = Site::new();
        let host = site.member("h", HOST.octets()[3]);
        let to = mac(&host, UNDERLAY);
        let v4s: Vec<_> = (0..count).map(router_v4).collect();
        let routers: Vec<_> = v4s
            .iter()
            .map(|v4| site.member(&format!("r{}", v4.octets()[3]), v4.octets()[3]))
            .collect();
        let crafters = v4s.iter().zip(&routers);
        let crafters = crafters.map(|(v4, ns)| Crafter::new(ns, UNDERLAY, *v4, to, HOST));
        Self {
            crafters: crafters.collect(),
            site,
            host,
            routers,
        }
    }

    /// The host's configuration with the first `count` routers as its list.
    pub fn config(&self, count: usize, more: &str) -> String {
        let servers = (0..count).map(|index| format!("ServerAddress {}\n", router_v4(index)));
        format!(
            "BindAddress {HOST}\nWorkers 1\n{}{more}",
            servers.collect::<String>()
        )
    }

    /// Starts the host with all routers as its list, and further lines of configuration.
    #[track_caller]
    pub fn start(&self, more: &str) -> Daemon<'_> {
        let config = self.config(self.routers.len(), more);
        crate::daemon::Builder::new(&self.host).config(&config).start()
    }

    /// What puts packets on the wire for router `index`.
    pub fn crafter(&self, index: usize) -> &Crafter {
        &self.crafters[index]
    }

    /// An advertisement of router `index` as a packet.
    pub fn packet(&self, index: usize, what: &Advertisement) -> Vec<u8> {
        what.packet(link_local(router_v4(index)), link_local(HOST))
    }

    /// Has router `index` advertise; returns when the daemon has taken it in and told the kernel what follows.
    ///
    /// # Panics
    /// When it does not take it.
    #[track_caller]
    pub fn advertise(&self, daemon: &Daemon<'_>, index: usize, what: &Advertisement) {
        self.advertise_packet(daemon, index, &self.packet(index, what));
    }

    /// The same with a whole inner packet.
    #[track_caller]
    pub fn advertise_packet(&self, daemon: &Daemon<'_>, index: usize, packet: &[u8]) {
        // Larger than the link's MTU only in fragments.
        let send = || {
            let pieces = self.crafters[index].outer().fragments(packet, 1480);
            pieces.iter().for_each(|piece| self.crafters[index].send(piece));
        };
        let (accepted, limited) = (results(daemon, "accepted"), results(daemon, "rate_limited"));
        let mut sent = 1;
        send();
        wait::until("an advertisement to be taken", SOON, || {
            // Control looks at events one by one: once this is counted, the kernel has been told.
            if results(daemon, "accepted") > accepted {
                return Ok(());
            }
            if results(daemon, "rate_limited") >= limited + sent {
                thread::sleep(LIMIT_PAUSE);
                sent += 1;
                send();
            }
            Err("it is not counted")
        });
    }

    /// The IPv4 address that a packet of a program on the host to `dst` is sent to.
    ///
    /// # Panics
    /// When none is sent.
    #[track_caller]
    pub fn way(&self, wire: &Sniffer, dst: Ipv6Addr) -> Ipv4Addr {
        wire.clear();
        self.host.enter(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a socket");
            // A kernel without a route refuses; then nothing is seen.
            let _ = socket.send_to(b"which way?", (dst, 9));
        });
        let seen = wire.wait_for(&format!("a packet to {dst}"), SOON, |c| {
            let inner = c.outer().and_then(|outer| outer.inner());
            c.outgoing && inner.is_some_and(|inner| inner.dst() == dst)
        });
        seen.outer().expect("just matched").dst()
    }

    /// Waits until packets to `dst` go to `v4`: a change needs a moment until the workers know it.
    #[track_caller]
    pub fn wait_way(&self, wire: &Sniffer, dst: Ipv6Addr, v4: Ipv4Addr) {
        wait::until(&format!("packets to {dst} to go to {v4}"), SOON, || {
            match self.way(wire, dst) {
                seen if seen == v4 => Ok(()),
                seen => Err(format!("to {seen}")),
            }
        });
    }

    /// What passes the host's IPv4 interface.
    pub fn wire(&self) -> Sniffer {
        Sniffer::start(&self.host, UNDERLAY)
    }

    /// What passes the host's tunnel interface.
    pub fn tunnel(&self) -> Sniffer {
        Sniffer::start(&self.host, TUNNEL)
    }
}

/// Advertisements that reached control, by what became of them.
#[track_caller]
pub fn results(daemon: &Daemon<'_>, result: &str) -> u64 {
    daemon
        .metrics()
        .sum("isatapd_router_advertisements_total", &[("result", result)])
}

/// Options of advertisements that were left out, by cause, zeros left out.
#[track_caller]
pub fn ignored(daemon: &Daemon<'_>) -> std::collections::BTreeMap<String, u64> {
    let name = "isatapd_router_advertisement_options_ignored_total";
    daemon.metrics().by_label(name, &[], "cause")
}
