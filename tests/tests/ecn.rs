//! Congestion notification on the wire: by the peer's network, and what the log says of fields that make no sense
//! (C1-C6; RFC 6040).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ---+--- x   10.0.0.9
//!                                                     `--- old 10.0.0.17: its decapsulator forgets congestion
//! ```

use std::net::Ipv4Addr;

use isatap_tests::daemon::TUNNEL;
use isatap_tests::metrics::Direction;
use isatap_tests::packet::Inner;
use isatap_tests::raw::{Crafter, Injector, Sniffer};
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::{UNDERLAY, mac};
use isatap_tests::wait;

const OLD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 17);
const PORT: u16 = 4000;
/// Expedited forwarding.
const EF: u8 = 46 << 2;

/// C1, C2, C5, C6: the outer field by the network of the peer, whatever the DSCP's model.
#[test]
fn c2_compatibility_mode_for_one_network() {
    for (config, x_copies, old_copies, dscp) in [
        ("Ecn compat 10.0.0.16/28", true, false, 0),
        ("Ecn compat\nEcn normal 10.0.0.0/28", true, false, 0),
        ("Ecn compat 10.0.0.0/24\nEcn normal 10.0.0.16/28", false, true, 0),
        ("Ecn compat 10.0.0.16/28\nDscp inherit", true, false, EF),
        ("Ecn compat\nDscp 10", false, false, 10 << 2),
    ] {
        let scene = Opposite::new();
        let old = scene.site.member("old", OLD.octets()[3]);
        let daemon = scene.router(|builder| builder.workers(1).config(config));
        let to = mac(&scene.dut, UNDERLAY);
        let _sinks = (scene.crafter(), Crafter::new(&old, UNDERLAY, OLD, to, DUT));
        let injector = Injector::tun(&scene.dut, TUNNEL);
        let wire = Sniffer::start(&scene.dut, UNDERLAY);
        for (peer, copies) in [(X, x_copies), (OLD, old_copies)] {
            for ecn in 0..4u8 {
                let mut inner = Inner::new(on_link(DUT), on_link(peer));
                inner.traffic_class = EF | ecn;
                let packet = inner.udp(1, PORT, b"marked");
                injector.send(&packet);
                let seen = wire.wait_for("the packet", SOON, |c| {
                    c.outgoing && c.outer().is_some_and(|outer| outer.payload == packet)
                });
                let expected = dscp | if copies { ecn } else { 0 };
                let tos = seen.outer().expect("protocol 41").tos();
                assert_eq!(tos, expected, "{config:?}, {peer}, field {ecn}");
            }
        }
        daemon.conservation();
    }
}

/// C3, C4: each combination is counted as what it is; a flood of dangerous ones makes a few lines of log, or none when the
/// operator wants none.
#[test]
fn c4_dangerous_combinations_are_logged_within_limits() {
    for (level, told) in [("warn", true), ("error", false)] {
        let scene = Opposite::new();
        let daemon = scene.router(|builder| builder.workers(1).config(&format!("LogLevel {level}")));
        let crafter = scene.crafter();
        let events = || {
            daemon
                .metrics()
                .sum("isatapd_loop_events_total", &[("event", "ecn_dangerous")])
        };
        let send = |outer_ecn: u8, inner_ecn: u8| {
            let mut inner = Inner::new(on_link(X), on_link(DUT));
            inner.traffic_class = inner_ecn;
            let mut outer = crafter.outer();
            outer.tos = outer_ecn;
            crafter.send(&outer.wrap(&inner.udp(1, PORT, b"ecn")));
        };
        let (mut sent, mut dangerous) = (0, 0);
        let before = daemon.counters(Direction::Decap);
        for outer in 0..4 {
            for inner in 0..4 {
                send(outer, inner);
                sent += 1;
                // RFC 6040 figure 4: any mark around Not-ECT, and ECT(1) around CE.
                dangerous += u64::from(inner == 0 && outer != 0 || (outer, inner) == (1, 3));
                daemon.wait_received(Direction::Decap, &before, sent);
                assert_eq!(events(), dangerous, "outer {outer}, inner {inner}");
            }
        }
        for n in 1..=1000 {
            send(3, 0);
            if n % 200 == 0 {
                daemon.wait_received(Direction::Decap, &before, sent + n);
            }
        }
        wait::until("all of them to be counted", SOON, || match events() {
            count if count == dangerous + 1000 => Ok(()),
            count => Err(count),
        });
        if told {
            daemon.wait_log("a packet from 10.0.0.9 is marked");
        }
        let lines = daemon.log().matches("is marked").count();
        let seconds = usize::try_from(daemon.started().elapsed().as_secs()).expect("not long") + 2;
        assert!(
            lines <= if told { seconds } else { 0 },
            "{lines} lines in {seconds} s"
        );
        let drops = daemon.counters(Direction::Decap).since(&before).drops;
        assert_eq!(drops["ecn"], 1001);
        daemon.conservation();
    }
}
