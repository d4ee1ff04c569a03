//! The table of DESIGN 3: what "fast" means here, and whether this run reached it.

use serde::{Deserialize, Serialize};

use crate::criterion::Engine;
use crate::record::Record;
use crate::scene::Underlay::{Merging, Plain};

/// What counts as no growth, in MiB: a process takes a page or two more now and then.
const NO_GROWTH: f64 = 0.05;

/// One line of the table, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) id: String,
    pub(crate) text: String,
    /// For example `>= 3.5`.
    pub(crate) bound: String,
    pub(crate) value: Option<f64>,
    /// `None`: not measured.
    pub(crate) reached: Option<bool>,
    /// What the value was taken from, or how to get it.
    pub(crate) note: String,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Below(bound) => value < bound,
        }
    }

    fn text(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::AtLeast(bound) => (">=", bound),
            Self::AtMost(bound) => ("<=", bound),
            Self::Below(bound) => ("<", bound),
        };
        format!("{sign} {bound} {unit}").trim_end().to_owned()
    }
}

/// Judges everything that was measured.
pub(crate) fn judge(record: &Record, engine: Option<&Engine>) -> Vec<Judged> {
    let median = |figure: &str, underlay, peer: &str| record.find(figure, underlay, peer)?.median;
    let ratio = |figure: &str, of: (_, &str), to: (_, &str)| {
        let (above, below) = (median(figure, of.0, of.1)?, median(figure, to.0, to.1)?);
        (below > 0.0).then(|| above / below)
    };
    let of_loop = |figure| ratio(figure, (Plain, "uring"), (Plain, "baseline"));
    let mut lines = Vec::new();
    let mut line = |id: &str, text: &str, unit: &str, bound: Bound, value: Option<f64>, note: &str| {
        lines.push(Judged {
            id: id.into(),
            text: text.into(),
            bound: bound.text(unit),
            value,
            reached: value.map(|value| bound.holds(value)),
            note: note.into(),
        });
    };
    let medians = "medians of this run";
    line(
        "P1",
        "bulk TCP, one flow: uring lane / loop",
        "",
        Bound::AtLeast(3.5),
        of_loop("tcp"),
        medians,
    );
    line(
        "P2",
        "bulk TCP, uring lane: GRO on / GRO off",
        "",
        Bound::AtLeast(1.0),
        ratio("tcp", (Merging, "uring"), (Plain, "uring")),
        medians,
    );
    line(
        "P3",
        "64-byte UDP delivered of a flood: uring lane / loop",
        "",
        Bound::AtLeast(1.5),
        of_loop("flood"),
        medians,
    );
    let lane = "medians of this run; needs the peers bare and ebpf";
    line(
        "P4",
        "bulk TCP: ebpf lane / bare veth",
        "",
        Bound::AtLeast(0.95),
        ratio("tcp", (Plain, "ebpf"), (Plain, "bare")),
        lane,
    );
    line(
        "P5",
        "64-byte UDP: ebpf lane / bare veth",
        "",
        Bound::AtLeast(0.8),
        ratio("udp64", (Plain, "ebpf"), (Plain, "bare")),
        lane,
    );
    let beside_sit = "is measured where the kernel has sit: `isatap-perf guest`";
    line(
        "P6",
        "bulk TCP: ebpf lane / the kernel's sit, in one guest",
        "",
        Bound::AtLeast(1.0),
        ratio("tcp", (Plain, "ebpf"), (Plain, "sit")),
        beside_sit,
    );
    line(
        "P6",
        "64-byte UDP: ebpf lane / the kernel's sit, in one guest",
        "",
        Bound::AtLeast(1.0),
        ratio("udp64", (Plain, "ebpf"), (Plain, "sit")),
        beside_sit,
    );
    for (figure, what) in [
        ("rr-p50", "round trip, idle"),
        ("udp-rr-p50", "UDP transaction"),
        ("tcp-rr-p50", "TCP transaction"),
    ] {
        for underlay in [Plain, Merging] {
            let text = format!("{what}, p50, {}: ebpf lane / bare veth", underlay.title());
            let value = ratio(figure, (underlay, "ebpf"), (underlay, "bare"));
            line("P9", &text, "", Bound::AtMost(1.1), value, lane);
        }
    }
    let bench = match engine {
        Some(engine) => format!("criterion, newest estimate {}", engine.taken),
        None => "run `make bench` first; its estimates are read from target/criterion".into(),
    };
    line(
        "P7",
        "encap per packet without system calls",
        "ns",
        Bound::AtMost(25.0),
        engine.map(|engine| engine.encap_ns),
        &bench,
    );
    line(
        "P7",
        "decap per packet without system calls",
        "ns",
        Bound::AtMost(25.0),
        engine.map(|engine| engine.decap_ns),
        &bench,
    );
    line(
        "P8",
        "P7 with large tables / with one of each, the worst case",
        "",
        Bound::AtMost(2.0),
        engine.and_then(|engine| engine.large_ratio),
        &bench,
    );
    let added = |peer| Some(median("rr-p50", Plain, peer)? - median("rr-p50", Plain, "bare")?);
    line(
        "P9",
        "round trip added, idle, p50: uring lane / loop",
        "",
        Bound::AtMost(1.0),
        added("uring").zip(added("baseline")).map(|(a, b)| a / b),
        "medians of this run, less the bare veth's",
    );
    line(
        "P9",
        "one way p99 at 80 % of the loss-free rate, uring lane",
        "us",
        Bound::AtMost(1000.0),
        median("loaded-p99", Plain, "uring"),
        "median of this run",
    );
    line(
        "P10",
        "resident memory at 4 workers after load, uring lane",
        "MiB",
        Bound::AtMost(64.0),
        median("rss-loaded", Plain, "uring"),
        "median of this run",
    );
    line(
        "P10",
        "growth by the last of three equal loads, uring lane",
        "MiB",
        Bound::AtMost(NO_GROWTH),
        median("rss-growth", Plain, "uring"),
        "median of this run, a few pages count as none; a soak of hours is not part of it",
    );
    line(
        "P11",
        "start of the process to first packet carried",
        "ms",
        Bound::AtMost(100.0),
        median("start", Plain, "uring"),
        "median of this run",
    );
    line(
        "P12",
        "CPU of an idle daemon at 4 workers",
        "% of a core",
        Bound::Below(0.5),
        median("cpu-idle", Plain, "uring"),
        "median of this run",
    );
    for line in lines.iter_mut().filter(|line| line.reached == Some(false)) {
        if let Some(limit) = limited_by(&line.id, line.text.contains("ebpf lane")) {
            line.note = format!(
                "{}. When profiled (perf/README.md), it was limited by {limit}",
                line.note
            );
        }
    }
    lines
}

