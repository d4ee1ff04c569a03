//! ICMPv4 errors about our packets, and the ICMPv6 errors that follow from them (N5-N8; FAULTS 26; RFC 4213 3.4).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ---+--- x 10.0.0.9 (crafted: the peer, or a router on the way)
//!                                                     `--- 10.0.0.100 and on: nobody
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::flows::UdpFlows;
use isatap_tests::icmp4::{Icmp4Error, PARAMETER_PROBLEM, TIME_EXCEEDED, UNREACHABLE};
use isatap_tests::packet::{Inner, SeenInner};
use isatap_tests::raw::{Captured, Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, Scene, X, host_v4, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

/// A router on the way, which nobody has ever heard of.
const ON_THE_WAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const PORT: u16 = 4000;

struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    injector: Injector,
    wire: Sniffer,
    tunnel: Sniffer,
    x: Crafter,
}

impl Bench<'_> {
    /// Has the daemon send `packet` and returns what was on the wire.
    #[track_caller]
    fn sent(&self, packet: &[u8]) -> Vec<u8> {
        self.wire.clear();
        self.injector.send(packet);
        let seen = self.wire.wait_for("the packet", SOON, |c| {
            c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet)
        });
        seen.packet
    }

    fn outcomes(&self) -> BTreeMap<String, u64> {
        let metrics = self.daemon.metrics();
        metrics.by_label("isatapd_icmp_errors_translated_total", &[], "result")
    }

    /// Sends an ICMPv4 error and returns what became of it.
    #[track_caller]
    fn outcome(&self, error: &[u8]) -> String {
        let before = self.outcomes();
        self.tunnel.clear();
        self.x.send(error);
        wait::until("the error to be looked at", SOON, || {
            let after = self.outcomes();
            let changed = after
                .iter()
                .find(|(name, count)| before.get(*name) != Some(count));
            changed.map(|(name, _)| name.clone()).ok_or("nothing counted")
        })
    }

    /// What the kernel was told about `packet`: the whole ICMPv6 error.
    #[track_caller]
    fn told(&self, packet: &[u8]) -> Captured {
        self.tunnel
            .wait_for("an ICMPv6 error", SOON, |c| is_error_about(c, packet))
    }
}

/// Whether the kernel was told that `packet` cannot reach its destination, with a quote of it.
fn is_error_about(captured: &Captured, packet: &[u8]) -> bool {
    let error = captured.inner().filter(|_| !captured.outgoing);
    error
        .and_then(|error| error.icmpv6())
        .is_some_and(|(kind, code, body)| (kind, code) == (1, 3) && packet.starts_with(&body[4..]))
}

/// A packet to the peer with so much data.
fn to_x(data: usize) -> Vec<u8> {
    Inner::new(on_link(DUT), on_link(X)).udp(1, PORT, &vec![0x5a; data])
}

/// N6, N8: each kind of error, and quotes of each length; errors of forgers.
#[test]
fn n6_errors_are_told_to_the_sender() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    let bench = Bench {
        daemon: &daemon,
        injector: Injector::tun(&scene.dut, TUNNEL),
        wire: Sniffer::start(&scene.dut, UNDERLAY),
        tunnel: Sniffer::start(&scene.dut, TUNNEL),
        x: scene.crafter(),
    };
    let packet = to_x(400);
    let offending = bench.sent(&packet);
    for (kind, code, quoted, outcome) in [
        (UNREACHABLE, 0, 520, "translated"),
        (UNREACHABLE, 1, 128, "translated"),
        (UNREACHABLE, 2, 48, "translated"),
        (UNREACHABLE, 13, 520, "translated"),
        (TIME_EXCEEDED, 0, 520, "translated"),
        (PARAMETER_PROBLEM, 0, 520, "translated"),
        (UNREACHABLE, 1, 47, "short"),
        (UNREACHABLE, 1, 40, "short"),
        (UNREACHABLE, 1, 8, "short"),
        (UNREACHABLE, 3, 520, "kept"),
    ] {
        let what = format!("type {kind} code {code}, {quoted} bytes");
        let error = Icmp4Error::new(kind, code).quoted(quoted);
        assert_eq!(
            bench.outcome(&error.about(ON_THE_WAY, &offending)),
            outcome,
            "{what}"
        );
        if outcome != "translated" {
            continue;
        }
        let told = bench.told(&packet);
        let error = SeenInner::read(&told.packet).expect("IPv6");
        assert_eq!((error.src(), error.dst()), (on_link(DUT), on_link(DUT)), "{what}");
        assert!(error.checksum_is_right(), "{what}");
        // The outer header is not for the sender; no more than 128 bytes are certain to be the packet.
        assert_eq!(error.payload.len(), 8 + quoted.min(108), "{what}");
    }
    // Of forgers: a packet that leads elsewhere, another protocol's, one that was never ours.
    let mut elsewhere = offending.clone();
    elsewhere[20 + 39] ^= 1;
    let mut udp = offending.clone();
    udp[9] = 17;
    let error = Icmp4Error::new(UNREACHABLE, 1);
    assert_eq!(bench.outcome(&error.about(ON_THE_WAY, &elsewhere)), "foreign");
    bench.x.send(&error.about(ON_THE_WAY, &udp));
    // N7: no error about an error.
    let about_error = Inner::new(on_link(DUT), on_link(X)).icmpv6(1, 0, &[0; 60]);
    let offending = bench.sent(&about_error);
    assert_eq!(
        bench.outcome(&error.about(ON_THE_WAY, &offending)),
        "unanswerable"
    );
    assert_eq!(bench.tunnel.count(|c| !c.outgoing), 0);
    daemon.wait_log("quotes too little");
    daemon.conservation();
}

