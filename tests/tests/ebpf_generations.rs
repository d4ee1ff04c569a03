//! Rules that change while packets are decided: each packet by one generation of them, or by none (DESIGN D11).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use isatap_engine::ebpf::layout::{Counter, Slot};
use isatap_engine::ebpf::numbers::{TAG_OWN, TAG_ROUTE, TAG_ROUTER};
use isatap_engine::ebpf::{Cause, Image, compile, leave_all};
use isatap_engine::fib::{Locator, NextHop, RulebookBuilder};
use isatap_engine::io::ebpf::{Action, Programs, Shared};
use isatap_engine::isatap::iid;
use isatap_engine::isatap::tos::{DscpPolicy, TtlPolicy};
use isatap_engine::stats::Direction;
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::tried::by_loopback;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const SLOTS: u32 = 4096;
/// Packets at least, and at most while none has met with two changes.
const PACKETS: usize = 60_000;
const PACKETS_MOST: usize = 600_000;
const ETHERNET: usize = 14;
/// Who sends what comes in, from where it may come, and from where not.
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 1);
const GOOD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);
const BAD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x98, 0, 0, 0, 0, 1);
/// Places of a table that are written while a packet is decided, and places that are written later.
const NEAR: usize = 50;
const FAR: usize = 200;

/// Rules of which everything that shows in a packet differs from one number to the next: source, destination, TTL, DSCP.
fn image(number: u8) -> Image {
    let mut rules = RulebookBuilder {
        locators: vec![Locator {
            addr: Ipv4Addr::new(10, 0, 1, number),
            if_index: 0,
        }],
        routes: vec![(
            "2001:db8:99::/48".parse().expect("a prefix"),
            NextHop::Via(Ipv4Addr::new(10, 0, 2, number)),
        )],
        any_site: true,
        ttl: TtlPolicy::Fixed(number),
        dscp: DscpPolicy::Fixed(number),
        ..RulebookBuilder::default()
    };
    // Tables of different lengths, full of other things.
    rules.own6 = (0..u128::from(number) * 40)
        .map(|n| Ipv6Addr::from_bits(1 << 125 | n))
        .collect();
    // The same key for all, so that what a CPU remembers of one generation is found in the next.
    compiled(rules, 7)
}

fn compiled(rules: RulebookBuilder, seed: u64) -> Image {
    let surroundings = by_loopback(1500);
    let rules = rules.build().expect("a Rulebook");
    compile(&rules, &surroundings, SLOTS as usize, seed).expect("rules that fit")
}

/// Tells the publisher to stop, however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps this thread on one of the CPUs it may run on, if there are so many.
fn run_on(number: usize) {
    let mine = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this thread");
    let allowed = (0..CpuSet::count()).filter(|cpu| mine.is_set(*cpu).unwrap_or(false));
    if let Some(cpu) = allowed.into_iter().nth(number) {
        let mut one = CpuSet::new();
        one.set(cpu).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &one).expect("a CPU of our own");
    }
}

fn frame() -> Vec<u8> {
    let inner = Inner::new(
        "2001:db8:1::1".parse().expect("an address"),
        "2001:db8:99::1".parse().expect("an address"),
    );
    [&[0; 12][..], &[0x86, 0xdd], &inner.udp(1, 9, b"which rules?")].concat()
}

/// Tries packets while the rules are replaced all the time, until one has met with two changes or there were very many; `attempt` says
/// whether its packet was left. How many generations there were.
fn while_rules_change(shared: &Shared, images: &[Image], mut attempt: impl FnMut() -> bool) -> u64 {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            run_on(1);
            let mut published = 1u64;
            while !stop.load(Ordering::Relaxed) {
                for image in images {
                    shared.publish(image).expect("published");
                    published += 1;
                }
            }
            published
        });
        let at_end = Stop(&stop);
        run_on(0);
        let (mut tries, mut is_met) = (0, false);
        while tries < PACKETS || (!is_met && tries < PACKETS_MOST) {
            tries += 1;
            is_met |= attempt();
        }
        drop(at_end);
        publisher.join().expect("the publisher")
    })
}

/// A reload, or a change of routes, under load: no packet sees half of it.
#[test]
fn a_packet_sees_one_generation() {
    let mut programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("programs: {error:?}"));
    let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    let images: Vec<_> = (1..=8).map(image).collect();
    shared.publish(&images[0]).expect("published");
    let frame = frame();
    let (mut carried, mut left) = (0, 0);
    let published = while_rules_change(&shared, &images, || {
        let tried = programs.try_out(Direction::Encap, &frame).expect("tried");
        match tried.action {
            Action::Carried => {
                let outer = &tried.frame[ETHERNET..];
                let number = outer[8];
                assert_eq!(outer[1], number << 2, "DSCP");
                assert_eq!(outer[12..20], [10, 0, 1, number, 10, 0, 2, number], "addresses");
                carried += 1;
            }
            // Twice replaced meanwhile.
            Action::Left => left += 1,
            Action::Dropped => panic!("nothing is dropped"),
        }
        tried.action == Action::Left
    });
    eprintln!("{published} generations, {carried} packets carried, {left} left");
    // Most packets are decided before the second change begins.
    assert!(published > 100 && carried > left);
    let count = |counter| shared.count(counter, Direction::Encap as usize);
    assert_eq!(count(Counter::Packets), carried);
    // The half that a packet reads may be half written; it is found out afterwards, whatever was read.
    let all: u64 = Cause::ALL
        .iter()
        .map(|cause| count(Counter::Passed(*cause)))
        .sum();
    assert_eq!(all, left);
}

