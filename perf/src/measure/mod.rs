//! How fast, how many, how late: one measurement each, over a link that carries packets.

mod rtt;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::link::Link;
use crate::plan::{Metric, Plan, Step};

/// One number, and what else was seen while it was taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reading {
    /// In the unit of the metric.
    pub(crate) value: f64,
    /// Losses, retransmissions, percentiles: by name, for the record.
    pub(crate) details: BTreeMap<&'static str, f64>,
}

/// Builds the link, starts the peer, measures once, and takes everything down again.
///
/// # Errors
/// What went wrong; the harness speaks in panics, which become errors here: one lost run is no lost afternoon.
pub(crate) fn run(plan: &Plan, step: &Step, metric: Metric) -> Result<Reading> {
    let measured = panic::catch_unwind(AssertUnwindSafe(|| {
        let link = Link::new(step.peer, step.underlay);
        let _runners = link.start(plan);
        match metric {
            Metric::Tcp => tcp::measure(plan, &link),
            Metric::Udp => udp::measure(plan, &link, plan.window),
            Metric::Flood => udp::measure(plan, &link, u64::MAX),
            Metric::Rtt => rtt::measure(&link),
        }
    }));
    measured.unwrap_or_else(|cause| Err(anyhow!("{}", panic_text(&*cause))))
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> &str {
    cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without text")
}
