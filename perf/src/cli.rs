//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::external::External;
use crate::peer::Peer;
use crate::table::MEASUREMENTS;

/// Measures isatapd in network namespaces beside peers that do the same job; needs root and release builds beside it.
///
/// Without a command it measures.
#[derive(Debug, Parser)]
#[command(name = "isatap-perf", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) order: Option<Order>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// Show what changed between two runs on one machine, and whether it is more than noise.
    Compare(CompareOptions),
    /// List what can be measured, with the seconds each takes.
    List(RunOptions),
    /// Measure in a guest, whose older kernel has an ISATAP device of its own (peer sit); takes the options of a run.
    Guest {
        /// As without a command; by default --peers bare,sit,programs,baseline,syscall,ebpf --only tcp,tcp-many,udp64,flood,rr.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Carry traffic for hours while something goes wrong every half minute; exit status 1 when a promise was broken.
    Soak(SoakOptions),
    /// Write the page for an earlier run's JSON.
    Render {
        /// JSON of a run.
        record: PathBuf,
        /// The page to write.
        page: PathBuf,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SoakOptions {
    /// Which faults come when follows from this number; the same number repeats them.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Hours in all.
    #[arg(long, default_value_t = 2.0, value_parser = hours)]
    pub(crate) hours: f64,
    /// Seconds from one fault to the next.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    pub(crate) every: f64,
    /// syscall, uring or ebpf.
    #[arg(long, default_value = "uring")]
    pub(crate) lane: Peer,
    /// Worker threads of each daemon.
    #[arg(long, default_value_t = 2, value_parser = workers)]
    pub(crate) workers: usize,
    /// Only these faults, by name.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Other programs use this machine meanwhile: what the kernel counts as lost because a queue was full breaks no promise.
    #[arg(long)]
    pub(crate) shared: bool,
    /// Where the report is written.
    #[arg(long, default_value = "target/perf")]
    pub(crate) output: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompareOptions {
    /// JSON of the earlier run.
    pub(crate) before: PathBuf,
    /// JSON of the later run.
    pub(crate) after: PathBuf,
    /// Compare although machines or settings differ.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// Rounds; each peer is measured once in each.
    #[arg(long, visible_alias = "runs", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds that one TCP flow is measured; everything else takes a fixed share.
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Who is measured, of: bare, sit (the kernel's own ISATAP), programs (the ebpf lane's, without a daemon), baseline,
    /// drain, syscall, uring, ebpf.
    #[arg(long, value_delimiter = ',', default_value = "bare,baseline,uring,ebpf")]
    pub(crate) peers: Vec<Peer>,
    /// Another tunnel: COMMAND is run by `sh -c` at each end, with ISATAP_PERF_INTERFACE, _LOCAL, _PEER (IPv4), _ADDRESS,
    /// _PEER_ADDRESS (IPv6) and _MTU in its environment; it makes the interface and stays in the foreground.
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) external: Vec<External>,
    /// Only these measurements, by name (see `isatap-perf list`).
    #[arg(long, value_delimiter = ',', value_parser = measurement)]
    pub(crate) only: Vec<String>,
    /// All points of every sweep: far more than 10 minutes.
    #[arg(long)]
    pub(crate) full: bool,
    /// Worker threads of isatapd outside the sweep; the loop it is compared with has one.
    #[arg(long, default_value_t = 1, value_parser = workers)]
    pub(crate) workers: usize,
    /// Tunnel MTU in bytes.
    #[arg(long, default_value_t = 1480, value_parser = clap::value_parser!(u16).range(1328..=1480))]
    pub(crate) mtu: u16,
    /// UDP flows.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) flows: u16,
    /// UDP packets on the way at once, over all flows: below every queue, so that none is lost to congestion.
    #[arg(long, default_value_t = 768, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) window: u64,
    /// Where reports are written.
    #[arg(long, default_value = "target/perf")]
    pub(crate) output: PathBuf,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    if (0.2..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected 0.2 to 600 seconds".into())
    }
}

fn hours(text: &str) -> Result<f64, String> {
    let hours: f64 = text.parse().map_err(|_| "expected a number of hours")?;
    if (0.001..=1000.0).contains(&hours) {
        Ok(hours)
    } else {
        Err("expected 0.001 to 1000 hours".into())
    }
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=64) => Ok(workers),
        _ => Err("expected 1 to 64".into()),
    }
}

fn measurement(text: &str) -> Result<String, String> {
    if MEASUREMENTS.iter().any(|row| row.id == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<_> = MEASUREMENTS.iter().map(|row| row.id).collect();
    Err(format!("there is {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn alone_it_measures() {
        let cli = Cli::parse_from(["isatap-perf"]);
        assert!(cli.order.is_none());
        assert_eq!(cli.run.peers.len(), 4);
        let cli = Cli::parse_from(["isatap-perf", "--only", "tcp,rr", "--external", "x=run it"]);
        assert_eq!((cli.run.only.len(), cli.run.external.len()), (2, 1));
        assert!(Cli::try_parse_from(["isatap-perf", "--only", "nothing"]).is_err());
        assert!(Cli::try_parse_from(["isatap-perf", "--peers", "nobody"]).is_err());
        let cli = Cli::parse_from(["isatap-perf", "compare", "a", "b", "--force"]);
        assert!(matches!(cli.order, Some(Order::Compare(options)) if options.force));
    }
}
