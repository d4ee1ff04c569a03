//! Carries a plan out: rounds, scenes, turns; a measurement that fails is noted and the rest goes on.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use isatapd::ctl::hlog;

use crate::conserve::{Account, Watch};
use crate::machine::Machine;
use crate::measure::{self, Context, Taken, guarded};
use crate::peer::{Peer, Runner};
use crate::plan::{Group, Plan, Step};
use crate::record::{Latency, Reading, Record, Series};
use crate::scene::{Link, Stage};

/// Points of a latency curve: half of what is left, again and again, in four steps each.
const CURVE_STEPS_PER_HALVING: u32 = 4;

/// A histogram of one round.
#[derive(Debug)]
struct Interval {
    measurement: &'static str,
    peer: Peer,
    began: Duration,
    length: Duration,
    histogram: Histogram<u64>,
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) record: Record,
    /// The text of a .hlog file.
    pub(crate) hlog: Vec<u8>,
}

/// Measures everything.
///
/// # Errors
/// When the histograms cannot be put together.
pub(crate) fn run(plan: &Plan, machine: Machine) -> Result<Run> {
    let mut conductor = Conductor {
        plan,
        record: Record::new(machine, plan.settings.clone()),
        intervals: Vec::new(),
        began: Instant::now(),
        planned: 0.0,
    };
    let began_at = SystemTime::now();
    for round in 1..=plan.settings.rounds {
        for group in &plan.groups {
            conductor.group(round, group);
        }
    }
    progress("");
    let Conductor {
        mut record,
        intervals,
        began,
        ..
    } = conductor;
    record.took = began.elapsed().as_secs_f64();
    record.latencies = curves(&intervals)?;
    let entries = intervals.iter().map(|interval| hlog::Entry {
        tag: interval.tag(),
        began: interval.began,
        length: interval.length,
        histogram: &interval.histogram,
    });
    let hlog = hlog::log(entries, began_at).map_err(|reason| anyhow!(reason))?;
    Ok(Run { record, hlog })
}

struct Conductor<'a> {
    plan: &'a Plan,
    record: Record,
    intervals: Vec<Interval>,
    began: Instant,
    /// Seconds that what is behind us was planned to take.
    planned: f64,
}

/// A peer's scene and what runs there; `None` while it does not.
type Ends<'a> = Option<Vec<Runner<'a>>>;

