//! Mutated packets on the wire, by the ten thousand or by the million: a judge who does not know the daemon says of each whether
//! it has to come out of the tunnel, and as what (FAULTS 1-11, 13, 14, 17, 18).
//!
//! ```text
//!   x 10.0.0.9 (mutated frames, then a fence) ------ dut 10.0.0.1 (router) is0: what came out, in order
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isatap_tests::corpus::{ANSWERED, GATEWAY, HOST, OWN, ROUTED, ROUTER, SECOND_ROUTER};
use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::judge::{Verdict, judge};
use isatap_tests::metrics::Direction;
use isatap_tests::mutations::Mutations;
use isatap_tests::packet::{Inner, Outer, link_local};
use isatap_tests::raw::{Captured, Injector, Sniffer};
use isatap_tests::scene::{Opposite, set_address};
use isatap_tests::state::resident_kib;
use isatap_tests::topology::{UNDERLAY, mac};

/// How many frames; the issue asks for a million.
const COUNT: &str = "ISATAPD_TEST_MUTATIONS";
/// Which ones.
const SEED: &str = "ISATAPD_TEST_SEED";
/// Frames that a receiver surely has room for.
const BATCH: usize = 64;
/// What a fence takes at most, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// Room for what a machine does with memory that is free again.
const GROWTH_KIB: u64 = 2048;

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

struct Bench<'a> {
    daemon: Daemon<'a>,
    injector: Injector,
    inside: Sniffer,
}

impl<'a> Bench<'a> {
    fn new(scene: &'a Opposite, lane: Lane) -> Self {
        let dut = &scene.dut;
        for device in ["all", UNDERLAY] {
            // Nothing but the daemon looks at who the sender is.
            dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
        }
        // No piece ever meets another one by chance.
        for limit in ["low", "high"] {
            dut.sysctl(&format!("ipv4/ipfrag_{limit}_thresh"), "0");
        }
        // One worker: what is sent last is judged last.
        let daemon = Daemon::router(dut, OWN)
            .config(&format!("PeerRouter {ROUTER}\nPeerRouter {SECOND_ROUTER}"))
            .lane(lane)
            .workers(1)
            .start();
        set_address(dut, OWN);
        dut.ip(&format!(
            "route add {ROUTED}/48 via {} dev {TUNNEL}",
            link_local(GATEWAY)
        ));
        daemon.wait_route(&format!("{ROUTED}/48"));
        scene.wait_prefix(&daemon);
        // Nobody behind the tunnel interface answers, nor asks for who was made up.
        dut.run("nft add table ip6 quiet");
        dut.run("nft add chain ip6 quiet in { type filter hook input priority 0 ; }");
        dut.run(&format!("nft add rule ip6 quiet in iifname {TUNNEL} drop"));
        let x = mac(&scene.x, UNDERLAY)
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        for v4 in ANSWERED {
            dut.ip(&format!(
                "neigh replace {v4} lladdr {x} dev {UNDERLAY} nud permanent"
            ));
        }
        Self {
            daemon,
            injector: Injector::ethernet(&scene.x, UNDERLAY, mac(dut, UNDERLAY)),
            inside: Sniffer::start(dut, TUNNEL),
        }
    }

    /// What comes out of the tunnel when `frames` go in, in whatever order: flows of one batch may overtake each other.
    #[track_caller]
    fn deliver(&self, frames: &[Vec<u8>], sequence: usize) -> Vec<Vec<u8>> {
        let incoming = |captured: &Captured| !captured.outgoing;
        let inner = Inner::new(link_local(HOST), link_local(OWN));
        self.inside.clear();
        frames.iter().for_each(|frame| self.injector.send(frame));
        // What was read together with the first fence has come out before the second one is read.
        // Behind options, so that the programs of the ebpf lane leave it to the worker that may have others to deliver.
        let fences = [0, 1].map(|second| {
            let number = (2 * sequence + second).to_be_bytes();
            inner.wrap(60, &[&[59, 0, 1, 4, 0, 0, 0, 0][..], &number].concat())
        });
        for fence in &fences {
            self.injector.send(&Outer::new(HOST, OWN).wrap(fence));
            self.inside
                .wait_for("a fence", PATIENCE, |c| incoming(c) && c.packet == *fence);
        }
        let packets = self.inside.packets().into_iter().filter(incoming);
        let packets = packets.map(|captured| captured.packet);
        packets.filter(|packet| !fences.contains(packet)).collect()
    }
}

