//! The programs of the `ebpf` lane at their devices: by TCX, and by `clsact` where a kernel has no TCX, beside the filters of others;
//! and what a kernel lacks for them.
//!
//! Each test is repeated on the guest's older kernel.

use std::borrow::Borrow;
use std::env;
use std::fs;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV6};
use std::thread;
use std::time::Instant;

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::io::ebpf::{Attachment, Features, Hook, Lacking, LoadError, Programs, Shared, sweep};
use isatap_engine::stats::Direction;
use isatap_tests::daemon::TUNNEL;
use isatap_tests::flows::UdpFlows;
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel::{self, amount};
use isatap_tests::ping::ping;
use isatap_tests::programs::{Node, hand_over};
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::connect;
use isatap_tests::traffic::tcp_transfer;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEVICE: &str = "eth0";
const MTU: u16 = 1480;
const SLOTS: u32 = 64;
/// A filter of somebody else's, which matches next to nothing.
const STRANGER: &str = "u32 match u32 0xfeedbeef 0xffffffff at 0 flowid 1:1";

/// A device, and another end so that it is up.
fn device() -> (Netns, Netns) {
    let ends = (Netns::new("a"), Netns::new("b"));
    connect(&ends.0, DEVICE, &ends.1, DEVICE);
    ends
}

fn load(ns: &Netns, tunnel: &str) -> Programs {
    let loaded = ns.enter(|| Programs::load(SLOTS, tunnel));
    loaded.unwrap_or_else(|error| panic!("programs: {error:?}"))
}

fn attach(ns: &Netns, programs: &mut Programs, direction: Direction) -> Result<Attachment, LoadError> {
    ns.enter(|| programs.attach_by(Hook::Clsact, direction, DEVICE))
}

/// A program at the ingress of the device.
#[track_caller]
fn attached(ns: &Netns, programs: &mut Programs) -> Attachment {
    let attached = attach(ns, programs, Direction::Decap);
    attached.unwrap_or_else(|error| panic!("attach: {error:?}"))
}

/// Detaches: where the device is.
fn detach(ns: &Netns, attachment: Attachment) {
    ns.enter(|| drop(attachment));
}

/// Priorities and identifiers of our programs among the filters of the ingress, in the order in which packets see them.
fn filters(ns: &Netns) -> Vec<(u32, String)> {
    let shown = ns.run(&format!("tc filter show dev {DEVICE} ingress"));
    let ours = shown.lines().filter(|line| line.contains("isatap_decap"));
    let word = |line: &str, name: &str| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == name);
        words.next().unwrap_or_default().to_owned()
    };
    ours.map(|line| {
        let priority = word(line, "pref").parse().expect("a priority");
        (priority, word(line, "id"))
    })
    .collect()
}

fn has_clsact(ns: &Netns) -> bool {
    ns.run(&format!("tc qdisc show dev {DEVICE}")).contains("clsact")
}

/// The lane is told precisely what it lacks, and here that is nothing.
#[test]
fn nothing_is_lacking() {
    let began = Instant::now();
    let mut programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("programs: {error:?}"));
    let loaded = began.elapsed();
    let found = programs.features().expect("tried");
    eprintln!(
        "{found:?}, loaded in {loaded:?}, found out in {:?}",
        began.elapsed() - loaded
    );
    let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    assert_eq!(shared.generation(), 0);
    for direction in Direction::ALL {
        assert_eq!(shared.count(Counter::Packets, direction as usize), 0);
    }
    found.complete().expect("everything");
    let without = Features {
        decap: Err(Lacking::Headers(Direction::Decap)),
        ..found.clone()
    };
    assert_eq!(
        without.complete().expect_err("refused").to_string(),
        "isatap_decap: the kernel takes no outer header off (BPF_F_ADJ_ROOM_DECAP_L3_IPV6, Linux 6.3, or bpf_skb_change_proto)"
    );
    if let Ok(expected) = env::var("ISATAP_EXPECTED_HOOK") {
        assert_eq!(format!("{:?}", found.hook), expected);
    }
}

