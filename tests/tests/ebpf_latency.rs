//! How long packets take in the programs: one in 256 of those carried on a CPU has its time taken, and a flood of others no more.
//!
//! ```text
//!   h1 10.0.0.2 ---- rtr 10.0.0.1 ---- srv 2001:db8:99::2         see `isatap_tests::scene`
//! ```

use std::net::Ipv4Addr;

use isatap_engine::ebpf::compile;
use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::numbers::{SAMPLE, STAYS};
use isatap_engine::fib::{Locator, NextHop, RulebookBuilder};
use isatap_engine::io::ebpf::{Action, Programs, Shared};
use isatap_engine::stats::Direction;
use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::older_kernel;
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::scene::{SERVER, SOON, Scene, on_link};
use isatap_tests::tried::by_loopback;
use isatap_tests::wait;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const SLOTS: u32 = 1024;

/// The programs with rules that carry both ways.
fn loaded() -> (Programs, Shared) {
    let programs = Programs::load(SLOTS, "is0").unwrap_or_else(|error| panic!("programs: {error:?}"));
    let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
    let rules = RulebookBuilder {
        locators: vec![Locator { addr: A, if_index: 0 }],
        routes: vec![("2001:db8:1::/64".parse().expect("a prefix"), NextHop::OnLink)],
        any_site: true,
        ..RulebookBuilder::default()
    };
    let surroundings = by_loopback(1500);
    let image = compile(
        &rules.build().expect("a Rulebook"),
        &surroundings,
        SLOTS as usize,
        1,
    );
    shared
        .publish(&image.expect("rules that fit"))
        .expect("published");
    (programs, shared)
}

fn frame(direction: Direction, from: Ipv4Addr) -> Vec<u8> {
    let (ether_type, packet) = match direction {
        Direction::Encap => ([0x86, 0xdd], Inner::new(on_link(A), on_link(B)).udp(1, 9, b"out")),
        Direction::Decap => {
            let inner = Inner::new(on_link(B), on_link(A)).udp(1, 9, b"in");
            ([0x08, 0x00], Outer::new(from, A).wrap(&inner))
        }
    };
    [&[0; 12][..], &ether_type, &packet].concat()
}

fn stays(shared: &Shared, direction: Direction) -> u64 {
    let places = 0..STAYS as usize;
    places
        .map(|place| shared.count(Counter::Stay(place), direction as usize))
        .sum()
}

/// Keeps this thread on a CPU.
fn run_on(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &one).expect("this CPU alone");
}

/// The first packet of a CPU, then one for each 256 that it carries.
#[test]
fn one_packet_in_256_is_timed() {
    run_on(sched_getcpu().expect("a CPU"));
    let (mut programs, shared) = loaded();
    let sample = u64::from(SAMPLE);
    for direction in Direction::ALL {
        let frame = frame(direction, B);
        for count in 1..=3 * sample {
            let tried = programs.try_out(direction, &frame).expect("tried");
            assert_eq!(tried.action, Action::Carried);
            assert_eq!(
                stays(&shared, direction),
                count.div_ceil(sample),
                "{count} packets"
            );
        }
        let latencies = shared.latencies();
        let latencies = latencies.direction(direction);
        assert_eq!(latencies.len(), 3);
        eprintln!(
            "{}: {} to {} ns",
            direction.name(),
            latencies.min(),
            latencies.max()
        );
        // An interrupt may come in between; a program of a millisecond does not.
        assert!(latencies.min() > 0 && latencies.min() < 1_000_000);
    }
    // Refused ones: the next to be timed is one of them, and that is all.
    let forged = frame(Direction::Decap, STRANGER);
    let before = shared.count(Counter::Sampled, Direction::Decap as usize);
    for _ in 0..2 * sample {
        let tried = programs.try_out(Direction::Decap, &forged).expect("tried");
        assert_eq!(tried.action, Action::Dropped);
    }
    assert_eq!(
        shared.count(Counter::Sampled, Direction::Decap as usize),
        before + 1
    );
    assert_eq!(stays(&shared, Direction::Decap), 3);
}

/// CPUs share no counter, for nobody adds to it in one piece: the first packet of each has its time taken.
#[test]
fn each_cpu_counts_for_itself() {
    let (mut programs, shared) = loaded();
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this thread");
    let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    for (count, cpu) in (1..).zip(cpus) {
        run_on(cpu);
        for direction in Direction::ALL {
            for _ in 0..2 {
                let tried = programs.try_out(direction, &frame(direction, B)).expect("tried");
                assert_eq!(tried.action, Action::Carried);
            }
            assert_eq!(shared.count(Counter::Packets, direction as usize), 2 * count);
            assert_eq!(stays(&shared, direction), count, "CPU {cpu}");
        }
    }
}

/// Whoever shows the workers' latencies shows these beside them.
#[test]
fn the_kernels_latencies_are_shown() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.lane(Lane::Ebpf).workers(1));
    running.all().for_each(Daemon::wait_programs);
    let router = &running.router;
    // Each CPU counts to 256 for itself, and may begin with a packet that is left to a worker: all of them are to be of one.
    let cpu = sched_getcpu().expect("a CPU");
    scene.hosts[0].run(&format!("taskset -c {cpu} ping -6 -q -c 600 -i 0.002 {SERVER}"));
    let timed = |direction| {
        let labels = [("worker", "kernel"), ("direction", direction)];
        router
            .metrics()
            .sum("isatapd_packet_latency_seconds_count", &labels)
    };
    for direction in ["encap", "decap"] {
        wait::holds("packets to be timed", SOON, || timed(direction) >= 2);
        let labels = [("worker", "kernel"), ("direction", direction)];
        let carried = router.metrics().sum("isatapd_packets_total", &labels);
        assert!(timed(direction) < carried / 100, "one in 256 of {carried}");
    }
    let output = router.ctl("histogram");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_kernel: Vec<_> = text.lines().filter(|line| line.starts_with("kernel ")).collect();
    assert_eq!(of_kernel.len(), 2, "{text}");
    assert!(text.contains("kernel: one packet in 256"), "{text}");
}

#[test]
fn one_packet_in_256_is_timed_on_an_older_kernel() {
    older_kernel::repeat(&["one_packet_in_256_is_timed"], "", Vec::new());
}
