//! Narrow paths: what is learned, what is not believed, and that TCP goes through whatever the middle takes (M3-M6, M8,
//! M10; FAULTS 24, 25).
//!
//! ```text
//!   a 10.1.0.1 ---- r1 ==== middle, MTU 1500, 1300, 600 ==== r2 ---- 10.2.0.1 b
//! ```

use std::net::{Ipv4Addr, SocketAddrV6};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::fragments::{Datagram, datagrams};
use isatap_tests::icmp4::{Icmp4Error, UNREACHABLE};
use isatap_tests::metrics::Direction;
use isatap_tests::narrow::{A, B, Narrow, R1};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, Outer, link_local};
use isatap_tests::raw::{Injector, Sniffer};
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::{UNDERLAY, mac};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;

const FRAG_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
const PORT: u16 = 5001;
/// Enough for many superpackets of a connection at full speed.
const BYTES: u64 = 4_000_000;

/// `a`'s daemon with what goes in and out of it.
struct Bench<'a> {
    daemon: &'a Daemon<'a>,
    injector: Injector,
    wire: Sniffer,
    tunnel: Sniffer,
}

impl<'a> Bench<'a> {
    fn new(daemon: &'a Daemon<'a>) -> Self {
        let ns = daemon.ns();
        Self {
            daemon,
            injector: Injector::tun(ns, TUNNEL),
            wire: Sniffer::start(ns, UNDERLAY),
            tunnel: Sniffer::start(ns, TUNNEL),
        }
    }

    /// Sends an inner packet of `len` bytes to b: as it leaves, or the MTU its sender is told.
    #[track_caller]
    fn fate(&self, len: usize) -> Result<Datagram, u32> {
        let packet = packet(len);
        self.wire.clear();
        self.tunnel.clear();
        self.injector.send(&packet);
        wait::until("the packet to leave or to be answered", SOON, || {
            let sent = datagrams(&self.wire.packets());
            if let Some(datagram) = sent.into_iter().find(|datagram| datagram.payload == packet) {
                return Ok(Ok(datagram));
            }
            let told = self
                .tunnel
                .packets()
                .iter()
                .filter(|c| !c.outgoing)
                .find_map(|c| {
                    let (kind, _, body) = c.inner()?.icmpv6()?;
                    let about = kind == PACKET_TOO_BIG && packet.starts_with(body.get(4..)?);
                    about.then(|| u32::from_be_bytes([body[0], body[1], body[2], body[3]]))
                });
            told.map(Err).ok_or("nothing")
        })
    }

    /// Waits until packets of `len` bytes are answered with `mtu`.
    #[track_caller]
    fn wait_told(&self, len: usize, mtu: u32) {
        wait::until(&format!("{mtu} to be learned"), SOON, || match self.fate(len) {
            Err(told) if told == mtu => Ok(()),
            Err(told) => Err(format!("told {told}")),
            Ok(datagram) => Err(format!("sent {:?}", datagram.pieces)),
        });
    }

    fn known(&self, said_by: &str) -> u64 {
        self.daemon
            .metrics()
            .sum("isatapd_path_mtus", &[("said_by", said_by)])
    }

    fn messages(&self, result: &str) -> u64 {
        let labels = [("result", result)];
        self.daemon
            .metrics()
            .sum("isatapd_path_mtu_messages_total", &labels)
    }
}

/// An inner packet of `len` bytes from a to b.
fn packet(len: usize) -> Vec<u8> {
    Inner::new(link_local(A), link_local(B)).udp(1, 9, &vec![0x5a; len - 48])
}

