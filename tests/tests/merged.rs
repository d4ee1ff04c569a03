//! What a worker merges of what it receives: it comes out as it went in, also where the kernel takes no merged datagrams.
//!
//! ```text
//!   a 10.0.0.2  eth0 ======== eth0  b 10.0.0.1      is0 on both: 2001:db8:1::/64
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Daemon, Lane, program};
use isatap_tests::flows::assert_datagrams_arrive;
use isatap_tests::metrics::{Counters, Direction};
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SOON, on_link, set_address};
use isatap_tests::topology::connect;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DEVICE: &str = "eth0";

struct Line {
    a: Netns,
    b: Netns,
}

impl Line {
    fn new() -> Self {
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        connect(&a, DEVICE, &b, DEVICE);
        for (ns, v4) in [(&a, A), (&b, B)] {
            ns.ip(&format!("addr add {v4}/24 brd + dev {DEVICE}"));
        }
        Self { a, b }
    }

    /// Both daemons, `b`'s in `lane`.
    fn start(&self, lane: Lane, workers: usize) -> [(Daemon<'_>, Counters); 2] {
        let a = Daemon::host(&self.a, A, &[B]).lane(Lane::Syscall).start();
        let b = Daemon::router(&self.b, B).lane(lane).workers(workers).start();
        set_address(&self.a, A);
        set_address(&self.b, B);
        b.wait_lane(lane);
        ping_until(&self.a, &on_link(B).to_string(), SOON);
        [a, b].map(|daemon| {
            // What came before an address was known is counted.
            let before = daemon.settled(Direction::Decap);
            (daemon, before)
        })
    }
}

/// Nothing that came in was dropped.
#[track_caller]
fn assert_nothing_lost(daemons: &[(Daemon<'_>, Counters)], where_seen: &str) {
    for (daemon, before) in daemons {
        daemon.conservation();
        let drops = daemon.settled(Direction::Decap).since(before).drops;
        assert!(drops.is_empty(), "{where_seen}: {drops:?}");
    }
}

/// What a worker receives at once it may hand on merged, as far as the kernel takes that.
fn bursts_arrive(lane: Lane) {
    let line = Line::new();
    let daemons = line.start(lane, 1);
    assert_datagrams_arrive(&line.a, on_link(A), &line.b, on_link(B));
    assert_nothing_lost(&daemons, &format!("{lane:?}"));
}

#[test]
fn bursts_arrive_with_a_ring() {
    bursts_arrive(Lane::Uring);
}

#[test]
fn bursts_arrive_by_system_calls() {
    bursts_arrive(Lane::Syscall);
}

/// Before Linux 6.2 a TUN interface takes no merged datagrams. That kernel has no ring for us.
#[test]
fn bursts_arrive_on_an_older_kernel() {
    older_kernel::repeat(
        &["bursts_arrive_by_system_calls"],
        "",
        vec![program("isatapd"), program("isatapctl")],
    );
}
