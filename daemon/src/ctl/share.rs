//! The kernel's share as text: which lane carries, what its programs do, what they left to workers and why.

use isatap_engine::ebpf::Cause;

use super::render::Earlier;
use super::table::{Align, Table};
use crate::ops::status::{Status, Traffic};

/// `uring`, or `ebpf, workers by uring`.
pub(super) fn lane(status: &Status) -> String {
    let (lane, workers) = (&status.lane, &status.workers_lane);
    if workers.is_empty() || workers == lane {
        lane.clone()
    } else {
        format!("{lane}, workers by {workers}")
    }
}

/// What the programs do, in a line; nothing where nobody expects any.
pub(super) fn summary(status: &Status) -> Option<String> {
    let programs = &status.programs;
    let why = programs.obstacles.join("; ");
    if !programs.loaded {
        return (!why.is_empty()).then(|| format!("none: {why}"));
    }
    let carried = match (programs.carries.encap, programs.carries.decap) {
        (true, true) => "carry both directions",
        (true, false) => "carry encap alone",
        (false, true) => "carry decap alone",
        (false, false) => "leave all packets to workers",
    };
    let mut text = carried.to_owned();
    if !programs.devices.is_empty() {
        text.push_str(&format!(", at {}", programs.devices.join(" ")));
    }
    if !why.is_empty() {
        text.push_str(&format!(": {why}"));
    }
    Some(text)
}

/// The kernel's row among the workers: its name, and as many cells as they have.
pub(super) fn row(status: &Status, earlier: Option<&Earlier>) -> Option<Vec<String>> {
    let programs = Some(&status.programs).filter(|programs| programs.loaded)?;
    let Traffic { encap, decap } = &programs.traffic;
    let mut cells = vec![
        "kernel".to_owned(),
        encap.packets.to_string(),
        decap.packets.to_string(),
        (encap.dropped + decap.dropped).to_string(),
        "0".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
    ];
    if let Some(earlier) = earlier {
        let then = &earlier.0.programs.traffic;
        cells.push(earlier.rate(status, then.encap.packets, encap.packets));
        cells.push(earlier.rate(status, then.decap.packets, decap.packets));
    }
    Some(cells)
}

/// How much the kernel carried of all, and what it left to workers.
pub(super) fn notes(status: &Status) -> String {
    let programs = &status.programs;
    if !programs.loaded {
        return String::new();
    }
    let packets = |traffic: &Traffic| traffic.encap.packets + traffic.decap.packets;
    let mut text = match percent(packets(&programs.traffic), packets(&status.total)) {
        Some(percent) => format!("\nthe kernel carried {percent} of the packets\n"),
        None => String::new(),
    };
    let mut table = Table::new([
        ("left", Align::Left),
        ("cause", Align::Left),
        ("packets", Align::Right),
        ("meaning", Align::Left),
    ]);
    for (direction, counts) in [("encap", &programs.left.encap), ("decap", &programs.left.decap)] {
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by_key(|(cause, count)| (std::cmp::Reverse(**count), (*cause).clone()));
        for (cause, count) in counts {
            table.row([
                direction.to_owned(),
                cause.clone(),
                count.to_string(),
                meaning(cause).to_owned(),
            ]);
        }
    }
    if !table.is_empty() {
        text.push_str(&format!("\n{table}"));
    }
    text
}

fn meaning(cause: &str) -> &'static str {
    let known = Cause::ALL.iter().find(|known| known.name() == cause);
    known.map_or("", |known| known.help())
}

#[allow(clippy::cast_precision_loss, reason = "a share is shown with one digit")]
fn percent(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| format!("{:.1} %", 100.0 * part as f64 / whole as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::tests::{example, with_programs};

    #[test]
    fn both_lanes_are_named() {
        assert_eq!(lane(&example()), "uring");
        assert_eq!(lane(&with_programs()), "ebpf, workers by uring");
    }

    #[test]
    fn who_carries_what_and_why_not() {
        let mut status = with_programs();
        assert_eq!(summary(&status).unwrap(), "carry both directions, at eth0");
        status.programs.carries.decap = false;
        status.programs.obstacles = vec!["somebody captures".to_owned()];
        assert_eq!(
            summary(&status).unwrap(),
            "carry encap alone, at eth0: somebody captures"
        );
        assert_eq!(summary(&example()), None);
        let mut without = example();
        without.programs.obstacles = vec!["no clang".to_owned()];
        assert_eq!(summary(&without).unwrap(), "none: no clang");
    }

    #[test]
    fn what_was_left_explains_itself() {
        let text = notes(&with_programs());
        for part in [
            "the kernel carried 83.3 % of the packets",
            "decap  control        2  Neighbour discovery.",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert_eq!(notes(&example()), "");
    }
}
