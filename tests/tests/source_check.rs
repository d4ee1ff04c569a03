//! Whose packets reach the TUN interface: the matrix of RFC 5214 7.3 (D1, A2; FAULTS 1, 2, 3, 6).
//!
//! ```text
//!   dut 10.0.0.2 ---+--- prl 10.0.0.1      a member of the PRL (crafted)
//!                   +--- x   10.0.0.9      anybody else (crafted)
//! ```
//!
//! Each cell of {link-local, on-link, off-link} x {embedded address matches, does not} x {in PRL, not} x {u bit}
//! is sent several times; a sniffer on `is0` and the counters must agree with the table, exactly.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, isatap, link_local};
use isatap_tests::raw::{Crafter, Sniffer};
use isatap_tests::scene::{PREFIX, SOON, on_link, set_address};
use isatap_tests::topology::{Site, UNDERLAY, mac};
use isatap_tests::wait;

const DUT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PRL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const SOMEBODY_ELSE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
/// How often each cell is sent.
const TIMES: u64 = 4;
const PORT: u16 = 4000;

/// One packet of the table: from whom, with which inner source, and what becomes of it.
struct Cell {
    in_prl: bool,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    dropped_for: Option<&'static str>,
    what: String,
}

fn table() -> Vec<Cell> {
    let mut cells = Vec::new();
    for in_prl in [false, true] {
        let sender = if in_prl { PRL } else { OTHER };
        for (kind, prefix) in [
            ("link-local", "fe80::"),
            ("on-link", PREFIX),
            ("off-link", "2001:db8:77::"),
        ] {
            let dst = if prefix == "fe80::" {
                link_local(DUT)
            } else {
                on_link(DUT)
            };
            for embedded in [sender, SOMEBODY_ELSE] {
                for universal in [false, true] {
                    let dropped_for = match (in_prl, embedded == sender, kind) {
                        (true, _, _) | (false, true, "link-local" | "on-link") => None,
                        (false, true, _) => Some("src_prefix"),
                        (false, false, _) => Some("src_mismatch"),
                    };
                    let what = format!("{kind}, embeds {embedded}, u={universal}, in PRL: {in_prl}");
                    let src = isatap(prefix, universal, embedded);
                    cells.push(Cell {
                        in_prl,
                        src,
                        dst,
                        dropped_for,
                        what,
                    });
                }
            }
        }
        let sources = [
            ("2001:db8:5::1", if in_prl { None } else { Some("src_mismatch") }),
            // On-link, but no ISATAP address.
            (
                "2001:db8:1::1234",
                if in_prl { None } else { Some("src_mismatch") },
            ),
            // ISATAP's format with another group bit is no ISATAP address.
            (
                "2001:db8:1:0:100:5efe:a00:9",
                if in_prl { None } else { Some("src_mismatch") },
            ),
            ("::1", Some("src_forbidden")),
            ("ff02::1", Some("src_forbidden")),
            ("::ffff:10.0.0.9", Some("src_forbidden")),
            ("::10.0.0.9", Some("src_forbidden")),
            ("2001:db8:1::5efe:a00:2", Some("src_forbidden")),
        ];
        for (src, dropped_for) in sources {
            let src = src.parse().expect("an address");
            let what = format!("source {src}, in PRL: {in_prl}");
            cells.push(Cell {
                in_prl,
                src,
                dst: on_link(DUT),
                dropped_for,
                what,
            });
        }
    }
    cells
}

/// Source ports of a cell's packets.
fn ports(cell: usize) -> std::ops::Range<u16> {
    let times = u16::try_from(TIMES).expect("a few times");
    let first = 5000 + times * u16::try_from(cell).expect("few cells");
    first..first + times
}

/// An off-link source under the prefix of another site.
fn off_link(embedded: Ipv4Addr) -> Ipv6Addr {
    isatap("2001:db8:77::", false, embedded)
}

/// Waits until `sender` reaches the interface's own address with this source. The daemon hears of the prefix and of the
/// address one after the other; without the first the source is off-link, without the second packets from elsewhere seem to
/// go round (L1).
fn wait_admitted(daemon: &Daemon<'_>, sender: &Crafter, src: Ipv6Addr, sniffer: &Sniffer) {
    let probe = Inner::new(src, on_link(DUT)).udp(1, PORT, b"probe");
    let (before, mut sent) = (daemon.counters(Direction::Decap), 0);
    wait::holds("the prefix and the address to be known", SOON, || {
        sender.send_inner(&probe);
        sent += 1;
        sniffer.count(|c| c.packet == probe) > 0
    });
    // None of them is still on its way when others are counted.
    daemon.wait_received(Direction::Decap, &before, sent);
}

