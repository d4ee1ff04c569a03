//! Packets that would go round between two routers (L1, L2; FAULTS 14; RFC 6324).
//!
//! ```text
//!   r1 10.0.0.1 -----+----- r2 10.0.0.2        both: isatapd, forwarding; the default route of each leads to the other
//!                    |
//!                    x 10.0.0.9 (crafted)
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::raw::{Crafter, Sniffer};
use isatap_tests::scene::{SOON, on_link, set_address};
use isatap_tests::topology::{Site, UNDERLAY, mac};
use isatap_tests::wait;

const R1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const R2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const NOWHERE: &str = "2001:db8:dead::1";

/// How the two routers are told of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// `PeerRouter` names the other.
    Peers,
    /// Only the route does.
    ByRoute,
}

fn start<'a>(ns: &'a Netns, own: Ipv4Addr, other: Ipv4Addr, known: Known, extra: &str) -> Daemon<'a> {
    ns.sysctl("ipv6/conf/all/forwarding", "1");
    let mut builder = Daemon::router(ns, own).workers(1).config(extra);
    if known == Known::Peers {
        builder = builder.config(&format!("PeerRouter {other}"));
    }
    builder.start()
}

/// Outer packets with the crafted destination that the routers emitted for one packet from `x`, and what both dropped.
/// Ends when nothing moves any more.
fn emitted(known: Known, extra: &str) -> (usize, BTreeMap<String, u64>) {
    let site = Site::new();
    let spaces: Vec<Netns> = vec![site.member("r1", 1), site.member("r2", 2)];
    let x = site.member("x", 9);
    let r1 = start(&spaces[0], R1, R2, known, extra);
    let r2 = start(&spaces[1], R2, R1, known, extra);
    for (ns, own, other) in [(&spaces[0], R1, R2), (&spaces[1], R2, R1)] {
        set_address(ns, own);
        ns.ip(&format!(
            "-6 route add default via {} dev {TUNNEL}",
            link_local(other)
        ));
    }
    for daemon in [&r1, &r2] {
        daemon.wait_route("2001:db8:1::/64");
        daemon.wait_route("::/0");
    }
    let wires = [
        Sniffer::start(&spaces[0], UNDERLAY),
        Sniffer::start(&spaces[1], UNDERLAY),
    ];
    let before: Vec<_> = [&r1, &r2]
        .map(|daemon| daemon.counters(Direction::Decap))
        .to_vec();
    let to = mac(&spaces[0], UNDERLAY);
    let crafter = Crafter::new(&x, UNDERLAY, X, to, R1);
    crafter.send_inner(&Inner::new(on_link(X), NOWHERE.parse().expect("an address")).udp(1, 2, b"round"));
    // Over when a router has dropped it as a loop, or for its hop limit, which the kernel tells the sender.
    let crafted = |wire: &Sniffer| {
        wire.count(|c| {
            let inner = c.outgoing.then(|| c.outer()?.inner()).flatten();
            inner.is_some_and(|inner| {
                inner.dst() == NOWHERE.parse::<std::net::Ipv6Addr>().expect("an address")
            })
        })
    };
    let drops = || {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for (daemon, before) in [&r1, &r2].iter().zip(&before) {
            for (reason, count) in daemon.counters(Direction::Decap).since(before).drops {
                *all.entry(reason).or_default() += count;
            }
        }
        all
    };
    wait::until("the packet to end", SOON, || {
        let count: usize = wires.iter().map(crafted).sum();
        let drops = drops();
        if !drops.is_empty() || count > 50 {
            Ok(())
        } else {
            Err(format!("{count} packets, nothing dropped"))
        }
    });
    r1.conservation();
    r2.conservation();
    (wires.iter().map(crafted).sum(), drops())
}

#[test]
fn l1_one_packet_between_routers_with_mutual_default_routes() {
    // A router that only a route leads to is no peer: it may not speak for a host of the link at all.
    for (known, reason) in [(Known::Peers, "loop"), (Known::ByRoute, "src_mismatch")] {
        let expected = (1, BTreeMap::from([(reason.to_owned(), 1)]));
        assert_eq!(emitted(known, ""), expected, "{known:?}");
    }
}

#[test]
fn without_the_checks_it_goes_round() {
    // What the test above would not see if nothing went round anyway.
    let (count, drops) = emitted(Known::Peers, "LoopChecks no");
    assert!(
        count > 10 && !drops.contains_key("loop"),
        "{count} packets, {drops:?}"
    );
}
