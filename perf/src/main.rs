//! `isatap-perf`: what the daemon carries, beside peers that do the same job, on this machine, now (DESIGN 3).
//!
//! | module | answers the question |
//! |---|---|
//! | [`plan`] | what is measured, how often, for how long? |
//! | [`peer`] | who carries the packets? |
//! | [`link`] | between which namespaces, over what? |
//! | [`measure`] | how fast, how many, how late? |
//! | [`results`] | what came out, and is it enough? |
//! | [`machine`] | on what was it measured? |
//! | [`report`] | who reads it: people, programs, a browser? |
//!
//! Peers take turns within each round (A B C, A B C), so that what the machine does meanwhile touches all of them alike;
//! medians are compared, never single runs. Figures of different machines are never put side by side: only ratios of
//! one run mean anything.

mod link;
mod machine;
mod measure;
mod peer;
mod plan;
mod report;
mod results;

use std::fs;
use std::io::Write as _;

use anyhow::{Context, Result};
use clap::Parser as _;

use plan::Plan;
use results::{Results, Sample};

fn main() -> Result<()> {
    let plan = Plan::parse();
    let machine = machine::describe();
    let steps = plan.steps();
    let mut results = Results::default();
    for (number, step) in (1..).zip(&steps) {
        progress(&format!(
            "[{number}/{}] round {} of {}, {step}",
            steps.len(),
            step.round,
            plan.runs
        ));
        for metric in &step.metrics {
            match measure::run(&plan, step, *metric) {
                Ok(reading) => results.add(step, *metric, Sample::Reading(reading)),
                Err(error) => {
                    progress("");
                    eprintln!("{step}, {}: {error:#}", metric.name());
                    results.add(step, *metric, Sample::Failed);
                }
            }
        }
    }
    progress("");
    print!("{}", report::text::table(&plan, &results));
    let document = report::json::document(&plan, &machine, &results);
    let page = report::html::page(&plan, &machine, &results);
    fs::create_dir_all(&plan.output).with_context(|| format!("make {}", plan.output.display()))?;
    for (name, content) in [("json", &document), ("html", &page)] {
        for stem in [machine.file_stem().as_str(), "latest"] {
            let path = plan.output.join(format!("{stem}.{name}"));
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    println!("\nwritten: {}", plan.output.join("latest.{json,html}").display());
    Ok(())
}

/// One line that is replaced by the next.
fn progress(line: &str) {
    eprint!("\r\x1b[K{line}");
    let _ = std::io::stderr().flush();
}
