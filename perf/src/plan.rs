//! What is measured: the command line, and the list of steps it comes to.

use std::fmt;
use std::path::PathBuf;

use clap::Parser;

use crate::link::Underlay;
use crate::peer::Peer;

/// Measures isatapd in network namespaces beside peers that do the same job; needs root and release builds beside it.
#[derive(Clone, Debug, Parser)]
#[command(name = "isatap-perf")]
pub(crate) struct Plan {
    /// Rounds; each peer is measured once in each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Seconds of each throughput and packet-rate measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Who is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    pub(crate) peers: Vec<Peer>,
    /// Worker threads of isatapd; the loop it is compared with has one.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
    /// Tunnel MTU in bytes.
    #[arg(long, default_value_t = 1480)]
    pub(crate) mtu: u16,
    /// UDP flows.
    #[arg(long, default_value_t = 16)]
    pub(crate) flows: u16,
    /// Bytes of data of a UDP packet.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// UDP packets on the way at once, over all flows: below every queue, so that none is lost to congestion.
    #[arg(long, default_value_t = 768)]
    pub(crate) window: u64,
    /// Where reports are written.
    #[arg(long, default_value = "target/perf")]
    pub(crate) output: PathBuf,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Bulk TCP, one flow.
    Tcp,
    /// Small UDP packets, several flows, never more on the way than queues hold.
    Udp,
    /// The same from a sender that never waits.
    Flood,
    /// Round trips on an idle link.
    Rtt,
}

impl Metric {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Flood, Self::Rtt];

    /// The key in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Flood => "udp_flood",
            Self::Rtt => "rtt",
        }
    }

    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "bulk TCP, one flow",
            Self::Udp => "small UDP, without loss",
            Self::Flood => "small UDP delivered of a flood",
            Self::Rtt => "idle round trip, p50",
        }
    }

    /// The unit of its readings.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Tcp => "Mbit/s",
            Self::Udp | Self::Flood => "kpackets/s",
            Self::Rtt => "us",
        }
    }

    /// Whether a smaller reading is the better one.
    pub(crate) const fn lower_is_better(self) -> bool {
        matches!(self, Self::Rtt)
    }
}

/// One peer's turn.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) round: u32,
    pub(crate) peer: Peer,
    pub(crate) underlay: Underlay,
    pub(crate) metrics: Vec<Metric>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.peer.name(), self.underlay.title())
    }
}

impl Plan {
    /// Every turn in order: in each round each peer once, over the plain underlay and over one that merges packets,
    /// where only bulk TCP has anything to merge.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let turns = |round| {
            Underlay::ALL.into_iter().flat_map(move |underlay| {
                self.peers.iter().map(move |peer| Step {
                    round,
                    peer: *peer,
                    underlay,
                    metrics: match underlay {
                        Underlay::Plain => Metric::ALL.to_vec(),
                        Underlay::Merging => vec![Metric::Tcp],
                    },
                })
            })
        };
        (1..=self.runs).flat_map(turns).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Plan as clap::CommandFactory>::command().debug_assert();
    }

    /// Peers take turns: no peer comes again before all others did.
    #[test]
    fn peers_alternate() {
        let plan = Plan::parse_from(["isatap-perf", "--runs", "3", "--peers", "baseline,uring"]);
        let turns: Vec<_> = plan
            .steps()
            .into_iter()
            .filter(|step| step.underlay == Underlay::Plain)
            .map(|step| (step.round, step.peer))
            .collect();
        let both = |round| [(round, Peer::Baseline), (round, Peer::Uring)];
        assert_eq!(turns, [both(1), both(2), both(3)].concat());
    }
}
