//! The programs of the `ebpf` lane against `path`: the same rules, packet by packet (D1-D12, E1-E9, C1-C5, M2-M9, L1, L2; FAULTS 1-18, 21-25).
//!
//! Rulebooks are drawn at random and compiled for the programs; packets are drawn at random and taken from the corpora of
//! other tests. Each packet is given to both: what the programs carry, `path` carries in the same bytes; what they drop, it
//! drops for the same reason; what they leave, they leave for a cause that can be seen, and as it was; what has such a cause, they never carry.
//! `ISATAP_EBPF_SEED` in the environment tries another seed, `ISATAP_EBPF_RULEBOOKS` more Rulebooks.

mod ebpf_cases;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use ebpf_cases::{Draw, packets, rulebooks};
use isatap_engine::ebpf::forecast::{Arrival, Departure};
use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::{Cause, Surroundings, compile};
use isatap_engine::fib::Rulebook;
use isatap_engine::io::ebpf::{Action, Programs, Shared};
use isatap_engine::path::{self, DecapVerdict, EncapVerdict};
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;
use isatap_engine::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use isatap_engine::wire::ipv6;
use isatap_engine::wire::vnet;
use isatap_tests::corpus;
use isatap_tests::guest::files_below;
use isatap_tests::older_kernel::{self, amount};

const SEED: u64 = 6041;
const RULEBOOKS: u64 = 300;
/// Packets per Rulebook and direction.
const PACKETS: usize = 250;
const SLOTS: u32 = 4096;
const ETHERNET: usize = 14;
/// The kernel tries out packets of a page at most, with room around them.
const LONGEST: usize = 3200;
/// Nor any that is shorter than the header that its Ethernet type promises.
const SHORTEST_OUTER: usize = 20;
const SHORTEST_INNER: usize = 40;

/// What the programs counted for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    Nothing,
    Carried,
    Left(Cause),
    Dropped(DropReason),
}

struct Bench {
    programs: Programs,
    shared: Shared,
    /// How often each outcome was seen.
    seen: BTreeMap<(&'static str, Counted), u64>,
    tried: u64,
}

impl Bench {
    fn new() -> Self {
        let programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("the programs: {error:?}"));
        let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
        Self {
            programs,
            shared,
            seen: BTreeMap::new(),
            tried: 0,
        }
    }

    fn rules(&mut self, draw: &mut Draw) -> (Rulebook, Surroundings) {
        let (rules, surroundings) = (rulebooks::rulebook(draw), rulebooks::surroundings(draw));
        let image = compile(&rules, &surroundings, self.shared.slots_per_table(), draw.bits());
        self.shared
            .publish(&image.expect("rules that fit"))
            .expect("published");
        (rules, surroundings)
    }

    /// Counters of all outcomes of a direction, and bytes.
    fn counters(&self, direction: Direction) -> (Vec<(Counted, u64)>, u64) {
        let count = |counter| self.shared.count(counter, direction as usize);
        let mut all = vec![(Counted::Carried, count(Counter::Packets))];
        all.extend(
            Cause::ALL
                .iter()
                .map(|cause| (Counted::Left(*cause), count(Counter::Passed(*cause)))),
        );
        all.extend(
            DropReason::ALL
                .iter()
                .map(|reason| (Counted::Dropped(*reason), count(Counter::Dropped(*reason)))),
        );
        (all, count(Counter::Bytes))
    }

