//! Bulk TCP: iperf3, whose figures everybody knows. The receiver's count is what is reported.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use isatap_tests::wait;
use serde::Deserialize;

use super::{Context, Taken};
use crate::scene::Link;
use crate::table::Method;

/// Share of the time that is not counted at the start: slow start is not what is measured.
const OMITTED_SECONDS: f64 = 0.25;
/// As often the receiver says what it got.
const INTERVAL_SECONDS: f64 = 0.25;

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    end: Option<End>,
    #[serde(default)]
    server_output_json: Option<Server>,
}

#[derive(Deserialize)]
struct End {
    sum_sent: Sent,
}

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    retransmits: Option<f64>,
}

/// What the receiver saw.
#[derive(Deserialize)]
struct Server {
    intervals: Vec<Interval>,
}

#[derive(Deserialize)]
struct Interval {
    sum: Sum,
}

#[derive(Clone, Copy, Deserialize)]
struct Sum {
    start: f64,
    seconds: f64,
    bytes: f64,
}

impl Server {
    /// Bits a second, once slow start is over.
    fn rate(&self) -> Option<f64> {
        let counted = self.intervals.iter().map(|interval| interval.sum);
        let counted = counted.filter(|sum| sum.start >= OMITTED_SECONDS * 0.9);
        let (bytes, seconds) = counted.fold((0.0, 0.0), |(bytes, seconds), sum| {
            (bytes + sum.bytes, seconds + sum.seconds)
        });
        (seconds > 0.0).then(|| bytes * 8.0 / seconds)
    }
}

/// Ends when dropped.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bulk TCP over so many connections.
pub(super) fn measure(context: &Context<'_>, flows: u32) -> Result<Taken> {
    let seconds = Method::tcp_seconds(flows, context.settings);
    bulk(context.link()?, flows, seconds)
}

/// The same for some other purpose.
pub(super) fn bulk(link: &Link, flows: u32, seconds: f64) -> Result<Taken> {
    let mut command = Command::new("iperf3");
    command
        .args(["-s", "-1", "-J", "-i", &INTERVAL_SECONDS.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _listener = Listener(link.right.spawn(&mut command));
    wait::until("iperf3 to listen", Duration::from_secs(5), || {
        let shown = link.right.try_run("ss -6Hltn sport = :5201");
        if shown.stdout.is_empty() {
            Err("nobody does")
        } else {
            Ok(())
        }
    });
    let output = link.left.try_run(&format!(
        "iperf3 -J --get-server-output -i {INTERVAL_SECONDS} -t {seconds:.0} -P {flows} -c {}",
        link.destination()
    ));
    let output: Output = serde_json::from_slice(&output.stdout).context("read what iperf3 -J printed")?;
    if let Some(error) = output.error {
        bail!("iperf3: {error}");
    }
    let received = output
        .server_output_json
        .context("iperf3 has no word of its server")?;
    let rate = received.rate().context("the receiver counted nothing")?;
    let retransmits = output.end.and_then(|end| end.sum_sent.retransmits);
    Ok(Taken {
        values: vec![rate / 1e6],
        details: [("retransmits".to_owned(), retransmits.unwrap_or(0.0))].into(),
        ..Taken::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_is_left_out() {
        let text = r#"{"server_output_json":{"intervals":[
            {"sum":{"start":0,"seconds":0.25,"bytes":1}},
            {"sum":{"start":0.250001,"seconds":0.25,"bytes":1000}},
            {"sum":{"start":0.5,"seconds":0.75,"bytes":1000}}]}}"#;
        let output: Output = serde_json::from_str(text).unwrap();
        assert_eq!(output.server_output_json.unwrap().rate(), Some(16_000.0));
        assert_eq!(Server { intervals: vec![] }.rate(), None);
    }
}
