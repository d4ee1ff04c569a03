//! How fast, how many, how late: one measurement each, over a scene that carries packets.

pub(crate) mod footprint;
mod loaded;
mod round_trip;
mod start;
mod tcp;
pub(crate) mod udp;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use crate::peer::Peer;
use crate::plan::{Settings, Step};
use crate::scene::Link;
use crate::table::Method;

/// What is at hand.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) step: &'a Step,
    pub(crate) peer: &'a Peer,
    /// Absent where the measurement builds its own.
    pub(crate) link: Option<&'a Link>,
}

/// What came out: one value for each figure of the row.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) values: Vec<f64>,
    /// By name, for the record.
    pub(crate) details: BTreeMap<String, f64>,
    /// In nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Packets that arrived more than once: a tunnel must not do that.
    pub(crate) duplicated: u64,
    /// Counters of daemons of its own that do not add up.
    pub(crate) violations: Vec<String>,
}

impl Context<'_> {
    fn link(&self) -> Result<&Link> {
        self.link.ok_or_else(|| anyhow!("this measurement needs a scene"))
    }
}

/// Measures once.
///
/// # Errors
/// What went wrong; the harness speaks in panics, which become errors here: one lost run is no lost afternoon.
pub(crate) fn take(context: &Context<'_>) -> Result<Taken> {
    guarded(|| match context.step.row.method {
        Method::Tcp { flows } => tcp::measure(context, flows),
        Method::Udp { size } => udp::windowed(context, vec![size]),
        Method::Imix => udp::windowed(context, crate::generate::imix::imix(context.settings.mtu)),
        Method::Flood { size } => udp::flood(context, size),
        Method::Hosts | Method::Networks | Method::FromRouters => udp::spread(context),
        Method::RoundTrip { transport, pace } => round_trip::measure(context, transport, pace),
        Method::Loaded => loaded::measure(context),
        Method::Footprint => footprint::measure(context),
        Method::Start => start::measure(context),
    })
}

/// Runs what may panic.
pub(crate) fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|cause| Err(anyhow!("{}", panic_text(&*cause))))
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> &str {
    cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without text")
}
