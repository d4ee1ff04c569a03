//! What the kernel lost beside the workers, told as the kernel's own tools tell it (ECOSYSTEM U5).
//!
//! ```text
//!   dut 10.0.0.1 (router, 2001:db8:1::/64 on-link) ------ x 10.0.0.9
//! ```

use isatap_tests::daemon::{Lane, TUNNEL};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::metrics::Direction;
use isatap_tests::packet::Inner;
use isatap_tests::raw::Injector;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;

/// What the queue of the tunnel interface holds as the daemon makes it.
const QUEUE: usize = 10_000;

/// FAULTS 30: a burst of 10 000 finds room while the worker does not run; what comes after is lost, and counted here and by
/// `ip -s link` alike.
#[test]
fn a_burst_fits_the_tunnel_interface_and_what_does_not_is_told() {
    const EXCESS: usize = 300;
    let scene = Opposite::new();
    // Programs carry before the queue, for whoever does not run.
    let daemon = scene.router(|builder| builder.workers(1).lane(Lane::Uring));
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let _sink = scene.crafter();
    let lost = || KernelDrops::read(&scene.dut).at("is0 tx");
    let told = || {
        daemon
            .metrics()
            .sum("isatapd_kernel_drops_total", &[("queue", "tun_txq")])
    };
    assert_eq!(told(), lost());
    let (before, lost_before) = (daemon.counters(Direction::Encap), lost());
    daemon.freeze();
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, 4000, b"a burst");
    for _ in 0..QUEUE {
        injector.send(&packet);
    }
    // The kernel's own multicast may have taken some places.
    assert!(
        lost() <= lost_before + 50,
        "{} of a burst of {QUEUE}",
        lost() - lost_before
    );
    let mut more = 0;
    while lost() < lost_before + EXCESS as u64 {
        injector.send(&packet);
        more += 1;
        assert!(more < QUEUE, "nothing is lost");
    }
    daemon.thaw();
    let sent = (QUEUE + more) as u64 - (lost() - lost_before);
    let since = daemon.wait_received(Direction::Encap, &before, sent);
    assert!(since.delivered >= sent, "{since}");
    assert!(lost() >= lost_before + EXCESS as u64);
    assert_eq!(told(), lost());
    daemon.conservation();
}

fn the_queue_of_the_underlay_is_told(lane: Lane) {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1).lane(lane));
    daemon.wait_lane(lane);
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let _sink = scene.crafter();
    let lost = || KernelDrops::read(&scene.dut).at(&format!("{UNDERLAY} qdisc"));
    let told = || daemon.metrics().sum("isatapd_qdisc_drops_total", &[]);
    // A device without a queue has nothing to tell.
    assert_eq!((told(), lost()), (0, 0));
    scene.dut.run(&format!(
        "tc qdisc add dev {UNDERLAY} root tbf rate 100kbit burst 2kb limit 3kb"
    ));
    let before = daemon.counters(Direction::Encap);
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, 4000, &[0; 1000]);
    for _ in 0..50 {
        injector.send(&packet);
    }
    let since = daemon.wait_received(Direction::Encap, &before, 50);
    wait::until("the queue to be at rest, and told", SOON, || {
        let (told, lost) = (told(), lost());
        if lost > 0 && told == lost {
            Ok(())
        } else {
            Err(format!("{told} told of {lost}"))
        }
    });
    let ours = since.drops.get("send_error").copied().unwrap_or(0);
    // Of what programs give to the queue nobody hears but the kernel.
    let hears = lane != Lane::Ebpf;
    assert!((ours > 0) == hears && ours <= lost(), "{since}");
    let status = String::from_utf8_lossy(&daemon.ctl("status").stdout).into_owned();
    let line = format!("{} in the underlay's queues", lost());
    assert!(status.contains(&line), "{line} is not in\n{status}");
    // An address that goes takes nothing back.
    let before = told();
    scene.dut.ip(&format!("addr del {DUT}/24 dev {UNDERLAY}"));
    daemon.wait_log(&format!("this machine has lost {DUT}"));
    assert!(told() >= before, "{} told, and {before} before", told());
    daemon.conservation();
}

/// FAULTS 27: what the queue of the underlay refuses is told as `tc -s qdisc` tells it, beside our own count.
#[test]
fn the_queue_of_the_underlay_is_told_uring() {
    the_queue_of_the_underlay_is_told(Lane::Uring);
}

/// FAULTS 27: the same of packets that never were a worker's.
#[test]
fn the_queue_of_the_underlay_is_told_ebpf() {
    the_queue_of_the_underlay_is_told(Lane::Ebpf);
}

/// FAULTS 27: what a device refuses is told as `ip -s link` tells it. Of a packet that programs gave it no worker hears, and
/// no drop tells.
#[test]
fn what_a_device_of_the_underlay_refuses_is_told() {
    const PACKETS: u64 = 50;
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1).lane(Lane::Ebpf));
    daemon.wait_lane(Lane::Ebpf);
    let injector = Injector::tun(&scene.dut, TUNNEL);
    let _sink = scene.crafter();
    let lost = || KernelDrops::read(&scene.dut).at(&format!("{UNDERLAY} tx"));
    let told = || daemon.metrics().sum("isatapd_device_drops_total", &[]);
    let at_rest = |least| {
        wait::until("what the device refused to be told", SOON, || {
            let (told, lost) = (told(), lost());
            if lost >= least && told == lost {
                Ok(())
            } else {
                Err(format!("{told} told of {lost}"))
            }
        });
    };
    at_rest(0);
    let lost_before = lost();
    scene.site.narrow(0, 576);
    let before = daemon.counters(Direction::Encap);
    let packet = Inner::new(on_link(DUT), on_link(X)).udp(1, 4000, &[0; 1000]);
    for _ in 0..PACKETS {
        injector.send(&packet);
    }
    let since = daemon.wait_received(Direction::Encap, &before, PACKETS);
    assert_eq!(since.drops.get("send_error"), None, "{since}");
    at_rest(lost_before + PACKETS);
    let read = |command| String::from_utf8_lossy(&daemon.ctl(command).stdout).into_owned();
    for (command, line) in [
        ("status", format!("{} by the underlay's devices", lost())),
        (
            "doctor",
            format!("{} packet(s) of anybody by the devices", lost()),
        ),
    ] {
        let text = read(command);
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    daemon.conservation();
}
