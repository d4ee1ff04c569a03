//! What the figures were taken on: kernel, CPU, mitigations, revision. Without it a figure says nothing.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) virtual_machine: bool,
    /// `unknown` where the machine does not say, as in most virtual machines.
    pub(crate) governor: String,
    /// What the kernel does against faults of this CPU, those it is not affected by left out: each costs system calls.
    pub(crate) mitigations: Vec<String>,
    pub(crate) revision: String,
    /// UTC, ISO 8601.
    pub(crate) started: String,
    /// Load average at the start: what else the machine was doing.
    pub(crate) load: String,
}

pub(crate) fn describe() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let found = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(": "));
        found.map_or_else(|| "unknown".into(), |(_, value)| value.to_owned())
    };
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    Machine {
        kernel: output("uname", &["-sr"]),
        cpu: field("model name"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: memory.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) / 1024,
        virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
        governor: governor.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
        mitigations: mitigations(),
        revision: output("git", &["describe", "--always", "--dirty"]),
        started: output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    }
}

fn mitigations() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Vec::new();
    };
    let mut lines: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let text = text.trim();
            let name = entry.file_name();
            (text != "Not affected").then(|| format!("{}: {text}", name.to_string_lossy()))
        })
        .collect();
    lines.sort();
    lines
}

impl Machine {
    /// A file name for this run.
    pub(crate) fn file_stem(&self) -> String {
        let plain = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "");
        format!("{}-{}", plain(&self.started), plain(&self.revision))
    }

    /// Why the figures mean little, if other work had the CPUs when the run began.
    pub(crate) fn disturbed(&self) -> Option<String> {
        let load: f64 = self.load.split(' ').next()?.parse().ok()?;
        let cpus = self.cpus;
        (load > cpus as f64 / 2.0).then(|| {
            format!("The machine was busy: load average {load} on {cpus} CPUs at the start. Medians mean little; measure again.")
        })
    }

    /// In what two machines differ so that their figures cannot be compared; empty for the same machine.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            ("kernel", self.kernel.clone(), other.kernel.clone()),
            ("CPU", self.cpu.clone(), other.cpu.clone()),
            ("number of CPUs", self.cpus.to_string(), other.cpus.to_string()),
            ("governor", self.governor.clone(), other.governor.clone()),
            (
                "mitigations",
                self.mitigations.join("; "),
                other.mitigations.join("; "),
            ),
        ];
        let differ = pairs.into_iter().filter(|(_, a, b)| a != b);
        differ.map(|(name, a, b)| format!("{name}: {a} / {b}")).collect()
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    match done {
        Ok(done) if done.status.success() => String::from_utf8_lossy(&done.stdout).trim().to_owned(),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_named() {
        let with = |load: &str| Machine {
            cpus: 2,
            load: load.into(),
            ..Machine::default()
        };
        assert!(
            with("8.92 9.58 11.15")
                .disturbed()
                .is_some_and(|text| text.contains("8.92 on 2 CPUs"))
        );
        assert_eq!(with("0.40 9.58 11.15").disturbed(), None);
        assert_eq!(with("").disturbed(), None);
    }

    #[test]
    fn another_revision_is_the_same_machine() {
        let a = describe();
        let b = Machine {
            revision: "other".into(),
            started: "later".into(),
            ..a.clone()
        };
        assert!(a.differences(&b).is_empty());
        let c = Machine {
            cpus: a.cpus + 1,
            ..a.clone()
        };
        assert_eq!(
            a.differences(&c),
            [format!("number of CPUs: {} / {}", a.cpus, a.cpus + 1)]
        );
    }
}
