//! Bulk TCP, one flow: iperf3, whose figures everybody knows. The receiver's count is what is reported.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isatap_tests::wait;
use serde::Deserialize;

use super::Reading;
use crate::link::Link;
use crate::plan::Plan;

/// Seconds at the start that are not counted: slow start is not what is measured.
const OMITTED_SECONDS: u32 = 1;

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    end: Option<End>,
}

#[derive(Deserialize)]
struct End {
    sum_sent: Sum,
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
    #[serde(default)]
    retransmits: Option<f64>,
}

/// Ends when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn measure(plan: &Plan, link: &Link) -> Result<Reading> {
    let mut command = Command::new("iperf3");
    command
        .args(["-s", "-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _server = Server(link.right.spawn(&mut command));
    wait::until("iperf3 to listen", Duration::from_secs(5), || {
        let shown = link.right.try_run("ss -6Hltn sport = :5201");
        if shown.stdout.is_empty() {
            Err("nobody does")
        } else {
            Ok(())
        }
    });
    let output = link.left.try_run(&format!(
        "iperf3 -J -O {OMITTED_SECONDS} -t {} -c {}",
        plan.seconds,
        link.destination()
    ));
    let output: Output = serde_json::from_slice(&output.stdout).context("read what iperf3 -J printed")?;
    if let Some(error) = output.error {
        bail!("iperf3: {error}");
    }
    let end = output.end.context("iperf3 -J has no end")?;
    Ok(Reading {
        value: end.sum_received.bits_per_second / 1e6,
        details: [("retransmits", end.sum_sent.retransmits.unwrap_or(0.0))].into(),
    })
}
