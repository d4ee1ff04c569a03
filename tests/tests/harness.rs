//! The harness itself, without a daemon: what it sends is seen, counted once, and its checks can fail.
//!
//! ```text
//!   a --- eth0 ==== eth0 --- b      10.0.0.0/24, or fd00::/64
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use isatap_tests::flows::{FlowBook, UdpFlows, write_flow_header};
use isatap_tests::netns::Netns;
use isatap_tests::packet::{Inner, Outer, link_local};
use isatap_tests::ping::ping;
use isatap_tests::raw::{Crafter, Injector, Sniffer};
use isatap_tests::topology::{Gro, Site, UNDERLAY, connect, connect_v6, mac, set_gro};
use isatap_tests::traffic::tcp_transfer;

const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SOON: Duration = Duration::from_secs(5);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// Two namespaces with IPv6 between them.
fn v6_pair() -> (Netns, Netns) {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect_v6(&a, "eth0", "fd00::1/64", &b, "eth0", "fd00::2/64");
    (a, b)
}

#[test]
fn crafted_packets_arrive_as_crafted() {
    let site = Site::new();
    let (a, b) = (site.member("a", 1), site.member("b", 2));
    let crafter = Crafter::new(&a, UNDERLAY, A4, mac(&b, UNDERLAY), B4);
    let (near, far) = (Sniffer::start(&a, UNDERLAY), Sniffer::start(&b, UNDERLAY));
    let inner = Inner::new(link_local(A4), link_local(B4)).udp(5, 6, b"crafted");
    let mut outer: Outer = crafter.outer();
    outer.tos = 3;
    outer.src = Ipv4Addr::new(203, 0, 113, 9);
    let sent = outer.wrap(&inner);
    crafter.send(&sent);
    let seen = far.wait_for("crafted packet", SOON, |c| c.outer().is_some());
    assert_eq!((seen.packet, seen.outgoing), (sent.clone(), false));
    let seen = near.wait_for("crafted packet", SOON, |c| c.outer().is_some());
    assert_eq!((seen.packet, seen.outgoing), (sent, true));
}

#[test]
fn packets_injected_out_of_a_device_are_not_changed() {
    let (a, b) = v6_pair();
    let sniffer = Sniffer::start(&b, "eth0");
    let injector = Injector::tun(&a, "eth0");
    // Kernels answer for fe80::1, which the packets are routed by, only if somebody has it.
    b.ip("addr add fe80::1/64 dev eth0 nodad");
    let mut inner = Inner::new(v6("2001:db8::7"), v6("2001:db8::8"));
    inner.payload_len = Some(0);
    let odd = inner.wrap(17, b"payload length 0 and foreign addresses");
    // The kernel adds the route of an address a moment after the address.
    isatap_tests::wait::until("a route", SOON, || injector.try_send(&odd));
    sniffer.wait_for("the packet as injected", SOON, |c| c.packet == odd);
}

#[test]
fn udp_flows_arrive_once_and_in_order_on_a_plain_link() {
    let (a, b) = v6_pair();
    let sniffer = Sniffer::start(&b, "eth0");
    for batch in [1, 8] {
        sniffer.clear();
        let plan = UdpFlows {
            flows: 20,
            packets: 48,
            sizes: &[200],
            batch,
        };
        let book = plan.run(&a, v6("fd00::1"), &b, v6("fd00::2"), 0);
        book.assert_exactly_once_in_order("receiver", plan.flows, plan.packets);
        assert_eq!(book.total(), 20 * 48);
        sniffer.wait_for("datagram", SOON, |c| c.inner().is_some_and(|i| i.udp().is_some()));
    }
}

#[test]
#[should_panic(expected = "flow 0: 1 missing, 1 repeated, 2 reordered")]
fn loss_repetition_and_reordering_are_found() {
    let mut book = FlowBook::default();
    for sequence in [0, 2, 1, 1, 4] {
        let mut data = [0; 20];
        write_flow_header(&mut data, 0, sequence);
        assert!(book.observe(&data));
    }
    assert!(!book.observe(b"something else of a decent length"));
    book.assert_exactly_once_in_order("here", 1, 5);
}

#[test]
fn tcp_content_is_compared_and_ping_is_counted() {
    let (a, b) = v6_pair();
    let to = SocketAddrV6::new(v6("fd00::2"), 5001, 0, 0);
    let report = tcp_transfer(&a, &b, to, 40_000_000, SOON).expect("a transfer over a bare link");
    assert_eq!(report.bytes, 40_000_000);
    ping(&a, "fd00::2", 5);
    b.ip("link set eth0 down");
    assert!(isatap_tests::ping::is_silent(&a, "fd00::2"));
}

#[test]
fn outer_packets_are_merged_only_with_gro_on() {
    // IPv6 in protocol 41 by the kernel's own GRO; DESIGN D3. No daemon: a raw sender and a sniffer.
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect(&a, "eth0", &b, "eth0");
    a.ip(&format!("addr add {A4}/24 dev eth0"));
    b.ip(&format!("addr add {B4}/24 dev eth0"));
    for (gro, expect_merged) in [(Gro::Off, false), (Gro::On, true)] {
        set_gro(&a, "eth0", &b, "eth0", gro);
        let crafter = Crafter::new(&a, "eth0", A4, mac(&b, "eth0"), B4);
        let sniffer = Sniffer::start(&b, "eth0");
        let inner = Inner::new(link_local(A4), link_local(B4));
        let data = [7; 1000];
        let mut id = 0;
        let mut burst = || {
            for i in 0..32_u32 {
                let mut outer = crafter.outer();
                id += 1;
                outer.id = id;
                crafter.send(&outer.wrap(&inner.tcp(1, 2, 1 + i * 1000, 0x10, &data)));
            }
        };
        if expect_merged {
            isatap_tests::wait::holds("merged packets", SOON, || {
                burst();
                sniffer.count(|c| c.packet.len() > 1500) > 0
            });
        } else {
            burst();
            sniffer.wait_count("single packets", 32, SOON, |c| c.outer().is_some());
            assert_eq!(sniffer.count(|c| c.packet.len() > 1500), 0);
        }
    }
}