    /// Tries a packet: what was counted for it, once and nothing else, and what it looks like behind its link header.
    fn try_out(&mut self, direction: Direction, packet: &[u8]) -> (Counted, Vec<u8>) {
        let ether_type: [u8; 2] = match direction {
            Direction::Decap => [0x08, 0],
            Direction::Encap => [0x86, 0xdd],
        };
        let frame = [&[0; 12][..], &ether_type, packet].concat();
        let (before, bytes_before) = self.counters(direction);
        let tried = self.programs.try_out(direction, &frame);
        let tried = tried.unwrap_or_else(|error| panic!("{} bytes: {error}", packet.len()));
        let (after, bytes) = self.counters(direction);
        let changed: Vec<_> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before.1 != after.1)
            .map(|(before, after)| (after.0, after.1 - before.1))
            .collect();
        let counted = match changed[..] {
            [] => Counted::Nothing,
            [(counted, 1)] => counted,
            _ => panic!("one packet counted as {changed:?}"),
        };
        let expected = match counted {
            Counted::Nothing | Counted::Left(_) => Action::Left,
            Counted::Carried => Action::Carried,
            Counted::Dropped(_) => Action::Dropped,
        };
        assert_eq!(tried.action, expected, "{counted:?}");
        if expected == Action::Left {
            assert!(
                tried.frame == frame,
                "a packet that is left was changed: {counted:?}"
            );
        }
        let carried = tried.frame[ETHERNET.min(tried.frame.len())..].to_vec();
        let inner_len = match (counted, direction) {
            (Counted::Carried, Direction::Decap) => carried.len(),
            (Counted::Carried, Direction::Encap) => packet.len(),
            _ => 0,
        };
        assert_eq!(bytes - bytes_before, inner_len as u64, "inner bytes");
        self.tried += 1;
        *self.seen.entry((direction.name(), counted)).or_default() += 1;
        (counted, carried)
    }

    fn decap(&mut self, rules: &Rulebook, surroundings: &Surroundings, packet: &[u8]) {
        if self.decap_one(rules, surroundings, packet) == Counted::Carried {
            let inner = packet.len().min(MIN_HEADER_LEN);
            let known = [header_alone(packet)].into_iter().chain(relatives(packet, inner));
            for relative in known.chain(other_ends(packet)) {
                self.decap_one(rules, surroundings, &relative);
            }
        }
    }

    fn encap(&mut self, rules: &Rulebook, surroundings: &Surroundings, packet: &[u8]) {
        if self.encap_one(rules, surroundings, packet) == Counted::Carried {
            for relative in relatives(packet, 0) {
                self.encap_one(rules, surroundings, &relative);
            }
        }
    }

    fn decap_one(&mut self, rules: &Rulebook, surroundings: &Surroundings, packet: &[u8]) -> Counted {
        let verdict = path::decap::decide(rules, packet);
        let (counted, out) = self.try_out(Direction::Decap, packet);
        let arrival = Arrival {
            rules,
            surroundings,
            device: rulebooks::DEVICE,
            packet,
            verdict: &verdict,
        };
        let agreed = match (counted, verdict) {
            (Counted::Nothing, _) => !arrival.is_ours(),
            (Counted::Left(cause), _) => arrival.is_ours() && arrival.excuses(cause),
            (Counted::Dropped(reason), DecapVerdict::Drop(expected)) => {
                arrival.is_ours() && reason == expected
            }
            (Counted::Carried, DecapVerdict::Deliver(delivery)) if arrival.is_ours() => {
                let mut expected = packet[delivery.outer_len..][..delivery.inner_len].to_vec();
                if let Some(mark) = delivery.set_ecn {
                    ipv6::set_ecn(&mut expected, mark);
                }
                delivery.copy.is_none() && arrival.excuse().is_none() && out == expected
            }
            _ => false,
        };
        assert!(
            agreed,
            "{counted:?} against {verdict:?}\n{packet:02x?}\n{out:02x?}\n{rules:#?}\n{surroundings:?}"
        );
        counted
    }

    fn encap_one(&mut self, rules: &Rulebook, surroundings: &Surroundings, packet: &[u8]) -> Counted {
        let frame = [&[0; vnet::LEN][..], packet].concat();
        let verdict = path::encap::decide(rules, &frame);
        let (counted, out) = self.try_out(Direction::Encap, packet);
        let departure = Departure {
            surroundings,
            packet,
            verdict: &verdict,
        };
        let agreed = match (counted, &verdict) {
            (Counted::Left(cause), _) => departure.excuses(cause),
            (Counted::Carried, EncapVerdict::Send(route)) => {
                let mut outer = route.outer;
                if !outer.dont_fragment {
                    // The kernel numbers what a worker sends; the programs number themselves.
                    outer.id = u16::from_be_bytes([out[4], out[5]]);
                }
                departure.excuse().is_none() && out == whole(&outer, &packet[..route.inner_len])
            }
            _ => false,
        };
        assert!(
            agreed,
            "{counted:?} against {verdict:?}\n{packet:02x?}\n{out:02x?}\n{rules:#?}\n{surroundings:?}"
        );
        counted
    }
}

