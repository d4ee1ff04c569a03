//! The same measurements inside a guest, whose kernel has an ISATAP device of its own: bare link, `sit` and all of ours in one run (DESIGN P6).
//!
//! The guest is emulated, so that its figures are a fraction of the machine's; ratios of one run are what they are for. This very
//! program measures there, and brings what it starts.

use std::env;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser as _;
use isatap_tests::daemon::program;
use isatap_tests::guest::{Equipment, Guest};
use isatap_tests::topology::Site;

use crate::cli::{Cli, RunOptions};
use crate::measure::guarded;
use crate::plan::Plan;
use crate::record::Record;
use crate::run::Run;
use crate::{machine, report};

/// What is measured unless the user says otherwise: not the uring lane, which the guest's kernel is too old for.
const DEFAULTS: [(&str, &str); 2] = [
    ("--peers", "bare,sit,programs,baseline,syscall,ebpf"),
    ("--only", "tcp,tcp-many,udp64,flood,rr"),
];
/// Where the run begins in the guest; it leaves its files where it would leave them here.
const PLACE: &str = "/tmp";
/// An emulated processor takes so many times as long, or less.
const SLOWER: f64 = 10.0;
/// MiB of memory, and processors.
const MEMORY: u32 = 1024;
const CPUS: u32 = 2;

/// # Errors
/// When the options are wrong, there can be no guest, or the run in it came to nothing.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let (words, options) = complete(words)?;
    let plan = Plan::new(&options);
    println!("in a guest: {}", crate::announcement(&plan));
    let patience = Duration::from_secs_f64(60.0 + SLOWER * plan.seconds());
    let me = env::current_exe().context("the path of this program")?;
    let equipment = Equipment {
        cpus: CPUS,
        memory: MEMORY,
        lifetime: patience + Duration::from_secs(60),
        files: vec![me.clone(), program("isatapd"), program("isatap-baseline")],
    };
    let site = Site::new();
    let guest = Guest::equipped(&site, Ipv4Addr::new(10, 0, 0, 9), &equipment);
    let guest = guest.context("there can be no guest on this machine")?;
    let script = format!("cd {PLACE} && {} {}", me.display(), words.join(" "));
    let answer = guarded(|| Ok(guest.run_within(patience, &script)))?;
    eprint!("{}", answer.err);
    let output = Path::new(PLACE).join(&options.output);
    let read = |name: &str| guest.try_run(&format!("cat {}", output.join(name).display()));
    let record = read("latest.json");
    ensure!(
        record.status == 0,
        "the run in the guest left nothing: {}",
        answer.out
    );
    let run = Run {
        record: place(Record::parse(&record.out)?),
        hlog: read("latest.hlog").out.into_bytes(),
    };
    print!("{}", report::text::table(&run.record));
    let stem = format!("guest-{}", run.record.machine.file_stem());
    crate::write(&run, &options.output, &[&stem, "guest-latest"])?;
    Ok(crate::verdict(&run.record))
}

/// The user's words with the defaults that they leave open, and what they mean.
fn complete(words: &[String]) -> Result<(Vec<String>, RunOptions)> {
    let mut words = words.to_vec();
    for (option, value) in DEFAULTS {
        let is_given = |word: &String| word.split('=').next() == Some(option);
        if !words.iter().any(is_given) {
            words.extend([option, value].map(str::to_owned));
        }
    }
    // They go through a shell.
    if let Some(word) = words.iter().find(|word| !word.chars().all(is_plain)) {
        bail!("'{word}' cannot be passed on to the guest");
    }
    let arguments = std::iter::once("isatap-perf".into()).chain(words.iter().map(OsString::from));
    let cli = Cli::try_parse_from(arguments)?;
    ensure!(cli.order.is_none(), "the guest measures; it takes no command");
    Ok((words, cli.run))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_=,./".contains(c)
}

/// What the guest cannot know of where it is.
fn place(mut record: Record) -> Record {
    let host = machine::describe();
    record.machine.cpu = format!("emulated by QEMU on {}", host.cpu);
    record.machine.virtual_machine = true;
    record.machine.revision = host.revision;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_added() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (all, options) = complete(&words("--rounds 5 --only=tcp")).unwrap();
        assert!(all.contains(&"--peers".to_owned()) && !all.contains(&"--only".to_owned()));
        assert_eq!(
            (options.rounds, options.only.len(), options.peers.len()),
            (5, 1, 6)
        );
        assert!(complete(&words("--peers bare;reboot")).is_err());
        assert!(complete(&words("soak")).is_err());
    }
}
