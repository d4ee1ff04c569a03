//! What the figures were taken on: kernel, CPU, revision. Without it a figure says nothing.

use std::fs;
use std::process::Command;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) revision: String,
    /// UTC, ISO 8601.
    pub(crate) started: String,
    /// Load average at the start: what else the machine was doing.
    pub(crate) load: String,
}

pub(crate) fn describe() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Machine {
        kernel: output("uname", &["-sr"]),
        cpu: cpu.map_or_else(|| "unknown".into(), |(_, name)| name.to_owned()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        revision: output("git", &["describe", "--always", "--dirty"]),
        started: output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    }
}

impl Machine {
    /// A file name for this run.
    pub(crate) fn file_stem(&self) -> String {
        let plain = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "");
        format!("{}-{}", plain(&self.started), plain(&self.revision))
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    match done {
        Ok(done) if done.status.success() => String::from_utf8_lossy(&done.stdout).trim().to_owned(),
        _ => "unknown".into(),
    }
}