/// M6: what was learned of a path holds in the engine that follows, after a crash and after an upgrade: no packet is lost to learn
/// it again.
#[test]
fn m6_paths_outlive_engines() {
    let net = Narrow::new();
    let daemons = net.start(|b| b.workers(1).config("Mtu 1480\nPathMtu dynamic"));
    let bench = Bench::new(&daemons[0]);
    net.set_middle(1400);
    bench.fate(1480).expect("nothing is known");
    bench.wait_told(1480, 1380);
    let next: [fn(&Daemon<'_>); 2] = [
        |daemon| {
            kill_engine(daemon);
        },
        |daemon| {
            let output = daemon.ctl("upgrade");
            assert!(output.status.success(), "{output:?}");
        },
    ];
    for follow in next {
        let old = bench.daemon.engine_pid();
        follow(bench.daemon);
        wait_successor(bench.daemon, old);
        assert_eq!(bench.known("router"), 1);
        assert_eq!(bench.fate(1480), Err(1380));
        assert_eq!(bench.messages("router"), 0, "nobody had to say so again");
    }
}

/// M4, M6, M10: the table of RFC 4213 3.2.2, with the path's MTU learned from a router of the kernel's own.
#[test]
fn m4_sizes_over_a_learned_path() {
    for lane in Lane::ALL {
        let net = Narrow::new();
        let daemons = net.start(|b| b.lane(lane).workers(1).config("Mtu 1480\nPathMtu dynamic"));
        let bench = Bench::new(&daemons[0]);
        assert!(bench.fate(1480).expect("nothing is known").dont_fragment);
        let mut fitted = 1480;
        for (middle, largest, df) in [(1400, 1380, true), (1300, 1280, true), (600, 1280, false)] {
            net.set_middle(middle);
            // What fitted before is what the new size is learned from.
            bench.fate(fitted).expect("as far as known");
            bench.wait_told(1480, largest);
            let len = usize::try_from(largest).expect("small");
            fitted = len;
            assert_eq!(bench.fate(len + 1), Err(largest), "middle {middle}");
            wait::until("DF as it should be", SOON, || {
                let datagram = bench.fate(len).expect("it fits");
                if datagram.dont_fragment == df {
                    Ok(())
                } else {
                    Err(datagram.dont_fragment)
                }
            });
            let small = bench.fate(100).expect("it fits");
            assert_eq!(
                (small.dont_fragment, small.pieces.len()),
                (df, 1),
                "middle {middle}"
            );
        }
        assert_eq!((bench.known("router"), bench.known("link")), (1, 0));
        let explained = daemons[0].ctl(&format!(
            "explain --src6 {} --dst6 {}",
            link_local(A),
            link_local(B)
        ));
        let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert!(
            explained.contains("the path to 10.2.0.1 takes IPv4 packets of 600 bytes"),
            "{explained}"
        );
        let status = daemons[0].ctl("status --json");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains("\"said_by\": \"router\""), "{status}");
        daemons.iter().for_each(Daemon::conservation);
    }
}

/// M5: one peer's path is explored, another's is not.
#[test]
fn m5_static_and_dynamic_side_by_side() {
    let net = Narrow::new();
    let [a, b] = net.start(|builder| builder.workers(1).config("Mtu 1480\nPathMtu dynamic 10.2.0.0/16"));
    assert!(
        Bench::new(&a).fate(1480).expect("it fits").dont_fragment,
        "to 10.2.0.1"
    );
    let back = Sniffer::start(&net.b, UNDERLAY);
    let injector = Injector::tun(&net.b, TUNNEL);
    injector.send(&Inner::new(link_local(B), link_local(A)).udp(1, 9, b"back"));
    let seen = back.wait_for("a packet back", SOON, |c| c.outgoing && c.outer().is_some());
    assert!(
        !seen.outer().expect("protocol 41").header.dont_fragment(),
        "to 10.1.0.1: M3"
    );
    [a, b].iter().for_each(Daemon::conservation);
}

macro_rules! bulk {
    ($($name:ident: $mtu:literal, $mode:literal, $lane:ident;)+) => {
        $(
            /// M3, M4, M10; FAULTS 24, 28: no black hole, whatever the middle and the first link take.
            #[test]
            fn $name() { bulk($mtu, $mode, Lane::$lane); }
        )+
    };
}

bulk! {
    bulk_static_1280: 1280, "static", Uring;
    bulk_static_1480: 1480, "static", Uring;
    bulk_dynamic_1280: 1280, "dynamic", Uring;
    bulk_dynamic_1480: 1480, "dynamic", Uring;
    bulk_dynamic_1480_syscall: 1480, "dynamic", Syscall;
    bulk_static_9000: 9000, "static", Uring;
    bulk_static_1480_syscall: 1480, "static", Syscall;
    bulk_dynamic_1280_ebpf: 1280, "dynamic", Ebpf;
    bulk_dynamic_1480_ebpf: 1480, "dynamic", Ebpf;
    bulk_static_1480_ebpf: 1480, "static", Ebpf;
    bulk_static_9000_ebpf: 9000, "static", Ebpf;
}

fn bulk(mtu: u16, mode: &str, lane: Lane) {
    let net = Narrow::new();
    let config = format!("Mtu {mtu}\nPathMtu {mode}");
    let daemons = net.start(|builder| builder.lane(lane).config(&config));
    daemons.iter().for_each(|daemon| daemon.wait_lane(lane));
    // Packets that came before the prefix was known have been refused, and rightly so.
    let before = daemons.each_ref().map(|daemon| daemon.settled(Direction::Encap));
    for middle in [1500, 1300, 600] {
        net.set_middle(middle);
        both_ways(&net, &format!("middle {middle}"));
    }
    net.set_middle(1500);
    for first in [1300, 600] {
        for ns in [&net.a, &net.b] {
            ns.ip(&format!("link set {UNDERLAY} mtu {first}"));
        }
        // The far ends keep 1500: what comes in is not limited by what goes out.
        both_ways(&net, &format!("own link {first}"));
    }
    daemons.iter().for_each(Daemon::conservation);
    for (daemon, before) in daemons.iter().zip(&before) {
        let drops = daemon.counters(Direction::Encap).since(before).drops;
        let allowed = ["dst_multicast", "too_big", "send_error"];
        assert!(
            drops.keys().all(|reason| allowed.contains(&reason.as_str())),
            "{drops:?}"
        );
    }
}

