//! IPsec below the tunnel: what a router and its host say to each other by IPv4 is in ESP, whatever they carry (RFC 4891, transport mode).
//!
//! ```text
//!   [ router 10.0.0.1 ]==== ESP ====[ host 10.0.0.2 ]     for all between them, or for protocol 41 alone
//! ```
//!
//! This machine's kernel need not have ESP, so that the test runs in the guest, whose kernel has it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isatap_tests::daemon::{Builder, Daemon, Lane, TUNNEL, program};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::older_kernel;
use isatap_tests::packet::PROTO_IPV6;
use isatap_tests::ping::ping_until;
use isatap_tests::raw::Sniffer;
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::connect;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ESP: u8 = 50;
/// Where the test is to run.
const HAS_ESP: &str = "ISATAPD_TEST_ESP";

/// What `ip xfrm` is told at one end; `selector` says what is protected.
fn protection(own: Ipv4Addr, peer: Ipv4Addr, selector: &str) -> Vec<String> {
    let ways = [(own, peer, "out"), (peer, own, "in")];
    let states = ways.map(|(src, dst, _)| {
        let [.., spi] = src.octets();
        let key = "0x0102030405060708090a0b0c0d0e0f1011121314";
        format!(
            "xfrm state add src {src} dst {dst} proto esp spi {spi} mode transport aead rfc4106(gcm(aes)) {key} 128"
        )
    });
    let policies = ways.map(|(src, dst, way)| {
        format!("xfrm policy add dir {way} src {src} dst {dst} {selector} tmpl proto esp mode transport")
    });
    [states, policies].concat()
}

/// Which IPv4 protocols a device has seen, and how often.
fn protocols(wire: &Sniffer) -> BTreeMap<u8, usize> {
    let mut seen = BTreeMap::new();
    for captured in wire.packets() {
        if let Some(protocol) = captured.packet.get(9).filter(|_| captured.packet[0] >> 4 == 4) {
            *seen.entry(*protocol).or_default() += 1;
        }
    }
    seen
}

fn protects(lane: Lane, selector: &str) {
    let (router, host) = (Netns::new("r"), Netns::new("h"));
    connect(&router, "eth0", &host, "eth0");
    for (ns, own, peer) in [(&router, ROUTER, HOST), (&host, HOST, ROUTER)] {
        ns.ip(&format!("addr add {own}/24 dev eth0"));
        for line in protection(own, peer, selector) {
            ns.ip(&line);
        }
    }
    let wire = Sniffer::start(&router, "eth0");
    let at_router = Builder::new(&router)
        .config(&format!(
            "Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\nBindAddress {ROUTER}"
        ))
        .lane(lane)
        .start();
    let at_host = Builder::new(&host)
        .config(&format!("ServerAddress {ROUTER}\nBindAddress {HOST}"))
        .lane(lane)
        .start();
    ping_until(&host, &on_link(ROUTER).to_string(), SOON * 6);
    // Larger than the tunnel's MTU, and than what ESP leaves of the link's.
    host.run(&format!(
        "ping -6 -n -c 3 -i 0.2 -s 4000 -I {TUNNEL} {}",
        on_link(ROUTER)
    ));
    // The guest's `sit` answers each packet for none of its tunnels, "port unreachable", and ICMP is not always protected.
    let seen = protocols(&wire);
    assert!(
        seen.contains_key(&ESP) && !seen.contains_key(&PROTO_IPV6),
        "{seen:?}"
    );
    // Without its half of the secret nobody is understood.
    let delivered = |daemon: &Daemon<'_>| daemon.counters(Direction::Decap).delivered;
    host.ip("xfrm state deleteall");
    let before = delivered(&at_router);
    host.try_run(&format!("ping -6 -n -c 1 -W 0.5 {}", on_link(ROUTER)));
    assert_eq!(delivered(&at_router), before);
    [at_router, at_host].iter().for_each(Daemon::conservation);
}

/// Of the kernel: since when it has the number by which a raw socket says what it sends.
fn knows_protocols() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(6), Some(4))
}

/// In the guest; elsewhere it does nothing.
#[test]
fn esp_hides_what_is_carried() {
    if std::env::var_os(HAS_ESP).is_none() {
        return;
    }
    protects(Lane::Syscall, "");
    if knows_protocols() {
        protects(Lane::Syscall, "proto 41");
    }
}

#[test]
fn esp_hides_what_is_carried_in_the_guest() {
    let environment = format!("{HAS_ESP}=yes");
    older_kernel::repeat(
        &["esp_hides_what_is_carried"],
        &environment,
        vec![program("isatapd")],
    );
}
