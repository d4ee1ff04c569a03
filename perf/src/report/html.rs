//! A page that needs nothing but itself: verdicts first, then pictures, then all that is needed to repeat it.

use std::fmt::Write as _;

use super::svg::{escape, number};
use super::{bars, lines, percentiles, text};
use crate::record::{Latency, Record, Series};
use crate::scene::Underlay;

const STYLE: &str = include_str!("page.css");

/// Headings, and the measurements below them.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("Bulk TCP", &["tcp", "tcp-many"]),
    (
        "Packets a second",
        &["udp64", "udp512", "udp1280", "imix", "flood"],
    ),
    ("Latency", &["rr", "udp-rr", "tcp-rr", "loaded"]),
    (
        "Sweeps",
        &[
            "workers-tcp",
            "workers-udp",
            "hosts-out",
            "hosts-in",
            "routes",
            "prl",
        ],
    ),
    ("What the daemon needs", &["footprint", "start"]),
];

pub(crate) fn page(record: &Record) -> String {
    let machine = &record.machine;
    let title = format!("isatap-perf {}", machine.revision);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head><body><main>\
         <h1>{0}</h1><p class=\"soft\">{1}, {2} x {3}, taken {4} in {5}. Compare peers within this page; figures of other \
         machines say nothing about these.</p>",
        escape(&title),
        escape(&machine.kernel),
        machine.cpus,
        escape(&machine.cpu),
        escape(&machine.started),
        minutes(record.took),
    );
    page.push_str(&soundness(record));
    page.push_str(&targets(record));
    let pictures = record.pictures();
    for (heading, measurements) in SECTIONS {
        let cards: String = measurements
            .iter()
            .map(|measurement| cards(record, &pictures, measurement))
            .collect();
        if !cards.is_empty() {
            let _ = write!(page, "<h2>{heading}</h2><div class=\"grid\">{cards}</div>");
        }
    }
    page.push_str(&facts(record));
    let _ = write!(
        page,
        "<h2>All figures</h2><details><summary>as printed, with losses and retransmissions</summary><pre>{}</pre></details>\
         </main></body></html>",
        escape(&text::table(record))
    );
    page
}

fn minutes(seconds: f64) -> String {
    format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
}

/// Whether the figures may be believed at all.
fn soundness(record: &Record) -> String {
    let list = |lines: &[String]| -> String {
        let items: String = lines.iter().map(|line| format!("<li>{}", escape(line))).collect();
        format!("<ul>{items}</ul>")
    };
    let mut text = match record.violations.as_slice() {
        [] => format!(
            "<div class=\"verdict good\"><b>Nothing vanished.</b> {} times a daemon's counters were compared after it had \
             carried a measurement: received = packets + punted + drops in both directions, and no packet arrived twice.</div>",
            record.conserved
        ),
        violations => format!(
            "<div class=\"verdict bad\"><b>Counters do not add up, or packets arrived twice.</b>{}</div>",
            list(violations)
        ),
    };
    if let Some(disturbed) = record.machine.disturbed() {
        let _ = write!(text, "<div class=\"verdict bad\">{}</div>", escape(&disturbed));
    }
    if !record.failures.is_empty() {
        let _ = write!(
            text,
            "<div class=\"verdict bad\"><b>Measurements that failed</b>{}</div>",
            list(&record.failures)
        );
    }
    text
}

fn targets(record: &Record) -> String {
    let mut text =
        "<h2>Targets</h2><table class=\"targets\"><thead><tr><th>id<th>what<th>to reach<th>measured<th><th>\
                    from</thead><tbody>"
            .to_owned();
    for line in &record.targets {
        let measured = line.value.map_or_else(|| "\u{2013}".into(), number);
        let judged = match line.reached {
            None => "<span class=\"soft\">not measured</span>",
            Some(true) => "<b class=\"good\">reached</b>",
            Some(false) => "<b class=\"bad\">missed</b>",
        };
        let _ = write!(
            text,
            "<tr><th>{}<td>{}<td class=\"number bound\">{}<td class=\"number measured\">{measured}<td class=\"judged\">{judged}\
             <td class=\"note\">{}",
            escape(&line.id),
            escape(&line.text),
            escape(&line.bound),
            escape(&line.note)
        );
    }
    text + "</tbody></table>"
}

