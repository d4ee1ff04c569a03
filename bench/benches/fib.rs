//! What the Rulebook is asked, at 1, 10 000 and 1 000 000 entries, each time about another host; and what it costs
//! control to build and publish one. Throughput is in look-ups, and in entries for builds.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isatap_bench::scene::{self, Shuffled, Size};
use isatap_engine::fib::{NextHop, Publisher};
use isatap_engine::isatap::SiteKnowledge;

const COUNTS: [u32; 3] = [1, 10_000, 1_000_000];
/// Questions asked between two reads of the clock.
const QUESTIONS: usize = 1024;

/// One of each question about entry `k`; true when the answer is yes, as it must be.
type Question = fn(&isatap_engine::fib::Rulebook, u32) -> bool;

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(QUESTIONS as u64));
    for count in COUNTS {
        let size = Size {
            prl: count,
            networks: count,
            site: count,
        };
        let rules = scene::rulebook(size).expect("a rulebook");
        let questions: [(&str, Question); 4] = [
            ("route", |rules, k| {
                matches!(rules.route(&scene::network_v6(k)), Some(NextHop::Via(_)))
            }),
            ("route on-link", |rules, k| {
                matches!(rules.route(&scene::host_v6(k)), Some(NextHop::OnLink))
            }),
            ("router", |rules, k| rules.is_router(scene::router_v4(k))),
            ("site host", |rules, k| rules.is_site_host(scene::host_v4(k))),
        ];
        for (name, question) in questions {
            let about: Vec<u32> = Shuffled::new(count).take(1 << 20).collect();
            assert!(
                about.iter().take(1000).all(|k| question(&rules, *k)),
                "{name} {count}"
            );
            let mut at = 0;
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    at = (at + QUESTIONS) % about.len();
                    about[at..at + QUESTIONS]
                        .iter()
                        .filter(|k| question(black_box(&rules), **k))
                        .count()
                });
            });
        }
    }
    group.finish();
}

/// What one read costs in as much memory as the table of a million routes takes, with no table around it: each read
/// where the one before says, and each where a list says. No look-up of another host each time is faster than the
/// second, nor one that is waited for faster than the first.
fn memory(c: &mut Criterion) {
    /// Slots of the table of 1 000 000 routes, each as large as a route.
    const SLOTS: u32 = 1_333_334;
    let mut order: Vec<u32> = (0..SLOTS).collect();
    for (at, random) in (1..SLOTS).rev().zip(Shuffled::new(u32::MAX)) {
        order.swap(at as usize, (random % at) as usize);
    }
    let mut slots = vec![[0u32; 4]; SLOTS as usize];
    for pair in order.windows(2) {
        slots[pair[0] as usize][0] = pair[1];
    }
    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Elements(QUESTIONS as u64));
    let mut at = order[0];
    group.bench_function("reads one after the other", |b| {
        b.iter(|| {
            for _ in 0..QUESTIONS {
                at = black_box(&slots)[at as usize][0];
            }
            at
        });
    });
    let mut from = 0;
    group.bench_function("reads at once", |b| {
        b.iter(|| {
            from = (from + QUESTIONS) % (order.len() - QUESTIONS);
            let list = &order[from..from + QUESTIONS];
            list.iter()
                .map(|at| u64::from(black_box(&slots)[*at as usize][0]))
                .sum::<u64>()
        });
    });
    group.finish();
}

fn publication(c: &mut Criterion) {
    let mut group = c.benchmark_group("rulebook");
    for count in COUNTS {
        let size = Size {
            prl: count.min(10_000),
            networks: count,
            site: 0,
        };
        let parts = scene::builder(size).expect("what a rulebook is built from");
        group.throughput(Throughput::Elements(u64::from(count)));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("build", count), |b| {
            b.iter_batched(|| parts.clone(), |parts| parts.build(), BatchSize::PerIteration);
        });
        let mut publisher = Publisher::new(parts.clone().build().expect("a rulebook"));
        group.bench_function(BenchmarkId::new("publish and free the old", count), |b| {
            b.iter_batched(
                || parts.clone().build().expect("a rulebook"),
                |next| {
                    publisher.publish(next);
                    publisher.collect()
                },
                BatchSize::PerIteration,
            );
        });
    }
    let publisher = Publisher::new(scene::rulebook(Size::ONE).expect("a rulebook"));
    let reader = publisher.reader();
    group.throughput(Throughput::Elements(1));
    group.bench_function("load by a worker", |b| b.iter(|| reader.load().role()));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(400));
    targets = lookups, memory, publication
}
criterion_main!(benches);
