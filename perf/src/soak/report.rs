//! What came of a soak: a line while it runs, then a summary by fault and a JSON record.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Episode;
use crate::cli::SoakOptions;
use crate::machine;

/// One episode, as it ends.
pub(super) fn line(episode: &Episode) {
    let held: Vec<_> = episode
        .held
        .iter()
        .map(|gauge| format!("{:.0} MiB {} fd", gauge.resident_mib, gauge.descriptors))
        .collect();
    println!(
        "{:6.0} s  {:3} {:16} lost {:6} of {}  late {}  gap {:6.0} ms  full queues {:6}  TCP {} (slowest {:.1} s)  {}",
        episode.at,
        episode.number,
        episode.fault,
        episode.lost,
        episode.sent,
        episode.reordered,
        episode.gap_ms,
        episode.full_queues,
        episode.transfers,
        episode.slowest,
        held.join(", ")
    );
    for broken in &episode.broken {
        println!("          BROKEN: {broken}");
    }
}

/// Writes `soak-SEED.json` and `soak-SEED.md`, and prints the latter.
pub(super) fn write(
    output: &Path,
    seed: u64,
    options: &SoakOptions,
    took: Duration,
    episodes: &[Episode],
) -> Result<()> {
    let text = summary(seed, options, took, episodes);
    println!("\n{text}");
    let record = json!({
        "format": "isatap-soak",
        "schema_version": 1,
        "machine": machine::describe(),
        "seed": seed,
        "hours": options.hours,
        "every": options.every,
        "lane": options.lane.name(),
        "workers": options.workers,
        "shared": options.shared,
        "took": took.as_secs_f64(),
        "episodes": episodes,
    });
    fs::create_dir_all(output).with_context(|| format!("make {}", output.display()))?;
    for (ending, content) in [("md", text), ("json", serde_json::to_string_pretty(&record)?)] {
        let path = output.join(format!("soak-{seed}.{ending}"));
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

fn summary(seed: u64, options: &SoakOptions, took: Duration, episodes: &[Episode]) -> String {
    let mut by_fault: BTreeMap<&str, Vec<&Episode>> = BTreeMap::new();
    for episode in episodes {
        by_fault.entry(&episode.fault).or_default().push(episode);
    }
    let broken: usize = episodes.iter().map(|episode| episode.broken.len()).sum();
    let sum = |of: fn(&Episode) -> u64| episodes.iter().map(of).sum::<u64>();
    let mut text = format!(
        "# Soak, seed {seed}\n\n{:.2} hours{}, {} faults, {} lane, {} workers: {} packets sent, {} lost, {} twice; {} TCP \
         transfers; {broken} promises broken.\n\n| fault | times | lost, median | lost, most | gap, median ms | gap, most ms | slowest TCP, s | broken |\n\
         |---|---|---|---|---|---|---|---|\n",
        took.as_secs_f64() / 3600.0,
        if options.shared {
            " of a shared machine"
        } else {
            ""
        },
        episodes.len(),
        options.lane.name(),
        options.workers,
        sum(|episode| episode.sent),
        sum(|episode| episode.lost),
        sum(|episode| episode.duplicated),
        sum(|episode| episode.transfers as u64),
    );
    for (fault, episodes) in by_fault {
        let sorted = |of: fn(&Episode) -> f64| {
            let mut values: Vec<_> = episodes.iter().map(|episode| of(episode)).collect();
            values.sort_by(f64::total_cmp);
            (values[(values.len() - 1) / 2], values[values.len() - 1])
        };
        let (lost, gap) = (
            sorted(|episode| episode.lost as f64),
            sorted(|episode| episode.gap_ms),
        );
        let _ = writeln!(
            text,
            "| {fault} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {} |",
            episodes.len(),
            lost.0,
            lost.1,
            gap.0,
            gap.1,
            sorted(|episode| episode.slowest).1,
            episodes.iter().map(|episode| episode.broken.len()).sum::<usize>(),
        );
    }
    let ends = |of: fn(&super::Gauge) -> f64| {
        let at = |episode: &Episode| episode.held.iter().map(of).fold(0.0, f64::max);
        let settled = episodes.get(super::SETTLED_AFTER).map_or(0.0, at);
        (settled, episodes.last().map_or(0.0, at))
    };
    let (memory, descriptors) = (
        ends(|gauge| gauge.resident_mib),
        ends(|gauge| gauge.descriptors as f64),
    );
    let _ = writeln!(
        text,
        "\nMemory {:.1} MiB once everything had been used, {:.1} at the end; descriptors {:.0} and {:.0}.",
        memory.0, memory.1, descriptors.0, descriptors.1
    );
    for episode in episodes.iter().filter(|episode| !episode.broken.is_empty()) {
        let _ = writeln!(text, "\nEpisode {}, {}:", episode.number, episode.fault);
        for broken in &episode.broken {
            let _ = writeln!(text, "- {broken}");
        }
    }
    text
}
