//! The table for the terminal.

use std::fmt::Write as _;

use super::bars;
use crate::record::{Record, Series};

pub(crate) fn table(record: &Record) -> String {
    let mut text = String::new();
    for series in record.pictures() {
        let first = series[0];
        let _ = writeln!(
            text,
            "\n{}, {} ({})\n  {:32} {:>9}  {:>19}  {:>7}",
            first.title,
            first.key.underlay.title(),
            bars::unit(first),
            "",
            "median",
            "spread",
            "/ loop"
        );
        for one in &series {
            let _ = writeln!(text, "  {}", row(one, &series));
        }
    }
    let _ = writeln!(text, "\ntargets");
    for line in &record.targets {
        let value = line
            .value
            .map_or_else(|| "-".into(), |value| format!("{value:.2}"));
        let judged = match line.reached {
            None => "not measured",
            Some(true) => "reached",
            Some(false) => "MISSED",
        };
        let _ = writeln!(
            text,
            "  {:4} {:60} {:>18} {value:>9}  {judged}",
            line.id, line.text, line.bound
        );
    }
    let _ = writeln!(
        text,
        "\ncounters compared {} times, {} violations; {} measurements failed",
        record.conserved,
        record.violations.len(),
        record.failures.len()
    );
    if let Some(disturbed) = record.machine.disturbed() {
        let _ = writeln!(text, "  {disturbed}");
    }
    for violation in &record.violations {
        let _ = writeln!(text, "  VIOLATION {violation}");
    }
    text
}

fn row(series: &Series, group: &[&Series]) -> String {
    let title = match &series.key.point {
        None => series.peer_title.clone(),
        Some(point) => format!("{}, {} {}", series.key.peer, point.value, point.parameter),
    };
    let (Some(median), Some(least), Some(most)) = (series.median, series.least, series.most) else {
        return format!("{title:32} {:>9}", "failed");
    };
    let to = group
        .iter()
        .find(|other| other.key.peer == "baseline" && other.key.point == series.key.point);
    let ratio = to.and_then(|to| to.median).filter(|base| *base > 0.0);
    let ratio = ratio.map_or_else(|| "-".into(), |base| format!("{:.2}", median / base));
    let mut row = format!(
        "{title:32} {median:>9.1}  {:>19}  {ratio:>7}",
        format!("{least:.1} .. {most:.1}")
    );
    for name in ["retransmits", "lost", "duplicated", "reordered"] {
        let sum = series.detail(name);
        // What a flood loses is no news.
        if sum > 0.0 && (name, series.measurement.as_str()) != ("lost", "flood") {
            let _ = write!(row, "  {name} {sum:.0}");
        }
    }
    // One: the receiver fell asleep after each packet, and whoever sent the next had to wake it up.
    let calls = series.detail("receive calls");
    if calls > 0.0 {
        let at_once = series.detail("received") / calls;
        let _ = write!(row, "  {at_once:.1} packets a receive call");
    }
    if series.failed > 0 {
        let _ = write!(row, "  {} failed", series.failed);
    }
    row
}
