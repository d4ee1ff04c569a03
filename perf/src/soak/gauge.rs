//! What the processes of a namespace hold: memory, descriptors, threads.

use std::fs;

use anyhow::Result;
use isatap_tests::netns::Netns;
use serde::Serialize;

use crate::measure::footprint::resident_mib;

/// The sums over all processes there; while nothing is measured the daemon's alone are.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Gauge {
    /// MiB.
    pub(crate) resident_mib: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Gauge {
    /// The larger of each.
    pub(super) fn most(self, other: Self) -> Self {
        Self {
            resident_mib: self.resident_mib.max(other.resident_mib),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }

    pub(super) fn of(ns: &Netns) -> Result<Self> {
        let entries = |what: &str| -> usize {
            let count = |pid: i32| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
            ns.pids().into_iter().map(count).sum()
        };
        Ok(Self {
            resident_mib: resident_mib(ns)?,
            descriptors: entries("fd"),
            threads: entries("task"),
        })
    }
}
