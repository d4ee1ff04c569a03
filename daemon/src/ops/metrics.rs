//! The counters as Prometheus text, under the contract's names; those of control are in `control`.
//!
//! Built from plain numbers at each scrape: nothing here is shared with a worker. Every reason, state and result
//! appears also at 0, so that a rate is right from the first event on.

use std::fmt::Error;

use isatap_engine::reason::DropReason;
use isatap_engine::stats::{Direction, DirectionSnapshot, Latencies, LoopEvent, WorkerSnapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::latency::{BUCKETS, KERNEL_BUCKETS, bucket_counts};
use super::share::KernelShare;
use super::status::ControlStatus;
use crate::prl::Health;

mod control;
mod programs;

/// The media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Everything a scrape shows.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// One snapshot per worker.
    pub workers: Vec<WorkerSnapshot>,
    /// Packets the kernel dropped before a worker saw them, by queue.
    pub kernel_drops: Vec<(String, u64)>,
    /// Packets that the underlay's queueing dropped.
    pub qdisc_drops: u64,
    /// Packets that the underlay's devices did not send.
    pub device_drops: u64,
    /// Routers per state, in the order of [`Health::ALL`].
    pub routers: [usize; Health::ALL.len()],
    /// Hosts that solicited this router lately.
    pub clients: usize,
    /// Latencies of all workers since the start.
    pub latencies: Latencies,
    /// Peers with a known path MTU, by who says so: our own link, a router.
    pub paths: [usize; 2],
    /// What control did.
    pub control: ControlStatus,
    /// The kernel's share, where the programs of the `ebpf` lane are loaded.
    pub share: Option<KernelShare>,
    /// Captures that run now.
    pub captures: usize,
    /// Whether packets can be carried.
    pub ready: bool,
    /// Whether this router is being taken out of service.
    pub draining: bool,
    /// Whether this is a router; otherwise it is a host.
    pub is_router: bool,
    /// The lane in use.
    pub lane: String,
    /// Release of the running kernel.
    pub kernel: String,
}

/// The metrics page.
pub fn encode(scrape: Scrape) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// The kernel's programs among the workers (the contract's name).
const KERNEL: &str = "kernel";

type Labels<'a> = &'a [(&'a str, &'a str)];

/// One metric family being written.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn counter(&mut self, labels: Labels<'_>, value: u64) -> Result<(), Error> {
        self.0
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: Labels<'_>, value: u64) -> Result<(), Error> {
        self.0
            .encode_family(&labels)?
            .encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn latency(
        &mut self,
        labels: Labels<'_>,
        histogram: &hdrhistogram::Histogram<u64>,
        bounds: &[u64],
    ) -> Result<(), Error> {
        // Nanoseconds and counts are far below 2^53.
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds in a float are the format's choice"
        )]
        let as_float = |number: u64| number as f64;
        let counts = bucket_counts(histogram, bounds);
        let bounds = bounds
            .iter()
            .map(|nanos| as_float(*nanos) / 1e9)
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = if histogram.is_empty() {
            0.0
        } else {
            histogram.mean() * as_float(histogram.len()) / 1e9
        };
        self.0
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(sum, histogram.len(), &buckets, None)
    }

    fn histogram(&mut self, labels: Labels<'_>, snapshot: &DirectionSnapshot) -> Result<(), Error> {
        // Counts and bounds are far below 2^53.
        #[allow(
            clippy::cast_precision_loss,
            reason = "packet counts in a float are the format's choice"
        )]
        let as_float = |number: u64| number as f64;
        let buckets: Vec<(f64, u64)> = snapshot
            .batch_buckets()
            .map(|(bound, count)| (bound.map_or(f64::INFINITY, as_float), count))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.0.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            as_float(snapshot.received),
            count,
            &buckets,
            None,
        )
    }
}

fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    kind: MetricType,
    name: &'a str,
    help: &str,
) -> Result<Family<'a>, Error> {
    encoder.encode_descriptor(name, help, None, kind).map(Family)
}

impl Scrape {
    /// Everybody who carries packets of a direction, by the name on metrics.
    fn carriers(&self, direction: Direction) -> impl Iterator<Item = (String, &DirectionSnapshot)> {
        let workers = self.workers.iter().enumerate();
        let kernel = self.share.iter();
        workers
            .map(move |(number, worker)| (number.to_string(), worker.direction(direction)))
            .chain(kernel.map(move |share| (KERNEL.to_owned(), &share.direction(direction).traffic)))
    }

    /// The sum over all of them.
    fn sum(&self, direction: Direction, value: impl Fn(&DirectionSnapshot) -> u64) -> u64 {
        self.carriers(direction).map(|(_, counts)| value(counts)).sum()
    }