impl Conductor<'_> {
    fn group(&mut self, round: u32, group: &Group) {
        let plan = self.plan;
        let takes_part = |peer: &&Peer| group.steps.iter().any(|step| step.includes(peer));
        let peers: Vec<&Peer> = plan.peers.iter().filter(takes_part).collect();
        self.progress(round, &format!("building for {} peers", peers.len()));
        let own = group.scene.stage == Stage::Own;
        let links: Vec<Option<Link>> = peers
            .iter()
            .map(|peer| {
                let built = (!own).then(|| guarded(|| Ok(Link::new(peer, group.scene))));
                built.and_then(|built| self.or_fail(peer, "build", built))
            })
            .collect();
        let mut ends: Vec<Ends<'_>> = links.iter().map(|_| None).collect();
        for step in &group.steps {
            for ((peer, link), ends) in peers.iter().zip(&links).zip(&mut ends) {
                if step.includes(peer) && (own || link.is_some()) {
                    self.progress(round, &format!("{}: {}", step.title(), peer.name()));
                    self.step(step, peer, link.as_ref(), ends);
                }
            }
        }
        self.planned += plan.group_seconds(group);
    }

    /// One measurement of one peer. Whoever failed is started anew for the next.
    fn step<'l>(&mut self, step: &Step, peer: &Peer, link: Option<&'l Link>, ends: &mut Ends<'l>) {
        if let (Some(link), None) = (link, &ends) {
            let started = guarded(|| Ok(link.start(&self.plan.settings)));
            *ends = self.or_fail(peer, &step.title(), started);
            if ends.is_none() {
                self.note(step, peer, None);
                return;
            }
        }
        let context = Context {
            settings: &self.plan.settings,
            step,
            peer,
            link,
        };
        let at = self.began.elapsed();
        let measured = guarded(|| {
            let runners = ends.as_deref().unwrap_or_default();
            let watch = Watch::new(Link::daemons(runners));
            let taken = measure::take(&context)?;
            Ok((taken, watch.account()))
        });
        let length = self.began.elapsed() - at;
        match self.or_fail(peer, &step.title(), measured) {
            Some((mut taken, account)) => {
                if let Some(histogram) = taken.latency.take() {
                    self.intervals.push(Interval {
                        measurement: step.row.id,
                        peer: peer.clone(),
                        began: at,
                        length,
                        histogram,
                    });
                }
                self.check(step, peer, &taken, &account);
                self.note(step, peer, Some((taken, account)));
            }
            None => {
                *ends = None;
                self.note(step, peer, None);
            }
        }
    }

    fn check(&mut self, step: &Step, peer: &Peer, taken: &Taken, account: &Account) {
        self.record.conserved += account.daemons;
        let mut report = |text: &str| {
            let violation = format!("{}, {}: {text}", step.title(), peer.name());
            eprintln!("\nVIOLATION {violation}");
            self.record.violations.push(violation);
        };
        let unequal = account.violations.iter().chain(&taken.violations);
        unequal.for_each(|text| report(text));
        if taken.duplicated > 0 {
            report(&format!("{} packets arrived more than once", taken.duplicated));
        }
    }

    /// Adds a reading to each figure's series, or a failure.
    fn note(&mut self, step: &Step, peer: &Peer, taken: Option<(Taken, Account)>) {
        for (at, figure) in step.row.figures.iter().enumerate() {
            let key = step.key(figure.id, peer);
            let series = self.record.series_mut(&key, || Series {
                key: key.clone(),
                measurement: step.row.id.into(),
                title: figure.title.into(),
                about: step.row.about.into(),
                unit: figure.unit.into(),
                better: figure.better,
                peer_title: peer.title(),
                median: None,
                least: None,
                most: None,
                failed: 0,
                readings: Vec::new(),
            });
            match taken
                .as_ref()
                .map(|(taken, account)| (taken.values.get(at), taken, account))
            {
                Some((Some(value), taken, account)) => {
                    let mut details = taken.details.clone();
                    let drops = account.drops.iter();
                    details.extend(drops.map(|(reason, count)| (format!("drop_{reason}"), *count as f64)));
                    series.add(Reading {
                        value: *value,
                        details,
                    });
                }
                _ => series.failed += 1,
            }
        }
    }

    fn or_fail<T>(&mut self, peer: &Peer, what: &str, done: Result<T>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(error) => {
                let failure = format!("{what}, {}: {error:#}", peer.name());
                eprintln!("\nFAILED {failure}");
                self.record.failures.push(failure);
                None
            }
        }
    }

    fn progress(&self, round: u32, doing: &str) {
        let total = self.plan.seconds();
        let elapsed = self.began.elapsed().as_secs_f64();
        let left = (total - self.planned.max(elapsed.min(total))).max(0.0);
        progress(&format!(
            "round {round} of {}, {elapsed:.0} s, about {left:.0} s left: {doing}",
            self.plan.settings.rounds
        ));
    }
}

/// One line that is replaced by the next; a log gets none.
fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
    }
}

impl Interval {
    fn tag(&self) -> String {
        format!("{}-{}", self.measurement, self.peer.name())
    }
}

/// All rounds of each measurement and peer together.
fn curves(intervals: &[Interval]) -> Result<Vec<Latency>> {
    let mut sums: Vec<(&Interval, Histogram<u64>)> = Vec::new();
    for interval in intervals {
        match sums.iter_mut().find(|(first, _)| first.tag() == interval.tag()) {
            Some((_, sum)) => sum.add(&interval.histogram)?,
            None => sums.push((interval, interval.histogram.clone())),
        }
    }
    let latency = |(first, sum): (&Interval, Histogram<u64>)| Latency {
        measurement: first.measurement.into(),
        peer: first.peer.name().into(),
        peer_title: first.peer.title(),
        tag: first.tag(),
        count: sum.len(),
        percentiles: curve(&sum),
    };
    Ok(sums.into_iter().map(latency).collect())
}

fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let points = histogram.iter_quantiles(CURVE_STEPS_PER_HALVING);
    let points = points.map(|point| {
        (
            point.quantile_iterated_to(),
            point.value_iterated_to() as f64 / 1e3,
        )
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_rises_to_the_largest() {
        let mut histogram = crate::generate::inlet::latency_histogram().unwrap();
        (1..=10_000u64).for_each(|micros| histogram.record(micros * 1000).unwrap());
        let curve = curve(&histogram);
        assert!(curve.len() > 20 && curve.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        assert!(curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let (_, last) = curve[curve.len() - 1];
        assert!((9_990.0..=10_020.0).contains(&last), "{last}");
    }
}
