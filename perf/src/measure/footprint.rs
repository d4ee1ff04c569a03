//! What a daemon needs by being there: memory before and after load, and CPU time while nothing happens.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use isatap_tests::netns::Netns;

use super::{Context, Taken, tcp, udp};
use crate::generate::{self, Pace};
use crate::scene::{Link, Scene, Stage, Underlay};

/// As DESIGN P10 says.
const WORKERS: usize = 4;
/// CPU time is counted in nanoseconds, so this is long enough to see 0.01 %.
const IDLE: Duration = Duration::from_millis(1000);
const TCP_FLOWS: u32 = 4;
/// A load touches buffers that the ones before it had not: growth is what the last of several adds.
const LOADS: usize = 3;

pub(super) fn measure(context: &Context<'_>) -> Result<Taken> {
    let scene = Scene {
        stage: Stage::Pair,
        underlay: Underlay::Plain,
        workers: WORKERS,
        routes: 0,
        routers: 0,
    };
    let link = Link::new(context.peer, scene);
    let runners = link.start(context.settings);
    let watch = crate::conserve::Watch::new(Link::daemons(&runners));
    let idle = resident_mib(&link.left)?;
    let (before, began) = (cpu_ns(&link.left)?, Instant::now());
    thread::sleep(IDLE);
    let cpu = (cpu_ns(&link.left)? - before) as f64 / began.elapsed().as_nanos() as f64 * 100.0;
    let loaded = Context {
        link: Some(&link),
        ..*context
    };
    let load = || -> Result<f64> {
        tcp::bulk(&link, TCP_FLOWS, 1.0)?;
        let (mut outlet, inlet) = udp::flows(&link, context.settings.flows)?;
        generate::run(&mut outlet, &inlet, &udp::traffic(&loaded, vec![64], Pace::Flood))?;
        resident_mib(&link.left)
    };
    let mut after = [0.0; LOADS];
    for resident in &mut after {
        *resident = load()?;
    }
    let growth = (after[LOADS - 1] - after[LOADS - 2]).max(0.0);
    Ok(Taken {
        values: vec![idle, after[LOADS - 1], growth, cpu],
        violations: watch.account().violations,
        ..Taken::default()
    })
}

/// Resident memory of all processes in `ns`: the tunnel's alone are there.
pub(crate) fn resident_mib(ns: &Netns) -> Result<f64> {
    let of = |pid: &i32| -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("VmRSS")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    };
    let pids = ns.pids();
    ensure!(!pids.is_empty(), "no process is in {}", ns.name());
    pids.iter().map(of).sum()
}

/// CPU time that all threads of these processes have had.
fn cpu_ns(ns: &Netns) -> Result<u64> {
    let mut sum = 0;
    for pid in ns.pids() {
        for task in fs::read_dir(PathBuf::from(format!("/proc/{pid}/task")))?.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat"))?;
            let first = text.split_whitespace().next().context("schedstat")?;
            sum += first.parse::<u64>()?;
        }
    }
    Ok(sum)
}
