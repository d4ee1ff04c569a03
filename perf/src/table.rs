//! All that can be measured, as one table: what, of whom, over which underlay, with which parameters, for how long.

use crate::peer::Peer;
use crate::plan::Settings;
use crate::record::Better;
use crate::scene::{Stage, Underlay};

/// One row.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// For `--only`, and in JSON.
    pub(crate) id: &'static str,
    /// What it means, for readers of the report.
    pub(crate) about: &'static str,
    pub(crate) stage: Stage,
    pub(crate) underlays: &'static [Underlay],
    pub(crate) who: Who,
    pub(crate) sweep: Option<Sweep>,
    /// Taken when named by `--only`, or with `--full`: what everybody waits for has its limit.
    pub(crate) on_request: bool,
    pub(crate) method: Method,
    pub(crate) figures: &'static [Figure],
}

/// A number that comes out.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The key in JSON.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

/// Whom it makes sense to measure so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Everybody,
    /// Those that know what an ISATAP host is.
    Isatap,
    /// Only isatapd.
    Daemon,
    /// isatapd, and the bare link beside it.
    Router,
}

/// A parameter that takes several values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    pub(crate) parameter: Parameter,
    pub(crate) default: &'static [u32],
    /// With `--full`.
    pub(crate) full: &'static [u32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    Workers,
    Hosts,
    Routes,
    Routers,
}

/// How it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Bulk TCP; so many connections.
    Tcp { flows: u32 },
    /// UDP with a window; bytes of data.
    Udp { size: usize },
    /// UDP of the usual mix of sizes, with a window.
    Imix,
    /// UDP from a sender that never waits; bytes of data.
    Flood { size: usize },
    /// Small UDP with a window, to or from as many hosts as the parameter says.
    Hosts,
    /// The same to networks behind hosts, as many as there are routes.
    Networks,
    /// The same from networks behind routers, as many as there are routers.
    FromRouters,
    /// Request and response, one at a time.
    RoundTrip { transport: Transport, pace: Pace },
    /// The rate without loss, and latency at 80 % of it.
    Loaded,
    /// Memory and time of the daemon.
    Footprint,
    /// From start to first packet.
    Start,
}

/// What carries requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// When the next request follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When everybody has gone to sleep.
    Idle,
    /// At once.
    Steady,
}

const PLAIN: &[Underlay] = &[Underlay::Plain];
const BOTH: &[Underlay] = &[Underlay::Plain, Underlay::Merging];

const fn more(id: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure {
        id,
        title,
        unit,
        better: Better::More,
    }
}

const fn less(id: &'static str, title: &'static str, unit: &'static str) -> Figure {
    Figure {
        id,
        title,
        unit,
        better: Better::Less,
    }
}

const fn row(
    id: &'static str,
    who: Who,
    underlays: &'static [Underlay],
    method: Method,
    figures: &'static [Figure],
    about: &'static str,
) -> Measurement {
    Measurement {
        id,
        about,
        stage: Stage::Pair,
        underlays,
        who,
        sweep: None,
        on_request: false,
        method,
        figures,
    }
}

const fn round_trip(
    id: &'static str,
    transport: Transport,
    pace: Pace,
    figures: &'static [Figure],
    about: &'static str,
) -> Measurement {
    let method = Method::RoundTrip { transport, pace };
    row(id, Who::Everybody, BOTH, method, figures, about)
}

const fn swept(stage: Stage, sweep: Sweep, row: Measurement) -> Measurement {
    Measurement {
        stage,
        sweep: Some(sweep),
        ..row
    }
}

/// The values of a sweep: by default, and with `--full`.
const fn sweep(parameter: Parameter, default: &'static [u32], full: &'static [u32]) -> Sweep {
    Sweep {
        parameter,
        default,
        full,
    }
}

use Who::{Daemon, Everybody, Isatap, Router};