fn both_ways(net: &Narrow, what: &str) {
    for (from, to, dst) in [(&net.a, &net.b, on_link(B)), (&net.b, &net.a, on_link(A))] {
        let dst = SocketAddrV6::new(dst, PORT, 0, 0);
        let report = tcp_transfer(from, to, dst, BYTES, SOON * 4).unwrap_or_else(|e| panic!("{what}: {e}"));
        eprintln!("{what}: {report}");
    }
}

/// A host beside `a` that forges ICMPv4 errors, in the name of the router.
fn forger(net: &Narrow) -> Injector {
    Injector::ethernet(&net.routers[0], "left", mac(&net.a, UNDERLAY))
}

fn frag_needed(mtu: u16, from: Ipv4Addr, quote: &[u8]) -> Vec<u8> {
    let mut error = Icmp4Error::new(UNREACHABLE, FRAG_NEEDED);
    error.value = u32::from(mtu);
    error.about(from, quote)
}

/// FAULTS 25, N8, M6: forged "fragmentation needed" of any size changes nothing, neither here nor in the kernel; each is
/// counted by what is wrong with it.
#[test]
fn forged_errors_are_not_believed() {
    for (mode, counted) in [("static", "static"), ("dynamic", "unmarked")] {
        let net = Narrow::new();
        let config = format!("Mtu 1480\nPathMtu {mode}");
        let daemons = net.start(|builder| builder.config(&config));
        let bench = Bench::new(&daemons[0]);
        let forger = forger(&net);
        let mut guess = Outer::new(A, B);
        guess.dont_fragment = true;
        let mut fragmentable = Outer::new(A, B);
        fragmentable.id = 0x7777;
        let mut not_ours = guess.clone();
        not_ours.src = Ipv4Addr::new(10, 1, 0, 77);
        let mut sent = 0;
        for mtu in [0, 68, 552, 1299, 1500] {
            for id in [0, 1, 0x4142, 0xffff] {
                guess.id = id;
                forger.send(&frag_needed(mtu, R1, &guess.wrap(&packet(1480))));
                sent += 1;
            }
            forger.send(&frag_needed(
                mtu,
                Ipv4Addr::new(192, 0, 2, 1),
                &fragmentable.wrap(&packet(1480)),
            ));
            forger.send(&frag_needed(mtu, R1, &not_ours.wrap(&packet(1480))));
        }
        wait::until("every forged error to be counted", SOON, || {
            let seen = bench.messages(counted);
            if seen >= sent { Ok(()) } else { Err(seen) }
        });
        assert_eq!(
            (bench.known("router"), bench.messages("router")),
            (0, 0),
            "{mode}"
        );
        assert!(no_exception(&net.a), "{mode}: the kernel believed it");
        let largest = bench.fate(1480).expect("nothing was learned");
        assert_eq!(
            (largest.dont_fragment, largest.pieces.len()),
            (mode == "dynamic", 1)
        );
        both_ways(&net, mode);
        daemons.iter().for_each(Daemon::conservation);
    }
}

/// Whether the kernel's own path MTU towards b is the link's.
fn no_exception(ns: &Netns) -> bool {
    !ns.ip(&format!("route get {B}")).contains("mtu")
}

/// FAULTS 25, M4: whoever sees our packets can quote them; he still gets nothing below 1280 inside, for this peer alone, and
/// packets that he says do not fit go without DF.
#[test]
fn a_true_quote_is_believed_within_limits() {
    let net = Narrow::new();
    let daemons = net.start(|builder| builder.workers(1).config("Mtu 1480\nPathMtu dynamic"));
    let bench = Bench::new(&daemons[0]);
    let forger = forger(&net);
    let seen = bench.fate(1480).expect("nothing is known");
    let mut quote = Outer::new(A, B);
    (quote.dont_fragment, quote.id) = (true, seen.id);
    forger.send(&frag_needed(68, R1, &quote.wrap(&packet(1480))));
    bench.wait_told(1480, 1280);
    assert_eq!(bench.fate(1281), Err(1280));
    let still = bench.fate(1280).expect("never less");
    assert_eq!((still.dont_fragment, still.pieces.len()), (false, 1));
    both_ways(&net, "believed 68");
    daemons.iter().for_each(Daemon::conservation);
}