    /// A counter per direction and worker.
    fn per_worker(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&DirectionSnapshot) -> u64,
    ) -> Result<(), Error> {
        let mut family = family(encoder, MetricType::Counter, name, help)?;
        for direction in Direction::ALL {
            for (worker, counts) in self.carriers(direction) {
                let labels = [("direction", direction.name()), ("worker", &worker)];
                family.counter(&labels, value(counts))?;
            }
        }
        Ok(())
    }

    /// A counter per direction, all carriers together.
    fn per_direction(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&DirectionSnapshot) -> u64,
    ) -> Result<(), Error> {
        let mut family = family(encoder, MetricType::Counter, name, help)?;
        for direction in Direction::ALL {
            family.counter(&[("direction", direction.name())], self.sum(direction, &value))?;
        }
        Ok(())
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        self.per_worker(
            encoder,
            "isatapd_received_packets",
            "Packets read from the kernel by workers, or taken by its programs (worker=\"kernel\")",
            |d| d.received,
        )?;
        self.per_worker(encoder, "isatapd_packets", "Packets delivered", |d| d.delivered)?;
        self.per_worker(
            encoder,
            "isatapd_punted_packets",
            "Packets given to control",
            |d| d.punted,
        )?;
        self.per_worker(
            encoder,
            "isatapd_bytes",
            "Inner bytes of delivered packets",
            |d| d.bytes,
        )?;
        self.per_direction(
            encoder,
            "isatapd_superpackets",
            "Delivered packets that stand for several",
            |d| d.superpackets,
        )?;
        self.per_direction(
            encoder,
            "isatapd_segments",
            "Segments of delivered superpackets",
            |d| d.segments,
        )?;
        let mut drops = family(
            encoder,
            MetricType::Counter,
            "isatapd_drops",
            "Packets dropped, by reason",
        )?;
        for direction in Direction::ALL {
            for reason in DropReason::ALL {
                let labels = [("direction", direction.name()), ("reason", reason.name())];
                drops.counter(&labels, self.sum(direction, |counts| counts.dropped(*reason)))?;
            }
        }
        let help = "Packets handled in one turn of a worker";
        let mut batches = family(encoder, MetricType::Histogram, "isatapd_batch_packets", help)?;
        for direction in Direction::ALL {
            let mut sum = DirectionSnapshot::default();
            self.workers
                .iter()
                .for_each(|worker| sum.merge(worker.direction(direction)));
            batches.histogram(&[("direction", direction.name())], &sum)?;
        }
        let help = "Time packets spend in the daemon, from their arrival in user space to their hand-over; worker=\"kernel\", of one packet in 256 that the \
                    kernel's programs carry: from when a program finds that it may to when it redirects the packet, without what the kernel does before and after";
        let mut latency = family(
            encoder,
            MetricType::Histogram,
            "isatapd_packet_latency_seconds",
            help,
        )?;
        for direction in Direction::ALL {
            latency.latency(
                &[("direction", direction.name())],
                self.latencies.direction(direction),
                &BUCKETS,
            )?;
            if let Some(share) = &self.share {
                let labels = [("direction", direction.name()), ("worker", KERNEL)];
                latency.latency(&labels, share.latencies.direction(direction), &KERNEL_BUCKETS)?;
            }
        }
        Ok(())
    }

    fn engine(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        // The kernel looks whether a socket is full before it asks the filter whose packet it is (net/ipv4/raw.c).
        let help = "Packets the kernel dropped before a worker saw them: at raw sockets by number (with several workers an \
                    upper bound, since a full socket counts packets of other workers too), at the tunnel interface (tun_txq), and on the way from programs into it (tun_rx)";
        let mut kernel = family(encoder, MetricType::Counter, "isatapd_kernel_drops", help)?;
        for (queue, count) in &self.kernel_drops {
            kernel.counter(&[("queue", queue)], *count)?;
        }
        let help = "Packets that the queueing disciplines of the underlay dropped, ours (also among the drops for send_error) \
                    and others'; begins anew with a discipline";
        family(encoder, MetricType::Counter, "isatapd_qdisc_drops", help)?.counter(&[], self.qdisc_drops)?;
        let help = "Packets that the devices of the underlay did not send (tx_dropped, tx_errors), ours and others'; of what \
                    the kernel's programs send nobody else counts what was lost after them";
        family(encoder, MetricType::Counter, "isatapd_device_drops", help)?
            .counter(&[], self.device_drops)?;
        let mut syscalls = family(
            encoder,
            MetricType::Counter,
            "isatapd_syscalls",
            "System calls made by workers",
        )?;
        for (number, worker) in self.workers.iter().enumerate() {
            syscalls.counter(&[("worker", &number.to_string())], worker.syscalls)?;
        }
        let help = "What the worker loops met and dealt with";
        let mut events = family(encoder, MetricType::Counter, "isatapd_loop_events", help)?;
        for event in LoopEvent::ALL {
            let sum = self.workers.iter().map(|worker| worker.event(*event)).sum();
            events.counter(&[("event", event.name())], sum)?;
        }
        let help = "System calls of workers that failed, by errno";
        let mut errors = family(encoder, MetricType::Counter, "isatapd_io_errors", help)?;
        let mut sums = std::collections::BTreeMap::new();
        for error in self.workers.iter().flat_map(|worker| &worker.errors) {
            *sums.entry((error.operation.name(), error.errno)).or_insert(0) += error.count;
        }
        for ((operation, errno), count) in sums {
            errors.counter(&[("operation", operation), ("errno", &errno.to_string())], count)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.traffic(&mut encoder)?;
        self.programs(&mut encoder)?;
        self.engine(&mut encoder)?;
        self.control_plane(&mut encoder)
    }
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
mod tests;