/// All rows, in the order of the report. Rows that share a scene share one building of it.
pub(crate) static MEASUREMENTS: &[Measurement] = &[
    row(
        "tcp",
        Everybody,
        BOTH,
        Method::Tcp { flows: 1 },
        &[more("tcp", "bulk TCP, one flow", "Mbit/s")],
        "iperf3, one connection; what the receiver counted after the first quarter of a second.",
    ),
    row(
        "tcp-many",
        Everybody,
        BOTH,
        Method::Tcp { flows: 8 },
        &[more("tcp-many", "bulk TCP, 8 flows", "Mbit/s")],
        "The same with eight connections at once.",
    ),
    row(
        "udp64",
        Everybody,
        PLAIN,
        Method::Udp { size: 64 },
        &[more("udp64", "UDP, 64 bytes, no loss", "kpackets/s")],
        "The sender never has more packets on the way than every queue holds, so each tunnel is offered what it can carry.",
    ),
    row(
        "udp512",
        Everybody,
        PLAIN,
        Method::Udp { size: 512 },
        &[more("udp512", "UDP, 512 bytes, no loss", "kpackets/s")],
        "The same with 512 bytes of data.",
    ),
    row(
        "udp1280",
        Everybody,
        PLAIN,
        Method::Udp { size: 1280 },
        &[more("udp1280", "UDP, 1280 bytes, no loss", "kpackets/s")],
        "The same with 1280 bytes of data.",
    ),
    row(
        "imix",
        Everybody,
        PLAIN,
        Method::Imix,
        &[more("imix", "UDP, IMIX, no loss", "kpackets/s")],
        "The usual mix: inner packets of 64, 579 and 1480 bytes, 7 : 4 : 1 (scaled to the tunnel MTU).",
    ),
    row(
        "flood",
        Everybody,
        PLAIN,
        Method::Flood { size: 64 },
        &[more("flood", "UDP, 64 bytes, delivered of a flood", "kpackets/s")],
        "The sender never waits. What counts is how much of it comes through while the machine is kept busy with what does not.",
    ),
    round_trip(
        "rr",
        Transport::Udp,
        Pace::Idle,
        &[
            less("rr-p50", "round trip, idle, p50", "us"),
            less("rr-p99", "round trip, idle, p99", "us"),
        ],
        "A small UDP request every 2 ms and its response, by two processes: every wake-up on the way counts.",
    ),
    round_trip(
        "udp-rr",
        Transport::Udp,
        Pace::Steady,
        &[
            less("udp-rr-p50", "UDP transaction, p50", "us"),
            less("udp-rr-p99", "UDP transaction, p99", "us"),
            more("udp-rr-rate", "UDP transactions", "thousands/s"),
        ],
        "The same without a pause, as UDP_RR of netperf: each request follows the response to the last.",
    ),
    round_trip(
        "tcp-rr",
        Transport::Tcp,
        Pace::Steady,
        &[
            less("tcp-rr-p50", "TCP transaction, p50", "us"),
            less("tcp-rr-p99", "TCP transaction, p99", "us"),
            more("tcp-rr-rate", "TCP transactions", "thousands/s"),
        ],
        "The same over one TCP connection, as TCP_RR of netperf.",
    ),
    row(
        "loaded",
        Everybody,
        PLAIN,
        Method::Loaded,
        &[
            more("lossfree", "highest rate without loss", "kpackets/s"),
            less("loaded-p50", "one way at 80 % of that rate, p50", "us"),
            less("loaded-p99", "one way at 80 % of that rate, p99", "us"),
            less("loaded-p999", "one way at 80 % of that rate, p99.9", "us"),
        ],
        "The rate is found by halving (64-byte packets, trials of 0.3 s without a loss and without a growing queue); then packets are paced at 80 % of it.",
    ),
    Measurement {
        stage: Stage::Hub,
        on_request: true,
        ..row(
            "hub-tcp",
            Router,
            BOTH,
            Method::Tcp { flows: 1 },
            &[more(
                "hub-tcp",
                "bulk TCP through a router between two hosts",
                "Mbit/s",
            )],
            "Three machines and a switch: where the prefix is not on-link, all between hosts passes the router, in by its tunnel and out by it again.",
        )
    },
    Measurement {
        stage: Stage::Hub,
        on_request: true,
        ..row(
            "hub-udp",
            Router,
            PLAIN,
            Method::Udp { size: 64 },
            &[more(
                "hub-udp",
                "UDP, 64 bytes, through a router between two hosts",
                "kpackets/s",
            )],
            "The same with small packets.",
        )
    },
    swept(
        Stage::Pair,
        sweep(Parameter::Workers, &[1, 2], &[1, 2, 3, 4]),
        row(
            "workers-tcp",
            Daemon,
            PLAIN,
            Method::Tcp { flows: 8 },
            &[more("workers-tcp", "bulk TCP, 8 flows", "Mbit/s")],
            "Both daemons with so many workers; they share this machine's cores with each other and with iperf3.",
        ),
    ),
    swept(
        Stage::Pair,
        sweep(Parameter::Workers, &[1, 2], &[1, 2, 3, 4]),
        row(
            "workers-udp",
            Daemon,
            PLAIN,
            Method::Udp { size: 64 },
            &[more("workers-udp", "UDP, 64 bytes, no loss", "kpackets/s")],
            "The same with small packets.",
        ),
    ),
    swept(
        Stage::Out,
        sweep(Parameter::Hosts, &[1, 10_000], &[1, 10, 100, 1000, 10_000]),
        row(
            "hosts-out",
            Isatap,
            PLAIN,
            Method::Hosts,
            &[more("hosts-out", "sent to distinct hosts", "kpackets/s")],
            "One tunnel end sends small packets to so many ISATAP hosts in turn; counted as outer packets.",
        ),
    ),
    swept(
        Stage::In,
        sweep(Parameter::Hosts, &[1, 10_000], &[1, 10, 100, 1000, 10_000]),
        row(
            "hosts-in",
            Isatap,
            PLAIN,
            Method::Hosts,
            &[more("hosts-in", "received from distinct hosts", "kpackets/s")],
            "One tunnel end receives small packets from so many ISATAP hosts in turn.",
        ),
    ),
    swept(
        Stage::Out,
        sweep(Parameter::Routes, &[1, 10_000], &[1, 100, 10_000, 1_000_000]),
        row(
            "routes",
            Daemon,
            PLAIN,
            Method::Networks,
            &[more("routes", "sent along distinct routes", "kpackets/s")],
            "Each route leads to a network behind another host. The kernel's own look-up in a table of that size is part of it.",
        ),
    ),
    swept(
        Stage::In,
        sweep(Parameter::Routers, &[1, 64], &[1, 4, 16, 64]),
        row(
            "prl",
            Daemon,
            PLAIN,
            Method::FromRouters,
            &[more("prl", "received from routers of the PRL", "kpackets/s")],
            "A host with so many ServerAddress lines (64 is the most the configuration allows) receives from all in turn.",
        ),
    ),
    Measurement {
        stage: Stage::Own,
        ..row(
            "footprint",
            Daemon,
            PLAIN,
            Method::Footprint,
            &[
                less("rss-idle", "resident memory, idle", "MiB"),
                less("rss-loaded", "resident memory after load", "MiB"),
                less("rss-growth", "growth by the last of three equal loads", "MiB"),
                less("cpu-idle", "CPU of an idle daemon", "% of a core"),
            ],
            "One of two daemons with four workers: before traffic, after bulk TCP and a flood three times; the last adds the growth.",
        )
    },
    Measurement {
        stage: Stage::Own,
        ..row(
            "start",
            Daemon,
            PLAIN,
            Method::Start,
            &[less("start", "start to first packet carried", "ms")],
            "From before the process is started until a packet of its interface has reached the other end; median of three.",
        )
    },
];

