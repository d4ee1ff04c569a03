//! The programs of the `ebpf` lane beside the bare link, in one run (DESIGN P4, P5): `cargo test -p isatap-tests --test ebpf_speed -- --ignored --nocapture`.
//!
//! ```text
//!   a 10.0.0.1, fd00::1  eth0 ======== eth0  b 10.0.0.2, fd00::2       is0 on both: 2001:db8:1::/64, programs at is0 and eth0
//! ```

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use isatap_tests::netns::Netns;
use isatap_tests::ping::ping_until;
use isatap_tests::programs::Node;
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::topology::connect_v6;
use isatap_tests::wait;
use serde_json::Value;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEVICE: &str = "eth0";
const MTU: u16 = 1480;
const ROUNDS: usize = 7;

/// A server that is stopped when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bits a second that arrive, by iperf3 with these arguments.
fn iperf(a: &Netns, dst: &str, args: &str) -> f64 {
    let run = a.run(&format!("timeout 20 iperf3 -J -c {dst} {args}"));
    let report: Value = serde_json::from_str(&run).expect("JSON");
    let end = &report["end"];
    let sent = end["sum"]["bits_per_second"].as_f64();
    let lost = end["sum"]["lost_percent"].as_f64().unwrap_or(0.0);
    let received = end["sum_received"]["bits_per_second"].as_f64();
    match sent {
        Some(sent) => sent * (1.0 - lost / 100.0),
        None => received.expect("a figure"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "run by whoever measures: it fills the machine for a minute"]
fn beside_the_bare_link() {
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    connect_v6(&a, DEVICE, "fd00::1/64", &b, DEVICE, "fd00::2/64");
    a.ip(&format!("addr add {A}/24 brd + dev {DEVICE}"));
    b.ip(&format!("addr add {B}/24 brd + dev {DEVICE}"));
    let node = |ns, v4| {
        let node = Node::new(ns, v4, DEVICE, MTU);
        node.publish(node.rules(DEVICE, MTU), DEVICE);
        node
    };
    let (a, b) = (node(a, A), node(b, B));
    let tunnel = on_link(B).to_string();
    ping_until(&a.ns, &tunnel, SOON);
    ping_until(&a.ns, "fd00::2", SOON);
    let mut command = Command::new("iperf3");
    let _server = Server(b.ns.spawn(command.arg("-s").stdout(Stdio::null())));
    wait::holds("a server", SOON * 2, || {
        a.ns.try_run("timeout 5 iperf3 -c fd00::2 -n 1").status.success()
    });
    for (name, args) in [("bulk TCP", "-t 2"), ("64-byte UDP", "-u -b 0 -l 64 -t 2")] {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (place, dst) in figures.iter_mut().zip(["fd00::2", &tunnel]) {
                place.push(iperf(&a.ns, dst, args));
            }
        }
        let [bare, programs] = figures.map(median);
        let gigabits = |bits: f64| bits / 1e9;
        println!(
            "{name}: bare {:.3} Gbit/s, programs {:.3} Gbit/s, ratio {:.3}",
            gigabits(bare),
            gigabits(programs),
            programs / bare
        );
    }
}