/// Rules of two kinds. By both `SENDER` may send what comes from `GOOD`, as a router or because a route leads there; and not what comes from
/// `BAD`, which is this machine's own or that of nobody. Half of the one and half of the other may say otherwise.
fn door(is_first: bool, seed: u64) -> Image {
    let via = |prefix: &str| (prefix.parse().expect("a prefix"), NextHop::Via(SENDER));
    let mut rules = RulebookBuilder {
        locators: vec![Locator {
            addr: Ipv4Addr::new(10, 0, 1, 1),
            if_index: 0,
        }],
        any_site: true,
        loop_checks: false,
        ..RulebookBuilder::default()
    };
    // What is written before, in between, and behind.
    rules.own6 = (0..200u128).map(|n| Ipv6Addr::from_bits(1 << 125 | n)).collect();
    if is_first {
        rules.own6.push(BAD);
        rules.peer_routers = vec![SENDER];
        rules.routes = vec![via("2001:db8:98::/48")];
    } else {
        rules.routes = vec![via("2001:db8:99::/48")];
    }
    compiled(rules, seed)
}

/// Where in the table an entry is.
fn place(image: &Image, tag: u32, bits: u128) -> usize {
    let is_it = |slot: &Slot| slot.tag == tag && u128::from(slot.high) << 64 | u128::from(slot.low) == bits;
    let found = image.table.slots().iter().position(is_it);
    found.unwrap_or_else(|| panic!("nothing of tag {tag}"))
}

/// The same of packets that come in: what all generations let in is never refused, and what none of them does never gets in.
#[test]
fn a_packet_that_comes_in_sees_one_generation() {
    let mut programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("programs: {error:?}"));
    let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    // What is written anew while a packet is decided is the begin of the table: there is the address, and not the route.
    let (route, network) = (TAG_ROUTE | 48 << 8, BAD.to_bits() >> 80 << 80);
    let seed = (0..).find(|seed| {
        let image = door(true, *seed);
        let sender = u128::from(SENDER.to_bits()) << 64;
        place(&image, TAG_OWN, BAD.to_bits()) < NEAR
            && place(&image, TAG_ROUTER, sender) < NEAR
            && place(&image, route, network) > FAR
    });
    let images: Vec<_> = [true, true, false, false]
        .map(|is_first| door(is_first, seed.expect("a seed")))
        .into();
    shared.publish(&images[0]).expect("published");
    let frames = [GOOD, BAD].map(|src| {
        let inner = Inner::new(src, "2001:db8:1::1".parse().expect("an address"));
        let outer = Outer::new(SENDER, Ipv4Addr::new(10, 0, 1, 1));
        [
            &[0; 12][..],
            &[0x08, 0],
            &outer.wrap(&inner.udp(1, 9, b"which rules?")),
        ]
        .concat()
    });
    let mut left = [0, 0];
    let published = while_rules_change(&shared, &images, || {
        for (which, expected) in [Action::Carried, Action::Dropped].into_iter().enumerate() {
            let tried = programs.try_out(Direction::Decap, &frames[which]).expect("tried");
            match tried.action {
                Action::Left => left[which] += 1,
                action => assert_eq!(action, expected),
            }
        }
        left.iter().all(|left| *left > 0)
    });
    eprintln!("{published} generations, {left:?} left");
    let outdated = shared.count(Counter::Passed(Cause::Outdated), Direction::Decap as usize);
    assert_eq!(outdated, left.iter().sum::<u64>());
}

/// Rules that do not fit are no reason to carry by old ones; before the first rules nothing is carried, either.
#[test]
fn without_rules_everything_is_left() {
    let mut programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("programs: {error:?}"));
    let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    let action = |programs: &mut Programs| {
        programs
            .try_out(Direction::Encap, &frame())
            .expect("tried")
            .action
    };
    assert_eq!((shared.generation(), action(&mut programs)), (0, Action::Left));
    shared.publish(&image(1)).expect("published");
    assert_eq!((shared.generation(), action(&mut programs)), (1, Action::Carried));
    shared.publish(&leave_all()).expect("published");
    assert_eq!((shared.generation(), action(&mut programs)), (2, Action::Left));
    // Another process, started after the first, goes on where that ended.
    let next = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    next.publish(&image(2)).expect("published");
    assert_eq!((shared.generation(), action(&mut programs)), (3, Action::Carried));
}

/// What a CPU remembers of the packets that features are found by is of no generation that counts later.
#[test]
fn what_was_tried_out_is_forgotten() {
    run_on(0);
    let mut programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("programs: {error:?}"));
    let found = programs.features().expect("tried");
    found.complete().expect("everything");
    let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    // The packet, and the key, of `io::ebpf::features`; and rules that know no way for it.
    let [near, far] = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
    let link = "2001:db8::".parse().expect("a prefix");
    let [from, to] = [near, far].map(|v4| iid::address(&link, v4));
    let inner = Inner::new(from, to);
    let frame = [&[0; 12][..], &[0x86, 0xdd], &inner.udp(9, 9, b"ebpf")].concat();
    let rules = RulebookBuilder {
        locators: vec![Locator {
            addr: near,
            if_index: 0,
        }],
        any_site: true,
        ..RulebookBuilder::default()
    };
    shared.publish(&compiled(rules, 0)).expect("published");
    let tried = programs.try_out(Direction::Encap, &frame).expect("tried");
    assert_eq!(tried.action, Action::Left);
    assert_eq!(
        shared.count(Counter::Passed(Cause::Refused), Direction::Encap as usize),
        1
    );
}
