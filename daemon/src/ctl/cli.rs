//! The command line of `isatapctl`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use isatap_engine::fib::Ipv4Prefix;
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;

use crate::ops::capture::{
    CaptureRequest, DEFAULT_RATE, DEFAULT_SNAPLEN, MAX_RATE, MAX_SNAPLEN, MIN_SNAPLEN,
};

/// What people should know before they capture. The figures are instructions of whole turns of `cargo bench --bench turn`, counted
/// by callgrind.
const CAPTURE_HELP: &str = "\
The comments begin with what became of the packet: \"dropped REASON\", \"sent to ADDRESS\", \"delivered\", or \"given to control: KIND\"; \
isatapctl drops says what the reasons mean. Encap packets are shown as the tunnel interface gave them (IPv6, a superpacket as one, a checksum that is left to us unfinished), \
decap packets as they were received (IPv4). \"sent\" and \"delivered\" are decisions: a packet that the kernel refuses afterwards comes \
a second time, with the reason it is counted for.

A capture ends with --count, --seconds, Ctrl-C, or when what reads the standard output ends:

    isatapctl capture --drops -w - | tcpdump -nr -

Packets are never held up for it. What comes faster than --rate, or than it can be written, is missed: how much is said at the end, in the \
statistics of the file, and in the comment of the next packet. The daemon runs up to 4 captures at a time.

While a capture runs, each packet costs its worker as much again as its own work outside of system calls: 85 % more instructions when the \
packet is not wanted, 125 % when 112 bytes of it are copied, 200 % when it is 1480 bytes. Without a capture: one comparison a batch.";

/// Asks a running isatapd, or tells it what to do.
#[derive(Debug, Parser)]
#[command(name = "isatapctl", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 refused or failed (ready: not ready, doctor: an obstacle), 2 usage, 69 no daemon, 77 not permitted, 78 check failed."
)]
pub struct Cli {
    /// Control socket of the daemon [default: ControlSocket of /etc/isatapd.conf, else /run/isatapd/control.sock]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
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
        /// Print the JSON Schema of that, without asking a daemon
        #[arg(long, conflicts_with_all = ["rate", "json"])]
        schema: bool,
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
    /// Show the hosts that solicited this router lately, and are told of changes
    Hosts {
        /// Only those of this IPv4 network, or the one with this address
        network: Option<Ipv4Prefix>,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
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
    /// Write packets to a pcapng file, each with what became of it as its comment
    #[command(after_help = CAPTURE_HELP)]
    Capture(CaptureOptions),
    /// Load the configuration again; what did not change is not touched
    Reload,
    /// Let the program that is installed now take over; the interface and every connection stay
    Upgrade,
    /// Check a configuration file without a daemon
    Check {
        /// The file; without it /etc/isatapd.conf, which need not exist
        file: Option<PathBuf>,
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

/// What `capture` takes.
#[derive(Clone, Debug, Args)]
pub struct CaptureOptions {
    /// The file, or - for the standard output
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub file: PathBuf,
    /// Dropped packets only
    #[arg(long)]
    pub drops: bool,
    /// encap: IPv6 packets this machine sends through the tunnel; decap: IPv4 packets it receives
    #[arg(long, value_name = "DIRECTION", value_parser = PossibleValuesParser::new(Direction::ALL.map(Direction::name)))]
    pub direction: Option<String>,
    /// Packets dropped for this reason only; may be repeated
    #[arg(long = "reason", value_name = "REASON", hide_possible_values = true, value_parser = PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.name())))]
    pub reasons: Vec<String>,
    /// Packets from or to this address only; may be repeated. An IPv4 address is the peer's: in the outer header, as next hop, or
    /// embedded in an inner address
    #[arg(long = "host", value_name = "ADDRESS")]
    pub hosts: Vec<IpAddr>,
    /// End after so many packets
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Bytes of each packet, at most
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN, value_parser = clap::value_parser!(u32).range(i64::from(MIN_SNAPLEN)..=i64::from(MAX_SNAPLEN)))]
    pub snaplen: u32,
    /// Packets a second and worker, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RATE, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    pub rate: u32,
}

impl CaptureOptions {
    /// What the daemon is asked for.
    pub fn request(&self) -> CaptureRequest {
        CaptureRequest {
            drops: self.drops,
            direction: self.direction.clone(),
            reasons: self.reasons.clone(),
            hosts: self.hosts.clone(),
            count: self.count,
            seconds: self.seconds,
            snaplen: Some(self.snaplen),
            rate: Some(self.rate),
        }
    }
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
            Some(PathBuf::from("/x"))
        );
        let Order::Capture(options) = parse(
            "isatapctl capture --drops --reason ecn --reason no_route --host 10.0.0.1 --host ::1 -c 3 -w -",
        )
        .unwrap()
        .order
        else {
            panic!("a capture")
        };
        let request = options.request();
        assert!(request.plan().is_ok());
        assert_eq!(
            (request.reasons.len(), request.hosts.len(), request.count),
            (2, 2, Some(3))
        );
        for wrong in [
            "isatapctl capture",
            "isatapctl capture -w x --reason tea",
            "isatapctl capture -w x --direction up",
            "isatapctl capture -w x --count 0",
            "isatapctl capture -w x --snaplen 10",
            "isatapctl capture -w x --rate 0",
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
