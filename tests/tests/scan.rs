//! Somebody counts through the addresses of the link: memory stays, and known hosts are served as before (N9; RFC 6583).
//!
//! ```text
//!   srv (scans) --- rtr 10.0.0.1 ---+--- h1 10.0.0.2
//!                                   `--- 10.0.0.4 to 10.0.0.254: nobody
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::exchange;
use isatap_tests::metrics::Direction;
use isatap_tests::scene::{SOON, Scene, host_v4, on_link};
use isatap_tests::state::resident_kib;
use isatap_tests::wait;

const PORT: u16 = 4000;
/// Questions asked while the scan runs, one after the other, so many times.
const QUESTIONS: u32 = 10;
const TIMES: u32 = 20;
/// What ten answers may take on a busy machine; waiting for a neighbour that is not there takes seconds.
const PATIENCE: Duration = Duration::from_millis(750);
/// Growth of the daemon that is none: allocators round.
const GROWTH_KIB: u64 = 2048;

/// Sends to each of `targets` in turn until told to stop.
fn scan(socket: &UdpSocket, stop: &AtomicBool, sent: &AtomicU64, mut targets: impl FnMut(u64) -> Ipv6Addr) {
    let end = Instant::now() + SOON * 6;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) || Instant::now() > end {
            return;
        }
        // A kernel that has no room now has some for the next.
        let _ = socket.send_to(&[0x5c; 400], (targets(n), PORT));
        sent.store(n, Ordering::Relaxed);
        if n % 64 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Scans while a known host is asked questions.
fn served_during(what: &str, targets: impl FnMut(u64) -> Ipv6Addr + Send) {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(1));
    let known = on_link(host_v4(0));
    let socket = scene
        .server
        .enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a socket"));
    // Everything that is allocated once is there.
    exchange::over_udp(&scene.server, &scene.hosts[0], known, 10);
    let before = resident_kib(running.router.engine_pid());
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let longest = thread::scope(|scope| {
        scope.spawn(|| scan(&socket, &stop, &sent, targets));
        wait::until("the scan to run", SOON, || match sent.load(Ordering::Relaxed) {
            count if count > 20_000 => Ok(()),
            count => Err(count),
        });
        let ask = |_| {
            let began = Instant::now();
            let books = exchange::over_udp(&scene.server, &scene.hosts[0], known, QUESTIONS);
            books
                .1
                .assert_exactly_once_in_order("at the server", 1, QUESTIONS);
            began.elapsed()
        };
        let longest = (0..TIMES).map(ask).max().unwrap_or_default();
        stop.store(true, Ordering::Relaxed);
        longest
    });
    let grown = resident_kib(running.router.engine_pid()).saturating_sub(before);
    let encap = running.router.counters(Direction::Encap);
    println!(
        "{what}: {} addresses, at most {longest:?} for {QUESTIONS} answers, {grown} KiB more; {encap}",
        sent.load(Ordering::Relaxed)
    );
    assert!(longest < PATIENCE, "{what}: {longest:?} for {QUESTIONS} answers");
    assert!(grown < GROWTH_KIB, "{what}: {grown} KiB more");
    running.conservation();
}

/// N9, L4: addresses that lead to no IPv4 address at all. No packet waits for a neighbour to be asked, so that a scan has
/// nothing to fill.
#[test]
fn n9_a_scan_of_the_prefix() {
    let base = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0x1234, 0, 0, 0).to_bits();
    served_during("2001:db8:1::/64", |n| Ipv6Addr::from_bits(base | u128::from(n)));
}

/// N9, L4: addresses of hosts that could be there. Each has packets waiting for ARP in the kernel, and they must not be in the
/// way of others.
#[test]
fn n9_a_scan_of_the_site() {
    served_during("10.0.0.0/24", |n| {
        let last = u8::try_from(n % 250 + 4).expect("below 254");
        on_link(Ipv4Addr::new(10, 0, 0, last))
    });
}
