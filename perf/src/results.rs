//! What came out: readings by who was measured and what, their medians, and the targets they are held against.

use std::collections::BTreeMap;

use crate::link::Underlay;
use crate::measure::Reading;
use crate::peer::Peer;
use crate::plan::{Metric, Step};

/// One turn's outcome.
#[derive(Clone, Debug)]
pub(crate) enum Sample {
    Reading(Reading),
    Failed,
}

/// Whose readings: metric first, so that tables and plots come out in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) metric: Metric,
    pub(crate) underlay: Underlay,
    pub(crate) peer: Peer,
}

/// The readings of one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) readings: Vec<Reading>,
    pub(crate) failed: usize,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) series: BTreeMap<Key, Series>,
}

/// A ratio of DESIGN 3 and what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) id: &'static str,
    pub(crate) text: &'static str,
    of: Key,
    to: Key,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const fn key(metric: Metric, underlay: Underlay, peer: Peer) -> Key {
    Key {
        metric,
        underlay,
        peer,
    }
}

/// The targets that peers measured here decide.
pub(crate) const TARGETS: [Target; 4] = [
    Target {
        id: "P1",
        text: "bulk TCP, uring lane / loop",
        of: key(Metric::Tcp, Underlay::Plain, Peer::Uring),
        to: key(Metric::Tcp, Underlay::Plain, Peer::Baseline),
        bound: Bound::AtLeast(3.5),
    },
    Target {
        id: "P2",
        text: "bulk TCP, uring lane, GRO on / off",
        of: key(Metric::Tcp, Underlay::Merging, Peer::Uring),
        to: key(Metric::Tcp, Underlay::Plain, Peer::Uring),
        bound: Bound::AtLeast(1.0),
    },
    Target {
        id: "P3",
        text: "small UDP of a flood, uring lane / loop",
        of: key(Metric::Flood, Underlay::Plain, Peer::Uring),
        to: key(Metric::Flood, Underlay::Plain, Peer::Baseline),
        bound: Bound::AtLeast(1.5),
    },
    Target {
        id: "P9",
        text: "idle round trip p50, uring lane / loop",
        of: key(Metric::Rtt, Underlay::Plain, Peer::Uring),
        to: key(Metric::Rtt, Underlay::Plain, Peer::Baseline),
        bound: Bound::AtMost(1.0),
    },
];

impl Target {
    /// The bound as text.
    pub(crate) fn bound(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!(">= {bound:.2}"),
            Bound::AtMost(bound) => format!("<= {bound:.2}"),
        }
    }

    /// The ratio of medians, and whether it is enough; `None` when one of the two was not measured.
    pub(crate) fn judge(&self, results: &Results) -> Option<(f64, bool)> {
        let ratio = results.median(&self.of)? / results.median(&self.to)?;
        let met = match self.bound {
            Bound::AtLeast(bound) => ratio >= bound,
            Bound::AtMost(bound) => ratio <= bound,
        };
        Some((ratio, met))
    }
}

impl Series {
    /// The values in ascending order.
    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut values: Vec<f64> = self.readings.iter().map(|reading| reading.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The middle value, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> Option<f64> {
        let values = self.sorted();
        let upper = *values.get(values.len() / 2)?;
        let lower = values[(values.len() - 1) / 2];
        Some(f64::midpoint(lower, upper))
    }

    /// The least and the largest value.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let values = self.sorted();
        Some((*values.first()?, *values.last()?))
    }

    /// The sum of a detail over all readings.
    pub(crate) fn detail(&self, name: &str) -> f64 {
        self.readings
            .iter()
            .filter_map(|reading| reading.details.get(name))
            .sum()
    }
}

impl Results {
    pub(crate) fn add(&mut self, step: &Step, metric: Metric, sample: Sample) {
        let series = self
            .series
            .entry(key(metric, step.underlay, step.peer))
            .or_default();
        match sample {
            Sample::Reading(reading) => series.readings.push(reading),
            Sample::Failed => series.failed += 1,
        }
    }

    pub(crate) fn median(&self, key: &Key) -> Option<f64> {
        self.series.get(key)?.median()
    }

    /// This key's median as a multiple of the loop's under the same conditions.
    pub(crate) fn ratio_to_loop(&self, key: &Key) -> Option<f64> {
        let to = Key {
            peer: Peer::Baseline,
            ..*key
        };
        let base = self.median(&to).filter(|median| *median > 0.0)?;
        Some(self.median(key)? / base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let readings = values.iter().map(|value| Reading {
            value: *value,
            details: BTreeMap::new(),
        });
        Series {
            readings: readings.collect(),
            failed: 0,
        }
    }

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(series(&[]).median(), None);
        assert_eq!(series(&[3.0, 1.0]).spread(), Some((1.0, 3.0)));
    }

    #[test]
    fn targets_are_judged_in_their_own_direction() {
        let mut results = Results::default();
        let mut set = |metric, peer, value| {
            results
                .series
                .insert(key(metric, Underlay::Plain, peer), series(&[value]));
        };
        set(Metric::Tcp, Peer::Baseline, 100.0);
        set(Metric::Tcp, Peer::Uring, 340.0);
        set(Metric::Rtt, Peer::Baseline, 100.0);
        set(Metric::Rtt, Peer::Uring, 99.0);
        let judged: Vec<_> = TARGETS
            .iter()
            .map(|target| target.judge(&results).map(|(_, met)| met))
            .collect();
        assert_eq!(judged, [Some(false), None, None, Some(true)]);
    }
}