/// Whichever way they are attached, they carry all there is, both ways.
/// The verifier takes most of the time from the start to the first packet, as much as it has to read: a loop that it cannot
/// follow in a few turns is found here, not by a clock.
#[test]
fn the_verifier_has_little_to_read() {
    const MOST: u64 = 12_000;
    let ns = Netns::new("a");
    let _programs = load(&ns, "is0");
    let shown = fs::read_dir("/proc/self/fdinfo").expect("descriptors");
    let shown = shown.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let programs: Vec<String> = shown.filter(|text| text.contains("prog_type:")).collect();
    assert!(programs.len() >= 2, "both: {programs:?}");
    for text in programs {
        let line = text.lines().find_map(|line| line.strip_prefix("verified_insns:"));
        // Since Linux 5.16.
        let read: u64 = line
            .expect("the kernel says it")
            .trim()
            .parse()
            .expect("a number");
        eprintln!("{read} instructions");
        assert!(read < MOST, "{text}");
    }
}

#[test]
fn packets_are_carried_by_filters_as_well() {
    let (a, b) = device();
    let (a, b) = (carrying(a, A, Hook::Clsact), carrying(b, B, Hook::Clsact));
    ping(&a.ns, &on_link(B).to_string(), 10);
    let to = SocketAddrV6::new(on_link(B), 5001, 0, 0);
    let report = tcp_transfer(&a.ns, &b.ns, to, 8_000_000, SOON * 6);
    eprintln!("{}", report.expect("all of it"));
    for (from, to) in [(&a, &b), (&b, &a)] {
        let sent = from.count(Direction::Encap, Counter::Bytes);
        assert!(sent > 0);
        assert_eq!(sent, to.count(Direction::Decap, Counter::Bytes));
        assert_eq!(from.left(Direction::Encap) + to.left(Direction::Decap), 0);
    }
}

/// What was not there before is not there afterwards.
#[test]
fn nothing_is_left_behind() {
    let (ns, _other) = device();
    let mut programs = load(&ns, "is0");
    let attachment = attached(&ns, &mut programs);
    assert_eq!(attachment.hook(), Hook::Clsact);
    assert_eq!((filters(&ns).len(), has_clsact(&ns)), (1, true));
    detach(&ns, attachment);
    assert_eq!((filters(&ns).len(), has_clsact(&ns)), (0, false));
}

/// Filters of others stay, before ours and after; so does the qdisc, if it is theirs or they use it.
#[test]
fn others_are_left_alone() {
    for theirs_is_first in [true, false] {
        let (ns, _other) = device();
        let stranger = |priority: u32| {
            ns.run(&format!(
                "tc filter add dev {DEVICE} ingress prio {priority} protocol all {STRANGER}"
            ));
        };
        let shows_strangers = || {
            let shown = ns.run(&format!("tc filter show dev {DEVICE} ingress"));
            shown.contains("feedbeef")
        };
        let mut programs = load(&ns, "is0");
        let attachment = if theirs_is_first {
            ns.run(&format!("tc qdisc add dev {DEVICE} clsact"));
            // The last priority of all is taken by another kind.
            stranger(1);
            stranger(65535);
            let attachment = attached(&ns, &mut programs);
            assert_eq!(filters(&ns)[0].0, 65534);
            attachment
        } else {
            let attachment = attached(&ns, &mut programs);
            assert_eq!(filters(&ns)[0].0, 65535);
            stranger(1);
            attachment
        };
        assert!(shows_strangers());
        detach(&ns, attachment);
        assert_eq!(filters(&ns).len(), 0);
        assert!(has_clsact(&ns) && shows_strangers());
    }
}

/// What others do with packets they do first: shape them, count them, refuse them. TCX would come before all filters.
#[test]
fn filters_of_others_come_first() {
    const EVERYTHING: &str = "u32 match u32 0 0 flowid 1:1";
    let (ns, _other) = device();
    let mut programs = load(&ns, "is0");
    let mut attach = || {
        ns.enter(|| programs.attach(Direction::Decap, DEVICE))
            .expect("attached")
    };
    ns.run(&format!("tc qdisc add dev {DEVICE} clsact"));
    ns.run(&format!(
        "tc filter add dev {DEVICE} ingress prio 9 protocol ip {EVERYTHING}"
    ));
    let attachment = attach();
    assert_eq!(attachment.hook(), Hook::Clsact);
    assert_eq!(filters(&ns).len(), 1);
    detach(&ns, attachment);
    ns.run(&format!("tc filter del dev {DEVICE} ingress"));
    let attachment = attach();
    assert_eq!(attachment.hook(), Hook::of_the_kernel().expect("a hook"));
    detach(&ns, attachment);
}

