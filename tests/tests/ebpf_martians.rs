//! Who sends from an address of this machine: the kernel's IPv4 drops such packets before a worker reads them (RFC 1812 5.3.7), and so
//! the programs of the `ebpf` lane leave them to it.
//!
//! ```text
//!   dut 10.0.0.1, and at its loopback device 10.0.9.1 ------ x 10.0.0.9 (crafted)
//! ```

use std::net::Ipv4Addr;

use isatap_engine::ebpf::Cause;
use isatap_tests::daemon::{Daemon, Lane};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::{Inner, Outer};
use isatap_tests::scene::{DUT, Opposite, SOON, on_link};
use isatap_tests::wait;

/// An address of the machine that carries no tunnel.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 1);

fn left(daemon: &Daemon<'_>) -> u64 {
    let labels = [("direction", "decap"), ("cause", Cause::Martian.name())];
    daemon.metrics().sum("isatapd_left_packets_total", &labels)
}

fn carried(daemon: &Daemon<'_>) -> u64 {
    let labels = [("direction", "decap"), ("worker", "kernel")];
    daemon.metrics().sum("isatapd_packets_total", &labels)
}

/// Wherever the address is, and as long as the machine has it.
#[test]
fn nobody_sends_from_an_address_of_ours() {
    let scene = Opposite::new();
    let address = |verb: &str| _ = scene.dut.ip(&format!("addr {verb} {OTHER}/32 dev lo"));
    address("add");
    let daemon = scene.router(|builder| builder.lane(Lane::Ebpf).workers(1));
    daemon.wait_programs();
    let crafter = scene.crafter();
    let inner = Inner::new(on_link(OTHER), on_link(DUT)).udp(1, 9, b"from yourself");
    let send = || crafter.send(&Outer::new(OTHER, DUT).wrap(&inner));

    let (before, carried_before) = (daemon.counters(Direction::Decap), carried(&daemon));
    (0..3).for_each(|_| send());
    wait::holds("three to be left", SOON, || left(&daemon) == 3);
    assert_eq!(carried(&daemon), carried_before);
    let since = daemon.counters(Direction::Decap).since(&before);
    assert_eq!(since.received, 0, "the kernel drops them: {since}");

    address("del");
    wait::holds("somebody else to have it", SOON, || {
        send();
        carried(&daemon) > carried_before
    });
    address("add");
    let left_before = left(&daemon);
    wait::holds("it to be ours again", SOON, || {
        send();
        left(&daemon) > left_before
    });
    daemon.conservation();
}
