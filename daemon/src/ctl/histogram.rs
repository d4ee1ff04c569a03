//! `isatapctl histogram`: percentiles per worker and direction, and HdrHistogram logs.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use super::client::Client;
use super::hlog;
use super::table::{Align, Table};
use crate::exit::ExitError;
use crate::ops::latency::LatencyRow;
use crate::ops::protocol::Command;

/// What the kernel's rows are.
const OF_KERNEL: &str = "kernel: one packet in 256 that the programs of the ebpf lane carried, from their first check to the redirection\n";

/// Several looks, one interval apart.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// How many.
    pub count: u32,
    /// How far apart.
    pub interval: Duration,
}

/// What was recorded by one worker, or the kernel's programs, in one direction between two looks, in nanoseconds.
#[derive(Clone, Debug)]
struct Row {
    worker: Option<usize>,
    direction: String,
    histogram: Histogram<u64>,
}

impl Row {
    /// The worker's number, or whose else it is.
    fn name(&self) -> String {
        self.worker
            .map_or_else(|| "kernel".to_owned(), |number| number.to_string())
    }
}

/// One interval: when it began, counted from the first look, how long it was, and what it holds.
#[derive(Clone, Debug)]
struct Interval {
    began: Duration,
    length: Duration,
    rows: Vec<Row>,
}