/// One card for each picture of a measurement, and one for its latencies.
fn cards(record: &Record, pictures: &[Vec<&Series>], measurement: &str) -> String {
    let mut text = String::new();
    let of_it = pictures
        .iter()
        .filter(|series| series[0].measurement == measurement);
    for series in of_it {
        let first = series[0];
        // The first card of a measurement says what it is.
        let about = if text.is_empty() { first.about.as_str() } else { "" };
        let (extra, body) = match &first.key.point {
            Some(point) => (format!(", {}", lines::axis(point)), lines::picture(series)),
            None if both_underlays(pictures, first) => {
                (format!(", {}", first.key.underlay.title()), bars::card(series))
            }
            None => (String::new(), bars::card(series)),
        };
        let _ = write!(
            text,
            "<div class=\"card\"><h3>{}{}</h3><p class=\"soft\">{}. {}</p>{body}</div>",
            escape(&first.title),
            escape(&extra),
            escape(&bars::unit(first)),
            escape(about)
        );
    }
    let latencies: Vec<&Latency> = record
        .latencies
        .iter()
        .filter(|latency| latency.measurement == measurement)
        .collect();
    if !latencies.is_empty() {
        let (title, about) = match measurement {
            "rr" => ("Round trip by percentile, idle", "All rounds together."),
            "udp-rr" => ("UDP transactions by percentile", "All rounds together."),
            "tcp-rr" => ("TCP transactions by percentile", "All rounds together."),
            _ => (
                "One way by percentile, at 80 % of the rate without loss",
                "All rounds together. Each peer is loaded at 80 % of its own rate.",
            ),
        };
        let _ = write!(
            text,
            "<div class=\"card wide\"><h3>{title}</h3><p class=\"soft\">{about}</p>{}</div>",
            percentiles::picture(title, &latencies)
        );
    }
    text
}

fn both_underlays(pictures: &[Vec<&Series>], of: &Series) -> bool {
    let other = match of.key.underlay {
        Underlay::Plain => Underlay::Merging,
        Underlay::Merging => Underlay::Plain,
    };
    pictures
        .iter()
        .any(|series| series[0].key.figure == of.key.figure && series[0].key.underlay == other)
}

fn facts(record: &Record) -> String {
    let (machine, settings) = (&record.machine, &record.settings);
    let mut text = "<h2>Machine and settings</h2><table class=\"facts\">".to_owned();
    let kind = if machine.virtual_machine {
        ", a virtual machine"
    } else {
        ""
    };
    let mut rows = vec![
        ("kernel", machine.kernel.clone()),
        ("CPU", format!("{} x {}{kind}", machine.cpus, machine.cpu)),
        ("memory", format!("{} MiB", machine.memory_mib)),
        ("governor", machine.governor.clone()),
        ("mitigations", machine.mitigations.join("; ")),
        ("load at the start", machine.load.clone()),
        ("revision", machine.revision.clone()),
        (
            "rounds",
            format!("{} of {} s, peers in turn", settings.rounds, settings.seconds),
        ),
        (
            "tunnel",
            format!("MTU {}, {} worker(s)", settings.mtu, settings.workers),
        ),
        (
            "UDP",
            format!(
                "{} flows, {} packets on the way at most",
                settings.flows, settings.window
            ),
        ),
    ];
    for (name, command) in &settings.external {
        rows.push(("external", format!("{name}: {command}")));
    }
    for (name, value) in rows {
        let _ = write!(text, "<tr><th>{name}<td>{}", escape(&value));
    }
    text + "</table>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{record, series};

    #[test]
    fn a_page_shows_violations_and_no_markup_of_others() {
        let mut record = record(vec![series("tcp", Underlay::Plain, "<b>evil", &[1.0])]);
        assert!(page(&record).contains("Nothing vanished"));
        record.violations.push("tcp, uring: <script>".into());
        let page = page(&record);
        assert!(page.contains("verdict bad") && page.contains("tcp, uring: &lt;script&gt;"));
        assert!(!page.contains("<script") && !page.contains("<b>evil"));
        for outside in ["http:", "https:", "src=", "@import"] {
            assert!(
                !page.contains(outside),
                "{outside}: the page needs nothing but itself"
            );
        }
    }
}
