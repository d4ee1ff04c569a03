//! HdrHistogram logs, version 1.3: what HistogramLogAnalyzer and others read.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// Values are kept in nanoseconds; the log shows milliseconds.
const NANOS_PER_MILLI: f64 = 1_000_000.0;

/// One line: what was recorded, by whom, when.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Tells series apart: no comma, no blank.
    pub tag: String,
    /// Since the start of the log.
    pub began: Duration,
    /// How long it was recorded.
    pub length: Duration,
    /// In nanoseconds.
    pub histogram: &'a Histogram<u64>,
}

/// The text of a log that starts at `began_at`.
///
/// # Errors
/// When a histogram cannot be written, with the reason.
pub fn log<'a>(
    entries: impl IntoIterator<Item = Entry<'a>>,
    began_at: SystemTime,
) -> Result<Vec<u8>, String> {
    let mut bytes = b"#[Histogram log format version 1.3]\n".to_vec();
    let mut serializer = V2DeflateSerializer::new();
    let failed = |error: &dyn std::fmt::Debug| format!("cannot write the log: {error:?}");
    let mut writer = IntervalLogWriterBuilder::new()
        .with_start_time(began_at)
        .with_base_time(began_at)
        .with_max_value_divisor(NANOS_PER_MILLI)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| failed(&error))?;
    for entry in entries {
        writer
            .write_histogram(entry.histogram, entry.began, entry.length, Tag::new(&entry.tag))
            .map_err(|error| failed(&error))?;
    }
    Ok(bytes)
}
