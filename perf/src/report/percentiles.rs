//! Latency by percentile: how late the unlucky packets are. Across, each step to the right is ten times rarer.

use super::svg::{Svg, colour, key, number};
use crate::record::Latency;

const HEIGHT: f64 = 270.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 240.0;
const MARKS: [(f64, &str); 5] = [
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
];

/// The curves of one measurement.
pub(super) fn picture(title: &str, latencies: &[&Latency]) -> String {
    let counts = latencies.iter().map(|latency| latency.count);
    // What fewer packets than that say about is one packet's luck.
    let rarest = (counts.max().unwrap_or(1) as f64).log10().clamp(1.0, 5.0);
    let values = || {
        latencies
            .iter()
            .flat_map(|latency| latency.percentiles.iter().map(|(_, micros)| *micros))
    };
    let least = values().fold(f64::INFINITY, f64::min).max(0.1);
    let most = values().fold(least, f64::max);
    let (low, high) = (floor_125(least), ceiling_125(most));
    let across = |quantile: f64| (-(1.0 - quantile).log10()).clamp(0.0, rarest) / rarest * 100.0;
    let down = |micros: f64| {
        let share = (micros.max(low).log10() - low.log10()) / (high.log10() - low.log10()).max(1e-9);
        BOTTOM - share * (BOTTOM - TOP)
    };
    let mut svg = Svg::new(HEIGHT, title);
    let mut tick = low;
    while tick <= high * 1.001 {
        svg.line((0.0, down(tick)), (100.0, down(tick)), "class=\"grid-line\"");
        svg.text((0.0, down(tick) + 4.0), -6.0, "end", "soft", &micros(tick));
        tick = next_125(tick, high / low > 300.0);
    }
    for (quantile, name) in MARKS {
        if -(1.0 - quantile).log10() > rarest {
            continue;
        }
        svg.line(
            (across(quantile), TOP),
            (across(quantile), BOTTOM),
            "class=\"grid-line\"",
        );
        svg.text((across(quantile), BOTTOM + 17.0), 0.0, "middle", "soft", name);
    }
    for latency in latencies {
        let stroke = format!(
            "style=\"stroke:{}\" stroke-width=\"2\" stroke-linecap=\"round\"",
            colour(&latency.peer)
        );
        for pair in latency.percentiles.windows(2) {
            let [(from, a), (to, b)] = [pair[0], pair[1]];
            if across(from) < across(to) {
                svg.line((across(from), down(a)), (across(to), down(b)), &stroke);
            }
        }
    }
    let key = key(latencies
        .iter()
        .map(|latency| (latency.peer.as_str(), latency.peer_title.as_str())));
    format!("{key}<div class=\"axes\">{}</div>", svg.finish())
}

fn micros(value: f64) -> String {
    if value >= 1000.0 {
        format!("{} ms", number_short(value / 1000.0))
    } else {
        format!("{} us", number_short(value))
    }
}

fn number_short(value: f64) -> String {
    if value >= 1.0 {
        format!("{value:.0}")
    } else {
        number(value)
    }
}

fn floor_125(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let factor = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|factor| factor * power <= value * 1.0001);
    factor.unwrap_or(1.0) * power
}

fn ceiling_125(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= value * 0.9999);
    factor.unwrap_or(10.0) * power
}

/// 1, 2, 5, 10, ... or only powers of ten when there would be too many.
fn next_125(value: f64, coarse: bool) -> f64 {
    let power = 10f64.powf((value * 1.0001).log10().floor());
    if coarse {
        return power * 10.0;
    }
    match (value / power).round() {
        1.0 => power * 2.0,
        2.0 => power * 5.0,
        _ => power * 10.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_the_logarithmic_axis() {
        assert!((floor_125(37.0) - 20.0).abs() < 1e-9 && (ceiling_125(37.0) - 50.0).abs() < 1e-9);
        assert!((floor_125(100.0) - 100.0).abs() < 1e-6 && (ceiling_125(730.0) - 1000.0).abs() < 1e-6);
        let mut at: f64 = 20.0;
        let mut seen = Vec::new();
        while at < 1500.0 {
            seen.push(at.round());
            at = next_125(at, false);
        }
        assert_eq!(seen, [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert!((next_125(20.0, true) - 100.0).abs() < 1e-9);
        assert_eq!((micros(200.0), micros(5000.0)), ("200 us".into(), "5 ms".into()));
    }
}
