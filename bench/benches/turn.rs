//! Whole worker turns over a simulated lane: what the daemon does between two system calls, counters included.
//!
//! Throughput is in packets as the TUN or the raw socket gave them. `encap-captured-*` beside
//! `encap-uncaptured` of the same run is what a running capture costs.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isatap_bench::packets::{self, Checksum, Shape};
use isatap_bench::scene::{self, LOCATOR, SERVER, Shuffled, Size};
use isatap_bench::sim::SimWorker;
use isatap_engine::capture::{CaptureConfig, Filter};
use isatap_engine::fib::Rulebook;
use isatap_engine::offload::split::{MAX_SEGMENT_HEADERS, SplitPlan};
use isatap_engine::wire::vnet::{self, VnetHeader};

/// Packets of one turn.
const BURST: usize = 64;

/// Times turns alone: filling the slots is the kernel's work.
fn turns(
    worker: &mut SimWorker,
    rules: &Rulebook,
    count: u64,
    mut fill: impl FnMut(&mut SimWorker),
) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        fill(worker);
        let start = Instant::now();
        worker.turn(rules);
        spent += start.elapsed();
    }
    spent
}

fn single_packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    group.throughput(Throughput::Elements(BURST as u64));
    for (size, hosts, label) in [(Size::ONE, 1u32, "one"), (Size::LARGE, 1_000_000, "large")] {
        let rules = scene::rulebook(size).expect("a rulebook");
        let frame = packets::from_tun(
            &VnetHeader::NONE,
            &packets::inner(Shape::SMALL, SERVER, scene::host_v6(0), Checksum::Complete),
        );
        let packet = packets::from_raw(
            scene::gateway_v4(0),
            LOCATOR,
            &packets::inner(Shape::SMALL, scene::network_v6(0), SERVER, Checksum::Complete),
        );
        group.bench_function(BenchmarkId::new("encap-udp64", label), |b| {
            let mut worker = SimWorker::new().expect("a worker");
            let mut order = Shuffled::new(hosts);
            let mut frame = frame.clone();
            b.iter_custom(|count| {
                turns(&mut worker, &rules, count, |worker| {
                    for _ in 0..BURST {
                        let k = order.next().unwrap_or_default();
                        frame[vnet::LEN + 24..][..16].copy_from_slice(&scene::network_v6(k).octets());
                        assert!(worker.lane.from_tun(&mut worker.inbox, &frame));
                    }
                })
            });
            assert_eq!(
                worker
                    .stats
                    .direction(isatap_engine::stats::Direction::Encap)
                    .delivered
                    .get(),
                worker.lane.gone.datagrams,
                "every packet is carried"
            );
        });
        group.bench_function(BenchmarkId::new("decap-udp64", label), |b| {
            let mut worker = SimWorker::new().expect("a worker");
            let mut order = Shuffled::new(hosts);
            let mut packet = packet.clone();
            b.iter_custom(|count| {
                turns(&mut worker, &rules, count, |worker| {
                    for _ in 0..BURST {
                        let k = order.next().unwrap_or_default();
                        packet[12..16].copy_from_slice(&scene::gateway_v4(k).octets());
                        packet[20 + 8..][..16].copy_from_slice(&scene::network_v6(k).octets());
                        assert!(worker.lane.from_raw(&mut worker.inbox, &packet));
                    }
                })
            });
            assert!(worker.lane.gone.writes > 0, "packets are carried");
        });
    }
    group.finish();
}

/// A superpacket out, and the segments it became back in.
fn bulk(c: &mut Criterion) {
    let rules = scene::rulebook(Size::ONE).expect("a rulebook");
    let (vnet, inner) = packets::superpacket(true, SERVER, scene::host_v6(0));
    let frame = packets::from_tun(&vnet, &inner);
    let (vnet, inner) = packets::superpacket(true, scene::host_v6(0), SERVER);
    let plan = SplitPlan::new(&vnet, &inner).expect("a superpacket");
    let segments: Vec<_> = (0..plan.count)
        .map(|index| {
            let mut headers = [0; MAX_SEGMENT_HEADERS];
            let payload = plan.segment(&inner, index, &mut headers);
            let segment = [&headers[..plan.header_len], &inner[payload]].concat();
            packets::from_raw(scene::host_v4(0), LOCATOR, &segment)
        })
        .collect();
    let mut group = c.benchmark_group("turn");
    group.throughput(Throughput::Bytes(inner.len() as u64));
    group.bench_function("encap-superpacket", |b| {
        let mut worker = SimWorker::new().expect("a worker");
        b.iter_custom(|count| {
            turns(&mut worker, &rules, count, |worker| {
                assert!(worker.lane.from_tun(&mut worker.inbox, &frame));
            })
        });
        assert!(worker.lane.gone.datagrams > 0);
    });
    group.bench_function("decap-merge", |b| {
        let mut worker = SimWorker::new().expect("a worker");
        let mut turns_done = 0;
        b.iter_custom(|count| {
            turns_done += count;
            turns(&mut worker, &rules, count, |worker| {
                for segment in &segments {
                    assert!(worker.lane.from_raw(&mut worker.inbox, segment));
                }
            })
        });
        assert!(worker.lane.gone.writes <= 2 * turns_done, "segments are merged");
    });
    group.finish();
}

/// Turns of one kind of packet while somebody captures; `copied` tells whether the capture takes them.
fn capture(c: &mut Criterion) {
    let rules = scene::rulebook(Size::ONE).expect("a rulebook");
    let mut group = c.benchmark_group("turn");
    group.throughput(Throughput::Elements(BURST as u64));
    for (shape, label) in [(Shape::SMALL, "udp64"), (Shape::FULL, "full")] {
        let inner = packets::inner(shape, SERVER, scene::host_v6(0), Checksum::Complete);
        let frame = packets::from_tun(&VnetHeader::NONE, &inner);
        let mut fill = |worker: &mut SimWorker| {
            for _ in 0..BURST {
                assert!(worker.lane.from_tun(&mut worker.inbox, &frame));
            }
        };
        group.bench_function(BenchmarkId::new("encap-uncaptured", label), |b| {
            let mut worker = SimWorker::new().expect("a worker");
            b.iter_custom(|count| turns(&mut worker, &rules, count, &mut fill));
        });
        for (case, drops_only, rate, step) in [
            ("encap-captured-unwanted", true, 1_000_000, 0),
            ("encap-captured-over-rate", false, 1, 0),
            ("encap-captured-copied", false, 1_000_000, 1_000_000_000),
        ] {
            let config = CaptureConfig {
                filter: Filter {
                    drops_only,
                    ..Filter::default()
                },
                snaplen: usize::from(u16::MAX),
                rate,
            };
            group.bench_function(BenchmarkId::new(case, label), |b| {
                let (mut worker, mut capture) = SimWorker::captured(&config).expect("a worker");
                let mut bytes = Vec::new();
                let mut copied = 0u64;
                b.iter_custom(|count| {
                    turns(&mut worker, &rules, count, |worker| {
                        while capture.next(&mut bytes).is_some() {
                            copied += 1;
                        }
                        worker.now += step;
                        fill(worker);
                    })
                });
                copied += std::iter::from_fn(|| capture.next(&mut bytes)).count() as u64;
                assert_eq!(copied > 1, step > 0, "{case}: {copied} copied");
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(500));
    targets = single_packets, bulk, capture
}
criterion_main!(benches);