/// How often the judge said what.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    either: usize,
    refused: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Compares what came out with what had to.
    #[track_caller]
    fn compare(&mut self, frames: &[Vec<u8>], mut delivered: Vec<Vec<u8>>) {
        let mut take = |packet: &Vec<u8>| {
            let at = delivered.iter().position(|other| other == packet);
            at.map(|at| delivered.swap_remove(at)).is_some()
        };
        for frame in frames {
            match judge(frame) {
                Verdict::Refuse(why) => *self.refused.entry(why).or_default() += 1,
                Verdict::Either(packet) => {
                    self.either += 1;
                    take(&packet);
                }
                Verdict::Pass(packet) => {
                    self.passed += 1;
                    assert!(take(&packet), "this has to come out: {frame:02x?}");
                }
            }
        }
        if let Some(stowaway) = delivered.first() {
            let of_its_flow =
                |frame: &&Vec<u8>| frame.windows(3).any(|bytes| stowaway[1..].starts_with(bytes));
            let suspects: Vec<_> = frames.iter().filter(of_its_flow).collect();
            panic!("{stowaway:02x?} may not come out of {suspects:02x?}");
        }
    }
}

fn mutated(lane: Lane) {
    let (count, seed) = (number(COUNT, 50_000), number(SEED, 5214));
    let scene = Opposite::new();
    let bench = Bench::new(&scene, lane);
    let engine = bench.daemon.engine_pid();
    let mut mutations = Mutations::new(u64::try_from(seed).expect("a seed"));
    let (mut tally, mut sent, mut memory) = (Tally::default(), 0, None);
    let began = Instant::now();
    while sent < count {
        let frames: Vec<_> = mutations.by_ref().take(BATCH.min(count - sent)).collect();
        tally.compare(&frames, bench.deliver(&frames, sent));
        sent += frames.len();
        // Everything has been used once by then.
        if sent >= count / 4 {
            memory.get_or_insert_with(|| resident_kib(engine));
        }
    }
    let grown = resident_kib(engine).saturating_sub(memory.expect("looked at"));
    let counters = bench.daemon.settled(Direction::Decap);
    eprintln!(
        "{lane:?}, seed {seed}: {sent} frames in {:.1?}: {} had to pass and did, {} might, {} had to be refused and were; \
         memory grew by {grown} KiB\n{:#?}\n{counters}",
        began.elapsed(),
        tally.passed,
        tally.either,
        tally.refused.values().sum::<usize>(),
        tally.refused
    );
    assert!(tally.passed * 20 > sent, "hardly anything had to pass");
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    assert_eq!(bench.daemon.engine_pid(), engine, "no crash");
    bench.daemon.conservation();
}

/// FAULTS 1-11, 13, 14, 17, 18: none accepted that should not be, none refused that should pass, no crash. A million with
/// `ISATAPD_TEST_MUTATIONS=1000000`.
#[test]
fn mutated_packets_are_judged_rightly_uring() {
    mutated(Lane::Uring);
}

/// FAULTS 1-11, 13, 14, 17, 18: the same on the other lane.
#[test]
fn mutated_packets_are_judged_rightly_syscall() {
    mutated(Lane::Syscall);
}

/// FAULTS 1-11, 13, 14, 17, 18: the same on the other lane.
#[test]
fn mutated_packets_are_judged_rightly_ebpf() {
    mutated(Lane::Ebpf);
}
