//! Spoofed packets beside good ones, as many of each: the good ones arrive as without, nothing is kept about the others, and each
//! is counted (FAULTS 1, 52).
//!
//! ```text
//!   x 10.0.0.9 (good packets; good ones with one spoofed packet after each) ------ dut 10.0.0.1 (router) is0
//! ```
//!
//! Short by default; `ISATAPD_TEST_FLOOD=2000000` sends so many good packets.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::raw::Crafter;
use isatap_tests::scene::{DUT, Opposite, X, on_link};
use isatap_tests::state::resident_kib;
use isatap_tests::wait;

const COUNT: &str = "ISATAPD_TEST_FLOOD";
/// With and without, twice: a machine that slows down meanwhile favours neither.
const ROUNDS: u32 = 2;
/// Good packets a second, and as many spoofed ones: far less than a worker carries, so that what is missing was kept out.
const RATE: u32 = 20_000;
/// Packets sent between two looks at the clock.
const BURST: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// How much the daemon may grow, in KiB.
const GROWTH_KIB: u64 = 1024;

/// What became of one stretch of traffic.
#[derive(Debug)]
struct Stretch {
    sent: u32,
    counted: Counters,
    /// What the kernel had no room for on the way between the namespaces, or in front of the workers.
    lost: u64,
}

struct Bench<'a> {
    scene: &'a Opposite,
    daemon: &'a Daemon<'a>,
    crafter: Crafter,
    /// The number of the next spoofed packet: none claims to be from where another one was.
    spoofed: u32,
}

impl Bench<'_> {
    /// Sends `count` good packets at [`RATE`], with as many spoofed ones if wanted, and counts when all is quiet.
    fn run(&mut self, count: u32, flooded: bool) -> Stretch {
        let good = Inner::new(on_link(X), on_link(DUT)).wrap(59, &[0x5a; 64]);
        let before = self.daemon.settled(Direction::Decap);
        let lost = || [&self.scene.x, &self.scene.dut].map(KernelDrops::read);
        let lost_before = lost();
        let began = Instant::now();
        for sent in 0..count {
            if sent % BURST == 0 {
                let due = began + Duration::from_secs(1) * sent / RATE;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.crafter.send_inner(&good);
            if flooded {
                self.spoof();
            }
        }
        let counted = wait::until("the end of the stretch", PATIENCE, || {
            let counted = self.daemon.settled(Direction::Decap).since(&before);
            if counted.received > 0 {
                Ok(counted)
            } else {
                Err("nothing yet")
            }
        });
        let lost = lost()
            .iter()
            .zip(&lost_before)
            .map(|(now, before)| now.since(before).total())
            .sum();
        Stretch {
            sent: count,
            counted,
            lost,
        }
    }

    /// A packet that claims to be of a host and comes from another one: 8 million claims, 8 million senders.
    fn spoof(&mut self) {
        self.spoofed = self.spoofed.wrapping_add(0x1e_3779) & 0x7f_ffff;
        let made_up = |number: u32| Ipv4Addr::from(0x0a80_0000 | number);
        let (claimed, sender) = (made_up(self.spoofed), made_up(self.spoofed ^ 0x002a_5502));
        let inner = Inner::new(on_link(claimed), on_link(DUT)).wrap(59, &[0x66; 64]);
        self.crafter.send(&Outer::new(sender, DUT).wrap(&inner));
    }
}

fn flood(lane: Lane) {
    let count = std::env::var(COUNT).map_or(100_000, |text| text.parse().expect("a number"));
    let scene = Opposite::new();
    for device in ["all", "eth0"] {
        scene.dut.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0");
    }
    let daemon = scene.router(|builder| builder.lane(lane).workers(1));
    daemon.wait_lane(lane);
    let engine = daemon.engine_pid();
    let mut bench = Bench {
        scene: &scene,
        daemon: &daemon,
        crafter: scene.crafter(),
        spoofed: 1,
    };
    let part = count / (2 * ROUNDS);
    // Both kinds have been seen once when memory is looked at.
    bench.run(part.min(10_000), true);
    let memory = resident_kib(engine);
    let (mut without, mut with) = (0, 0);
    for _ in 0..ROUNDS {
        let quiet = bench.run(part, false);
        let flooded = bench.run(part, true);
        assert!(quiet.counted.drops.is_empty(), "{}", quiet.counted);
        let refused = flooded.counted.drops.clone();
        assert_eq!(
            refused.keys().collect::<Vec<_>>(),
            ["src_mismatch"],
            "each spoofed packet for its reason: {}",
            flooded.counted
        );
        assert!(flooded.counted.delivered <= u64::from(flooded.sent));
        assert!(refused["src_mismatch"] <= u64::from(flooded.sent));
        // Each packet that reached the daemon is counted, and the kernel says of the others that it lost them.
        for (stretch, all) in [
            (&quiet, u64::from(quiet.sent)),
            (&flooded, 2 * u64::from(flooded.sent)),
        ] {
            assert_eq!(stretch.counted.received + stretch.lost, all, "{stretch:?}");
        }
        without += quiet.counted.delivered;
        with += flooded.counted.delivered;
    }
    let grown = resident_kib(engine).saturating_sub(memory);
    // Far fewer than 2^52 packets.
    #[allow(clippy::cast_precision_loss)]
    let ratio = with as f64 / without.max(1) as f64;
    eprintln!(
        "{lane:?}: {with} of {} good packets arrived beside as many spoofed ones, {without} without: ratio {ratio:.3}; memory \
         grew by {grown} KiB",
        ROUNDS * part
    );
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    assert_eq!(daemon.engine_pid(), engine);
    daemon.conservation();
}

/// FAULTS 1, 52: nothing is kept about any of eight million senders.
#[test]
fn spoofed_packets_cost_good_ones_nothing_uring() {
    flood(Lane::Uring);
}

/// FAULTS 1, 52: the same on the other lane.
#[test]
fn spoofed_packets_cost_good_ones_nothing_syscall() {
    flood(Lane::Syscall);
}

/// FAULTS 1, 52: the same on the other lane.
#[test]
fn spoofed_packets_cost_good_ones_nothing_ebpf() {
    flood(Lane::Ebpf);
}
