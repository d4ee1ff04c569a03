//! What operators and scripts read: the metrics of the contract, the HTTP paths, and `isatapctl`.
//!
//! ```text
//!   dut 10.0.0.1 (router) ------ x 10.0.0.9 (crafted)
//! ```

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use isatap_engine::reason::DropReason;
use isatap_tests::daemon::{TUNNEL, program};
use isatap_tests::metrics::Direction;
use isatap_tests::packet::{Inner, link_local};
use isatap_tests::scene::{DUT, Opposite, X, on_link};

#[test]
fn metrics_have_the_names_of_the_contract() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(2));
    let metrics = daemon.metrics();
    let per_direction = [
        "isatapd_packets_total",
        "isatapd_bytes_total",
        "isatapd_received_packets_total",
        "isatapd_punted_packets_total",
        "isatapd_superpackets_total",
        "isatapd_segments_total",
    ];
    for direction in Direction::ALL {
        for name in per_direction {
            assert!(
                metrics.has(name, &[("direction", direction.label())]),
                "{name} {direction:?}"
            );
        }
        // Each reason is there from the start, so that its rate can be computed.
        for reason in DropReason::ALL {
            let labels = [("direction", direction.label()), ("reason", reason.name())];
            assert!(metrics.has("isatapd_drops_total", &labels), "{labels:?}");
        }
    }
    for worker in ["0", "1"] {
        assert!(metrics.has("isatapd_packets_total", &[("worker", worker)]));
    }
    assert!(metrics.has("isatapd_syscalls_total", &[]));
    assert!(
        metrics.has("isatapd_build_info", &[("lane", "ebpf")]),
        "auto picks the best lane that works here"
    );
    for state in ["usable", "probing", "unreachable", "unknown"] {
        assert!(metrics.has("isatapd_routers", &[("state", state)]), "{state}");
    }
}

#[test]
fn bytes_are_inner_bytes_and_packets_are_counted_once() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let crafter = scene.crafter();
    let bytes = || {
        daemon
            .metrics()
            .sum("isatapd_bytes_total", &[("direction", "decap")])
    };
    let (before, bytes_before) = (daemon.counters(Direction::Decap), bytes());
    // A flow each, so that none are merged on their way.
    for port in 1..=10 {
        let packet = Inner::new(on_link(X), on_link(DUT)).udp(port, 2, &[0; 952]);
        assert_eq!(packet.len(), 1000);
        crafter.send_inner(&packet);
    }
    let since = daemon.wait_received(Direction::Decap, &before, 10);
    assert_eq!((since.received, since.delivered), (10, 10), "{since}");
    assert_eq!(bytes() - bytes_before, 10_000);
}

#[test]
fn unknown_paths_are_not_found() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    assert_eq!(daemon.http("/no/such/page").map(|(status, _)| status), Ok(404));
    let (status, body) = daemon.http("/api/v1/status").expect("an answer");
    assert_eq!(status, 200);
    assert!(body.contains("schema_version"), "{body}");
}

#[test]
fn metrics_can_be_switched_off_and_moved() {
    let scene = Opposite::new();
    let daemon = isatap_tests::daemon::Daemon::router(&scene.dut, DUT)
        .config("MetricsListen 127.0.0.1:9555")
        .start_at(9555);
    assert!(
        daemon.http("/metrics").is_err(),
        "nobody listens at the default port"
    );
}

#[test]
fn isatapctl_shows_status_drops_and_routers() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.config("PeerRouter 10.0.0.7"));
    let crafter = scene.crafter();
    let before = daemon.counters(Direction::Decap);
    for _ in 0..3 {
        crafter.send_inner(
            &Inner::new(
                link_local("10.0.0.77".parse().expect("an address")),
                link_local(DUT),
            )
            .udp(1, 2, b""),
        );
    }
    daemon.wait_received(Direction::Decap, &before, 3);

    let shown = |command: &str| {
        let output = daemon.ctl(command);
        assert!(output.status.success(), "isatapctl {command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let status = shown("status");
    for part in ["router", TUNNEL, "10.0.0.1"] {
        assert!(status.contains(part), "{part} is not in: {status}");
    }
    let json = shown("status --json");
    assert!(
        json.trim_start().starts_with('{') && json.contains("\"schema_version\""),
        "{json}"
    );
    let drops = shown("drops");
    let line = drops
        .lines()
        .find(|line| line.contains("src_mismatch"))
        .unwrap_or_else(|| panic!("{drops}"));
    assert!(line.split_whitespace().any(|word| word == "3"), "{line}");
    shown("routers");
}

#[test]
fn isatapctl_ends_with_the_statuses_of_the_contract() {
    let scene = Opposite::new();
    let ctl = program("isatapctl");
    let status = |arguments: &str| {
        scene
            .dut
            .try_run(&format!("{} {arguments}", ctl.display()))
            .status
            .code()
    };
    assert_eq!(
        status("--socket /nonexistent/control.sock status"),
        Some(69),
        "no daemon"
    );
    assert_eq!(status("no-such-command"), Some(2));
    assert_eq!(status(""), Some(2));
}

/// Who starts the daemon from the default file need not say again where it listens.
#[test]
fn isatapctl_asks_where_the_default_file_says() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let file = daemon.folder().join("etc-isatapd.conf");
    let socket = daemon.folder().join("control.sock");
    std::fs::write(&file, format!("ControlSocket {}\n", socket.display())).expect("a file");
    // A system folder of its own, in which the file is the default one.
    let script = daemon.folder().join("ask");
    let lines = format!(
        "set -e\nmount -t tmpfs none /etc\ncp {} /etc/isatapd.conf\nexec {} status --json\n",
        file.display(),
        program("isatapctl").display()
    );
    std::fs::write(&script, lines).expect("a script");
    let output = scene.dut.try_run(&format!(
        "unshare --mount --propagation private sh {}",
        script.display()
    ));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("10.0.0.1"), "{output:?}");
}

/// A daemon that root starts reads its file again as somebody else, and says so.
#[test]
fn a_file_that_only_root_may_read_is_refused_with_the_reason() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder);
    let config = daemon.folder().join("isatapd.conf");
    let allow =
        |mode| std::fs::set_permissions(&config, std::fs::Permissions::from_mode(mode)).expect("a mode");
    allow(0o600);
    let output = daemon.ctl("reload");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = "Permission denied (os error 13); after its start isatapd reads it as User";
    assert!(text.contains(told), "{text}");
    allow(0o644);
    assert!(daemon.ctl("reload").status.success());
}

#[test]
fn who_asks_a_daemon_that_is_stopped_is_told_soon() {
    let scene = Opposite::new();
    let daemon = scene.router(|builder| builder.workers(1));
    daemon.freeze();
    let asked = Instant::now();
    let output = daemon.ctl("status");
    let (took, told) = (
        asked.elapsed(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    daemon.thaw();
    assert_eq!(output.status.code(), Some(69), "{told}");
    for part in ["the daemon is silent", "stopped", "kill -CONT"] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    assert!(took < Duration::from_secs(30), "{took:?}: {told}");
    assert!(daemon.ctl("status").status.success(), "{}", daemon.log());
    daemon.conservation();
}
