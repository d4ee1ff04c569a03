//! What operators see of the `ebpf` lane: the kernel's packets beside the workers', what was left to those, and why not more
//! is carried (DESIGN D12).
//!
//! ```text
//!   dut 10.0.0.1 (router, Lane ebpf) ------ x 10.0.0.9 (crafted)
//! ```

use std::net::{Ipv4Addr, UdpSocket};

use isatap_engine::ebpf::Cause;
use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::metrics::{Direction, Metrics};
use isatap_tests::packet::Inner;
use isatap_tests::scene::{DUT, Opposite, SOON, X, on_link};
use isatap_tests::topology::UNDERLAY;
use isatap_tests::wait;
use serde_json::Value;

/// Packets of each kind.
const CARRIED: u64 = 20;
const FORGED: u64 = 3;
const EXTENDED: u64 = 5;
const SENT: u64 = 10;
/// An address that is not the crafter's.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
/// Types and headers that nobody answers.
const ECHO_REPLY: u8 = 129;
const DESTINATION_OPTIONS: u8 = 60;
const NO_NEXT_HEADER: [u8; 8] = [59, 0, 1, 4, 0, 0, 0, 0];

fn ctl(daemon: &Daemon<'_>, command: &str) -> String {
    let output = daemon.ctl(command);
    assert!(output.status.success(), "isatapctl {command}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn carries(metrics: &Metrics) -> u64 {
    metrics.sum("isatapd_kernel_carries", &[])
}

/// Of the kernel, in a direction.
fn kernel(metrics: &Metrics, name: &str, direction: &str) -> u64 {
    metrics.sum(name, &[("direction", direction), ("worker", "kernel")])
}

fn left(metrics: &Metrics, cause: Cause) -> u64 {
    let labels = [("direction", "decap"), ("cause", cause.name())];
    metrics.sum("isatapd_left_packets_total", &labels)
}

#[test]
fn the_kernels_share_is_shown() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1).config("Lane ebpf"));
    wait::holds("the kernel to carry both directions", SOON, || {
        carries(&daemon.metrics()) == 2
    });
    daemon.wait_log("ebpf lane, workers by uring, 1 worker(s), interface");
    let crafter = scene.crafter();
    let before = daemon.metrics();
    let decap_before = daemon.settled(Direction::Decap);
    let good = Inner::new(on_link(X), on_link(DUT));
    for sequence in 0..CARRIED {
        let body = [&sequence.to_be_bytes()[..], &[0; 92]].concat();
        crafter.send_inner(&good.icmpv6(ECHO_REPLY, 0, &body));
    }
    for _ in 0..FORGED {
        crafter.send_inner(&Inner::new(on_link(FOREIGN), on_link(DUT)).udp(1, 2, b""));
    }
    for _ in 0..EXTENDED {
        crafter.send_inner(&good.wrap(DESTINATION_OPTIONS, &NO_NEXT_HEADER));
    }
    let socket = scene.dut.enter(|| UdpSocket::bind("[::]:0")).expect("a socket");
    for _ in 0..SENT {
        socket.send_to(b"out", (on_link(X), 9)).expect("sent");
    }
    let decap = daemon.wait_received(Direction::Decap, &decap_before, CARRIED + FORGED + EXTENDED);
    assert_eq!(
        (decap.received, decap.delivered, decap.punted),
        (CARRIED + FORGED + EXTENDED, CARRIED + EXTENDED, 0),
        "{decap}"
    );
    assert_eq!(decap.drops.get("src_mismatch"), Some(&FORGED), "{decap}");
    daemon.conservation();

    let metrics = daemon.metrics();
    let since = |name, direction| kernel(&metrics, name, direction) - kernel(&before, name, direction);
    assert_eq!(since("isatapd_received_packets_total", "decap"), CARRIED + FORGED);
    assert_eq!(since("isatapd_packets_total", "decap"), CARRIED);
    assert_eq!(since("isatapd_bytes_total", "decap"), CARRIED * (40 + 4 + 100));
    assert_eq!(since("isatapd_packets_total", "encap"), SENT);
    assert_eq!(kernel(&metrics, "isatapd_punted_packets_total", "decap"), 0);
    let extended = left(&metrics, Cause::Extension) - left(&before, Cause::Extension);
    assert_eq!(extended, EXTENDED);
    for cause in Cause::ALL {
        let labels = [("direction", "encap"), ("cause", cause.name())];
        assert!(metrics.has("isatapd_left_packets_total", &labels), "{labels:?}");
    }
    assert!(metrics.has("isatapd_build_info", &[("lane", "ebpf")]));

    shown_to_people(&daemon, kernel(&metrics, "isatapd_packets_total", "decap"));
    explained(&daemon);
    told_when_held(&scene, &daemon);
}