fn check(start: impl Fn(&Netns) -> Daemon<'_>) {
    let site = Site::new();
    let (dut, prl, other) = (site.member("dut", 2), site.member("prl", 1), site.member("x", 9));
    let daemon = start(&dut);
    set_address(&dut, DUT);
    let to = mac(&dut, UNDERLAY);
    let prl = Crafter::new(&prl, UNDERLAY, PRL, to, DUT);
    let other = Crafter::new(&other, UNDERLAY, OTHER, to, DUT);
    let sniffer = Sniffer::start(&dut, TUNNEL);
    wait_admitted(&daemon, &other, on_link(OTHER), &sniffer);
    wait_admitted(&daemon, &prl, off_link(PRL), &sniffer);

    let outside = Sniffer::start(&dut, UNDERLAY);
    let cells = table();
    let mut expected_drops = BTreeMap::new();
    let mut sent = 0;
    daemon.conservation();
    let before = daemon.counters(Direction::Decap);
    for (index, cell) in cells.iter().enumerate() {
        let sender = if cell.in_prl { &prl } else { &other };
        // Each packet is a flow of its own, so that none are merged on their way.
        for port in ports(index) {
            sender.send_inner(&Inner::new(cell.src, cell.dst).udp(port, PORT, cell.what.as_bytes()));
        }
        sent += TIMES;
        if let Some(reason) = cell.dropped_for {
            *expected_drops.entry(reason.to_owned()).or_default() += TIMES;
        }
    }
    let since = daemon.wait_received(Direction::Decap, &before, sent);

    for (index, cell) in cells.iter().enumerate() {
        let want = if cell.dropped_for.is_none() { TIMES } else { 0 };
        let is_this = |c: &isatap_tests::raw::Captured| {
            !c.outgoing
                && c.inner()
                    .and_then(|i| i.udp())
                    .is_some_and(|(src, dst, _)| dst == PORT && ports(index).contains(&src))
        };
        let want = usize::try_from(want).expect("small");
        sniffer.wait_count(&cell.what, want, SOON, is_this);
        assert_eq!(sniffer.count(is_this), want, "{} on {TUNNEL}", cell.what);
    }
    assert_eq!(since.drops, expected_drops);
    assert_eq!(since.received, sent);
    // D3: nothing tells a sender that its packet was refused.
    let icmp = outside.count(|c| c.outgoing && c.packet.get(9) == Some(&1));
    assert_eq!(icmp, 0, "ICMPv4 messages sent");
    daemon.conservation();
}

/// D1, D3: who may send what, and that nobody is told.
#[test]
fn matrix_on_a_host_uring() {
    check(|ns| Daemon::host(ns, DUT, &[PRL]).lane(Lane::Uring).start());
}

#[test]
fn matrix_on_a_host_syscall() {
    check(|ns| Daemon::host(ns, DUT, &[PRL]).lane(Lane::Syscall).start());
}

#[test]
fn matrix_on_a_host_ebpf() {
    check(|ns| Daemon::host(ns, DUT, &[PRL]).lane(Lane::Ebpf).start());
}

#[test]
fn matrix_on_a_router_with_a_peer_router() {
    check(|ns| {
        Daemon::router(ns, DUT)
            .config(&format!("PeerRouter {PRL}"))
            .start()
    });
}

#[test]
fn strict_ingress_off_admits_off_link_isatap_sources_only() {
    let site = Site::new();
    let (dut, other) = (site.member("dut", 2), site.member("x", 9));
    let daemon = Daemon::router(&dut, DUT).config("StrictIngress no").start();
    set_address(&dut, DUT);
    let other = Crafter::new(&other, UNDERLAY, OTHER, mac(&dut, UNDERLAY), DUT);
    let sniffer = Sniffer::start(&dut, TUNNEL);
    wait_admitted(&daemon, &other, off_link(OTHER), &sniffer);
    daemon.conservation();
    let before = daemon.counters(Direction::Decap);
    let admitted = Inner::new(off_link(OTHER), on_link(DUT)).udp(1, PORT, b"off-link");
    let refused = Inner::new(off_link(SOMEBODY_ELSE), on_link(DUT)).udp(2, PORT, b"mismatch");
    other.send_inner(&admitted);
    other.send_inner(&refused);
    let since = daemon.wait_received(Direction::Decap, &before, 2);
    assert_eq!(since.drops, BTreeMap::from([("src_mismatch".to_owned(), 1)]));
    sniffer.wait_for("the admitted packet", SOON, |c| c.packet == admitted);
}

#[test]
fn packets_from_outside_the_site_are_not_admitted() {
    // FAULTS 15: 198.51.100.9 is neither private nor connected.
    let site = Site::new();
    let (dut, other) = (site.member("dut", 2), site.member("x", 9));
    let outside = Ipv4Addr::new(198, 51, 100, 9);
    let daemon = Daemon::router(&dut, DUT).start();
    set_address(&dut, DUT);
    let other = Crafter::new(&other, UNDERLAY, outside, mac(&dut, UNDERLAY), DUT);
    let before = daemon.counters(Direction::Decap);
    for _ in 0..TIMES {
        other.send_inner(&Inner::new(link_local(outside), link_local(DUT)).udp(1, PORT, b"from outside"));
    }
    let since = daemon.wait_received(Direction::Decap, &before, TIMES);
    assert_eq!(since.drops, BTreeMap::from([("not_site".to_owned(), TIMES)]));
    assert_eq!(since.delivered, 0);
}