/// N6: nobody answers ARP; the sender is told, be it a program here, or a host behind this router.
#[test]
fn senders_here_and_behind_are_told() {
    let scene = Scene::new(1);
    let running = scene.start(|builder| builder.workers(1));
    let nobody = on_link(Ipv4Addr::new(10, 0, 0, 200));
    // The kernel needs three seconds to find that out; what is sent then hears of it at once.
    for ns in [&scene.server, &scene.router, &scene.hosts[0]] {
        wait::until("\"address unreachable\"", SOON * 2, || {
            let output = ns.try_run(&format!("ping -6 -n -c 1 -W 4 {nobody}"));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains("Address unreachable") {
                Ok(())
            } else {
                Err(text)
            }
        });
    }
    running.conservation();
}

/// Sends to a host that is not there until told to stop; how much, and which errors its socket heard. `told` is set at the
/// first.
fn knock(
    socket: &UdpSocket,
    stop: &AtomicBool,
    told: &AtomicBool,
    gap: Duration,
) -> (u64, BTreeMap<i32, u64>) {
    let (mut sent, mut errors) = (0, BTreeMap::new());
    let mut next = Instant::now();
    // A test that fails tells nobody to stop.
    let end = next + SOON * 6;
    while !stop.load(Ordering::Relaxed) && next < end {
        match socket.send(b"is anybody there?") {
            Ok(_) => sent += 1,
            Err(error) => {
                *errors.entry(error.raw_os_error().unwrap_or(0)).or_insert(0) += 1;
                told.store(true, Ordering::Relaxed);
            }
        }
        next += gap;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    (sent, errors)
}

/// FAULTS 26, N7: ten thousand packets a second to twenty hosts that are not there. Each of their senders hears of it, within
/// limits; a flow to a host that is there loses nothing, and its sender hears nothing.
#[test]
fn a_storm_of_errors_touches_nobody_else() {
    const DEAD: u8 = 20;
    let scene = Scene::new(1);
    // The kernel's own limit, fifty at once, would leave nothing of a storm: all of them fail at the same time.
    for name in ["icmp_msgs_per_sec", "icmp_msgs_burst"] {
        scene.router.sysctl(&format!("ipv4/{name}"), "100000");
    }
    // ARP fails in tenths of a second instead of three seconds: a storm from the beginning.
    let arp = format!("ipv4/neigh/{UNDERLAY}");
    scene.router.sysctl(&format!("{arp}/mcast_solicit"), "1");
    scene.router.sysctl(&format!("{arp}/retrans_time_ms"), "200");
    let running = scene.start(|builder| builder.workers(2));
    let connect = |dst: Ipv6Addr| {
        scene.router.enter(|| {
            let socket = UdpSocket::bind((on_link(DUT), 0)).expect("a socket");
            socket.connect((dst, PORT)).expect("connect");
            // Without it a UDP socket hears of ports alone.
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true).expect("IPV6_RECVERR");
            socket
        })
    };
    let _door = scene.hosts[0].enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a socket"));
    let healthy = connect(on_link(host_v4(0)));
    let stop = AtomicBool::new(false);
    let told: Vec<_> = (0..DEAD).map(|_| AtomicBool::new(false)).collect();
    let (stormed, book) = thread::scope(|scope| {
        let knocking: Vec<_> = (0..DEAD)
            .zip(&told)
            .map(|(n, told)| {
                let socket = connect(on_link(Ipv4Addr::new(10, 0, 0, 100 + n)));
                let stop = &stop;
                scope.spawn(move || knock(&socket, stop, told, Duration::from_millis(2)))
            })
            .collect();
        let all_told = || {
            let missing = told.iter().filter(|told| !told.load(Ordering::Relaxed)).count();
            if missing == 0 {
                Ok(())
            } else {
                Err(format!("{missing} were not told"))
            }
        };
        wait::holds("the first to be told", SOON, || {
            told.iter().any(|told| told.load(Ordering::Relaxed))
        });
        let flows = UdpFlows {
            flows: 8,
            packets: 1000,
            sizes: &[100, 1200],
            batch: 1,
        };
        let book = flows.run(
            &scene.router,
            on_link(DUT),
            &scene.hosts[0],
            on_link(host_v4(0)),
            0,
        );
        wait::until("every sender to be told", SOON * 2, all_told);
        healthy.send(b"still there?").expect("no error of others");
        stop.store(true, Ordering::Relaxed);
        let stormed: Vec<_> = knocking
            .into_iter()
            .map(|knocker| knocker.join().expect("a knocker"))
            .collect();
        (stormed, book)
    });
    book.assert_exactly_once_in_order("at the host that is there", 8, 1000);
    let sent: u64 = stormed.iter().map(|(sent, _)| sent).sum();
    for (n, (_, errors)) in stormed.iter().enumerate() {
        assert!(
            errors.contains_key(&nix::libc::EHOSTUNREACH),
            "sender {n} was not told: {errors:?}"
        );
    }
    let metrics = running.router.metrics();
    let outcomes = metrics.by_label("isatapd_icmp_errors_translated_total", &[], "result");
    println!("{sent} packets to nobody: {outcomes:?}");
    let translated = outcomes.get("translated").copied().unwrap_or(0);
    let seconds = running.router.started().elapsed().as_secs() + 1;
    assert!(translated >= u64::from(DEAD));
    assert!(
        translated <= u64::from(DEAD) * 10 * (seconds + 1),
        "{translated} in {seconds} s"
    );
    assert_eq!(
        healthy.take_error().expect("an answer").map(|e| e.to_string()),
        None
    );
    running.conservation();
}