/// Packets of the same addresses as one that was carried, which the programs remember: itself, other ports and ways of handling, other
/// headers behind the IPv6 header, another version or length in it, and one that is longer than it says.
fn relatives(packet: &[u8], inner: usize) -> impl Iterator<Item = Vec<u8>> {
    let changed = move |changes: &[(usize, u8)]| {
        let mut relative = packet.to_vec();
        for (at, bits) in changes {
            if let Some(byte) = relative.get_mut(inner + at) {
                *byte ^= bits;
            }
        }
        relative
    };
    let (version, traffic_class, length, next_header, hop_limit, port) = (0, 1, 5, 6, 7, SHORTEST_INNER + 1);
    let next_headers = [6, 17, 58, 59, 0, 44, 41, 4];
    let was = packet.get(inner + next_header).copied().unwrap_or(0);
    let mut all: Vec<_> = next_headers
        .map(|next| changed(&[(next_header, was ^ next)]))
        .into();
    all.push(changed(&[]));
    all.extend((1..=8).map(|bits| changed(&[(port, bits)])));
    all.push(changed(&[(traffic_class, 0x20), (hop_limit, 0x15)]));
    all.extend([(version, 0x10), (length, 1), (length, 2), (length, 4)].map(|change| changed(&[change])));
    all.push([packet, &[0]].concat());
    all.into_iter()
}

/// The same inner packet to other IPv4 addresses, and then from others: one that is refused is remembered no longer.
fn other_ends(packet: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    const LAST_OF_SOURCE: usize = 15;
    const LAST_OF_DESTINATION: usize = 19;
    let changes = [LAST_OF_DESTINATION, LAST_OF_SOURCE].map(|at| (1..4).map(move |bits| (at, bits)));
    changes.into_iter().flatten().map(|(at, bits)| {
        let mut relative = packet.to_vec();
        relative[at] ^= bits;
        packets::set_checksum(&mut relative);
        relative
    })
}

/// An outer packet with nothing in it but an IPv6 header, which says so.
fn header_alone(packet: &[u8]) -> Vec<u8> {
    let total = MIN_HEADER_LEN + SHORTEST_INNER;
    let mut relative = packet[..total].to_vec();
    relative[2..4].copy_from_slice(&u16::try_from(total).expect("small").to_be_bytes());
    relative[MIN_HEADER_LEN..][4..6].fill(0);
    packets::set_checksum(&mut relative);
    relative
}

fn whole(outer: &OuterHeader, inner: &[u8]) -> Vec<u8> {
    let mut header = [0; MIN_HEADER_LEN];
    outer.emit(&mut header);
    [&header, inner].concat()
}

