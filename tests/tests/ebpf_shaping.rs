//! Traffic control of others beside the `ebpf` lane: filters see what they would see without it, and a limit at the ISATAP interface
//! holds.
//!
//! ```text
//!   dut 10.0.0.1 [ is0, eth0 ] ------ x 10.0.0.9 (crafted)
//! ```

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::netns::Netns;
use isatap_tests::packet::Inner;
use isatap_tests::raw::Crafter;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

/// Where a filter sends a copy of what it sees.
const WITNESS: &str = "witness";

fn carries(daemon: &Daemon<'_>, direction: &str) -> bool {
    daemon
        .metrics()
        .sum("isatapd_kernel_carries", &[("direction", direction)])
        == 1
}

fn carried(daemon: &Daemon<'_>) -> u64 {
    let labels = [("direction", "decap"), ("worker", "kernel")];
    daemon.metrics().sum("isatapd_packets_total", &labels)
}

fn send(crafter: &Crafter) {
    crafter.send_inner(&Inner::new(on_link(X), on_link(DUT)).udp(1, 9, b"who sees me?"));
}

/// What the filter has seen of protocol 41.
fn witnessed(ns: &Netns) -> u64 {
    let shown = ns.ip(&format!("-j -s link show {WITNESS}"));
    let links: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    links[0]["stats64"]["tx"]["packets"].as_u64().expect("a number")
}

/// Whether they were there before the lane or have come since, and when they have gone.
#[test]
fn filters_of_others_see_what_comes_in() {
    let scene = Opposite::new();
    let ns = &scene.dut;
    ns.ip(&format!("link add {WITNESS} type veth peer name far-{WITNESS}"));
    for device in [WITNESS.to_owned(), format!("far-{WITNESS}")] {
        ns.ip(&format!("link set {device} up"));
    }
    let daemon = scene.router(|builder| builder.args("--lane auto").workers(1));
    daemon.wait_programs();
    let crafter = scene.crafter();
    wait::holds("the kernel to carry", SOON, || {
        send(&crafter);
        carried(&daemon) > 0
    });

    ns.run(&format!("tc qdisc add dev {UNDERLAY} clsact"));
    ns.run(&format!(
        "tc filter add dev {UNDERLAY} ingress prio 1 protocol ip u32 match ip protocol 41 0xff \
         action mirred egress mirror dev {WITNESS} continue"
    ));
    daemon.wait_log("goes behind the filters there");
    let (seen, before) = (witnessed(ns), carried(&daemon));
    wait::holds("both to see packets", SOON, || {
        send(&crafter);
        witnessed(ns) > seen && carried(&daemon) > before
    });
    assert!(
        carries(&daemon, "decap") && carries(&daemon, "encap"),
        "{}",
        daemon.log()
    );

    ns.run(&format!("tc filter del dev {UNDERLAY} ingress prio 1"));
    let before = carried(&daemon);
    wait::holds("the kernel to carry as before", SOON, || {
        send(&crafter);
        carried(&daemon) > before
    });
    daemon.conservation();
}

/// As with other things that would not see packets: `Lane auto` gives way, `Lane ebpf` was told not to. What comes in is none of its
/// business.
#[test]
fn what_goes_out_is_shaped() {
    let scene = Opposite::new();
    let ns = &scene.dut;
    for (lane, gives_way) in [("auto", true), ("ebpf", false)] {
        let daemon = scene.router(|builder| builder.args(&format!("--lane {lane}")).workers(1));
        daemon.wait_programs();
        for (add, remove) in [
            (
                format!("tc qdisc add dev {TUNNEL} root tbf rate 1gbit burst 64k limit 256k"),
                format!("tc qdisc del dev {TUNNEL} root"),
            ),
            (
                format!(
                    "tc qdisc add dev {TUNNEL} clsact; tc filter add dev {TUNNEL} egress prio 7 protocol ipv6 u32 match u32 0 0 flowid 1:1"
                ),
                format!("tc filter del dev {TUNNEL} egress prio 7"),
            ),
        ] {
            add.split("; ").for_each(|command| _ = ns.run(command));
            if gives_way {
                wait::holds("what goes out to be left", SOON, || !carries(&daemon, "encap"));
                assert!(daemon.log().contains("traffic control at the ISATAP interface"));
            }
            assert!(carries(&daemon, "decap"), "{}", daemon.log());
            ns.run(&remove);
            wait::holds("all to be carried", SOON, || {
                carries(&daemon, "encap") && carries(&daemon, "decap")
            });
        }
        assert_eq!(
            daemon.log().contains("traffic control"),
            gives_way,
            "{}",
            daemon.log()
        );
        daemon.conservation();
    }
}