impl Method {
    /// Seconds it takes, without building the scene; from what runs took.
    pub(crate) fn seconds(self, settings: &Settings) -> f64 {
        let packets = Self::packet_seconds(self, settings);
        match self {
            Self::Tcp { flows } => 0.3 + Self::tcp_seconds(flows, settings),
            Self::Udp { .. } | Self::Imix | Self::Flood { .. } => 0.3 + packets,
            Self::Hosts | Self::Networks | Self::FromRouters => 0.5 + packets,
            Self::RoundTrip { pace: Pace::Idle, .. } => 0.8,
            Self::RoundTrip {
                pace: Pace::Steady, ..
            } => 0.1 + packets,
            Self::Loaded => 3.4 + packets,
            Self::Footprint => 7.5,
            Self::Start => 0.9,
        }
    }

    /// Seconds that packets of our own are counted.
    pub(crate) fn packet_seconds(self, settings: &Settings) -> f64 {
        let share = match self {
            Self::Loaded => 0.5,
            Self::RoundTrip { .. } => 0.3,
            // Many points: less of each.
            Self::Hosts | Self::Networks | Self::FromRouters => 0.25,
            _ => 0.4,
        };
        settings.seconds * share
    }

    /// Seconds that iperf3 counts; many flows show less noise.
    pub(crate) fn tcp_seconds(flows: u32, settings: &Settings) -> f64 {
        let share = if flows == 1 { 1.0 } else { 0.5 };
        (settings.seconds * share).ceil()
    }
}

impl Who {
    pub(crate) fn includes(self, peer: &Peer) -> bool {
        match self {
            Self::Everybody => true,
            Self::Isatap => peer.is_daemon() || matches!(peer, Peer::Sit | Peer::Baseline | Peer::Drain),
            Self::Daemon => peer.is_daemon(),
            Self::Router => peer.is_daemon() || *peer == Peer::Bare,
        }
    }
}

impl Parameter {
    /// The key in JSON, and the title of an axis.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Workers => "workers",
            Self::Hosts => "hosts",
            Self::Routes => "routes",
            Self::Routers => "routers",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_sweep_has_a_default() {
        let ids: BTreeSet<_> = MEASUREMENTS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), MEASUREMENTS.len());
        let figures: Vec<_> = MEASUREMENTS.iter().flat_map(|row| row.figures).collect();
        let ids: BTreeSet<_> = figures.iter().map(|figure| figure.id).collect();
        assert_eq!(ids.len(), figures.len());
        for sweep in MEASUREMENTS.iter().filter_map(|row| row.sweep) {
            assert!(
                !sweep.default.is_empty() && sweep.default.iter().all(|value| sweep.full.contains(value))
            );
        }
    }
}
