//! What `top` shows: two statuses, and what happened between them.

use std::collections::{BTreeMap, VecDeque};

use hdrhistogram::Histogram;

use crate::ops::latency::LatencyRow;
use crate::ops::status::{DirectionStatus, Status, Traffic};

/// Seconds of history behind the small charts.
pub(super) const HISTORY: usize = 120;

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: Option<Status>,
    earlier: Option<Status>,
    /// Latencies since the start, by direction and [`OF_KERNEL`].
    total: BTreeMap<String, Histogram<u64>>,
    /// Latencies between the two looks, in nanoseconds.
    interval: BTreeMap<String, Histogram<u64>>,
    /// Packets per second, encap and decap, the latest last.
    pub(super) history: [VecDeque<u64>; 2],
    pub(super) paused: bool,
    /// Why there is nothing new.
    pub(super) trouble: Option<String>,
    /// The first worker shown.
    pub(super) first_worker: usize,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) packets: f64,
    pub(super) bits: f64,
    pub(super) dropped: f64,
}

/// Quantiles of an interval in nanoseconds; 0 without packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Model {
    /// Takes a look in. Of another engine, or the first, nothing can be said yet but what it counts.
    pub(super) fn take(&mut self, status: Status, latencies: &[LatencyRow]) {
        let total = sum(latencies);
        self.earlier = self
            .now
            .take()
            .filter(|earlier| (earlier.pid, earlier.engine_pid) == (status.pid, status.engine_pid));
        self.interval.clear();
        if self.earlier.is_some() {
            for (direction, now) in &total {
                let mut interval = now.clone();
                if let Some(before) = self.total.get(direction) {
                    // Equal bounds, and counts only grow.
                    let _ = interval.subtract(before);
                }
                self.interval.insert(direction.clone(), interval);
            }
        }
        self.total = total;
        self.now = Some(status);
        if self.earlier.is_some() {
            let rates = self.total_rates();
            for (history, rates) in self.history.iter_mut().zip(rates) {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate, not negative"
                )]
                history.push_back(rates.packets as u64);
                while history.len() > HISTORY {
                    history.pop_front();
                }
            }
        }
        self.scroll(0);
    }

    /// Moves the list of workers.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self
            .now
            .as_ref()
            .map_or(0, |now| now.workers.len().saturating_sub(1));
        self.first_worker = self.first_worker.saturating_add_signed(by).min(last);
    }

    fn seconds(&self) -> Option<f64> {
        let (now, earlier) = (self.now.as_ref()?, self.earlier.as_ref()?);
        Some(now.uptime_seconds - earlier.uptime_seconds).filter(|seconds| *seconds > 0.0)
    }

    /// Encap and decap, all workers together.
    pub(super) fn total_rates(&self) -> [Rates; 2] {
        self.rates(|status| Some(&status.total))
    }

    /// Encap and decap of one worker.
    pub(super) fn worker_rates(&self, number: usize) -> [Rates; 2] {
        self.rates(|status| status.workers.get(number).map(|worker| &worker.traffic))
    }

    /// Encap and decap of the kernel's programs.
    pub(super) fn kernel_rates(&self) -> [Rates; 2] {
        self.rates(|status| Some(&status.programs.traffic))
    }

    fn rates(&self, of: impl Fn(&Status) -> Option<&Traffic>) -> [Rates; 2] {
        let traffic = |status: &Option<Status>| status.as_ref().and_then(&of).cloned();
        let (Some(now), Some(before), Some(seconds)) =
            (traffic(&self.now), traffic(&self.earlier), self.seconds())
        else {
            return [Rates::default(); 2];
        };
        [(now.encap, before.encap), (now.decap, before.decap)]
            .map(|(now, before)| Rates::between(&now, &before, seconds))
    }

    /// Drops by direction and reason: all of them so far, and per second; the most frequent first.
    pub(super) fn drops(&self) -> Vec<(&'static str, String, u64, f64)> {
        let Some(now) = &self.now else { return Vec::new() };
        let seconds = self.seconds();
        let before = self.earlier.as_ref();
        let sides = [
            (
                "encap",
                &now.total.encap,
                before.map(|status| &status.total.encap),
            ),
            (
                "decap",
                &now.total.decap,
                before.map(|status| &status.total.decap),
            ),
        ];
        let mut rows = Vec::new();
        for (name, now, before) in sides {
            for (reason, count) in &now.drops {
                let then = before.map_or(*count, |before| before.drops.get(reason).copied().unwrap_or(0));
                let rate = seconds.map_or(0.0, |seconds| float(count.saturating_sub(then)) / seconds);
                rows.push((name, reason.clone(), *count, rate));
            }
        }
        for (place, count) in kernel_drops(now) {
            let then = before.map_or(count, |before| {
                kernel_drops(before).get(&place).copied().unwrap_or(0)
            });
            let rate = seconds.map_or(0.0, |seconds| float(count.saturating_sub(then)) / seconds);
            rows.push(("kernel", place, count, rate));
        }
        rows.sort_by(|a, b| b.3.total_cmp(&a.3).then(b.2.cmp(&a.2)));
        rows
    }

    /// Latencies between the two looks.
    pub(super) fn quantiles(&self, direction: &str) -> Quantiles {
        match self.interval.get(direction) {
            Some(interval) if !interval.is_empty() => Quantiles {
                p50: interval.value_at_quantile(0.5),
                p99: interval.value_at_quantile(0.99),
                max: interval.max(),
            },
            _ => Quantiles::default(),
        }
    }
}

impl Rates {
    fn between(now: &DirectionStatus, before: &DirectionStatus, seconds: f64) -> Self {
        let per = |now: u64, before: u64| float(now.saturating_sub(before)) / seconds;
        Self {
            packets: per(now.packets, before.packets),
            bits: 8.0 * per(now.bytes, before.bytes),
            dropped: per(now.dropped, before.dropped),
        }
    }
}

/// What the kernel dropped, by place, as far as it dropped anything.
fn kernel_drops(status: &Status) -> BTreeMap<String, u64> {
    let queues = status.kernel_drops.iter().map(|(queue, count)| {
        let is_socket = queue.parse::<usize>().is_ok();
        let place = if is_socket {
            format!("socket {queue}")
        } else {
            queue.clone()
        };
        (place, *count)
    });
    let all = queues.chain([
        ("qdisc".to_owned(), status.qdisc_drops),
        ("device".to_owned(), status.device_drops),
    ]);
    all.filter(|(_, count)| *count > 0).collect()
}

#[allow(clippy::cast_precision_loss, reason = "rates are shown with three digits")]
fn float(number: u64) -> f64 {
    number as f64
}

/// What the kernel's programs took, by direction.
pub(super) const OF_KERNEL: [&str; 2] = ["kernel encap", "kernel decap"];

/// All workers together, by direction, and the kernel's programs by themselves, since these take the time of few packets; what
/// cannot be read is left out.
fn sum(rows: &[LatencyRow]) -> BTreeMap<String, Histogram<u64>> {
    let mut sums: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    for row in rows {
        let Ok(histogram) = row.decode() else { continue };
        let name = match row.worker {
            Some(_) => row.direction.clone(),
            None => format!("kernel {}", row.direction),
        };
        match sums.get_mut(&name) {
            // Equal bounds: nothing can be refused.
            Some(sum) => _ = sum.add(&histogram),
            None => _ = sums.insert(name, histogram),
        }
    }
    sums
}
