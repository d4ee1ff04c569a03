//! Lines over the points of a sweep, one for each peer, with the spread as bars.

use std::collections::BTreeSet;

use super::svg::{Svg, colour, key, number, ticks};
use crate::record::{Point, Series};

const HEIGHT: f64 = 190.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 160.0;

/// The picture of one figure; points are as far apart as they are many, not as their values say.
pub(super) fn picture(series: &[&Series]) -> String {
    let points: BTreeSet<u32> = series
        .iter()
        .filter_map(|series| Some(series.key.point.as_ref()?.value))
        .collect();
    let points: Vec<u32> = points.into_iter().collect();
    let Some(first) = series.first() else {
        return String::new();
    };
    let most = series.iter().filter_map(|series| series.most).fold(0.0, f64::max);
    let ticks = ticks(most);
    let top = ticks.last().copied().unwrap_or(1.0);
    let down = |value: f64| BOTTOM - value / top * (BOTTOM - TOP);
    let across = |value: u32| {
        let at = points.iter().position(|point| *point == value).unwrap_or(0);
        (at as f64 + 0.5) / points.len() as f64 * 100.0
    };
    let mut svg = Svg::new(HEIGHT, &first.title);
    for tick in &ticks {
        svg.line((0.0, down(*tick)), (100.0, down(*tick)), "class=\"grid-line\"");
        svg.text((0.0, down(*tick) + 4.0), -6.0, "end", "soft", &number(*tick));
    }
    for point in &points {
        let name = number(f64::from(*point));
        svg.text((across(*point), BOTTOM + 17.0), 0.0, "middle", "soft", &name);
    }
    let peers = peers(series);
    for (nth, (peer, _)) in peers.iter().enumerate() {
        // Side by side, so that spreads do not hide each other.
        let aside = (nth as f64 - (peers.len() as f64 - 1.0) / 2.0) * 2.2;
        let stroke = format!("style=\"stroke:{}\" stroke-width=\"2\"", colour(peer));
        let fill = format!("style=\"fill:{}\"", colour(peer));
        let of_peer = series.iter().filter(|series| series.key.peer == **peer);
        let mut dots: Vec<(u32, &Series)> = of_peer
            .filter_map(|series| Some((value(series)?, *series)))
            .collect();
        dots.sort_by_key(|(value, _)| *value);
        let at = |(value, series): &(u32, &Series)| Some((across(*value) + aside, down(series.median?)));
        for pair in dots.windows(2) {
            if let (Some(a), Some(b)) = (at(&pair[0]), at(&pair[1])) {
                svg.line(a, b, &stroke);
            }
        }
        for dot in &dots {
            let (Some(place), Some(least), Some(most)) = (at(dot), dot.1.least, dot.1.most) else {
                continue;
            };
            svg.line((place.0, down(least)), (place.0, down(most)), &stroke);
            let title = format!("{}: {}", dot.1.peer_title, number(dot.1.median.unwrap_or(0.0)));
            svg.dot(place, 4.0, &fill, &title);
        }
    }
    let key = key(peers.iter().map(|(peer, title)| (*peer, *title)));
    format!("{key}<div class=\"axes\">{}</div>", svg.finish())
}

fn value(series: &Series) -> Option<u32> {
    series.key.point.as_ref().map(|point| point.value)
}

/// Each peer once, with its title.
fn peers<'a>(series: &[&'a Series]) -> Vec<(&'a str, &'a str)> {
    let mut peers: Vec<(&str, &str)> = Vec::new();
    for series in series {
        if !peers.iter().any(|(peer, _)| *peer == series.key.peer) {
            peers.push((&series.key.peer, &series.peer_title));
        }
    }
    peers
}

/// The axis, in words.
pub(super) fn axis(point: &Point) -> String {
    match point.parameter.as_str() {
        "workers" => "over worker threads",
        "hosts" => "over distinct hosts",
        "routes" => "over routes in the table",
        "routers" => "over routers in the PRL",
        other => other,
    }
    .to_owned()
}
