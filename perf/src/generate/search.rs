//! The highest rate without loss, by halving the interval: RFC 2544's throughput, with short trials.

use anyhow::Result;

/// Trials; each halves what is not known.
pub(crate) const STEPS: u32 = 6;

/// The highest rate in `low..=high` that `passes`, to within the interval's length / 2^[`STEPS`]; `low` if none was seen to pass.
pub(crate) fn highest(low: u64, high: u64, mut passes: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    let (mut low, mut high) = (low, high.max(low));
    for _ in 0..STEPS {
        let middle = low.midpoint(high);
        if passes(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_found_within_the_resolution() {
        for limit in [30_000, 64_000, 99_999] {
            let mut trials = 0;
            let found = highest(20_000, 140_000, |rate| {
                trials += 1;
                Ok(rate <= limit)
            })
            .unwrap();
            assert!(
                found <= limit && limit - found <= 120_000 / 64 + 1,
                "{found} for {limit}"
            );
            assert_eq!(trials, STEPS);
        }
        assert_eq!(highest(5, 100, |_| Ok(false)).unwrap(), 5);
    }
}