fn shown_to_people(daemon: &Daemon<'_>, carried: u64) {
    let status: Value = serde_json::from_str(&ctl(daemon, "status --json")).expect("JSON");
    assert_eq!(
        (&status["lane"], &status["workers_lane"]),
        (&"ebpf".into(), &"uring".into())
    );
    let programs = &status["programs"];
    assert_eq!(programs["loaded"], true);
    assert_eq!(programs["obstacles"], Value::Array(Vec::new()));
    assert_eq!(programs["devices"][0], UNDERLAY);
    assert_eq!(programs["traffic"]["decap"]["packets"], carried);
    assert_eq!(programs["left"]["decap"]["extension"], EXTENDED);
    let of_worker = &status["workers"][0]["traffic"]["decap"]["packets"];
    let total = &status["total"]["decap"]["packets"];
    assert_eq!(
        total.as_u64(),
        of_worker.as_u64().map(|packets| packets + carried)
    );

    let text = ctl(daemon, "status");
    assert!(
        text.contains(&format!("programs   carry both directions, at {UNDERLAY}\n")),
        "{text}"
    );
    let text = ctl(daemon, "workers");
    let row = text.lines().find(|line| line.starts_with("kernel"));
    let cells: Vec<_> = row.expect("the kernel's row").split_whitespace().collect();
    assert_eq!(cells[2], carried.to_string(), "{text}");
    for part in ["the kernel carried ", "The inner packet has extension headers."] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

fn explained(daemon: &Daemon<'_>) {
    let explain = |of: String| ctl(daemon, &format!("explain {of}"));
    let (us, them) = (on_link(DUT), on_link(X));
    let received = explain(format!("--src4 {X} --src6 {them} --dst6 {us}"));
    assert!(
        received.ends_with(&format!("carried by the kernel, when it comes by {UNDERLAY}\n")),
        "{received}"
    );
    let forged = explain(format!("--src4 {FOREIGN} --src6 {them} --dst6 {us}"));
    assert!(forged.ends_with("dropped by the kernel's programs\n"), "{forged}");
    let sent = explain(format!("--src6 {us} --dst6 {them}"));
    assert!(
        sent.contains(&format!("carried by the kernel, out by {UNDERLAY}; ")),
        "{sent}"
    );
    let nowhere = explain(format!("--src6 {us} --dst6 2001:db8:77::1"));
    assert!(nowhere.contains("left to a worker, refused: "), "{nowhere}");
}

/// Whatever is in the way is said, wherever somebody looks.
fn told_when_held(scene: &Opposite, daemon: &Daemon<'_>) {
    scene.dut.ip(&format!("link set {TUNNEL} down"));
    wait::holds("the kernel to carry nothing", SOON, || {
        carries(&daemon.metrics()) == 0
    });
    let text = ctl(daemon, "status");
    let unfolded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        unfolded.contains("programs leave all packets to workers")
            && unfolded.contains("the interface is down"),
        "{text}"
    );
    let (us, them) = (on_link(DUT), on_link(X));
    let held = ctl(daemon, &format!("explain --src4 {X} --src6 {them} --dst6 {us}"));
    assert!(
        held.contains("left to a worker, held: the interface is down"),
        "{held}"
    );
}

/// Without programs nothing claims to be the kernel's.
#[test]
fn workers_alone_are_shown_as_ever() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.config("Lane uring"));
    let metrics = daemon.metrics();
    assert!(!metrics.has("isatapd_packets_total", &[("worker", "kernel")]));
    assert!(metrics.has("isatapd_build_info", &[("lane", "uring")]));
    assert!(metrics.has("isatapd_kernel_carries", &[]) && carries(&metrics) == 0);
    let workers = ctl(&daemon, "workers");
    assert!(!workers.contains("kernel"), "{workers}");
    let status = ctl(&daemon, "status");
    assert!(!status.contains("programs"), "{status}");
}
