//! Few numbers, much noise: medians, spreads, and whether two sets of readings differ.

/// Ascending.
pub(crate) fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let values = sorted(values.iter().copied());
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The least and the largest value.
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let values = sorted(values.iter().copied());
    Some((*values.first()?, *values.last()?))
}

/// Two sets of readings of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// (after - before) / before, in per cent.
    pub(crate) change: f64,
    /// Half the spread of both added, as a share of `before`, in per cent.
    pub(crate) noise: f64,
    /// Whether the two ranges have nothing in common; `None` when there are too few readings to say.
    pub(crate) apart: Option<bool>,
    /// How likely ranges of equal programs are apart in either direction.
    pub(crate) by_luck: f64,
}

/// Ranges that come apart by luck more often than this say nothing: one or two readings each.
const FEW: f64 = 0.3;

/// Compares; `None` when one is empty or `before` is 0.
pub(crate) fn difference(before: &[f64], after: &[f64]) -> Option<Difference> {
    let (from, to) = (median(before)?, median(after)?);
    let (a, b) = (spread(before)?, spread(after)?);
    if from == 0.0 {
        return None;
    }
    let by_luck = (2.0 / choose(before.len() + after.len(), before.len())).min(1.0);
    Some(Difference {
        before: from,
        after: to,
        change: (to - from) / from * 100.0,
        noise: ((a.1 - a.0) + (b.1 - b.0)) / 2.0 / from.abs() * 100.0,
        apart: (by_luck < FEW).then_some(a.1 < b.0 || b.1 < a.0),
        by_luck,
    })
}

/// n over k: of so many orders of equally good readings, two are apart.
fn choose(n: usize, k: usize) -> f64 {
    (1..=k).map(|i| (n - k + i) as f64 / i as f64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[3.0, 1.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn ranges_apart_are_a_difference() {
        let same = difference(&[100.0, 110.0, 90.0], &[95.0, 105.0, 120.0]).unwrap();
        assert_eq!(same.apart, Some(false));
        let better = difference(&[100.0, 110.0, 90.0], &[120.0, 130.0, 111.0]).unwrap();
        assert_eq!(better.apart, Some(true));
        assert!((better.change - 20.0).abs() < 1e-9 && (better.noise - 19.5).abs() < 1e-9);
        // 6 over 3 = 20 orders, two of which are apart.
        assert!((better.by_luck - 0.1).abs() < 1e-9);
        assert_eq!(difference(&[100.0], &[90.0]).unwrap().apart, None);
        assert!((difference(&[100.0], &[90.0]).unwrap().by_luck - 1.0).abs() < 1e-9);
        assert!(difference(&[], &[1.0]).is_none());
        assert!(difference(&[0.0], &[1.0]).is_none());
    }
}
