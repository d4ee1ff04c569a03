//! Which IPv4 source packets have, and that we never fragment them (E4, M10).
//!
//! ```text
//!   dut 10.0.0.1, 10.0.0.77 ------ x 10.0.0.9 (swallows everything)
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::{Daemon, Lane, TUNNEL};
use isatap_tests::metrics::Direction;
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

#[test]
fn what_does_not_fit_the_link_is_counted_and_never_fragmented() {
    // M10, FAULTS 28: a raw socket refuses what is larger than the link; each refusal is counted by its errno.
    const EMSGSIZE: &str = "90";
    for lane in Lane::ALL {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| builder.lane(lane));
        let _sink = scene.crafter();
        let (wire, injector) = (
            Sniffer::start(&scene.dut, UNDERLAY),
            Injector::tun(&scene.dut, TUNNEL),
        );
        let small = Inner::new(link_local(DUT), link_local(X)).udp(1, PORT, b"fits");
        wait::holds("a packet on the wire", SOON, || {
            injector.send(&small);
            wire.count(|c| c.outgoing && c.outer().is_some()) > 0
        });
        scene.dut.ip(&format!("link set {UNDERLAY} mtu 1290"));
        daemon.conservation();
        wire.clear();
        let before = daemon.counters(Direction::Encap);
        injector.send(&Inner::new(link_local(DUT), link_local(X)).udp(1, PORT, &[7; 1232]));
        let since = daemon.wait_received(Direction::Encap, &before, 1);
        daemon.conservation();
        assert_eq!(since.drops.get("send_error"), Some(&1), "{since}");
        assert_eq!(
            wire.count(|c| c.outgoing && c.outer().is_some()),
            0,
            "nothing leaves, no fragment either"
        );
        let labels = [("operation", "raw_send"), ("errno", EMSGSIZE)];
        assert!(daemon.metrics().sum("isatapd_io_errors_total", &labels) > 0);
    }
}