fn corpus_of(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("an input"))
        .collect()
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// DESIGN D6: no rule exists twice in spirit.
#[test]
fn the_programs_decide_as_path_does() {
    let seed = number("ISATAP_EBPF_SEED", SEED);
    let count = number("ISATAP_EBPF_RULEBOOKS", amount(RULEBOOKS));
    let mut bench = Bench::new();
    for round in 0..count {
        let mut draw = Draw(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let (rules, surroundings) = bench.rules(&mut draw);
        // By turns as on a kernel where packets interrupt each other: a place that one keeps would be missed by the next.
        let preemptible = round % 2 == 1;
        bench.programs.set_preemptible(preemptible).expect("a mapped map");
        for _ in 0..PACKETS {
            let (outer, inner) = (packets::outer(&mut draw), packets::inner(&mut draw));
            if outer.len() >= SHORTEST_OUTER {
                bench.decap(&rules, &surroundings, &outer);
            }
            if inner.len() >= SHORTEST_INNER {
                bench.encap(&rules, &surroundings, &inner);
            }
        }
    }
    for (outcome, times) in &bench.seen {
        eprintln!("{times:8} {outcome:?}");
    }
    eprintln!("{} packets, seed {seed}", bench.tried);
    assert!(bench.tried >= 100_000 || count < RULEBOOKS);
    check_seen(&bench.seen);
}

/// Nothing is compared that never happens.
fn check_seen(seen: &BTreeMap<(&'static str, Counted), u64>) {
    let missing: Vec<_> = [("decap", DECAP_CAUSES), ("encap", ENCAP_CAUSES)]
        .into_iter()
        .flat_map(|(direction, causes)| causes.iter().map(move |cause| (direction, Counted::Left(*cause))))
        .chain(
            DECAP_REASONS
                .iter()
                .map(|reason| ("decap", Counted::Dropped(*reason))),
        )
        .filter(|outcome| !seen.contains_key(outcome))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
    for direction in ["decap", "encap"] {
        let carried = seen.get(&(direction, Counted::Carried)).copied().unwrap_or(0);
        assert!(carried > 1000, "{direction}: {carried} carried");
    }
}

const DECAP_CAUSES: &[Cause] = &[
    Cause::Held,
    Cause::Device,
    Cause::Options,
    Cause::Checksum,
    Cause::Martian,
    Cause::Fragment,
    Cause::Length,
    Cause::Multicast,
    Cause::Extension,
    Cause::Control,
    Cause::Ecn,
    Cause::Merged,
    Cause::Refused,
];
const ENCAP_CAUSES: &[Cause] = &[
    Cause::Held,
    Cause::Length,
    Cause::Multicast,
    Cause::Extension,
    Cause::Control,
    Cause::Refused,
    Cause::Route,
    Cause::TooBig,
    Cause::LinkMtu,
];
const DECAP_REASONS: &[DropReason] = &[
    DropReason::Truncated,
    DropReason::Malformed,
    DropReason::OuterForbidden,
    DropReason::NotSite,
    DropReason::SrcMismatch,
    DropReason::SrcPrefix,
    DropReason::SrcForbidden,
    DropReason::DstForbidden,
    DropReason::Nested,
    DropReason::Loop,
];

/// The packets that other tests have found worth keeping, under some of the Rulebooks.
#[test]
fn the_corpora_are_decided_as_path_does() {
    let mut bench = Bench::new();
    let outer: Vec<_> = corpus::generate(1)
        .into_iter()
        .flat_map(|case| case.frames)
        .chain(corpus_of("decap"))
        .filter(|frame| (SHORTEST_OUTER..=LONGEST).contains(&frame.len()))
        .collect();
    let inner: Vec<_> = corpus_of("encap")
        .into_iter()
        .filter(|frame| frame.len() >= vnet::LEN + SHORTEST_INNER)
        .map(|frame| frame[vnet::LEN..].to_vec())
        .collect();
    assert!(
        outer.len() > 5000 && inner.len() > 20,
        "{} {}",
        outer.len(),
        inner.len()
    );
    for round in 0..6 {
        let (rules, surroundings) = bench.rules(&mut Draw(round));
        outer
            .iter()
            .for_each(|packet| bench.decap(&rules, &surroundings, packet));
        inner
            .iter()
            .for_each(|packet| bench.encap(&rules, &surroundings, packet));
    }
    eprintln!("{} packets", bench.tried);
}

/// The same on a kernel that has no flag to take an outer header off (before Linux 6.3).
#[test]
fn an_older_kernel_decides_as_path_does() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = ["decap", "encap"].map(|name| files_below(&corpora.join(name)).expect("a corpus"));
    older_kernel::repeat(
        &[
            "the_programs_decide_as_path_does",
            "the_corpora_are_decided_as_path_does",
        ],
        "",
        files.concat(),
    );
}