/// Two tunnels share a device, and neither takes the other's filter for its own.
#[test]
fn two_tunnels_share_a_device() {
    let (ns, _other) = device();
    let (mut first, mut second) = (load(&ns, "is0"), load(&ns, "site1"));
    let (one, two) = (attached(&ns, &mut first), attached(&ns, &mut second));
    let ids: Vec<_> = filters(&ns).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 2);
    detach(&ns, one);
    let left: Vec<_> = filters(&ns).into_iter().map(|(_, id)| id).collect();
    assert_eq!(left.len(), 1);
    detach(&ns, two);
    assert_eq!(filters(&ns).len(), 0);
}

/// A crash leaves a filter; whoever comes next for the same tunnel takes its place, and nobody else's.
#[test]
fn what_a_crash_left_is_replaced() {
    let (ns, _other) = device();
    let mut other = load(&ns, "site1");
    let others = attached(&ns, &mut other);
    let mut crashed = load(&ns, "is0");
    // As if the process had gone: nobody detaches.
    mem::forget(attached(&ns, &mut crashed));
    drop(crashed);
    let before = filters(&ns);
    assert_eq!(before.len(), 2);
    let mut next = load(&ns, "is0");
    let attachment = attached(&ns, &mut next);
    let after = filters(&ns);
    assert_eq!(after.len(), 2, "{after:?}");
    let same = after.iter().filter(|filter| before.contains(filter)).count();
    assert_eq!(same, 1, "{before:?}, then {after:?}");
    detach(&ns, attachment);
    assert_eq!(filters(&ns).len(), 1);
    detach(&ns, others);
    assert_eq!(filters(&ns).len(), 0);
}

/// A start that attaches nothing takes away what was left, and nothing else.
#[test]
fn what_a_crash_left_is_swept_away() {
    let (ns, _other) = device();
    let swept = || ns.enter(|| sweep("is0")).expect("asked");
    let nowhere: [&str; 0] = [];
    assert_eq!(swept(), nowhere);
    let (mut programs, mut other) = (load(&ns, "is0"), load(&ns, "site1"));
    let others = attached(&ns, &mut other);
    mem::forget(attached(&ns, &mut programs));
    mem::forget(attach(&ns, &mut programs, Direction::Encap).expect("attached"));
    assert_eq!((swept(), filters(&ns).len()), (vec![DEVICE.to_owned()], 1));
    assert_eq!(swept(), nowhere);
    detach(&ns, others);
    assert_eq!(filters(&ns).len(), 0);
}

/// The kernel's own, and the older one.
fn hooks() -> Vec<Hook> {
    let mut hooks = vec![Hook::of_the_kernel().expect("a hook"), Hook::Clsact];
    hooks.dedup();
    hooks
}

fn carrying<N: Borrow<Netns>>(ns: N, v4: Ipv4Addr, hook: Hook) -> Node<N> {
    ns.borrow().ip(&format!("addr add {v4}/24 brd + dev {DEVICE}"));
    let node = Node::hooked(ns, v4, DEVICE, MTU, hook);
    node.publish(node.rules(DEVICE, MTU), DEVICE);
    node
}

