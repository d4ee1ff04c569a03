//! Latency histograms on their way to people: the rows of the control protocol, and the buckets of the metrics page.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets of `isatapd_packet_latency_seconds`, in nanoseconds.
pub const BUCKETS: [u64; 15] = [
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
];

/// Upper bounds of the same for the kernel's programs, which take a few hundred nanoseconds.
pub const KERNEL_BUCKETS: [u64; 13] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    1_000_000,
    10_000_000,
    1_000_000_000,
];

/// The latencies of one worker, or of the kernel's programs, in one direction since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// Its number; none for the kernel's programs, which take the time of one packet in 256.
    pub worker: Option<usize>,
    /// `encap` or `decap`.
    pub direction: String,
    /// The histogram in nanoseconds: HdrHistogram V2, compressed, base64.
    pub histogram: String,
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the daemon sent a histogram that cannot be read: {0}")]
pub struct UnreadableHistogram(String);

impl LatencyRow {
    /// A row of a histogram.
    pub fn new(worker: Option<usize>, direction: &str, histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail, and the bounds are within what the format can say.
        let _ = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
        Self {
            worker,
            direction: direction.to_owned(),
            histogram: STANDARD.encode(bytes),
        }
    }

    /// The histogram, in nanoseconds.
    ///
    /// # Errors
    /// When the text is none of ours.
    pub fn decode(&self) -> Result<Histogram<u64>, UnreadableHistogram> {
        let unreadable = |error: &dyn std::fmt::Debug| UnreadableHistogram(format!("{error:?}"));
        let bytes = STANDARD
            .decode(&self.histogram)
            .map_err(|error| unreadable(&error))?;
        Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| unreadable(&error))
    }
}

/// Counts per bucket with these upper bounds, and one more for what is larger.
pub fn bucket_counts(histogram: &Histogram<u64>, bounds: &[u64]) -> Vec<u64> {
    let mut below = 0;
    let mut counts: Vec<u64> = bounds
        .iter()
        .map(|bound| {
            let cumulative = histogram.count_between(0, *bound);
            let count = cumulative.saturating_sub(below);
            below = cumulative;
            count
        })
        .collect();
    counts.push(histogram.len().saturating_sub(below));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(100, 10_000_000_000, 2).unwrap();
        for (nanos, count) in [(1_000, 5), (60_000, 3), (5_000_000_000, 2)] {
            histogram.record_n(nanos, count).unwrap();
        }
        histogram
    }

    #[test]
    fn rows_survive_the_socket() {
        let row = LatencyRow::new(Some(3), "decap", &histogram());
        let line = serde_json::to_string(&row).unwrap();
        let again: LatencyRow = serde_json::from_str(&line).unwrap();
        assert_eq!(again.decode().unwrap(), histogram());
        let broken = LatencyRow {
            histogram: "AAAA".to_owned(),
            ..row
        };
        assert!(
            broken
                .decode()
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
    }

    #[test]
    fn every_value_is_in_one_bucket() {
        let counts = bucket_counts(&histogram(), &BUCKETS);
        assert_eq!(counts.iter().sum::<u64>(), 10);
        assert_eq!((counts[0], counts[5], counts[BUCKETS.len()]), (5, 3, 2));
        let empty = bucket_counts(&Histogram::new(2).unwrap(), &BUCKETS);
        assert_eq!(empty.iter().sum::<u64>(), 0);
        let counts = bucket_counts(&histogram(), &KERNEL_BUCKETS);
        assert_eq!((counts[3], counts[9], counts[KERNEL_BUCKETS.len()]), (5, 3, 2));
    }
}
