//! Whom the programs of the `ebpf` lane send frames to themselves: those that the kernel would send to, for as long as somebody listens
//! to what the kernel says of them.
//!
//! ```text
//!   a 10.0.0.1  eth0 ======== eth0  b 10.0.0.2        is0 on both: 2001:db8:1::/64
//! ```

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV6};
use std::thread;
use std::time::{Duration, Instant};

use isatap_engine::ebpf::layout::{Counter, NeighbourPlace};
use isatap_engine::io::ebpf::Neighbour;
use isatap_engine::stats::Direction;
use isatap_tests::daemon::{Builder, Daemon, Lane};
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel::{self, amount};
use isatap_tests::ping::{ping, ping_until};
use isatap_tests::programs::Node;
use isatap_tests::raw::Injector;
use isatap_tests::scene::{SOON, on_link, set_address};
use isatap_tests::topology::{Gro, UNDERLAY, connect, mac, set_gro};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MTU: u16 = 1480;
const BYTES: u64 = 32_000_000;
/// Nobody has it.
const NOBODY: &str = "02:00:00:00:00:99";
/// How often it is tried to look around before there is the next engine.
const DEATHS: usize = 20;
/// An engine that is missing for so long is missed for a second or more.
const PAUSE: Duration = Duration::from_millis(500);

fn machines() -> (Netns, Netns) {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, UNDERLAY, &b, UNDERLAY);
    a.ip(&format!("addr add {A}/24 brd + dev {UNDERLAY}"));
    b.ip(&format!("addr add {B}/24 brd + dev {UNDERLAY}"));
    (a, b)
}

fn nodes() -> (Node, Node) {
    let (a, b) = machines();
    let node = |ns, v4| {
        let node = Node::new(ns, v4, UNDERLAY, MTU);
        node.publish(node.rules(UNDERLAY, MTU), UNDERLAY);
        node
    };
    (node(a, A), node(b, B))
}

fn is_answered(from: &Netns) -> bool {
    let to = on_link(B);
    from.try_run(&format!("ping -c 1 -W 0.2 {to}")).status.success()
}

/// Stays on one CPU, which remembers each answer until there is another one.
fn run_on_one_cpu() {
    let mut one = CpuSet::new();
    one.set(0).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &one).expect("CPU 0");
}

#[test]
fn frames_go_where_it_is_said() {
    run_on_one_cpu();
    let (a, b) = nodes();
    let link = || Some([mac(&b.ns, UNDERLAY), mac(&a.ns, UNDERLAY)]);
    ping(&a.ns, &on_link(B).to_string(), 1);
    // What the kernel finds leads nowhere from here on.
    a.ns.ip(&format!(
        "neigh replace {B} lladdr {NOBODY} dev {UNDERLAY} nud permanent"
    ));
    assert!(!is_answered(&a.ns), "by the kernel's neighbour");
    a.set_neighbour(B, UNDERLAY, link());
    assert!(is_answered(&a.ns), "by the neighbour that was told");
    a.set_neighbour(B, "lo", None);
    a.set_neighbour(Ipv4Addr::new(10, 0, 0, 3), UNDERLAY, None);
    assert!(is_answered(&a.ns), "others are none of its business");
    a.set_neighbour(B, UNDERLAY, None);
    assert!(!is_answered(&a.ns), "once it is told to be gone");
    a.set_neighbour(B, UNDERLAY, link());
    assert!(is_answered(&a.ns), "told again");
    a.revoke_neighbours();
    assert!(!is_answered(&a.ns), "once nobody keeps it current");
    a.set_neighbour(B, UNDERLAY, None);
    a.set_neighbour(B, UNDERLAY, link());
    assert!(is_answered(&a.ns), "once somebody does again");
    a.ns.ip(&format!("neigh del {B} dev {UNDERLAY}"));
    a.set_neighbour(B, UNDERLAY, None);
    ping(&a.ns, &on_link(B).to_string(), 1);
}

