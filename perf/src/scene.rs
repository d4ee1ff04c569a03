//! Where packets travel: namespaces joined by a veth pair, with a peer at both ends or at one.
//!
//! ```text
//!   pair   left                                right
//!          is0  2001:db8:1::5efe:10.0.0.1      is0  2001:db8:1::5efe:10.0.0.2
//!           |   peer                            |   peer
//!          eth0 10.0.0.1/24 ------------------ eth0 10.0.0.2/24
//!
//!   hub    left and right are hosts, 10.0.0.1 and 10.0.0.2; between them the switch of a site and a router, 10.0.0.3, which all goes
//!          through, since the prefix is not on-link (RFC 6964 3.5)
//!
//!   out    a peer at the left only; at the right a raw socket counts what comes for 10.64.0.0/10
//!   in     a peer at the right only; at the left a raw socket sends from 10.64.0.0/10
//! ```
//!
//! For the bare link the veth itself has 2001:db8:2::1 and ::2. Site host k is 10.64.0.1 + k, and behind it lies the
//! network 3fff:0:k::/64 (k in two groups).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::netns::Netns;
use isatap_tests::packet::link_local;
use isatap_tests::ping::ping_until;
use isatap_tests::topology::{Gro, Site, UNDERLAY, connect};
use serde::{Deserialize, Serialize};

use crate::peer::{Peer, Runner, Tunnel};
use crate::plan::Settings;

pub(crate) const LEFT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The router that two hosts have between them.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// Where the site's further hosts are.
const SITE: &str = "10.64.0.0/10";
const FIRST_HOST: u32 = 0x0a40_0001;

/// What the veth does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Underlay {
    /// As veth is by default: nothing is merged.
    Plain,
    /// As a real NIC: GRO on, so that protocol 41 arrives merged (DESIGN D3).
    Merging,
}

impl Underlay {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Plain => "GRO off",
            Self::Merging => "GRO on",
        }
    }
}

/// Who is where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A peer at both ends.
    Pair,
    /// A peer at both ends, and another one between them.
    Hub,
    /// A peer that sends to many hosts.
    Out,
    /// A peer that receives from many hosts.
    In,
    /// Each measurement builds its own.
    Own,
}

/// A scene to build, and with which tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) underlay: Underlay,
    pub(crate) workers: usize,
    /// Routes of the peer's interface to networks behind site hosts.
    pub(crate) routes: u32,
    /// Routers the peer knows; 0: it is a router itself.
    pub(crate) routers: u32,
}

/// The namespaces, without anybody who carries packets yet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) left: Netns,
    pub(crate) right: Netns,
    pub(crate) scene: Scene,
    middle: Option<Middle>,
    peer: Peer,
}

/// What is between two hosts.
#[derive(Debug)]
struct Middle {
    hub: Netns,
    /// Lasts as long as the rest.
    _site: Site,
}

impl Link {
    pub(crate) fn new(peer: &Peer, scene: Scene) -> Self {
        if scene.stage == Stage::Hub {
            return Self::by_way_of_hub(peer, scene);
        }
        let (left, right) = (Netns::new("left"), Netns::new("right"));
        connect(&left, UNDERLAY, &right, UNDERLAY);
        for (ns, v4) in [(&left, LEFT), (&right, RIGHT)] {
            ns.ip(&format!("addr add {v4}/24 dev {UNDERLAY}"));
            if scene.underlay == Underlay::Merging {
                ns.run(&format!("ethtool -K {UNDERLAY} tso off gro on"));
                ns.set_device_attribute(UNDERLAY, "threaded", "1");
            }
            swallow_strays(ns);
            if *peer == Peer::Bare {
                ns.sysctl(&format!("ipv6/conf/{UNDERLAY}/disable_ipv6"), "0");
                ns.ip(&format!("addr add {}/64 dev {UNDERLAY} nodad", peer.address(v4)));
            }
        }
        match scene.stage {
            Stage::Pair | Stage::Hub | Stage::Own => {}
            Stage::Out => {
                left.ip(&format!("route add {SITE} via {RIGHT}"));
                right.ip(&format!("route add local {SITE} dev lo"));
            }
            Stage::In => {
                // Senders need not be where answers would go.
                for device in ["all", UNDERLAY] {
                    right.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
                }
                right.ip(&format!("route add {SITE} via {LEFT}"));
            }
        }
        let peer = peer.clone();
        Self {
            left,
            right,
            scene,
            middle: None,
            peer,
        }
    }

