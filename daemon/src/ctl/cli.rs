//! The command line of `isatapctl`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Where the daemon listens unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/isatapd/control.sock";
/// The configuration file unless another is named.
pub const DEFAULT_CONFIG: &str = "/etc/isatapd.conf";

/// Asks a running isatapd, or tells it what to do.
#[derive(Debug, Parser)]
#[command(name = "isatapctl", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 refused by the daemon, 2 usage, 69 no daemon, 78 check failed."
)]
pub struct Cli {
    /// Control socket of the daemon (ControlSocket in its configuration)
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub order: Order,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Order {
    /// Show what the daemon does: interface, routers, packets
    Status {
        /// Print the whole status as JSON, as under /api/v1/status
        #[arg(long, conflicts_with = "rate")]
        json: bool,
        /// Look twice, so many seconds apart, and show packets per second
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
        rate: Option<f64>,
    },
    /// Show why packets were dropped
    Drops {
        /// Look twice, so many seconds apart, and show drops per second
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
        rate: Option<f64>,
    },
    /// Show the potential router list with the health of each router
    Routers,
    /// Show where the workers send the packets of each prefix
    Routes,
    /// Show the packets of each worker
    Workers {
        /// Look twice, so many seconds apart, and show packets per second
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
        rate: Option<f64>,
    },
    /// Show how long packets stay in the daemon, per worker and direction
    Histogram {
        /// Write an HdrHistogram log (one tag per worker and direction) that HistogramLogAnalyzer reads
        #[arg(long, value_name = "FILE")]
        hlog: Option<PathBuf>,
        /// Look so many times, one interval apart, and show each interval; without it, everything since the start
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        count: Option<u32>,
        /// Length of one interval
        #[arg(long, value_name = "SECONDS", default_value = "1", requires = "count", value_parser = seconds)]
        interval: f64,
    },
    /// Watch the daemon in the terminal: rates, latencies, drops, routers
    Top {
        /// Time between two looks
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        interval: f64,
    },
    /// Load the configuration again; what did not change is not touched
    Reload,
    /// Check a configuration file without a daemon
    Check {
        /// The file
        #[arg(default_value = DEFAULT_CONFIG)]
        file: PathBuf,
        /// Do not look up the names of routers: a daemon starts without them, too
        #[arg(long)]
        no_lookup: bool,
    },
    /// Say what on this machine stands in the way, with the remedy; exit status 1 if something does
    Doctor,
    /// Solicit every router now (host)
    Rs,
    /// Take this router out of service: hosts are led to others, /ready says no, what still comes is carried; lasts until
    /// --undo or a restart, over reloads
    Drain {
        /// Take it back into service
        #[arg(long)]
        undo: bool,
    },
    /// Say whether packets can be carried; exit status 1, with the reasons, if not
    Ready {
        /// Wait so many seconds for it at most, also for the daemon
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<f64>,
        /// Stay, and have an interface of this name exist and be up as long as packets can be carried, for routing daemons
        /// that announce a route over it; it goes with this program or the daemon, whatever ends them
        #[arg(long, value_name = "INTERFACE", conflicts_with = "wait")]
        hold: Option<String>,
    },
    /// Say what the daemon would do with a packet, and by which rule
    Explain {
        /// IPv4 source of a packet received from the site; without it, a packet this machine sends
        #[arg(long, value_name = "IPV4")]
        src4: Option<Ipv4Addr>,
        /// IPv6 source
        #[arg(long, value_name = "IPV6")]
        src6: Ipv6Addr,
        /// IPv6 destination
        #[arg(long, value_name = "IPV6")]
        dst6: Ipv6Addr,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(matches!(
            parse("isatapctl status --json").unwrap().order,
            Order::Status { json: true, .. }
        ));
        assert!(matches!(
            parse("isatapctl drops --rate").unwrap().order,
            Order::Drops { rate: Some(1.0) }
        ));
        assert!(matches!(
            parse("isatapctl drops --rate 2").unwrap().order,
            Order::Drops { rate: Some(2.0) }
        ));
        assert_eq!(
            parse("isatapctl rs --socket /x").unwrap().socket,
            PathBuf::from("/x")
        );
        for wrong in [
            "isatapctl",
            "isatapctl tea",
            "isatapctl drops --rate 0",
            "isatapctl ready --wait 1 --hold isatap-up",
            "isatapctl explain --src6 x",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