/// Each neighbour has one place in a table, and shares it with others: with another host behind the device, and with a host of the same
/// address behind another device.
#[test]
fn frames_go_to_nobody_of_the_same_place() {
    let (a, b) = nodes();
    let device = a.index(UNDERLAY);
    let place = NeighbourPlace::of(B, device);
    let link = Some([mac(&b.ns, UNDERLAY), mac(&a.ns, UNDERLAY)]);
    let mut addrs = (B.to_bits() + 1..).map(Ipv4Addr::from_bits);
    let other = addrs.find(|addr| NeighbourPlace::of(*addr, device) == place);
    let mut devices = device + 1..;
    let behind = devices.find(|device| NeighbourPlace::of(B, *device) == place);
    ping(&a.ns, &on_link(B).to_string(), 1);
    a.ns.ip(&format!(
        "neigh replace {B} lladdr {NOBODY} dev {UNDERLAY} nud permanent"
    ));
    a.set_neighbour_at(other.expect("an address"), device, link);
    assert!(!is_answered(&a.ns), "by that of {other:?}");
    a.set_neighbour_at(B, behind.expect("a device"), link);
    assert!(!is_answered(&a.ns), "by that behind device {behind:?}");
    a.set_neighbour_at(B, device, link);
    assert!(is_answered(&a.ns), "by its own");
}

/// A neighbour in doubt: the kernel asks it once it has a packet for it, so it gets the first one. The others go as frames.
#[test]
fn the_first_packet_to_one_in_doubt_is_the_kernels() {
    run_on_one_cpu();
    let (a, b) = nodes();
    let device = a.index(UNDERLAY);
    let link = [mac(&b.ns, UNDERLAY), mac(&a.ns, UNDERLAY)];
    ping(&a.ns, &on_link(B).to_string(), 1);
    a.ns.ip(&format!(
        "neigh replace {B} lladdr {NOBODY} dev {UNDERLAY} nud permanent"
    ));
    for time in ["first", "second"] {
        a.doubt_neighbour_at(B, device, link);
        assert!(!is_answered(&a.ns), "by the kernel's neighbour, the {time} time");
        assert!(is_answered(&a.ns), "by the neighbour that was told");
        assert!(is_answered(&a.ns), "by that again");
    }
    // Whoever has been asked need not be asked again ...
    a.set_neighbour_at(B, device, Some(link));
    assert!(is_answered(&a.ns), "once the doubt is over");
    a.doubt_neighbour_at(B, device, link);
    a.set_neighbour_at(B, device, Some(link));
    assert!(is_answered(&a.ns), "by a neighbour that was doubted for a moment");
    // ... and one that another frame leads to is another one.
    a.doubt_neighbour_at(B, device, [[2, 0, 0, 0, 0, 0x99], link[1]]);
    assert!(!is_answered(&a.ns), "by the kernel's neighbour");
    assert!(!is_answered(&a.ns), "to somebody else");
}

/// Whoever asks this machine for its address is known to the kernel, in doubt: that takes nobody's place.
#[test]
fn one_in_doubt_takes_no_place_from_one_that_is_sure() {
    let (a, b) = nodes();
    let device = a.index(UNDERLAY);
    let place = NeighbourPlace::of(B, device);
    let mut addrs = (B.to_bits() + 1..).map(Ipv4Addr::from_bits);
    let mut other = || {
        addrs
            .find(|addr| NeighbourPlace::of(*addr, device) == place)
            .expect("an address")
    };
    let link = [mac(&b.ns, UNDERLAY), mac(&a.ns, UNDERLAY)];
    ping(&a.ns, &on_link(B).to_string(), 1);
    a.ns.ip(&format!(
        "neigh replace {B} lladdr {NOBODY} dev {UNDERLAY} nud permanent"
    ));
    a.set_neighbour(B, UNDERLAY, Some(link));
    a.doubt_neighbour_at(other(), device, link);
    assert!(is_answered(&a.ns), "by its own place");
    let sure = other();
    a.set_neighbour_at(sure, device, Some(link));
    assert!(
        !is_answered(&a.ns),
        "by that of {sure}, of whom the kernel is sure"
    );
    a.set_neighbour_at(sure, device, None);
    a.doubt_neighbour_at(other(), device, link);
    a.set_neighbour(B, UNDERLAY, Some(link));
    assert!(is_answered(&a.ns), "by that of one in doubt");
}

