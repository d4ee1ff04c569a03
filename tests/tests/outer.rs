//! Which IPv4 source packets have (E4).
//!
//! ```text
//!   dut 10.0.0.1, 10.0.0.77 ------ x 10.0.0.9 (swallows everything)
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::raw::{Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const PORT: u16 = 4000;

#[test]
fn the_source_is_the_address_that_was_configured() {
    // E4: not the first one of the machine, nor the one the route prefers.
    let scene = Opposite::new();
    scene.dut.ip(&format!("addr add {SECOND}/24 dev {UNDERLAY}"));
    let daemon = Daemon::router(&scene.dut, SECOND).start();
    let _sink = scene.crafter();
    let wire = Sniffer::start(&scene.dut, UNDERLAY);
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let packet = Inner::new(link_local(SECOND), link_local(X)).udp(1, PORT, b"from the second");
    wait::holds("a packet on the wire", SOON, || {
        injector.send(&packet);
        wire.count(|c| c.outgoing && c.outer().is_some()) > 0
    });
    let from = |addr| wire.count(|c| c.outgoing && c.outer().is_some_and(|outer| outer.src() == addr));
    assert!(from(SECOND) > 0);
    assert_eq!(from(DUT), 0);
    daemon.conservation();
}
