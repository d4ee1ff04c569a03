//! What one run does: the table's rows that are wanted, in the order in which they are taken, and how long that takes.
//!
//! In each round every scene is built anew for every peer; then each measurement goes from peer to peer (A B C, A B C) over
//! scenes that stand already, so that what the machine does meanwhile touches all alike.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cli::RunOptions;
use crate::peer::Peer;
use crate::record::{Key, Point};
use crate::scene::{Scene, Stage, Underlay};
use crate::table::{MEASUREMENTS, Measurement, Parameter};

/// Seconds to build a scene and to take it down, for one peer.
const BUILD_SECONDS: f64 = 0.5;
/// Routes that are added and learnt in a second.
const ROUTES_PER_SECOND: f64 = 25_000.0;
/// Workers of the daemon whose memory and idle time are looked at (DESIGN P10).
const FOOTPRINT_WORKERS: usize = 4;

/// What figures depend on, and readers must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) workers: usize,
    pub(crate) mtu: u16,
    pub(crate) flows: u16,
    pub(crate) window: u64,
    /// Names and commands of external tunnels.
    pub(crate) external: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rounds: 3,
            seconds: 1.5,
            workers: 1,
            mtu: 1480,
            flows: 16,
            window: 768,
            external: Vec::new(),
        }
    }
}

/// A measurement at one point of its sweep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) row: &'static Measurement,
    pub(crate) underlay: Underlay,
    pub(crate) point: Option<(Parameter, u32)>,
}

/// Steps that share a scene.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) scene: Scene,
    pub(crate) steps: Vec<Step>,
}

/// A round; all are alike.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) peers: Vec<Peer>,
    pub(crate) groups: Vec<Group>,
}

impl Plan {
    pub(crate) fn new(options: &RunOptions) -> Self {
        let external = options.external.iter();
        let settings = Settings {
            rounds: options.rounds,
            seconds: options.seconds,
            workers: options.workers,
            mtu: options.mtu,
            flows: options.flows,
            window: options.window,
            external: external
                .clone()
                .map(|external| (external.name.clone(), external.command.clone()))
                .collect(),
        };
        let mut peers = options.peers.clone();
        peers.extend(external.map(|external| Peer::External(Arc::new(external.clone()))));
        let mut groups: Vec<Group> = Vec::new();
        let wanted = |row: &&Measurement| match &options.only[..] {
            [] => options.full || !row.on_request,
            only => only.iter().any(|id| id == row.id),
        };
        for row in MEASUREMENTS.iter().filter(wanted) {
            for step in steps(row, options.full) {
                let scene = step.scene(&settings);
                match groups.iter_mut().find(|group| group.scene == scene) {
                    Some(group) => group.steps.push(step),
                    None => groups.push(Group {
                        scene,
                        steps: vec![step],
                    }),
                }
            }
        }
        Self {
            settings,
            peers,
            groups,
        }
    }

    /// Seconds of the whole run.
    pub(crate) fn seconds(&self) -> f64 {
        let round: f64 = self.groups.iter().map(|group| self.group_seconds(group)).sum();
        round * f64::from(self.settings.rounds)
    }

    /// Seconds of one group in one round.
    pub(crate) fn group_seconds(&self, group: &Group) -> f64 {
        let build = match group.scene.stage {
            Stage::Own => 0.0,
            _ => BUILD_SECONDS + f64::from(group.scene.routes) / ROUTES_PER_SECOND,
        };
        let of_peer = |peer: &Peer| -> f64 {
            let steps = group.steps.iter().filter(|step| step.includes(peer));
            let seconds: Vec<_> = steps
                .map(|step| step.row.method.seconds(&self.settings))
                .collect();
            if seconds.is_empty() {
                0.0
            } else {
                build + seconds.iter().sum::<f64>()
            }
        };
        self.peers.iter().map(of_peer).sum()
    }
}

fn steps(row: &'static Measurement, full: bool) -> Vec<Step> {
    let points: Vec<_> = match &row.sweep {
        None => vec![None],
        Some(sweep) => {
            let values = if full { sweep.full } else { sweep.default };
            values
                .iter()
                .map(|value| Some((sweep.parameter, *value)))
                .collect()
        }
    };
    let at = |underlay: &Underlay| {
        let underlay = *underlay;
        let step = move |point: &Option<_>| Step {
            row,
            underlay,
            point: *point,
        };
        points.iter().map(step).collect::<Vec<_>>()
    };
    row.underlays.iter().flat_map(at).collect()
}

