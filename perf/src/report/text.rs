//! The table for the terminal.

use std::fmt::Write as _;

use crate::plan::{Metric, Plan};
use crate::results::{Key, Results, Series, TARGETS};

pub(crate) fn table(plan: &Plan, results: &Results) -> String {
    let mut text = String::new();
    let mut last = None;
    for (key, series) in &results.series {
        if last != Some((key.metric, key.underlay)) {
            last = Some((key.metric, key.underlay));
            let _ = writeln!(
                text,
                "\n{}, {} ({}), {} runs\n  {:26} {:>9}  {:>19}  {:>7}",
                key.metric.title(),
                key.underlay.title(),
                key.metric.unit(),
                plan.runs,
                "",
                "median",
                "spread",
                "/ loop"
            );
        }
        let _ = writeln!(text, "  {}", row(results, key, series));
    }
    let _ = writeln!(text, "\ntargets");
    for target in TARGETS {
        let verdict = match target.judge(results) {
            None => "not measured".to_owned(),
            Some((ratio, met)) => format!("{ratio:.2} {}", if met { "met" } else { "MISSED" }),
        };
        let _ = writeln!(
            text,
            "  {} {:40} {:>8}  {verdict}",
            target.id,
            target.text,
            target.bound()
        );
    }
    text
}

fn row(results: &Results, key: &Key, series: &Series) -> String {
    let title = key.peer.title();
    let (Some(median), Some((least, most))) = (series.median(), series.spread()) else {
        return format!("{title:26} {:>9}", "failed");
    };
    let ratio = results
        .ratio_to_loop(key)
        .map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
    let mut row = format!(
        "{title:26} {median:>9.1}  {:>19}  {ratio:>7}",
        format!("{least:.1} .. {most:.1}")
    );
    for (name, note) in notes(key.metric, series) {
        let _ = write!(row, "  {name} {note:.0}");
    }
    if series.failed > 0 {
        let _ = write!(row, "  {} failed", series.failed);
    }
    row
}

/// What is worth a remark when it happened.
fn notes(metric: Metric, series: &Series) -> impl Iterator<Item = (&'static str, f64)> {
    let name = match metric {
        Metric::Tcp => Some("retransmits"),
        Metric::Udp => Some("lost"),
        // What a flood loses is no news.
        Metric::Flood | Metric::Rtt => None,
    };
    let sum = name.map(|name| (name, series.detail(name)));
    sum.into_iter().filter(|(_, sum)| *sum > 0.0)
}