/// What profiles found that a target was limited by, for whoever reads that it was missed; perf/README.md has them and what was
/// tried. To be written anew with them.
fn limited_by(id: &str, of_programs: bool) -> Option<&'static str> {
    Some(match id {
        "P5" | "P9" if of_programs => {
            "what any programs at these places cost (room for headers, two devices, one queue more) rather than by what these two decide"
        }
        "P1" => {
            "the kernel: 96 % of the sending core, of that most below raw_sendmsg; waking a receiver that is done too soon"
        }
        "P3" => {
            "both cores, which are full: 91 % of the daemons' share is the kernel's own work for each packet"
        }
        "P7" => {
            "no peak: headers, source check, routes and checksum follow each other; routed packets ask four tables, not two"
        }
        "P8" => "memory: one dependent read of a table of a million routes",
        "P9" => "wake-ups: under load four busy threads share two cores, and each waits for another's slice",
        "P10" => {
            "nothing that goes on: buffers of 68 KiB that are used for the first time; a soak's memory stays"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{record, series};

    /// A missed target says what limits it, a reached one does not.
    #[test]
    fn what_is_missed_says_why() {
        let at = |mbit: f64| {
            let series = vec![
                series("tcp", Plain, "uring", &[mbit]),
                series("tcp", Plain, "baseline", &[1000.0]),
            ];
            let judged = judge(&record(series), None);
            judged.into_iter().find(|line| line.id == "P1").unwrap().note
        };
        assert!(at(1500.0).contains("limited by the kernel"), "{}", at(1500.0));
        assert!(!at(4000.0).contains("limited"), "{}", at(4000.0));
        let of = |title: bool| limited_by("P9", title).unwrap();
        assert_ne!(of(true), of(false));
    }

    fn of(judged: &[Judged], id: &str) -> Vec<Option<bool>> {
        let lines = judged.iter().filter(|line| line.id == id);
        lines.map(|line| line.reached).collect()
    }

    #[test]
    fn targets_are_judged_in_their_own_direction() {
        let record = record(vec![
            series("tcp", Plain, "baseline", &[100.0]),
            series("tcp", Plain, "uring", &[340.0]),
            series("tcp", Merging, "uring", &[341.0]),
            series("rr-p50", Plain, "bare", &[40.0]),
            series("rr-p50", Plain, "baseline", &[100.0]),
            series("rr-p50", Plain, "uring", &[99.0]),
            series("udp-rr-p50", Plain, "bare", &[100.0]),
            series("udp-rr-p50", Plain, "ebpf", &[109.0]),
            series("tcp-rr-p50", Plain, "bare", &[100.0]),
            series("tcp-rr-p50", Plain, "ebpf", &[111.0]),
            series("tcp-rr-p50", Merging, "bare", &[100.0]),
            series("tcp-rr-p50", Merging, "ebpf", &[110.0]),
            series("cpu-idle", Plain, "uring", &[0.5]),
        ]);
        let judged = judge(&record, None);
        assert_eq!(of(&judged, "P1"), [Some(false)]);
        assert_eq!(of(&judged, "P2"), [Some(true)]);
        assert_eq!(of(&judged, "P3"), [None]);
        assert_eq!(
            of(&judged, "P9"),
            [
                None,
                None,
                Some(true),
                None,
                Some(false),
                Some(true),
                Some(true),
                None
            ]
        );
        assert_eq!(of(&judged, "P12"), [Some(false)], "below, not at");
        let p9 = judged
            .iter()
            .filter(|line| line.id == "P9")
            .nth(6)
            .and_then(|line| line.value);
        assert_eq!(p9, Some(59.0 / 60.0));
    }
}
