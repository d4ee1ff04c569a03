//! Two namespaces joined by a veth pair, with a peer at each end.
//!
//! ```text
//!   left                              right
//!   is0   2001:db8:1::5efe:10.0.0.1   is0   2001:db8:1::5efe:10.0.0.2
//!    |    peer                         |    peer
//!   eth0  10.0.0.1/24 ------------- eth0    10.0.0.2/24
//! ```
//!
//! For the bare link the veth itself has 2001:db8:2::1 and ::2.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use isatap_tests::netns::Netns;
use isatap_tests::ping::ping_until;
use isatap_tests::topology::{UNDERLAY, connect};

use crate::peer::{Peer, Runner};
use crate::plan::Plan;

const LEFT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// What the veth does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Underlay {
    /// As veth is by default: nothing is merged.
    Plain,
    /// As a real NIC: GRO on, so that protocol 41 arrives merged (DESIGN D3).
    Merging,
}

impl Underlay {
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Merging];

    /// The key in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Merging => "merging",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Plain => "GRO off",
            Self::Merging => "GRO on",
        }
    }
}

/// The two ends, without anybody who carries packets yet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) left: Netns,
    pub(crate) right: Netns,
    peer: Peer,
}

impl Link {
    pub(crate) fn new(peer: Peer, underlay: Underlay) -> Self {
        let (left, right) = (Netns::new("left"), Netns::new("right"));
        connect(&left, UNDERLAY, &right, UNDERLAY);
        for (ns, v4) in [(&left, LEFT), (&right, RIGHT)] {
            ns.ip(&format!("addr add {v4}/24 dev {UNDERLAY}"));
            if underlay == Underlay::Merging {
                ns.run(&format!("ethtool -K {UNDERLAY} tso off gro on"));
                ns.set_device_attribute(UNDERLAY, "threaded", "1");
            }
            if peer == Peer::Bare {
                ns.sysctl(&format!("ipv6/conf/{UNDERLAY}/disable_ipv6"), "0");
                ns.ip(&format!("addr add {}/64 dev {UNDERLAY} nodad", peer.address(v4)));
            }
        }
        Self { left, right, peer }
    }

    /// Starts the peer at both ends; returns when a packet came back.
    pub(crate) fn start(&self, plan: &Plan) -> [Runner<'_>; 2] {
        let runners = [
            self.peer.start(plan, &self.left, LEFT),
            self.peer.start(plan, &self.right, RIGHT),
        ];
        ping_until(
            &self.left,
            &self.destination().to_string(),
            Duration::from_secs(10),
        );
        runners
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