    fn by_way_of_hub(peer: &Peer, scene: Scene) -> Self {
        let site = Site::new();
        let member = |label, v4: Ipv4Addr| site.member(label, v4.octets()[3]);
        let (left, hub, right) = (member("left", LEFT), member("hub", HUB), member("right", RIGHT));
        for (port, ns) in (0..).zip([&left, &hub, &right]) {
            if scene.underlay == Underlay::Merging {
                site.set_gro(port, ns, UNDERLAY, Gro::On);
            }
            swallow_strays(ns);
        }
        hub.sysctl("ipv6/conf/all/forwarding", "1");
        if *peer == Peer::Bare {
            let way = peer.address(HUB);
            for (ns, v4) in [(&left, LEFT), (&hub, HUB), (&right, RIGHT)] {
                ns.sysctl(&format!("ipv6/conf/{UNDERLAY}/disable_ipv6"), "0");
                // The router tells of shorter ways.
                ns.sysctl(&format!("ipv6/conf/{UNDERLAY}/accept_redirects"), "0");
                let own = peer.address(v4);
                ns.ip_batch(&if v4 == HUB {
                    format!("addr add {own}/64 dev {UNDERLAY} nodad\n")
                } else {
                    format!(
                        "addr add {own}/128 dev {UNDERLAY} nodad\nroute add {way} dev {UNDERLAY}\nroute add default via {way}\n"
                    )
                });
            }
        }
        Self {
            left,
            right,
            scene,
            middle: Some(Middle { hub, _site: site }),
            peer: peer.clone(),
        }
    }

    /// Starts the peer where the scene has it; with one at both ends, returns when a packet came back.
    pub(crate) fn start(&self, settings: &Settings) -> Vec<Runner<'_>> {
        if let Some(Middle { hub, .. }) = &self.middle {
            return self.start_with_hub(settings, hub);
        }
        let routers: Vec<_> = (0..self.scene.routers).map(host).collect();
        let tunnel = |own, other| Tunnel {
            own,
            other,
            routers: &routers,
            workers: self.scene.workers,
        };
        let ends = [
            (&self.left, tunnel(LEFT, RIGHT)),
            (&self.right, tunnel(RIGHT, LEFT)),
        ];
        let wanted = |at: &usize| match self.scene.stage {
            Stage::Pair => true,
            Stage::Out => *at == 0,
            Stage::In => *at == 1,
            Stage::Hub | Stage::Own => false,
        };
        let start = |at: usize| self.peer.start(settings, ends[at].0, &ends[at].1);
        let runners: Vec<_> = (0..2).filter(wanted).map(start).collect();
        if self.scene.stage == Stage::Pair {
            let to = self.destination().to_string();
            ping_until(&self.left, &to, Duration::from_secs(10));
        }
        if self.scene.routes > 0 {
            self.add_routes();
        }
        runners
    }

    /// The router advertises, and is what the hosts know.
    fn start_with_hub<'a>(&'a self, settings: &Settings, hub: &'a Netns) -> Vec<Runner<'a>> {
        let members = [(hub, HUB), (&self.left, LEFT), (&self.right, RIGHT)];
        let start = |(ns, own): (&'a Netns, Ipv4Addr)| {
            let tunnel = Tunnel {
                own,
                other: HUB,
                routers: if own == HUB { &[] } else { &[HUB] },
                workers: self.scene.workers,
            };
            self.peer.start_between(settings, ns, &tunnel)
        };
        let runners = members.into_iter().map(start).collect();
        let to = self.destination().to_string();
        ping_until(&self.left, &to, Duration::from_secs(10));
        runners
    }

    fn add_routes(&self) {
        let mut lines = String::new();
        for k in 0..self.scene.routes {
            let (to, via) = (Ipv6Addr::from(network(k).to_bits() & !1), link_local(host(k)));
            let _ = writeln!(lines, "route add {to}/64 via {via} dev {TUNNEL}");
        }
        self.left.ip_batch(&lines);
    }

    /// Conservation is asked of these.
    pub(crate) fn daemons<'a, 'b>(runners: &'b [Runner<'a>]) -> impl Iterator<Item = &'b Daemon<'a>> {
        runners.iter().filter_map(|runner| match runner {
            Runner::Daemon(daemon) => Some(daemon),
            _ => None,
        })
    }

    /// The right end's address.
    pub(crate) fn destination(&self) -> Ipv6Addr {
        self.peer.address(RIGHT)
    }

    /// The left end's address.
    pub(crate) fn source(&self) -> Ipv6Addr {
        self.peer.address(LEFT)
    }
}

/// Where the kernel has ISATAP of its own, it answers every packet of protocol 41 that is for none of its tunnels with an error,
/// although a raw socket reads it. Its device for what is left over takes them without a word.
fn swallow_strays(ns: &Netns) {
    const LEFT_OVER: &str = "sit0";
    if ns.has_link(LEFT_OVER) {
        ns.sysctl(&format!("ipv6/conf/{LEFT_OVER}/disable_ipv6"), "1");
        ns.ip(&format!("link set {LEFT_OVER} up"));
    }
}

/// The locator of site host `k`.
pub(crate) fn host(k: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_HOST + k)
}

/// A host of the network behind site host `k`.
pub(crate) fn network(k: u32) -> Ipv6Addr {
    Ipv6Addr::from(0x3fff_0000_u128 << 96 | u128::from(k) << 64 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_networks_by_number() {
        assert_eq!(host(0).to_string(), "10.64.0.1");
        assert_eq!(host(65_536).to_string(), "10.65.0.1");
        assert_eq!(network(0).to_string(), "3fff::1");
        assert_eq!(network(0x1_0002).to_string(), "3fff:0:1:2::1");
    }
}
