//! `isatap-perf`: what the daemon carries, beside peers that do the same job, on this machine, now (DESIGN 3).
//!
//! | module | answers the question |
//! |---|---|
//! | [`cli`] | what did the user ask for? |
//! | [`table`] | what can be measured? |
//! | [`plan`] | what is measured in this run, in which order, for how long? |
//! | [`peer`], [`external`] | who carries the packets? |
//! | [`scene`] | between which namespaces, over what? |
//! | [`run`] | whose turn is it? |
//! | [`guest`] | what if the kernel has ISATAP of its own? |
//! | [`measure`] | how fast, how many, how late? |
//! | [`generate`] | where do packets come from, and which arrive? |
//! | [`conserve`] | does the daemon account for all of them? |
//! | [`record`], [`machine`] | what came out, on what machine? |
//! | [`stats`], [`targets`], [`criterion`] | what does it mean, and is it enough? |
//! | [`report`] | who reads it? |
//! | [`soak`] | does it go on for hours, whatever happens? |
//!
//! Peers take turns within each measurement of each round (A B C, A B C), so that what the machine does meanwhile touches all
//! of them alike; medians are compared, never single runs. Figures of different machines are never put side by side: only
//! ratios of one run mean anything.

mod cli;
mod conserve;
mod criterion;
mod external;
mod generate;
mod guest;
mod machine;
mod measure;
mod peer;
mod plan;
mod record;
mod report;
mod run;
mod scene;
mod soak;
mod stats;
mod table;
mod targets;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser as _;

use cli::{Cli, CompareOptions, Order, RunOptions};
use plan::Plan;
use record::Record;
use run::Run;
use table::{MEASUREMENTS, Measurement};

fn main() -> ExitCode {
    // A message for people, whatever RUST_BACKTRACE says.
    order(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("isatap-perf: {error:#}");
        ExitCode::FAILURE
    })
}

fn order(cli: Cli) -> Result<ExitCode> {
    match cli.order {
        None => measure(&cli.run),
        Some(Order::Compare(options)) => compare(&options),
        Some(Order::Soak(options)) => soak::run(&options),
        Some(Order::Guest { options }) => guest::run(&options),
        Some(Order::List(options)) => list(&Plan::new(&options)),
        Some(Order::Render { record, page }) => {
            let text = report::html::page(&Record::read(&record)?);
            fs::write(&page, text).with_context(|| format!("write {}", page.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A run with violations ends with status 1: somebody must look.
fn measure(options: &RunOptions) -> Result<ExitCode> {
    let plan = Plan::new(options);
    let machine = machine::describe();
    println!("{}", announcement(&plan));
    let stem = machine.file_stem();
    let mut run = run::run(&plan, machine)?;
    let engine = criterion::read(Path::new("target/criterion"));
    run.record.targets = targets::judge(&run.record, engine.as_ref());
    print!("{}", report::text::table(&run.record));
    write(&run, &options.output, &[&stem, "latest"])?;
    Ok(verdict(&run.record))
}

/// Writes a run and its page under each of the names.
fn write(run: &Run, output: &Path, stems: &[&str]) -> Result<()> {
    let json = serde_json::to_string_pretty(&run.record)?;
    let page = report::html::page(&run.record);
    fs::create_dir_all(output).with_context(|| format!("make {}", output.display()))?;
    let contents = [
        ("json", json.as_bytes()),
        ("html", page.as_bytes()),
        ("hlog", &run.hlog),
    ];
    for (name, content) in contents {
        for stem in stems {
            let path = output.join(format!("{stem}.{name}"));
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    let last = stems.last().copied().unwrap_or_default();
    println!(
        "\nwritten after {:.0} s: {}",
        run.record.took,
        output.join(format!("{last}.{{html,json,hlog}}")).display()
    );
    Ok(())
}

fn verdict(record: &Record) -> ExitCode {
    if record.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn announcement(plan: &Plan) -> String {
    let steps: usize = plan.groups.iter().map(|group| group.steps.len()).sum();
    let peers: Vec<_> = plan.peers.iter().map(peer::Peer::name).collect();
    format!(
        "{} rounds of {steps} measurements of {}: about {:.1} min",
        plan.settings.rounds,
        peers.join(", "),
        plan.seconds() / 60.0
    )
}

fn list(plan: &Plan) -> Result<ExitCode> {
    for group in &plan.groups {
        for step in &group.steps {
            let peers = plan.peers.iter().filter(|peer| step.includes(peer)).count();
            let seconds = step.row.method.seconds(&plan.settings);
            println!(
                "{:28} {peers} peers x {seconds:4.1} s  {}",
                step.title(),
                step.row.about
            );
        }
    }
    println!("{}", announcement(plan));
    let is_planned = |row: &Measurement| {
        let mut steps = plan.groups.iter().flat_map(|group| &group.steps);
        steps.any(|step| step.row.id == row.id)
    };
    let mut others = MEASUREMENTS.iter().filter(|row| !is_planned(row)).peekable();
    if others.peek().is_some() {
        println!("\nWhen asked for, by --only or --full:");
    }
    others.for_each(|row| println!("{:28} {}", row.id, row.about));
    Ok(ExitCode::SUCCESS)
}

fn compare(options: &CompareOptions) -> Result<ExitCode> {
    let (before, after) = (Record::read(&options.before)?, Record::read(&options.after)?);
    print!("{}", report::compare::table(&before, &after, options.force)?);
    Ok(ExitCode::SUCCESS)
}