/// Each time that something is told CPUs look again. What may wait for more of its kind is a doubt about a neighbour that nothing else is
/// new of.
#[test]
fn only_a_doubt_may_wait() {
    let (a, _b) = machines();
    let node = Node::new(a, A, UNDERLAY, MTU);
    let device = node.index(UNDERLAY);
    let link = [[2, 0, 0, 0, 0, 2], mac(&node.ns, UNDERLAY)];
    let news = |link, is_doubted| Neighbour {
        addr: B,
        device,
        link,
        is_doubted,
    };
    let moved = [[2, 0, 0, 0, 0, 3], link[1]];
    let may_wait = |link, is_doubted| node.may_wait(&news(link, is_doubted));
    assert!(may_wait(Some(link), true), "about one that is not known");
    assert!(!may_wait(Some(link), false), "one to be sure of");
    node.set_neighbour(B, UNDERLAY, Some(link));
    assert!(may_wait(Some(link), true), "about one that is known");
    assert!(!may_wait(Some(moved), true), "one that has moved");
    assert!(!may_wait(None, false), "one that is gone");
    node.doubt_neighbour_at(B, device, link);
    assert!(may_wait(Some(link), true), "once more");
    assert!(!may_wait(Some(link), false), "the end of a doubt");
}

/// Where a route has a gateway, that is the neighbour.
#[test]
fn frames_go_to_the_gateway() {
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
    let (a, b) = nodes();
    ping(&a.ns, &on_link(B).to_string(), 1);
    a.ns.ip(&format!(
        "neigh replace {B} lladdr {NOBODY} dev {UNDERLAY} nud permanent"
    ));
    let link = Some([mac(&b.ns, UNDERLAY), mac(&a.ns, UNDERLAY)]);
    a.set_neighbour(GATEWAY, UNDERLAY, link);
    assert!(!is_answered(&a.ns), "by the host's own address");
    a.publish_via(a.rules(UNDERLAY, MTU), UNDERLAY, GATEWAY);
    assert!(is_answered(&a.ns), "by the gateway's");
    a.set_neighbour(B, UNDERLAY, link);
    a.set_neighbour(GATEWAY, UNDERLAY, None);
    assert!(!is_answered(&a.ns), "by the host's own address again");
}

/// Superpackets go whole to a neighbour that is known, too; and all that left at one end came in at the other.
#[test]
fn superpackets_go_that_way() {
    for gro in [Gro::Off, Gro::On] {
        let (a, b) = nodes();
        set_gro(&a.ns, UNDERLAY, &b.ns, UNDERLAY, gro);
        let (at_a, at_b) = (mac(&a.ns, UNDERLAY), mac(&b.ns, UNDERLAY));
        a.set_neighbour(B, UNDERLAY, Some([at_b, at_a]));
        b.set_neighbour(A, UNDERLAY, Some([at_a, at_b]));
        // The kernel need not even know them.
        let to = SocketAddrV6::new(on_link(B), 5001, 0, 0);
        tcp_transfer(&a.ns, &b.ns, to, amount(BYTES), SOON * 6).expect("all of it");
        assert_eq!(a.ns.ip(&format!("neigh show {B}")), "", "nobody asked for it");
        assert!(a.count(Direction::Encap, Counter::Superpackets) > 0);
        for (from, to) in [(&a, &b), (&b, &a)] {
            let sent = from.segments(Direction::Encap);
            // What a device has merged may stand for more segments than it says.
            if gro == Gro::Off {
                assert_eq!(sent, to.segments(Direction::Decap));
            }
            assert_eq!(
                (from.left(Direction::Encap), from.dropped(Direction::Encap)),
                (0, 0)
            );
        }
    }
}

