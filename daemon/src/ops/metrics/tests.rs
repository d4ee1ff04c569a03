//! The page, line by line, and what Prometheus says of it.

use super::*;
use crate::ops::share::DirectionShare;
use isatap_engine::ebpf::Cause;
use std::io::Write as _;
use std::process::{Command, Stdio};

fn scrape() -> Scrape {
    let direction = DirectionSnapshot {
        received: 10,
        delivered: 6,
        punted: 1,
        bytes: 9000,
        superpackets: 2,
        segments: 12,
        batches: vec![1, 0, 2, 0, 0, 0, 0, 0, 0, 1],
        drops: DropReason::ALL
            .iter()
            .map(|r| u64::from(*r == DropReason::NoRoute) * 3)
            .collect(),
    };
    let worker = WorkerSnapshot {
        encap: direction.clone(),
        decap: direction,
        ..WorkerSnapshot::default()
    };
    Scrape {
        workers: vec![worker.clone(), worker],
        routers: [1, 0, 2, 0],
        lane: "uring \"quoted\"".to_owned(),
        ..Scrape::default()
    }
}

/// The same, and programs that carried and dropped more.
fn with_programs() -> Scrape {
    let share = || DirectionShare {
        traffic: DirectionSnapshot {
            received: 1010,
            delivered: 1000,
            bytes: 64_000,
            superpackets: 5,
            segments: 50,
            drops: DropReason::ALL
                .iter()
                .map(|r| u64::from(*r == DropReason::NoRoute) * 10)
                .collect(),
            ..DirectionSnapshot::default()
        },
        left: Cause::ALL
            .iter()
            .map(|cause| u64::from(*cause == Cause::Fragment) * 7)
            .collect(),
        carries: true,
    };
    Scrape {
        share: Some(KernelShare {
            encap: share(),
            decap: DirectionShare {
                carries: false,
                ..share()
            },
            generation: 5,
            neighbour_generation: 8,
            neighbours: 3,
            ..KernelShare::default()
        }),
        lane: "ebpf".to_owned(),
        ..scrape()
    }
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|have| have == *line), "no {line} in\n{text}");
    }
}

#[test]
fn the_kernel_is_counted_beside_the_workers() {
    let text = encode(with_programs());
    let lines = [
        "isatapd_received_packets_total{direction=\"encap\",worker=\"kernel\"} 1010",
        "isatapd_packets_total{direction=\"decap\",worker=\"kernel\"} 1000",
        "isatapd_punted_packets_total{direction=\"decap\",worker=\"kernel\"} 0",
        "isatapd_bytes_total{direction=\"encap\",worker=\"kernel\"} 64000",
        "isatapd_superpackets_total{direction=\"encap\"} 9",
        "isatapd_segments_total{direction=\"decap\"} 74",
        "isatapd_drops_total{direction=\"encap\",reason=\"no_route\"} 16",
        "isatapd_left_packets_total{direction=\"decap\",cause=\"fragment\"} 7",
        "isatapd_left_packets_total{direction=\"encap\",cause=\"room\"} 0",
        "isatapd_kernel_carries{direction=\"encap\"} 1",
        "isatapd_kernel_carries{direction=\"decap\"} 0",
        "isatapd_kernel_neighbours 3",
        "isatapd_kernel_generations_total{of=\"rules\"} 5",
        "isatapd_kernel_generations_total{of=\"neighbours\"} 8",
    ];
    assert_lines(&text, &lines);
    let left = text
        .lines()
        .filter(|line| line.starts_with("isatapd_left_packets_total{"));
    assert_eq!(left.count(), 2 * Cause::COUNT, "every cause in both directions");
    assert!(text.contains("lane=\"ebpf\""), "{text}");
    let latency = "isatapd_packet_latency_seconds_count{direction=\"decap\"";
    assert_lines(
        &text,
        &[
            &format!("{latency}}} 0"),
            &format!("{latency},worker=\"kernel\"}} 0"),
        ],
    );
    // Turns are the workers'.
    assert!(!text.contains("isatapd_syscalls_total{worker=\"kernel\"}"));
    assert_lines(&text, &["isatapd_batch_packets_count{direction=\"encap\"} 8"]);
}

#[test]
fn without_programs_nothing_is_the_kernels() {
    let text = encode(scrape());
    assert!(!text.contains("{direction=\"encap\",worker=\"kernel\""), "{text}");
    assert!(!text.contains("isatapd_left_packets"), "{text}");
    assert_lines(&text, &["isatapd_kernel_carries{direction=\"encap\"} 0"]);
}

#[test]
fn the_contracts_names_and_labels() {
    let text = encode(scrape());
    for line in [
        "isatapd_received_packets_total{direction=\"encap\",worker=\"1\"} 10",
        "isatapd_packets_total{direction=\"decap\",worker=\"0\"} 6",
        "isatapd_punted_packets_total{direction=\"decap\",worker=\"0\"} 1",
        "isatapd_bytes_total{direction=\"encap\",worker=\"0\"} 9000",
        "isatapd_superpackets_total{direction=\"encap\"} 4",
        "isatapd_segments_total{direction=\"encap\"} 24",
        "isatapd_drops_total{direction=\"encap\",reason=\"no_route\"} 6",
        "isatapd_drops_total{direction=\"decap\",reason=\"src_mismatch\"} 0",
        "isatapd_batch_packets_bucket{direction=\"encap\",le=\"4.0\"} 6",
        "isatapd_batch_packets_bucket{direction=\"encap\",le=\"+Inf\"} 8",
        "isatapd_batch_packets_count{direction=\"encap\"} 8",
        "isatapd_routers{state=\"usable\"} 1",
        "isatapd_routers{state=\"unreachable\"} 2",
        "isatapd_router_solicitations_total 0",
        "isatapd_router_advertisements_total{result=\"accepted\"} 0",
        "isatapd_prl_refresh_failures_total 0",
        "isatapd_config_reloads_total{result=\"failure\"} 0",
        "isatapd_draining 0",
        "isatapd_role{role=\"host\"} 1",
        "isatapd_role{role=\"router\"} 0",
        "isatapd_syscalls_total{worker=\"0\"} 0",
    ] {
        let le = line.replace("le=\"4.0\"", "le=\"4\"");
        assert!(
            text.lines().any(|have| have == line || have == le),
            "no {line} in\n{text}"
        );
    }
    assert!(text.contains(r#"lane="uring \"quoted\"""#), "{text}");
    let drops = text
        .lines()
        .filter(|line| line.starts_with("isatapd_drops_total{"))
        .count();
    assert_eq!(drops, 2 * DropReason::COUNT, "every reason in both directions");
}

/// Prometheus' own linter agrees, where it is installed.
#[test]
fn promtool_finds_nothing() {
    for scrape in [scrape(), with_programs()] {
        check_with_promtool(scrape);
    }
}

fn check_with_promtool(scrape: Scrape) {
    let tool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let spawned = Command::new(tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        eprintln!("promtool is not installed: skipped");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(encode(scrape).as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
