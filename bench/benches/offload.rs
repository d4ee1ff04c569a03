//! Superpackets: split into segments as the lanes do it (headers written to a scratch buffer, payload in place), and
//! recognised when GRO merged them. Throughput is in bytes of superpacket; segments a second follow from the size.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isatap_bench::packets::{self, Checksum, Shape};
use isatap_bench::scene::{self, MTU, SERVER};
use isatap_engine::offload::merged::{self, Merged};
use isatap_engine::offload::split::{MAX_SEGMENT_HEADERS, SplitPlan};
use isatap_engine::wire::ext;

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    for (tcp, name) in [(true, "tso6"), (false, "uso6")] {
        let (vnet, inner) = packets::superpacket(tcp, SERVER, scene::host_v6(0));
        let count = SplitPlan::new(&vnet, &inner).expect("a plan").count;
        group.throughput(Throughput::Bytes(inner.len() as u64));
        group.bench_function(format!("{name} into {count} segments"), |b| {
            let mut headers = [0; MAX_SEGMENT_HEADERS];
            b.iter(|| {
                let plan = SplitPlan::new(black_box(&vnet), black_box(&inner)).expect("a plan");
                for index in 0..plan.count {
                    black_box(plan.segment(&inner, index, black_box(&mut headers)));
                }
            });
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name} plan"), |b| {
            b.iter(|| SplitPlan::new(black_box(&vnet), black_box(&inner)));
        });
    }
    group.finish();
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merged");
    group.throughput(Throughput::Elements(1));
    let (host, mtu) = (scene::host_v6(0), usize::from(MTU));
    let super_tcp = packets::superpacket(true, host, SERVER).1;
    let cases = [
        (
            "ordinary udp",
            packets::inner(Shape::SMALL, host, SERVER, Checksum::Complete),
        ),
        (
            "ordinary tcp",
            packets::inner(Shape::FULL, host, SERVER, Checksum::Complete),
        ),
        (
            "partial tcp",
            packets::inner(Shape::FULL, host, SERVER, Checksum::Partial),
        ),
        ("merged tcp of 64 KiB", super_tcp),
    ];
    for (name, inner) in cases {
        let upper = ext::walk(&inner).expect("a header chain");
        let ordinary = merged::recognise(&inner, &upper, mtu) == Merged::No;
        assert_eq!(ordinary, name.starts_with("ordinary"), "{name}");
        group.bench_function(name, |b| {
            b.iter(|| merged::recognise(black_box(&inner), black_box(&upper), mtu));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(400));
    targets = split, merge
}
criterion_main!(benches);
