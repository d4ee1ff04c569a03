//! DESIGN P7: no allocation per packet, in either direction, whatever the packet; and none per segment.

use isatap_bench::carry::{self, SLOT_LEN};
use isatap_bench::packets::{self, Checksum, Shape};
use isatap_bench::scene::{self, LOCATOR, SERVER, Size};
use isatap_bench::sim::SimWorker;
use isatap_engine::buf::{Packet, Pool};
use isatap_engine::capture::{CaptureConfig, Filter};
use isatap_engine::fib::{Publisher, Rulebook};
use isatap_engine::offload::split::{MAX_SEGMENT_HEADERS, SplitPlan};
use isatap_engine::path;
use isatap_engine::stats::Direction;
use isatap_engine::wire::vnet::VnetHeader;

/// Times each packet is carried while allocations are counted.
const ROUNDS: usize = 100;

fn allocations(work: impl FnMut()) -> u64 {
    allocation_counter::measure(work).count_total
}

/// Carries `bytes` over and over; every round must end as `carried` says, without an allocation.
fn check(
    rules: &Rulebook,
    what: &str,
    bytes: &[u8],
    carry: fn(&Rulebook, &mut Packet) -> bool,
    carried: bool,
) {
    let pool = Pool::new(2, SLOT_LEN).expect("memory for the pool");
    let mut done = 0;
    let counted = allocations(|| {
        for _ in 0..ROUNDS {
            let mut packet = carry::receive(&pool, bytes).expect("a free slot");
            done += usize::from(carry(rules, &mut packet) == carried);
        }
    });
    assert_eq!(done, ROUNDS, "{what}");
    assert_eq!(counted, 0, "{what}: allocations");
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

#[test]
fn carrying_allocates_nothing() {
    let rules = scene::rulebook(Size {
        prl: 10,
        networks: 10,
        site: 10,
    })
    .unwrap();
    let (host, network) = (scene::host_v6(3), scene::network_v6(3));
    for shape in [Shape::SMALL, Shape::FULL] {
        for (peer, address, sender) in [
            ("on-link", host, scene::host_v4(3)),
            ("routed", network, scene::gateway_v4(3)),
        ] {
            for (state, checksum) in [("complete", Checksum::Complete), ("partial", Checksum::Partial)] {
                let what = format!("{peer} {} {state}", shape.name());
                let vnet = match checksum {
                    Checksum::Complete => VnetHeader::NONE,
                    Checksum::Partial => packets::needs_csum(shape),
                };
                let to_host = packets::inner(shape, SERVER, address, checksum);
                let frame = packets::from_tun(&vnet, &to_host);
                check(&rules, &format!("encap {what}"), &frame, carry::encap, true);
                let from_host = packets::inner(shape, address, SERVER, checksum);
                let packet = packets::from_raw(sender, LOCATOR, &from_host);
                check(&rules, &format!("decap {what}"), &packet, carry::decap, true);
            }
        }
    }
}

#[test]
fn refusing_allocates_nothing() {
    let rules = scene::rulebook(Size::ONE).unwrap();
    let nowhere = packets::inner(
        Shape::SMALL,
        SERVER,
        "2001:db8:ffff::1".parse().unwrap(),
        Checksum::Complete,
    );
    check(
        &rules,
        "encap without a route",
        &packets::from_tun(&VnetHeader::NONE, &nowhere),
        carry::encap,
        false,
    );
    let host = packets::inner(Shape::SMALL, scene::host_v6(0), SERVER, Checksum::Complete);
    let other = packets::from_raw(scene::host_v4(1), LOCATOR, &host);
    check(&rules, "decap from the wrong host", &other, carry::decap, false);
    check(
        &rules,
        "decap of half a packet",
        &other[..50],
        carry::decap,
        false,
    );
}

/// The answer to a refused packet is built in a slot, too.
#[test]
fn replying_allocates_nothing() {
    let rules = scene::rulebook(Size::ONE).unwrap();
    let nowhere = packets::inner(
        Shape::FULL,
        SERVER,
        "2001:db8:ffff::1".parse().unwrap(),
        Checksum::Complete,
    );
    let frame = packets::from_tun(&VnetHeader::NONE, &nowhere);
    let mut out = [0; path::reply::MAX_REPLY_LEN];
    let mut built = None;
    let counted = allocations(|| {
        if let path::EncapVerdict::Reply(_, message) = path::encap::decide(&rules, &frame) {
            built = path::reply::build(&rules, message, &nowhere, &mut out);
        }
    });
    assert!(built.is_some_and(|len| len > 40));
    assert_eq!(counted, 0);
}

#[test]
fn splitting_allocates_nothing() {
    for tcp in [true, false] {
        let (vnet, inner) = packets::superpacket(tcp, SERVER, scene::host_v6(0));
        let mut headers = [0; MAX_SEGMENT_HEADERS];
        let mut payload = 0;
        let counted = allocations(|| {
            let plan = SplitPlan::new(&vnet, &inner).unwrap();
            payload = plan.header_len;
            for index in 0..plan.count {
                payload += plan.segment(&inner, index, &mut headers).len();
            }
        });
        assert_eq!(payload, inner.len());
        assert_eq!(counted, 0);
    }
}

#[test]
fn loading_a_snapshot_allocates_nothing() {
    let publisher = Publisher::new(scene::rulebook(Size::ONE).unwrap());
    let reader = publisher.reader();
    drop(reader.load()); // The first load of a thread makes its place in arc-swap's list.
    assert_eq!(allocations(|| drop(std::hint::black_box(reader.load()))), 0);
}

/// Whole turns: verdicts, splitting, merging, ICMPv6 errors, counters. Only the first turns may make room for later ones.
#[test]
fn a_worker_turn_allocates_nothing() {
    let rules = scene::rulebook(Size::ONE).unwrap();
    let (vnet, big) = packets::superpacket(true, SERVER, scene::host_v6(0));
    let nowhere = packets::inner(
        Shape::SMALL,
        SERVER,
        "2001:db8:ffff::1".parse().unwrap(),
        Checksum::Complete,
    );
    let frames = [
        packets::from_tun(
            &VnetHeader::NONE,
            &packets::inner(Shape::FULL, SERVER, scene::host_v6(0), Checksum::Complete),
        ),
        packets::from_tun(&vnet, &big),
        packets::from_tun(&VnetHeader::NONE, &nowhere),
    ];
    let (vnet, big) = packets::superpacket(true, scene::host_v6(0), SERVER);
    let plan = SplitPlan::new(&vnet, &big).unwrap();
    let segments: Vec<_> = (0..plan.count)
        .map(|index| {
            let mut headers = [0; MAX_SEGMENT_HEADERS];
            let payload = plan.segment(&big, index, &mut headers);
            let segment = [&headers[..plan.header_len], &big[payload]].concat();
            packets::from_raw(scene::host_v4(0), LOCATOR, &segment)
        })
        .collect();
    let mut worker = SimWorker::new().unwrap();
    let mut turn = || {
        for frame in &frames {
            assert!(worker.lane.from_tun(&mut worker.inbox, frame));
        }
        for segment in &segments {
            assert!(worker.lane.from_raw(&mut worker.inbox, segment));
        }
        worker.turn(&rules);
    };
    (0..3).for_each(|_| turn());
    assert_eq!(allocations(|| (0..ROUNDS).for_each(|_| turn())), 0);
    let decap = worker.stats.snapshot().decap;
    assert_eq!(decap.delivered, decap.received);
    let inner_bytes: usize = segments.iter().map(|segment| segment.len() - 20).sum();
    let rounds = decap.received / segments.len() as u64;
    assert_eq!(
        decap.bytes,
        rounds * inner_bytes as u64,
        "merged packets count with their own headers"
    );
    assert!(worker.lane.gone.writes < decap.received, "segments are merged");
}

/// What a capture copies goes into memory that was there before, and what finds none is missed.
#[test]
fn capturing_allocates_nothing() {
    let rules = scene::rulebook(Size::ONE).unwrap();
    let inner = packets::inner(Shape::FULL, SERVER, scene::host_v6(0), Checksum::Complete);
    let frame = packets::from_tun(&VnetHeader::NONE, &inner);
    let from_host = packets::inner(Shape::SMALL, scene::host_v6(0), SERVER, Checksum::Complete);
    let (good, bad) = (
        packets::from_raw(scene::host_v4(0), LOCATOR, &from_host),
        packets::from_raw(scene::host_v4(1), LOCATOR, &from_host),
    );
    let (mut worker, mut capture) = SimWorker::captured(&CaptureConfig {
        filter: Filter::default(),
        snaplen: usize::from(u16::MAX),
        rate: 1_000_000,
    })
    .unwrap();
    let mut turn = || {
        assert!(worker.lane.from_tun(&mut worker.inbox, &frame));
        assert!(worker.lane.from_raw(&mut worker.inbox, &good));
        assert!(worker.lane.from_raw(&mut worker.inbox, &bad));
        worker.turn(&rules);
    };
    (0..3).for_each(|_| turn());
    // More than the ring holds.
    assert_eq!(allocations(|| (0..50 * ROUNDS).for_each(|_| turn())), 0);
    let mut bytes = Vec::new();
    let captured = std::iter::from_fn(|| capture.next(&mut bytes)).count() as u64;
    let counts = Direction::ALL.map(|direction| capture.counts(direction));
    let matched: u64 = counts.iter().map(|counts| counts.matched).sum();
    let missed: u64 = counts.iter().map(|counts| counts.missed()).sum();
    assert_eq!(matched, 3 * (50 * ROUNDS as u64 + 3));
    assert_eq!(captured + missed, matched);
    assert!(
        captured > 100 && missed > 100,
        "{captured} captured, {missed} missed"
    );
}
