//! A page that needs nothing but itself: settings, targets, and one dot plot per metric, each run a dot.

use std::fmt::Write as _;

use super::text;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::results::{Key, Results, Series, TARGETS};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.2rem .8rem;\
text-align:left;border-bottom:1px solid #ddd}svg{width:100%;height:auto}svg text{font:13px system-ui,sans-serif;\
fill:#222}.met{color:#17692c}.missed{color:#a3231f}pre{overflow-x:auto;background:#f6f6f6;padding:1rem}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}svg text{fill:#ddd}pre{background:#222}\
td,th{border-color:#444}.met{color:#6c6}.missed{color:#f88}}";

/// Picture coordinates.
const WIDTH: f64 = 860.0;
const ROW: f64 = 30.0;
const LABELS: f64 = 190.0;
const MEDIANS: f64 = 150.0;

pub(crate) fn page(plan: &Plan, machine: &Machine, results: &Results) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>isatap-perf {0}</title><style>{STYLE}</style><h1>isatap-perf, {0}</h1><table>",
        escape(&machine.revision)
    );
    for (name, value) in [
        ("taken", machine.started.clone()),
        ("kernel", machine.kernel.clone()),
        ("CPU", format!("{} x {}", machine.cpus, machine.cpu)),
        ("load at the start", machine.load.clone()),
        (
            "runs",
            format!("{} rounds of {} s, peers in turn", plan.runs, plan.seconds),
        ),
        ("tunnel", format!("MTU {}, {} worker(s)", plan.mtu, plan.workers)),
        (
            "UDP",
            format!(
                "{} flows of {} bytes, window {}",
                plan.flows, plan.size, plan.window
            ),
        ),
    ] {
        let _ = write!(page, "<tr><th>{name}<td>{}", escape(&value));
    }
    page.push_str("</table><h2>Targets</h2><table><tr><th><th>ratio of medians<th>to reach<th>measured");
    for target in TARGETS {
        let (class, verdict) = match target.judge(results) {
            None => ("", "not measured".to_owned()),
            Some((ratio, true)) => ("met", format!("{ratio:.2}")),
            Some((ratio, false)) => ("missed", format!("{ratio:.2}, missed")),
        };
        let (id, name, bound) = (target.id, target.text, target.bound());
        let _ = write!(
            page,
            "<tr><td>{id}<td>{name}<td>{}<td class=\"{class}\">{verdict}",
            escape(&bound)
        );
    }
    page.push_str("</table>");
    let mut rows: Vec<(&Key, &Series)> = Vec::new();
    for (key, series) in &results.series {
        if rows
            .first()
            .is_some_and(|(first, _)| (first.metric, first.underlay) != (key.metric, key.underlay))
        {
            plot(&mut page, &rows);
            rows.clear();
        }
        rows.push((key, series));
    }
    plot(&mut page, &rows);
    let _ = write!(
        page,
        "<h2>As printed</h2><pre>{}</pre></html>",
        escape(&text::table(plan, results))
    );
    page
}

/// One line per peer, one dot per run, a bar at the median, all on one axis from 0.
fn plot(page: &mut String, rows: &[(&Key, &Series)]) {
    let Some((first, _)) = rows.first() else { return };
    let better = if first.metric.lower_is_better() {
        "less"
    } else {
        "more"
    };
    let _ = write!(
        page,
        "<h2>{}, {} <small>({}; {better} is better)</small></h2>",
        first.metric.title(),
        first.underlay.title(),
        first.metric.unit()
    );
    let most = rows
        .iter()
        .filter_map(|(_, series)| series.spread())
        .map(|(_, most)| most)
        .fold(0.0, f64::max);
    let x = |value: f64| LABELS + value / most.max(f64::MIN_POSITIVE) * (WIDTH - LABELS - MEDIANS);
    let height = ROW * (f64::from(u32::try_from(rows.len()).unwrap_or(0)) + 1.0);
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=img>");
    for (number, (key, series)) in (0u32..).zip(rows) {
        let y = ROW * (f64::from(number) + 0.5);
        let _ = write!(page, "<text x=0 y={:.0}>{}</text>", y + 4.0, key.peer.title());
        let _ = write!(
            page,
            "<line x1={LABELS} x2={:.0} y1={y} y2={y} stroke=\"#9994\"/>",
            WIDTH - MEDIANS
        );
        for value in series.sorted() {
            let _ = write!(
                page,
                "<circle cx={:.1} cy={y} r=4 fill=\"#3772b8\" fill-opacity=.55><title>{value:.1}</title></circle>",
                x(value)
            );
        }
        let label = match series.median() {
            None => "failed".to_owned(),
            Some(median) => {
                let _ = write!(
                    page,
                    "<rect x={:.1} y={:.1} width=3 height=18 fill=\"#d1702a\"/>",
                    x(median) - 1.5,
                    y - 9.0
                );
                format!("{median:.1} {}", key.metric.unit())
            }
        };
        let _ = write!(
            page,
            "<text x={:.0} y={:.0}>{label}</text>",
            WIDTH - MEDIANS + 12.0,
            y + 4.0
        );
    }
    let y = height - ROW * 0.4;
    let _ = write!(
        page,
        "<text x={LABELS} y={y:.0}>0</text><text x={:.0} y={y:.0} text-anchor=end>{most:.0}</text></svg>",
        x(most)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
