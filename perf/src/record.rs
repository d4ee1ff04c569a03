//! The record of a run, as it is written to JSON and read back: every reading, and all that is needed to take it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::plan::Settings;
use crate::scene::Underlay;
use crate::stats;
use crate::targets::Judged;

/// Tells our files from others.
const FORMAT: &str = "isatap-perf";
/// Rises whenever a reader of the last one would misread.
const SCHEMA_VERSION: u64 = 2;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: String,
    pub(crate) schema_version: u64,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    /// Seconds the whole run took.
    pub(crate) took: f64,
    pub(crate) targets: Vec<Judged>,
    pub(crate) series: Vec<Series>,
    /// Latencies of all rounds together.
    pub(crate) latencies: Vec<Latency>,
    /// Counters of the daemon that do not add up, packets delivered twice: there must be none.
    pub(crate) violations: Vec<String>,
    /// Measurements that came to nothing.
    pub(crate) failures: Vec<String>,
    /// Daemons whose counters were compared.
    pub(crate) conserved: u64,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    More,
    Less,
}

/// Whose readings of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) figure: String,
    pub(crate) underlay: Underlay,
    /// Of a sweep: the parameter and its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) point: Option<Point>,
    pub(crate) peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) parameter: String,
    pub(crate) value: u32,
}

/// The readings of one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) measurement: String,
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) peer_title: String,
    pub(crate) median: Option<f64>,
    pub(crate) least: Option<f64>,
    pub(crate) most: Option<f64>,
    pub(crate) failed: u32,
    pub(crate) readings: Vec<Reading>,
}

/// One number, and what else was seen while it was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// In the unit of the series.
    pub(crate) value: f64,
    /// Losses, retransmissions, drops of the daemon: by name, for the record.
    pub(crate) details: BTreeMap<String, f64>,
}

/// A latency distribution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) measurement: String,
    pub(crate) peer: String,
    pub(crate) peer_title: String,
    /// The tag of its intervals in the .hlog file.
    pub(crate) tag: String,
    pub(crate) count: u64,
    /// Pairs of quantile and microseconds.
    pub(crate) percentiles: Vec<(f64, f64)>,
}

impl Record {
    pub(crate) fn new(machine: Machine, settings: Settings) -> Self {
        Self {
            format: FORMAT.into(),
            schema_version: SCHEMA_VERSION,
            machine,
            settings,
            took: 0.0,
            targets: Vec::new(),
            series: Vec::new(),
            latencies: Vec::new(),
            violations: Vec::new(),
            failures: Vec::new(),
            conserved: 0,
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
        Self::parse(&text).with_context(|| format!("{shown} is not usable"))
    }

    /// # Errors
    /// A message for whoever named the file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text).context("it is no JSON")?;
        ensure!(
            value.get("format").and_then(serde_json::Value::as_str) == Some(FORMAT),
            "it is JSON, but no record of isatap-perf (\"format\": \"{FORMAT}\" is missing)"
        );
        match value.get("schema_version").and_then(serde_json::Value::as_u64) {
            Some(SCHEMA_VERSION) => {}
            Some(other) => bail!("its schema_version is {other}; this isatap-perf reads {SCHEMA_VERSION}"),
            None => bail!("it has no schema_version"),
        }
        serde_json::from_value(value).context("a field is not as it should be")
    }

    /// The series of `key`, made if there is none.
    pub(crate) fn series_mut(&mut self, key: &Key, make: impl FnOnce() -> Series) -> &mut Series {
        let at = self.series.iter().position(|series| series.key == *key);
        let at = at.unwrap_or_else(|| {
            self.series.push(make());
            self.series.len() - 1
        });
        &mut self.series[at]
    }

    /// The series of a figure that is no sweep.
    pub(crate) fn find(&self, figure: &str, underlay: Underlay, peer: &str) -> Option<&Series> {
        self.series.iter().find(|series| {
            let key = &series.key;
            key.figure == figure && key.underlay == underlay && key.peer == peer && key.point.is_none()
        })
    }

    /// Series in groups that belong into one picture: the same figure over the same underlay.
    pub(crate) fn pictures(&self) -> Vec<Vec<&Series>> {
        let mut groups: Vec<Vec<&Series>> = Vec::new();
        for series in &self.series {
            let belongs = |group: &&mut Vec<&Series>| {
                let key = &group[0].key;
                (&key.figure, key.underlay) == (&series.key.figure, series.key.underlay)
            };
            match groups.iter_mut().find(belongs) {
                Some(group) => group.push(series),
                None => groups.push(vec![series]),
            }
        }
        groups
    }
}

impl Series {
    pub(crate) fn add(&mut self, reading: Reading) {
        self.readings.push(reading);
        let values = self.values();
        self.median = stats::median(&values);
        (self.least, self.most) = stats::spread(&values).unzip();
    }

    pub(crate) fn values(&self) -> Vec<f64> {
        self.readings.iter().map(|reading| reading.value).collect()
    }

    /// The sum of a detail over all readings.
    pub(crate) fn detail(&self, name: &str) -> f64 {
        let details = self
            .readings
            .iter()
            .filter_map(|reading| reading.details.get(name));
        details.sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A series with a median to compare or judge.
    pub(crate) fn series(figure: &str, underlay: Underlay, peer: &str, values: &[f64]) -> Series {
        let mut series = Series {
            key: Key {
                figure: figure.into(),
                underlay,
                point: None,
                peer: peer.into(),
            },
            measurement: figure.into(),
            title: figure.into(),
            about: String::new(),
            unit: "x".into(),
            better: Better::More,
            peer_title: peer.into(),
            median: None,
            least: None,
            most: None,
            failed: 0,
            readings: Vec::new(),
        };
        for value in values {
            series.add(Reading {
                value: *value,
                details: BTreeMap::new(),
            });
        }
        series
    }

    pub(crate) fn record(series: Vec<Series>) -> Record {
        let mut record = Record::new(Machine::default(), Settings::default());
        record.series = series;
        record
    }

    #[test]
    fn a_record_survives_json() {
        let mut before = record(vec![series("tcp", Underlay::Merging, "uring", &[1.0, 3.0])]);
        before.series[0].key.point = Some(Point {
            parameter: "hosts".into(),
            value: 10,
        });
        let after = Record::parse(&serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(after.series[0].key, before.series[0].key);
        assert_eq!(after.series[0].median, Some(2.0));
        assert!(after.find("tcp", Underlay::Merging, "uring").is_none(), "a sweep");
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_reason() {
        let say = |text: &str| format!("{:#}", Record::parse(text).unwrap_err());
        assert!(say("<html>").starts_with("it is no JSON"));
        assert!(say("{\"series\":[]}").contains("no record of isatap-perf"));
        assert!(say("{\"format\":\"isatap-perf\"}").contains("no schema_version"));
        assert!(
            say("{\"format\":\"isatap-perf\",\"schema_version\":1}")
                .contains("schema_version is 1; this isatap-perf reads 2")
        );
        assert!(say("{\"format\":\"isatap-perf\",\"schema_version\":2}").contains("a field"));
    }
}
