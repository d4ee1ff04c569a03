//! Round trips on an idle link, by ping: what one packet costs when nothing can be shared with another.

use anyhow::{Result, ensure};

use super::Reading;
use crate::link::Link;

/// Round trips of one measurement.
const COUNT: u32 = 200;

pub(super) fn measure(link: &Link) -> Result<Reading> {
    let output = link
        .left
        .try_run(&format!("ping -6 -n -i 0.01 -c {COUNT} {}", link.destination()));
    let mut times = round_trips(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        times.len() as u64 == u64::from(COUNT),
        "{} of {COUNT} pings were answered",
        times.len()
    );
    times.sort_by(f64::total_cmp);
    Ok(Reading {
        value: times[times.len() / 2],
        details: [
            ("p90", times[times.len() * 9 / 10]),
            ("p99", times[times.len() * 99 / 100]),
        ]
        .into(),
    })
}

/// Microseconds, in the order in which ping printed them.
fn round_trips(text: &str) -> Vec<f64> {
    let field = |line: &str| -> Option<f64> {
        let (time, unit) = line.split_once("time=")?.1.split_once(' ')?;
        (unit.trim() == "ms").then(|| time.parse::<f64>().ok().map(|ms| ms * 1000.0))?
    };
    text.lines().filter_map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ping_prints_is_read() {
        let text = "PING ::1(::1) 56 data bytes\n64 bytes from ::1: icmp_seq=1 ttl=64 time=0.459 ms\n\
                    64 bytes from ::1: icmp_seq=2 ttl=64 time=12 ms\nrtt min/avg/max/mdev = 0.2/0.3/0.4/0.0 ms\n";
        let times = round_trips(text);
        assert_eq!(times.len(), 2);
        assert!((times[0] - 459.0).abs() < 1e-6 && (times[1] - 12_000.0).abs() < 1e-6);
    }
}