impl Step {
    /// Whether this peer is measured. How many workers there are is nothing to programs in the kernel.
    pub(crate) fn includes(&self, peer: &Peer) -> bool {
        let of_workers = self.value(Parameter::Workers).is_some();
        self.row.who.includes(peer) && !(of_workers && *peer == Peer::Ebpf)
    }

    /// The value of a parameter at this point.
    pub(crate) fn value(&self, parameter: Parameter) -> Option<u32> {
        self.point
            .filter(|(is, _)| *is == parameter)
            .map(|(_, value)| value)
    }

    fn scene(&self, settings: &Settings) -> Scene {
        let workers = match self.row.method {
            crate::table::Method::Footprint => FOOTPRINT_WORKERS,
            _ => self
                .value(Parameter::Workers)
                .and_then(|workers| usize::try_from(workers).ok())
                .unwrap_or(settings.workers),
        };
        Scene {
            stage: self.row.stage,
            underlay: self.underlay,
            workers,
            routes: self.value(Parameter::Routes).unwrap_or(0),
            routers: self.value(Parameter::Routers).unwrap_or(0),
        }
    }

    pub(crate) fn key(&self, figure: &str, peer: &Peer) -> Key {
        Key {
            figure: figure.to_owned(),
            underlay: self.underlay,
            point: self.point.map(|(parameter, value)| Point {
                parameter: parameter.name().to_owned(),
                value,
            }),
            peer: peer.name().to_owned(),
        }
    }

    /// For the progress line.
    pub(crate) fn title(&self) -> String {
        let point = self
            .point
            .map(|(parameter, value)| format!(", {value} {}", parameter.name()));
        let underlay = if self.row.underlays.len() > 1 {
            format!(", {}", self.underlay.title())
        } else {
            String::new()
        };
        format!("{}{underlay}{}", self.row.id, point.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    fn plan(arguments: &[&str]) -> Plan {
        let arguments = std::iter::once(&"isatap-perf").chain(arguments);
        Plan::new(&Cli::parse_from(arguments).run)
    }

    /// A fresh clone is to be built and measured within 10 minutes.
    #[test]
    fn the_default_fits_a_build_into_ten_minutes_and_shows_every_kind() {
        let default = plan(&[]);
        assert!(default.seconds() < 6.5 * 60.0, "{} s", default.seconds());
        let shown: Vec<_> = default.groups.iter().flat_map(|group| &group.steps).collect();
        let is_in = |steps: &[&Step], row: &Measurement| steps.iter().any(|step| step.row.id == row.id);
        assert!(
            MEASUREMENTS
                .iter()
                .all(|row| is_in(&shown, row) != row.on_request)
        );
        let full = plan(&["--full"]);
        assert!(full.seconds() > default.seconds());
        let shown: Vec<_> = full.groups.iter().flat_map(|group| &group.steps).collect();
        assert!(MEASUREMENTS.iter().all(|row| is_in(&shown, row)));
        assert_eq!(plan(&["--only", "hub-tcp"]).groups.len(), 2);
    }

    #[test]
    fn rounds_and_filters_scale_it() {
        let one = plan(&["--rounds", "1", "--only", "tcp", "--peers", "bare"]).seconds();
        let three = plan(&["--rounds", "3", "--only", "tcp", "--peers", "bare"]).seconds();
        assert!((three - 3.0 * one).abs() < 1e-9);
        // Two scenes, 2.3 s of TCP in each.
        assert!((one - 2.0 * (BUILD_SECONDS + 2.3)).abs() < 1e-9, "{one}");
        assert!(plan(&["--only", "routes", "--peers", "bare"]).seconds().abs() < 1e-9);
    }

    #[test]
    fn rows_share_scenes() {
        let plan = plan(&["--only", "tcp,udp64,rr,workers-udp"]);
        // Plain and merging; one worker of the sweep is the plain scene; two workers.
        assert_eq!(plan.groups.len(), 3);
        assert_eq!(plan.groups[0].steps.len(), 4);
    }
}
