//! Checksums against the 16-bit loop of RFC 1071, and the checked header views. Throughput is in bytes for sums, in
//! packets for views.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isatap_bench::packets::{self, Checksum, Shape};
use isatap_bench::scene::{self, LOCATOR, SERVER};
use isatap_engine::wire::checksum::Sum;
use isatap_engine::wire::ext;
use isatap_engine::wire::ipv4::{Ipv4View, MIN_HEADER_LEN, OuterHeader};
use isatap_engine::wire::ipv6::Ipv6View;
use isatap_engine::wire::transport::TcpView;
use isatap_engine::wire::vnet::{self, VnetHeader};

/// RFC 1071 4.1, word by word.
fn plain(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    let bytes: Vec<u8> = (0u8..251).cycle().take(65_535).collect();
    for len in [20, 64, 1460, 65_535] {
        let bytes = &bytes[..len];
        assert_eq!(plain(bytes), Sum::new().add_bytes(bytes).fold());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("engine", len), bytes, |b, bytes| {
            b.iter(|| Sum::new().add_bytes(black_box(bytes)).fold());
        });
        group.bench_with_input(BenchmarkId::new("16-bit loop", len), bytes, |b, bytes| {
            b.iter(|| plain(black_box(bytes)));
        });
    }
    group.finish();
}

fn headers(c: &mut Criterion) {
    let inner = packets::inner(Shape::FULL, scene::host_v6(0), SERVER, Checksum::Complete);
    let outer = packets::from_raw(scene::host_v4(0), LOCATOR, &inner);
    let mut group = c.benchmark_group("header");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ipv4 view", |b| {
        b.iter(|| Ipv4View::new(black_box(&outer)).map(|view| view.src()))
    });
    group.bench_function("ipv6 view", |b| {
        b.iter(|| Ipv6View::new(black_box(&inner)).map(|view| view.dst()))
    });
    group.bench_function("ext walk", |b| b.iter(|| ext::walk(black_box(&inner))));
    group.bench_function("tcp view", |b| {
        b.iter(|| TcpView::new(black_box(&inner[40..])).map(|view| view.seq()));
    });
    let header = OuterHeader {
        src: LOCATOR,
        dst: scene::host_v4(0),
        tos: 0,
        ttl: 64,
        dont_fragment: false,
        id: 0,
        payload_len: 1480,
    };
    let mut out = [0; MIN_HEADER_LEN];
    group.bench_function("ipv4 emit", |b| {
        b.iter(|| black_box(&header).emit(black_box(&mut out)))
    });
    let mut frame = [0; vnet::LEN];
    group.bench_function("vnet parse and emit", |b| {
        b.iter(|| {
            let parsed = VnetHeader::parse(black_box(&frame)).expect("a header");
            parsed.emit(black_box(&mut frame));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(400));
    targets = checksums, headers
}
criterion_main!(benches);