/// Other programs are put into the places of those that carry, again and again: each packet meets one of them, and none is left.
#[test]
fn programs_are_exchanged_while_they_carry() {
    const FLOWS: u16 = 4;
    let packets = u32::try_from(amount(20_000)).expect("a count");
    for hook in hooks() {
        let (a, b) = device();
        let mut nodes = [carrying(&a, A, hook), carrying(&b, B, hook)];
        ping(&a, &on_link(B).to_string(), 10);
        let before = nodes[0].count(Direction::Encap, Counter::Packets);
        let flows = UdpFlows {
            flows: FLOWS,
            packets,
            sizes: &[200],
            batch: 1,
        };
        let book = thread::scope(|scope| {
            let sender = scope.spawn(|| flows.run(&a, on_link(A), &b, on_link(B), 0));
            let mut rounds = 0;
            while !sender.is_finished() || rounds == 0 {
                for node in &mut nodes {
                    node.exchange(node.rules(DEVICE, MTU), DEVICE);
                }
                rounds += 1;
            }
            eprintln!("{hook:?}: exchanged {rounds} times at either end");
            sender.join().expect("the flows")
        });
        book.assert_exactly_once_in_order("at b", FLOWS, packets);
        let sent = nodes[0].count(Direction::Encap, Counter::Packets) - before;
        assert_eq!(sent, u64::from(FLOWS) * u64::from(packets));
        for (from, to) in [(0, 1), (1, 0)] {
            let sent = nodes[from].count(Direction::Encap, Counter::Packets);
            assert_eq!(sent, nodes[to].count(Direction::Decap, Counter::Packets));
        }
        ping(&a, &on_link(B).to_string(), 10);
        for (node, direction) in nodes
            .iter()
            .flat_map(|node| Direction::ALL.map(|one| (node, one)))
        {
            assert!(node.count_of_last(direction, Counter::Packets) >= 10);
        }
    }
}

/// What was added for a filter goes with it, whoever has it by then.
#[test]
fn nothing_is_left_behind_by_who_took_over() {
    let (ns, _other) = device();
    let mut programs = load(&ns, TUNNEL);
    let attachment = hand_over_in(&ns, attached(&ns, &mut programs));
    assert_eq!((filters(&ns).len(), has_clsact(&ns)), (1, true));
    let mut next = load(&ns, TUNNEL);
    let attachment = ns.enter(|| next.replace(attachment)).expect("replaced");
    assert_eq!((filters(&ns).len(), has_clsact(&ns)), (1, true));
    detach(&ns, attachment);
    assert_eq!((filters(&ns).len(), has_clsact(&ns)), (0, false));
}

fn hand_over_in(ns: &Netns, attachment: Attachment) -> Attachment {
    ns.enter(|| hand_over(attachment))
}

/// A device takes what is attached along.
#[test]
fn nothing_is_put_to_a_device_that_has_gone() {
    for hook in hooks() {
        let (ns, _other) = device();
        let mut programs = load(&ns, TUNNEL);
        let attach = || programs.attach_by(hook, Direction::Decap, DEVICE);
        let attachment = ns.enter(attach).expect("attached");
        ns.ip(&format!("link del {DEVICE}"));
        let refused = ns.enter(|| programs.replace(attachment)).expect_err("refused");
        eprintln!("{hook:?}: {refused}");
    }
}

/// `ingress`, the predecessor of `clsact`, takes filters for what comes in alone.
#[test]
fn an_older_qdisc_takes_one_direction() {
    let (ns, _other) = device();
    ns.run(&format!("tc qdisc add dev {DEVICE} ingress"));
    let mut programs = load(&ns, "is0");
    let attachment = attached(&ns, &mut programs);
    assert_eq!(filters(&ns).len(), 1);
    let refused = attach(&ns, &mut programs, Direction::Encap).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "eth0 has a queueing discipline of the kind 'ingress' where clsact would be: take that away"
    );
    detach(&ns, attachment);
    assert_eq!(filters(&ns).len(), 0);
}

/// On Linux 6.1, which has neither TCX (6.6) nor the flag that takes an outer header off (6.3).
#[test]
fn all_this_holds_on_an_older_kernel() {
    older_kernel::repeat(
        &[
            "nothing_is_lacking",
            "packets_are_carried_by_filters_as_well",
            "nothing_is_left_behind",
            "others_are_left_alone",
            "two_tunnels_share_a_device",
            "what_a_crash_left_is_replaced",
            "what_a_crash_left_is_swept_away",
            "programs_are_exchanged_while_they_carry",
            "nothing_is_left_behind_by_who_took_over",
            "nothing_is_put_to_a_device_that_has_gone",
            "an_older_qdisc_takes_one_direction",
        ],
        "ISATAP_EXPECTED_HOOK=Clsact",
        Vec::new(),
    );
}
