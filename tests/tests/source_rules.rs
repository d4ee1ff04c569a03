//! IPv4 routing by where a packet comes from (`ip rule add from`), which is how a machine with two uplinks keeps each address
//! at its own: what the tunnel sends goes the way of its locator. The same by what a packet carries (`ipproto 41`), and IPsec
//! policies for it, which are how tunnels of this kind are protected (RFC 4891).
//!
//! ```text
//!   h  eth0 10.0.0.2 ---- main table --------------- r 10.9.0.254 ---- 10.9.0.1 peer (isatapd, router)
//!      eth1 10.1.0.2 ---- table 100, from 10.1.0.2 --+
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::nd::{NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION};
use isatap_tests::netns::Netns;
use isatap_tests::packet::SeenInner;
use isatap_tests::ping::ping_direct_until;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::connect;
use isatap_tests::wait;

const LOCATOR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// The machine with two uplinks, what is behind both, and the peer.
struct Uplinks {
    host: Netns,
    middle: Netns,
    peer: Netns,
}

impl Uplinks {
    /// The second table is for what `selector` says. Whatever else the kernel is asked for goes nowhere, which it says in the words for what it does
    /// not understand (`EINVAL`).
    fn new(selector: &str) -> Self {
        let (host, middle, peer) = (Netns::new("h"), Netns::new("m"), Netns::new("p"));
        connect(&host, "eth0", &middle, "left0");
        connect(&host, "eth1", &middle, "left1");
        connect(&middle, "right", &peer, "eth0");
        middle.sysctl("ipv4/ip_forward", "1");
        middle.ip_batch(
            "addr add 10.0.0.254/24 dev left0\naddr add 10.1.0.254/24 dev left1\naddr add 10.9.0.254/24 dev right\n",
        );
        peer.ip_batch(&format!(
            "addr add {PEER}/24 dev eth0\nroute add default via 10.9.0.254\n"
        ));
        host.ip_batch(&format!(
            "addr add 10.0.0.2/24 dev eth0\naddr add {LOCATOR}/24 dev eth1\nroute add 10.9.0.0/24 via 10.0.0.254\n\
             route add blackhole default\nroute add default via 10.1.0.254 table 100\nrule add {selector} lookup 100\n"
        ));
        Self { host, middle, peer }
    }

    /// The machine's daemon and the peer's.
    fn daemons(&self, lane: Lane) -> [Daemon<'_>; 2] {
        let peer = Daemon::router(&self.peer, PEER)
            .config("Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link")
            .start();
        let host = Builder::new(&self.host)
            .config(&format!("BindAddress {LOCATOR}\nServerAddress {PEER}"))
            .lane(lane)
            .workers(1)
            .start();
        [host, peer]
    }
}

/// Kinds of ICMPv6 messages of the tunnel that came in at a device, and everything else as 0.
fn kinds(wire: &Sniffer) -> Vec<u8> {
    let packets = wire.packets();
    let incoming = packets.iter().filter(|c| !c.outgoing);
    let outer = incoming.filter_map(|c| c.outer().filter(|outer| outer.src() == LOCATOR));
    let kind = |inner: SeenInner<'_>| Some(inner.icmpv6()?.0);
    outer
        .map(|outer| outer.inner().and_then(kind).unwrap_or_default())
        .collect()
}

fn goes_by_the_rule(lane: Lane, selector: &str) {
    let net = Uplinks::new(selector);
    let [wrong, right] = ["left0", "left1"].map(|device| Sniffer::start(&net.middle, device));
    let [host, peer] = net.daemons(lane);
    ping_direct_until(&net.host, &on_link(PEER).to_string(), SOON);
    // What is larger than the tunnel's MTU leaves in several packets.
    net.host.run(&format!(
        "ping -6 -n -c 2 -i 0.1 -s 4000 -I {TUNNEL} {}",
        on_link(PEER)
    ));
    wait::until("a solicitation and a probe", SOON * 3, || {
        let seen = kinds(&right);
        if [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION]
            .iter()
            .all(|kind| seen.contains(kind))
        {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    assert_eq!(kinds(&wrong), [0; 0], "left by the other uplink");
    assert!(host.counters(Direction::Encap).delivered > 8);
    // Without the rule it goes as everything does.
    net.host.ip(&format!("rule del {selector} lookup 100"));
    wait::holds("packets at the other uplink", SOON, || {
        net.host
            .try_run(&format!("ping -6 -n -c 1 -W 0.1 {}", on_link(PEER)));
        !kinds(&wrong).is_empty()
    });
    [host, peer].iter().for_each(Daemon::conservation);
}

#[test]
fn outer_packets_obey_rules_for_sources_uring() {
    goes_by_the_rule(Lane::Uring, &format!("from {LOCATOR}"));
}

#[test]
fn outer_packets_obey_rules_for_sources_syscall() {
    goes_by_the_rule(Lane::Syscall, &format!("from {LOCATOR}"));
}

#[test]
fn outer_packets_obey_rules_for_sources_ebpf() {
    goes_by_the_rule(Lane::Ebpf, &format!("from {LOCATOR}"));
}

#[test]
fn outer_packets_obey_rules_for_their_protocol_uring() {
    goes_by_the_rule(Lane::Uring, "ipproto 41");
}

#[test]
fn outer_packets_obey_rules_for_their_protocol_syscall() {
    goes_by_the_rule(Lane::Syscall, "ipproto 41");
}

#[test]
fn outer_packets_obey_rules_for_their_protocol_ebpf() {
    goes_by_the_rule(Lane::Ebpf, "ipproto 41");
}

/// What must not leave without protection does not, whoever has carried it until then.
fn obeys_policies(lane: Lane) {
    let net = Uplinks::new(&format!("from {LOCATOR}"));
    let right = Sniffer::start(&net.middle, "right");
    let [host, peer] = net.daemons(lane);
    let to = on_link(PEER).to_string();
    ping_direct_until(&net.host, &to, SOON);
    let policy = format!("dir out src {LOCATOR} dst {PEER} proto 41");
    net.host.ip(&format!("xfrm policy add {policy} action block"));
    let echo = format!("ping -6 -n -c 1 -W 0.2 {to}");
    let passed = || right.packets().iter().filter(|c| c.outgoing).count();
    wait::holds("nothing to pass", SOON, || {
        let before = passed();
        !net.host.try_run(&echo).status.success() && passed() == before
    });
    let refused = || {
        let drops = host.drops(Direction::Encap);
        drops.get("send_error").copied().unwrap_or_default()
    };
    let before = refused();
    assert!(!net.host.try_run(&echo).status.success());
    assert!(refused() > before, "a refusal that is not counted");
    net.host.ip(&format!("xfrm policy delete {policy}"));
    ping_direct_until(&net.host, &to, SOON);
    [host, peer].iter().for_each(Daemon::conservation);
}

#[test]
fn outer_packets_obey_ipsec_policies_uring() {
    obeys_policies(Lane::Uring);
}

#[test]
fn outer_packets_obey_ipsec_policies_syscall() {
    obeys_policies(Lane::Syscall);
}

#[test]
fn outer_packets_obey_ipsec_policies_ebpf() {
    obeys_policies(Lane::Ebpf);
}
