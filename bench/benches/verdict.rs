//! DESIGN P7 and P8: verdict and header work per packet in both directions, in bursts, on slots of the pool.
//!
//! "one" knows one router, one route and one host; "large" knows 10 000 routers and 1 000 000 routes, and each packet
//! belongs to another of 1 000 000 hosts. Throughput is in packets.

use std::net::Ipv4Addr;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isatap_bench::carry::{self, BURST, SLOT_LEN};
use isatap_bench::measure;
use isatap_bench::packets::{self, Checksum, Shape};
use isatap_bench::scene::{self, LOCATOR, SERVER, Shuffled, Size};
use isatap_engine::buf::{Packet, Pool};
use isatap_engine::fib::Rulebook;
use isatap_engine::isatap::mtu::{PathMtu, PathMtuMode};
use isatap_engine::wire::vnet::{self, VnetHeader};

/// Where the packet's site end is.
#[derive(Clone, Copy)]
enum Peer {
    /// A host of the ISATAP link.
    OnLink,
    /// A network behind a gateway.
    Routed,
}

/// One row of the table: a packet as the kernel gives it, and the addresses that make it host `k`'s.
struct Case<'a> {
    name: String,
    bytes: Vec<u8>,
    hosts: u32,
    readdress: &'a dyn Fn(&mut [u8], u32),
    read_ahead: fn(&Rulebook, &[Packet]),
    carry: fn(&Rulebook, &mut Packet) -> bool,
}

fn inner_address(peer: Peer, k: u32) -> [u8; 16] {
    match peer {
        Peer::OnLink => scene::host_v6(k).octets(),
        Peer::Routed => scene::network_v6(k).octets(),
    }
}

/// Who sends the packets of host or network `k`.
fn sender(peer: Peer, k: u32) -> Ipv4Addr {
    match peer {
        Peer::OnLink => scene::host_v4(k),
        Peer::Routed => scene::gateway_v4(k),
    }
}

fn verdicts(c: &mut Criterion) {
    for (size, hosts, label) in [(Size::ONE, 1, "one"), (Size::LARGE, 1_000_000, "large")] {
        let rules = scene::rulebook(size).expect("a rulebook");
        for (peer, peer_name) in [(Peer::OnLink, "on-link"), (Peer::Routed, "routed")] {
            for shape in [Shape::SMALL, Shape::FULL] {
                let name = format!("{label}/{peer_name}/{}", shape.name());
                let to_host = packets::inner(shape, SERVER, scene::host_v6(0), Checksum::Complete);
                run(
                    c,
                    "encap",
                    &rules,
                    &Case {
                        name: name.clone(),
                        bytes: packets::from_tun(&VnetHeader::NONE, &to_host),
                        hosts,
                        readdress: &|bytes, k| {
                            bytes[vnet::LEN + 24..][..16].copy_from_slice(&inner_address(peer, k));
                        },
                        read_ahead: carry::read_ahead_encap,
                        carry: carry::encap,
                    },
                );
                let from_host = packets::inner(shape, scene::host_v6(0), SERVER, Checksum::Complete);
                run(
                    c,
                    "decap",
                    &rules,
                    &Case {
                        name,
                        bytes: packets::from_raw(sender(peer, 0), LOCATOR, &from_host),
                        hosts,
                        readdress: &|bytes, k| {
                            bytes[12..16].copy_from_slice(&sender(peer, k).octets());
                            bytes[20 + 8..][..16].copy_from_slice(&inner_address(peer, k));
                        },
                        read_ahead: carry::read_ahead_decap,
                        carry: carry::decap,
                    },
                );
            }
        }
    }
}

/// Packets whose checksum is left to somebody else: encap completes it over the payload, decap only says so.
fn checksums(c: &mut Criterion) {
    let rules = scene::rulebook(Size::ONE).expect("a rulebook");
    for shape in [Shape::SMALL, Shape::FULL] {
        let to_host = packets::inner(shape, SERVER, scene::host_v6(0), Checksum::Partial);
        let from_host = packets::inner(shape, scene::host_v6(0), SERVER, Checksum::Partial);
        let name = format!("partial-checksum/{}", shape.name());
        run(
            c,
            "encap",
            &rules,
            &Case {
                name: name.clone(),
                bytes: packets::from_tun(&packets::needs_csum(shape), &to_host),
                hosts: 1,
                readdress: &|_, _| (),
                read_ahead: carry::read_ahead_encap,
                carry: carry::encap,
            },
        );
        run(
            c,
            "decap",
            &rules,
            &Case {
                name,
                bytes: packets::from_raw(scene::host_v4(0), LOCATOR, &from_host),
                hosts: 1,
                readdress: &|_, _| (),
                read_ahead: carry::read_ahead_decap,
                carry: carry::decap,
            },
        );
    }
}

/// What a full book of paths costs (M6), and marks with DF; packets of 1 000 000 hosts, few of them in the book.
fn paths(c: &mut Criterion) {
    for (name, known, mode) in [
        ("dynamic", 0, PathMtuMode::Dynamic),
        ("static-4096-paths", 4096, PathMtuMode::Static),
        ("dynamic-4096-paths", 4096, PathMtuMode::Dynamic),
    ] {
        let mut parts = scene::builder(Size::ONE).expect("prefixes");
        parts.peers.path_mtu = mode;
        parts.paths = (0..known)
            .map(|k| (scene::host_v4(k * 200), PathMtu::of_path(1400)))
            .collect();
        let rules = parts.build().expect("a rulebook");
        let to_host = packets::inner(Shape::SMALL, SERVER, scene::host_v6(0), Checksum::Complete);
        let case = Case {
            name: format!("{name}/on-link/{}", Shape::SMALL.name()),
            bytes: packets::from_tun(&VnetHeader::NONE, &to_host),
            hosts: if known == 0 { 1 } else { 1_000_000 },
            readdress: &|bytes, k| {
                bytes[vnet::LEN + 24..][..16].copy_from_slice(&inner_address(Peer::OnLink, k));
            },
            read_ahead: carry::read_ahead_encap,
            carry: carry::encap,
        };
        run(c, "encap", &rules, &case);
    }
}

fn run(c: &mut Criterion, direction: &str, rules: &Rulebook, case: &Case<'_>) {
    let pool =
        Pool::new(u16::try_from(BURST).expect("a small burst"), SLOT_LEN).expect("memory for the pool");
    let mut group = c.benchmark_group(direction);
    group.throughput(Throughput::Elements(1));
    group.bench_function(case.name.as_str(), |b| {
        let mut order = Shuffled::new(case.hosts);
        b.iter_custom(|count| {
            measure::bursts(
                count,
                || {
                    let mut packet = carry::receive(&pool, &case.bytes)?;
                    (case.readdress)(packet.bytes_mut(), order.next()?);
                    Some(packet)
                },
                |burst| (case.read_ahead)(black_box(rules), burst),
                |packet| (case.carry)(black_box(rules), packet),
            )
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(500));
    targets = verdicts, checksums, paths
}
criterion_main!(benches);