fn start(ns: &Netns, addr: Ipv4Addr) -> Daemon<'_> {
    // It tells everybody when its link address is another one.
    ns.sysctl(&format!("ipv4/conf/{UNDERLAY}/arp_notify"), "1");
    // Seconds from the first packet to a neighbour that is doubted to the question.
    ns.sysctl(&format!("ipv4/neigh/{UNDERLAY}/delay_first_probe_time"), "1");
    let daemon = Builder::new(ns).lane(Lane::Ebpf).start();
    set_address(ns, addr);
    wait::holds("the kernel to carry", SOON * 6, || {
        daemon.metrics().sum("isatapd_kernel_carries", &[]) == 2
    });
    daemon
}

#[track_caller]
fn wait_neighbours(daemon: &Daemon<'_>, count: u64) {
    wait::holds(&format!("{count} neighbours"), SOON * 6, || {
        daemon.metrics().sum("isatapd_kernel_neighbours", &[]) == count
    });
}

#[test]
fn the_kernel_is_followed() {
    let (a, b) = machines();
    let (mut at_a, mut at_b) = (start(&a, A), start(&b, B));
    ping_until(&a, &on_link(B).to_string(), SOON * 6);
    wait_neighbours(&at_a, 1);
    wait_neighbours(&at_b, 1);
    for last in 1..=3 {
        b.ip(&format!("link set {UNDERLAY} address 02:00:00:00:77:{last:02}"));
        // The kernel forgets its neighbours with the address, and finds them when it is given something to send. What B sends
        // before it has heard of that goes to where A was, and still is.
        wait::holds("both to know each other", SOON * 6, || {
            ping_until(&a, &on_link(B).to_string(), SOON * 6);
            let known = |daemon: &Daemon<'_>| daemon.metrics().sum("isatapd_kernel_neighbours", &[]);
            (known(&at_a), known(&at_b)) == (1, 1)
        });
        ping(&a, &on_link(B).to_string(), 5);
    }
    // One that the kernel doubts it asks itself, as soon as something is sent there.
    a.ip(&format!("neigh change {B} dev {UNDERLAY} nud stale"));
    wait::holds("the kernel to be sure again", SOON * 6, || {
        ping(&a, &on_link(B).to_string(), 1);
        a.ip(&format!("neigh show {B} dev {UNDERLAY}"))
            .contains("REACHABLE")
    });
    wait_neighbours(&at_a, 1);
    a.ip(&format!(
        "neigh replace {B} lladdr {NOBODY} dev {UNDERLAY} nud permanent"
    ));
    wait::holds("frames to follow", SOON, || !is_answered(&a));
    a.ip(&format!("neigh del {B} dev {UNDERLAY}"));
    ping_until(&a, &on_link(B).to_string(), SOON * 6);
    wait_neighbours(&at_a, 1);
    at_a.stop();
    at_b.stop();
}

/// Packets go on to a neighbour for as long as the kernel would send them: not for ever to one that has moved and says nothing.
#[test]
fn one_that_moved_in_silence_is_found() {
    let (a, b) = machines();
    a.sysctl(&format!("ipv4/neigh/{UNDERLAY}/base_reachable_time_ms"), "1000");
    a.sysctl(&format!("ipv4/neigh/{UNDERLAY}/retrans_time_ms"), "100");
    let (mut at_a, mut at_b) = (start(&a, A), start(&b, B));
    b.sysctl(&format!("ipv4/conf/{UNDERLAY}/arp_notify"), "0");
    ping_until(&a, &on_link(B).to_string(), SOON * 6);
    wait_neighbours(&at_a, 1);
    b.ip(&format!("link set {UNDERLAY} address 02:00:00:00:99:01"));
    ping_until(&a, &on_link(B).to_string(), SOON * 6);
    ping(&a, &on_link(B).to_string(), 5);
    at_a.stop();
    at_b.stop();
}