/// Looks, prints, and writes the log if one is wanted.
///
/// # Errors
/// When the daemon cannot be asked, or the file cannot be written.
pub fn show(client: &mut Client, watch: Option<Watch>, hlog: Option<&Path>) -> Result<String, ExitError> {
    let began_at = SystemTime::now();
    let intervals = match watch {
        None => vec![Interval {
            began: Duration::ZERO,
            length: Duration::ZERO,
            rows: look(client)?,
        }],
        Some(watch) => observe(client, watch)?,
    };
    if let Some(path) = hlog {
        let log = log(&intervals, began_at)?;
        std::fs::write(path, log)
            .map_err(|error| ExitError::other(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(intervals.iter().map(table).collect::<Vec<_>>().join("\n"))
}

fn look(client: &mut Client) -> Result<Vec<Row>, ExitError> {
    let decode = |row: LatencyRow| {
        let histogram = row
            .decode()
            .map_err(|error| ExitError::other(error.to_string()))?;
        Ok(Row {
            worker: row.worker,
            direction: row.direction,
            histogram,
        })
    };
    client
        .get::<Vec<LatencyRow>>(Command::Histogram)?
        .into_iter()
        .map(decode)
        .collect()
}

/// The daemon's histograms only grow, whoever looks: an interval is the difference of two looks.
fn observe(client: &mut Client, watch: Watch) -> Result<Vec<Interval>, ExitError> {
    let start = Instant::now();
    let (mut before, mut before_at) = (look(client)?, start);
    let mut intervals = Vec::new();
    for _ in 0..watch.count {
        std::thread::sleep(watch.interval);
        let (now, now_at) = (look(client)?, Instant::now());
        let rows = now.iter().map(|row| since(row, &before)).collect();
        intervals.push(Interval {
            began: before_at - start,
            length: now_at - before_at,
            rows,
        });
        (before, before_at) = (now, now_at);
    }
    Ok(intervals)
}

/// A daemon that was started anew in between has smaller counts: then what it has is what is new.
fn since(now: &Row, before: &[Row]) -> Row {
    let earlier = before
        .iter()
        .find(|row| row.worker == now.worker && row.direction == now.direction);
    let mut difference = now.clone();
    if let Some(earlier) = earlier
        && difference.histogram.subtract(&earlier.histogram).is_err()
    {
        difference = now.clone();
    }
    difference
}

fn table(interval: &Interval) -> String {
    let numbers = ["packets", "p50", "p90", "p99", "p99.9", "max"].map(|name| (name, Align::Right));
    let mut table = Table::new(
        [("worker", Align::Left), ("direction", Align::Left)]
            .into_iter()
            .chain(numbers),
    );
    for row in interval.rows.iter().filter(|row| !row.histogram.is_empty()) {
        let at = |quantile| micros(row.histogram.value_at_quantile(quantile));
        table.row([
            row.name(),
            row.direction.clone(),
            row.histogram.len().to_string(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            micros(row.histogram.max()),
        ]);
    }
    let has_kernels = |row: &Row| row.worker.is_none() && !row.histogram.is_empty();
    if table.is_empty() {
        "no packet was carried\n".to_owned()
    } else if interval.rows.iter().any(has_kernels) {
        format!("{table}{OF_KERNEL}")
    } else {
        table.to_string()
    }
}

fn micros(nanos: u64) -> String {
    #[allow(
        clippy::cast_precision_loss,
        reason = "latencies are far below 2^53 nanoseconds"
    )]
    let micros = nanos as f64 / 1_000.0;
    if micros < 1_000.0 {
        format!("{micros:.1} us")
    } else {
        format!("{:.2} ms", micros / 1_000.0)
    }
}

/// One line for each row that recorded anything, tagged by direction and worker.
fn log(intervals: &[Interval], began_at: SystemTime) -> Result<Vec<u8>, ExitError> {
    let entries = intervals.iter().flat_map(|interval| {
        let rows = interval.rows.iter().filter(|row| !row.histogram.is_empty());
        rows.map(|row| hlog::Entry {
            tag: format!("{}-{}", row.direction, row.name()),
            began: interval.began,
            length: interval.length,
            histogram: &row.histogram,
        })
    });
    hlog::log(entries, began_at).map_err(ExitError::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn row(worker: impl Into<Option<usize>>, direction: &str, values: &[u64]) -> Row {
        let mut histogram = Histogram::new_with_bounds(100, 10_000_000_000, 2).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        Row {
            worker: worker.into(),
            direction: direction.to_owned(),
            histogram,
        }
    }

    #[test]
    fn an_interval_is_the_difference_of_two_looks() {
        let before = [row(0, "encap", &[1000]), row(1, "encap", &[5000, 5000])];
        let difference = since(&row(0, "encap", &[1000, 2000, 2000]), &before);
        assert_eq!(
            (difference.histogram.len(), difference.histogram.count_at(2000)),
            (2, 2)
        );
        assert_eq!(
            since(&row(1, "encap", &[7000]), &before).histogram.len(),
            1,
            "a daemon started anew"
        );
        assert_eq!(since(&row(2, "decap", &[7000]), &before).histogram.len(), 1);
    }

    #[test]
    fn the_log_is_read_by_others() {
        let rows = vec![
            row(0, "encap", &[1000, 2000]),
            row(1, "decap", &[3000]),
            row(1, "encap", &[]),
            row(None, "encap", &[300]),
        ];
        let interval = Interval {
            began: Duration::from_secs(1),
            length: Duration::from_secs(2),
            rows,
        };
        let bytes = log(
            &[interval],
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        )
        .unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&bytes).map(Result::unwrap).collect();
        let tags: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => interval.tag().map(|tag| tag.as_str().to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(tags, ["encap-0", "decap-1", "encap-kernel"]);
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with("#[Histogram log format version 1.3]\n#[StartTime: 1700000000"),
            "{text}"
        );
        assert!(text.contains("Tag=encap-0,1.000,2.000,0.002,HISTF"), "{text}");
    }

    #[test]
    fn latencies_read_well() {
        let interval = |rows| Interval {
            began: Duration::ZERO,
            length: Duration::ZERO,
            rows,
        };
        let text = table(&interval(vec![row(0, "encap", &[12_000, 3_000_000])]));
        assert!(text.contains("12.0 us") && text.contains("ms"), "{text}");
        assert!(!text.contains("kernel"), "{text}");
        let text = table(&interval(vec![
            row(None, "encap", &[300]),
            row(0, "encap", &[12_000]),
        ]));
        assert!(text.contains("kernel: one packet in 256"), "{text}");
        assert_eq!(
            table(&interval(vec![row(0, "encap", &[])])),
            "no packet was carried\n"
        );
    }
}
