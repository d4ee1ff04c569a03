//! The record for programs: every reading, and all that is needed to take it again.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::plan::Plan;
use crate::results::{Results, TARGETS};

pub(crate) fn document(plan: &Plan, machine: &Machine, results: &Results) -> String {
    let series: Vec<Value> = results
        .series
        .iter()
        .map(|(key, series)| {
            json!({
                "metric": key.metric.name(),
                "unit": key.metric.unit(),
                "underlay": key.underlay.name(),
                "peer": key.peer.name(),
                "median": series.median(),
                "ratio_to_loop": results.ratio_to_loop(key),
                "failed": series.failed,
                "readings": series.readings,
            })
        })
        .collect();
    let targets: Vec<Value> = TARGETS
        .iter()
        .map(|target| {
            let judged = target.judge(results);
            json!({
                "id": target.id,
                "text": target.text,
                "bound": target.bound(),
                "ratio": judged.map(|(ratio, _)| ratio),
                "met": judged.map(|(_, met)| met),
            })
        })
        .collect();
    let document = json!({
        "machine": machine,
        "settings": {
            "runs": plan.runs,
            "seconds": plan.seconds,
            "workers": plan.workers,
            "mtu": plan.mtu,
            "udp_flows": plan.flows,
            "udp_size": plan.size,
            "udp_window": plan.window,
        },
        "series": series,
        "targets": targets,
    });
    format!("{document:#}\n")
}
