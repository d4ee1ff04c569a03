//! Bars from 0 to the median, one for each peer, with the spread as a line and each run as a dot.

use super::svg::{Svg, colour, number};
use crate::record::{Better, Series};

const ROW: f64 = 40.0;
const BAR: f64 = 12.0;

/// A card for the series of one figure over one underlay.
pub(super) fn card(series: &[&Series]) -> String {
    let Some(first) = series.first() else {
        return String::new();
    };
    let most = series.iter().filter_map(|series| series.most).fold(0.0, f64::max);
    let across = |value: f64| if most > 0.0 { value / most * 100.0 } else { 0.0 };
    let mut svg = Svg::new(ROW * series.len() as f64 - 6.0, &first.title);
    let mut y = 0.0;
    for series in series {
        let colour = colour(&series.key.peer);
        let bar = y + 19.0;
        svg.text((0.0, y + 13.0), 0.0, "start", "", &series.peer_title);
        svg.text((100.0, y + 13.0), 0.0, "end", "", &label(series));
        svg.rect((0.0, bar), (100.0, BAR), "rx=\"2\" class=\"track\"");
        if let (Some(median), Some(least), Some(most)) = (series.median, series.least, series.most) {
            let fill = format!("rx=\"2\" style=\"fill:{colour}\"");
            svg.rect((0.0, bar), (across(median), BAR), &fill);
            let middle = bar + BAR / 2.0;
            let ink = "style=\"stroke:var(--ink)\" stroke-width=\"1.5\"";
            svg.line((across(least), middle), (across(most), middle), ink);
            for value in series.values() {
                svg.dot(
                    (across(value), middle),
                    3.0,
                    "style=\"fill:var(--card);stroke:var(--ink)\"",
                    &number(value),
                );
            }
        }
        y += ROW;
    }
    svg.finish()
}

fn label(series: &Series) -> String {
    let failed = match series.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    match (series.median, series.least, series.most) {
        (Some(median), Some(least), Some(most)) => {
            format!(
                "{} ({}\u{2013}{}){failed}",
                number(median),
                number(least),
                number(most)
            )
        }
        _ => "failed".into(),
    }
}

/// What a reader must know to read the bars.
pub(super) fn unit(series: &Series) -> String {
    let better = match series.better {
        Better::More => "more",
        Better::Less => "less",
    };
    format!("{}, {better} is better", series.unit)
}