/// While there is no engine nobody listens to the kernel: packets go on, to where the kernel would send them.
#[test]
fn without_an_engine_the_kernel_finds_them() {
    let (a, b) = machines();
    let (mut at_a, mut at_b) = (start(&a, A), start(&b, B));
    ping_until(&a, &on_link(B).to_string(), SOON * 6);
    wait_neighbours(&at_a, 1);
    let without = (1..=DEATHS).find(|last| {
        let known = wait::until("an engine that knows its neighbour", SOON * 12, || {
            let engine = at_a.try_engine_pid().ok_or("no engine")?;
            let (_, metrics) = at_a.http("/metrics")?;
            let is_known = metrics.contains("isatapd_kernel_neighbours 1\n");
            is_known
                .then_some(engine)
                .ok_or_else(|| "no neighbour".to_owned())
        });
        kill(Pid::from_raw(known), Signal::SIGKILL).expect("a killed engine");
        wait::holds("a dead engine", SOON * 6, || at_a.try_engine_pid() != Some(known));
        // Lives that are this short are followed later and later.
        let until = Instant::now() + PAUSE;
        while Instant::now() < until && at_a.try_engine_pid().is_none() {
            thread::sleep(PAUSE / 50);
        }
        if at_a.try_engine_pid().is_some() {
            return false;
        }
        b.ip(&format!("link set {UNDERLAY} address 02:00:00:00:88:{last:02}"));
        ping_until(&a, &on_link(B).to_string(), SOON * 6);
        at_a.try_engine_pid().is_none()
    });
    assert!(without.is_some(), "there was an engine each time");
    at_a.stop();
    at_b.stop();
}

#[test]
fn programs_do_so_on_an_older_kernel() {
    older_kernel::repeat(
        &[
            "frames_go_where_it_is_said",
            "frames_go_to_nobody_of_the_same_place",
            "the_first_packet_to_one_in_doubt_is_the_kernels",
            "superpackets_go_that_way",
        ],
        "",
        Vec::new(),
    );
}

/// An ARP request (RFC 826) of `from` for `to`.
fn arp_request(from: Ipv4Addr, link: [u8; 6], to: Ipv4Addr) -> Vec<u8> {
    let [ethernet, ipv4, lengths, request] = [[0, 1], [0x08, 0], [6, 4], [0, 1]];
    let asked = (&[0; 6][..], &to.octets()[..]);
    [
        &ethernet[..],
        &ipv4,
        &lengths,
        &request,
        &link,
        &from.octets(),
        asked.0,
        asked.1,
    ]
    .concat()
}

/// Whoever asks this machine for its address is known to the kernel from then on, in doubt: many who ask, one after the other, make no
/// CPU look again more often than ten times a second.
#[test]
fn doubts_are_told_together() {
    let (a, b) = machines();
    let daemon = start(&a, A);
    let device = a
        .enter(|| nix::net::if_::if_nametoindex(UNDERLAY))
        .expect("a device");
    // Each with a place of its own.
    let mut places = BTreeSet::new();
    let hosts = (10..).map(|host| Ipv4Addr::from_bits(A.to_bits() & !0xff | host));
    let hosts: Vec<_> = hosts
        .take(100)
        .filter(|host| places.insert(NeighbourPlace::of(*host, device)))
        .collect();
    let generations = || {
        daemon
            .metrics()
            .sum("isatapd_kernel_generations_total", &[("of", "neighbours")])
    };
    let before = generations();
    let arp = Injector::ethernet(&b, UNDERLAY, mac(&a, UNDERLAY)).of_type(0x0806);
    let begun = Instant::now();
    for host in &hosts {
        arp.send(&arp_request(*host, mac(&b, UNDERLAY), A));
        wait::holds("the kernel to know it", SOON, || {
            a.ip(&format!("neigh show {host}")).contains("STALE")
        });
    }
    wait_neighbours(&daemon, hosts.len() as u64);
    let tenths = u64::try_from(begun.elapsed().as_millis()).expect("no ages") / 100;
    let times = generations() - before;
    assert!(
        (1..=tenths).contains(&times),
        "{} hosts: {times} times in {tenths} tenths of a second",
        hosts.len()
    );
}
