//! What changed between two runs, and whether that is more than noise.
//!
//! A figure has changed when the ranges of its readings, least to most, have nothing in common. Two programs that are
//! equally good come apart by luck in 2 of C(n + m, n) figures (n and m readings): with 3 and 3 that is one figure in ten, so
//! a single "changed" line among many means little, and more rounds mean more.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::record::{Better, Record, Series};
use crate::stats::{self, Difference};

/// The comparison as text.
///
/// # Errors
/// When the two were not taken alike, unless `force`.
pub(crate) fn table(before: &Record, after: &Record, force: bool) -> Result<String> {
    let mut differences = before.machine.differences(&after.machine);
    let settings = |record: &Record| {
        let settings = &record.settings;
        format!(
            "{} s, {} workers, MTU {}, {} flows, window {}",
            settings.seconds, settings.workers, settings.mtu, settings.flows, settings.window
        )
    };
    if settings(before) != settings(after) {
        differences.push(format!("settings: {} / {}", settings(before), settings(after)));
    }
    if !differences.is_empty() && !force {
        bail!(
            "these runs were not taken alike, so their figures say nothing about each other (--force compares all the same):\n  {}",
            differences.join("\n  ")
        );
    }
    let mut text = format!(
        "{} ({}) -> {} ({})\n",
        before.machine.revision, before.machine.started, after.machine.revision, after.machine.started
    );
    for line in &differences {
        let _ = writeln!(text, "NOT ALIKE {line}");
    }
    let _ = writeln!(
        text,
        "\n{:60} {:>9} {:>9} {:>8} {:>7}  judged",
        "", "before", "after", "change", "noise"
    );
    let mut luck: f64 = 0.0;
    let (mut compared, mut changed) = (0u32, 0u32);
    for series in &before.series {
        let name = name(series);
        let Some(other) = after.series.iter().find(|other| other.key == series.key) else {
            let _ = writeln!(text, "{name:60} only in the first run");
            continue;
        };
        let Some(difference) = stats::difference(&series.values(), &other.values()) else {
            continue;
        };
        if let Some(apart) = difference.apart {
            compared += 1;
            changed += u32::from(apart);
            luck += difference.by_luck;
        }
        let _ = writeln!(text, "{name:60} {}", line(&difference, series));
    }
    for series in &after.series {
        if !before.series.iter().any(|other| other.key == series.key) {
            let _ = writeln!(text, "{:60} only in the second run", name(series));
        }
    }
    let _ = writeln!(
        text,
        "\nnoise: half of both spreads. A figure is better or worse when the ranges of its readings have nothing in common.\n\
         {changed} of {compared} figures with enough readings are; of two equal programs about {luck:.1} would be."
    );
    Ok(text)
}

fn name(series: &Series) -> String {
    let point = series.key.point.as_ref();
    let point = point.map_or_else(String::new, |point| {
        format!(", {} {}", point.value, point.parameter)
    });
    let (figure, underlay) = (&series.key.figure, series.key.underlay.title());
    format!(
        "{figure}, {underlay}{point}, {} ({})",
        series.key.peer, series.unit
    )
}

fn line(difference: &Difference, series: &Series) -> String {
    let judged = match (difference.apart, difference.change > 0.0, series.better) {
        (None, ..) => "too few readings",
        (Some(false), ..) => "within noise",
        (Some(true), true, Better::More) | (Some(true), false, Better::Less) => "better",
        (Some(true), ..) => "WORSE",
    };
    format!(
        "{:>9.1} {:>9.1} {:>+7.1}% {:>6.1}%  {judged}",
        difference.before, difference.after, difference.change, difference.noise
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{record, series};
    use crate::scene::Underlay::Plain;

    #[test]
    fn changes_beyond_the_noise_are_named() {
        let mut less = series("rr-p50", Plain, "uring", &[10.0, 11.0, 12.0]);
        less.better = Better::Less;
        let mut later = series("rr-p50", Plain, "uring", &[20.0, 21.0, 22.0]);
        later.better = Better::Less;
        let before = record(vec![
            series("tcp", Plain, "uring", &[100.0, 101.0, 102.0]),
            series("udp64", Plain, "uring", &[100.0, 110.0, 120.0]),
            less,
            series("gone", Plain, "uring", &[1.0]),
        ]);
        let after = record(vec![
            series("tcp", Plain, "uring", &[110.0, 111.0, 112.0]),
            series("udp64", Plain, "uring", &[115.0, 125.0, 130.0]),
            later,
            series("new", Plain, "uring", &[1.0]),
        ]);
        let text = table(&before, &after, false).unwrap();
        let judged = |figure: &str| {
            let line = text.lines().find(|line| line.starts_with(figure)).unwrap();
            line.rsplit("  ").next().unwrap().to_owned()
        };
        assert_eq!(judged("tcp,"), "better");
        assert_eq!(judged("udp64,"), "within noise");
        assert_eq!(judged("rr-p50,"), "WORSE");
        assert!(judged("gone,").contains("only in the first"));
        assert!(judged("new,").contains("only in the second"));
        assert!(text.contains("2 of 3 figures"), "{text}");
    }

    #[test]
    fn other_machines_are_refused_unless_forced() {
        let (before, mut after) = (record(vec![]), record(vec![]));
        after.machine.cpu = "another".into();
        let refused = table(&before, &after, false).unwrap_err().to_string();
        assert!(
            refused.contains("CPU: ") && refused.contains("--force"),
            "{refused}"
        );
        assert!(table(&before, &after, true).unwrap().contains("NOT ALIKE CPU"));
        let mut after = record(vec![]);
        after.settings.mtu = 1400;
        assert!(table(&before, &after, false).is_err());
    }
}
