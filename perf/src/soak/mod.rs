//! Hours of traffic while something goes wrong every half minute.
//!
//! ```text
//!   left  is0 ==== eth0 --- eth0 ==== is0 right        numbered UDP to the right, TCP in both directions by turns
//!         isatapd                 isatapd
//! ```
//!
//! An episode is one fault under traffic: it strikes at a moment the seed decides, is mended, and the tunnel must be what it
//! was: packets arrive once, counters add up, TCP goes on, memory, descriptors and threads are as before. A fault that
//! must cost nothing, such as a reload, is judged by the packets lost as well.
//!
//! | module | answers the question |
//! |---|---|
//! | [`fault`] | what goes wrong? |
//! | [`gauge`] | what does the daemon hold? |
//! | [`report`] | what came of it? |

mod fault;
mod gauge;
mod report;

use std::net::SocketAddrV6;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use isatap_tests::kernel_drops::KernelDrops;
use isatap_tests::ping::ping_until;
use isatap_tests::traffic::tcp_transfer;
use serde::Serialize;

use crate::cli::SoakOptions;
use crate::conserve::Watch;
use crate::generate::imix::imix;
use crate::generate::{self, Pace, Traffic};
use crate::measure::{guarded, udp};
use crate::plan::Settings;
use crate::scene::{Link, Scene, Stage, Underlay};
use fault::{Dice, FAULTS, Fault, Site};
use gauge::Gauge;

const MTU: u16 = 1480;
const FLOWS: u16 = 8;
/// Packets a second: enough to see a loss, few enough that queues never fill by themselves.
const RATE: u64 = 2_000;
/// One TCP transfer after the other, of so many bytes.
const TRANSFER: u64 = 20_000_000;
/// A transfer may wait so long for the tunnel to be mended.
const STALL: Duration = Duration::from_secs(20);
const TCP_PORT: u16 = 5002;
/// Episodes until memory counts as settled: buffers are touched once.
const SETTLED_AFTER: usize = 6;
/// Has each worker use its buffers.
const CAPTURE: &str = "capture -w /dev/null --seconds 4";
/// Growth of memory from then on that is still noise, MiB.
const GROWTH_MIB: f64 = 4.0;
/// A thread that reads files for a reload lives for some seconds.
const PASSING_THREADS: usize = 2;

/// What one fault came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Episode {
    pub(crate) number: usize,
    pub(crate) fault: String,
    /// Seconds from the start of the run to the fault.
    pub(crate) at: f64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// The longest time without an arrival, milliseconds.
    pub(crate) gap_ms: f64,
    /// Packets the kernel had no room for at either end, those of TCP included.
    pub(crate) full_queues: u64,
    /// Engines that were followed by others.
    pub(crate) restarts: u64,
    /// TCP transfers that ended during the episode, and the slowest, seconds.
    pub(crate) transfers: usize,
    pub(crate) slowest: f64,
    pub(crate) held: Vec<Gauge>,
    /// What must not be.
    pub(crate) broken: Vec<String>,
}

/// Runs, and writes the report.
///
/// # Errors
/// When the scene cannot be built, or the report not written.
pub(crate) fn run(options: &SoakOptions) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(moment);
    let mut dice = Dice::new(seed);
    let faults = chosen(&options.only)?;
    println!(
        "seed {seed}: {:.2} hours, a fault every {:.0} s, {} lane, {} workers",
        options.hours,
        options.every,
        options.lane.name(),
        options.workers
    );
    let scene = Scene {
        stage: Stage::Pair,
        underlay: Underlay::Plain,
        workers: options.workers,
        routes: 0,
        routers: 0,
    };
    let link = Link::new(&options.lane, scene);
    let runners = link.start(&settings(options));
    let daemons: Vec<_> = Link::daemons(&runners).collect();
    let site = Site {
        link: &link,
        daemons: &daemons,
    };
    guarded(|| use_buffers(&site)).context("before the first fault")?;
    let (began, length) = (Instant::now(), Duration::from_secs_f64(options.hours * 3600.0));
    let mut episodes: Vec<Episode> = Vec::new();
    let mut deck: Vec<&Fault> = Vec::new();
    while began.elapsed() < length {
        if deck.is_empty() {
            deck = dice.shuffled(&faults);
        }
        let Some(fault) = deck.pop() else { break };
        let mut episode =
            guarded(|| play(&site, fault, &mut dice, options)).unwrap_or_else(|error| Episode {
                broken: vec![format!("{error:#}")],
                ..Episode::default()
            });
        episode.number = episodes.len() + 1;
        fault.name.clone_into(&mut episode.fault);
        episode.at = began.elapsed().as_secs_f64();
        judge_memory(&episodes, &mut episode);
        report::line(&episode);
        let over = !daemons_live(&site);
        episodes.push(episode);
        if over {
            println!("a daemon is gone: the run ends here");
            break;
        }
    }
    let sound = episodes.iter().all(|episode| episode.broken.is_empty());
    report::write(&options.output, seed, options, began.elapsed(), &episodes)?;
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn settings(options: &SoakOptions) -> Settings {
    Settings {
        workers: options.workers,
        mtu: MTU,
        flows: FLOWS,
        ..Settings::default()
    }
}

fn moment() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

fn chosen(only: &[String]) -> Result<Vec<&'static Fault>> {
    if let Some(name) = only
        .iter()
        .find(|name| FAULTS.iter().all(|fault| fault.name != **name))
    {
        let known: Vec<_> = FAULTS.iter().map(|fault| fault.name).collect();
        bail!("{name:?} is no fault; there are {}", known.join(", "));
    }
    let wanted = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    Ok(FAULTS.iter().filter(wanted).collect())
}

fn daemons_live(site: &Site<'_, '_>) -> bool {
    site.daemons.iter().all(|daemon| daemon.http("/healthz").is_ok())
}

/// One fault under traffic.
fn play(site: &Site<'_, '_>, fault: &Fault, dice: &mut Dice, options: &SoakOptions) -> Result<Episode> {
    let every = options.every;
    let before = Losses::read(site);
    let watch = Watch::new(site.daemons.iter().copied());
    let (mut outlet, inlet) = udp::flows(site.link, FLOWS)?;
    let strike_at = Duration::from_secs_f64(every * dice.between(0.1, 0.4));
    let traffic = Traffic {
        sizes: imix(MTU),
        pace: Pace::Rate(RATE),
        warm_up: Duration::ZERO,
        length: Duration::from_secs_f64(every * 0.8),
    };
    let over = AtomicBool::new(false);
    let mut fault_dice = dice.split();
    let (outcome, transfers, struck) = thread::scope(|scope| {
        let tcp = scope.spawn(|| transfer_until(site.link, &over));
        let trouble = scope.spawn(|| {
            thread::sleep(strike_at);
            guarded(|| (fault.strike)(site, &mut fault_dice))
        });
        let outcome = generate::run(&mut outlet, &inlet, &traffic);
        let struck = trouble.join();
        over.store(true, Ordering::Relaxed);
        (outcome, tcp.join(), struck)
    });
    let outcome = outcome.context("the generator")?;
    let mut episode = Episode {
        sent: outcome.totals.sent,
        lost: outcome.totals.lost,
        duplicated: outcome.totals.duplicated,
        reordered: outcome.totals.reordered,
        gap_ms: outcome.longest_gap_ns as f64 / 1e6,
        ..Episode::default()
    };
    match struck {
        Ok(Ok(())) => {}
        Ok(Err(error)) => episode.broken.push(format!("the fault itself failed: {error:#}")),
        Err(_) => episode.broken.push("the fault itself panicked".into()),
    }
    match transfers {
        Ok(transfers) => {
            episode.transfers = transfers.done.len();
            episode.slowest = transfers
                .done
                .iter()
                .map(Duration::as_secs_f64)
                .fold(0.0, f64::max);
            episode.broken.extend(transfers.broken);
        }
        Err(_) => episode.broken.push("the TCP transfers panicked".into()),
    }
    if episode.duplicated > 0 {
        episode
            .broken
            .push(format!("{} packets arrived twice", episode.duplicated));
    }
    mended(site)?;
    let after = Losses::read(site);
    episode.full_queues = after.full_queues.saturating_sub(before.full_queues);
    episode.restarts = after.restarts - before.restarts;
    let excused = options.shared && episode.lost <= episode.full_queues;
    if fault.lossless && episode.lost > 0 && !excused {
        episode.broken.push(format!(
            "{} packets lost to a fault that costs none",
            episode.lost
        ));
    }
    if episode.restarts != fault.restarts {
        episode.broken.push(format!(
            "{} engines followed by others, {} expected",
            episode.restarts, fault.restarts
        ));
    }
    episode.broken.extend(watch.account().violations);
    episode.held = site
        .daemons
        .iter()
        .map(|daemon| Gauge::of(daemon.ns()))
        .collect::<Result<_>>()?;
    Ok(episode)
}

/// What has been lost so far, as the kernel counts it, and engines with it.
#[derive(Clone, Copy, Debug)]
struct Losses {
    full_queues: u64,
    restarts: u64,
}

impl Losses {
    fn read(site: &Site<'_, '_>) -> Self {
        let ends = [&site.link.left, &site.link.right];
        let metrics = site.daemons.iter().map(|daemon| daemon.metrics());
        Self {
            full_queues: ends.iter().map(|ns| KernelDrops::read(ns).total()).sum(),
            restarts: metrics
                .map(|metrics| metrics.sum("isatapd_engine_restarts_total", &[]))
                .sum(),
        }
    }
}

/// Both ends reach each other again.
fn mended(site: &Site<'_, '_>) -> Result<()> {
    guarded(|| {
        ping_until(&site.link.left, &site.link.destination().to_string(), STALL);
        ping_until(&site.link.right, &site.link.source().to_string(), STALL);
        Ok(())
    })
    .context("the tunnel is not what it was")
}

#[derive(Debug, Default)]
struct Transfers {
    done: Vec<Duration>,
    broken: Vec<String>,
}

/// TCP transfers, one after the other, one way and then the other.
fn transfer_until(link: &Link, over: &AtomicBool) -> Transfers {
    let mut transfers = Transfers::default();
    let (there, back) = (link.destination(), link.source());
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (from, to, dst) = if turn % 2 == 0 {
            (&link.left, &link.right, there)
        } else {
            (&link.right, &link.left, back)
        };
        match tcp_transfer(from, to, SocketAddrV6::new(dst, TCP_PORT, 0, 0), TRANSFER, STALL) {
            Ok(report) => transfers.done.push(report.elapsed),
            Err(error) => {
                transfers.broken.push(format!("TCP to {dst}: {error}"));
                break;
            }
        }
    }
    transfers
}

/// What the kernel's programs carry touches no buffer of a worker. While somebody captures, workers carry, and use theirs; one
/// end at a time, since only programs at the other send superpackets whole.
fn use_buffers(site: &Site<'_, '_>) -> Result<()> {
    for daemon in site.daemons {
        let over = AtomicBool::new(false);
        let (output, transfers) = thread::scope(|scope| {
            let tcp = scope.spawn(|| transfer_until(site.link, &over));
            let output = daemon.ctl(CAPTURE);
            over.store(true, Ordering::Relaxed);
            (output, tcp.join())
        });
        ensure!(output.status.success(), "{CAPTURE}: {output:?}");
        let transfers = transfers.map_err(|_| anyhow!("the TCP transfers panicked"))?;
        ensure!(transfers.broken.is_empty(), "{:?}", transfers.broken);
    }
    Ok(())
}

/// Memory, descriptors and threads must be no more than once everything had been used: an engine that was exchanged has less, at first.
fn judge_memory(before: &[Episode], episode: &mut Episode) {
    let Some(used) = before.get(..=SETTLED_AFTER) else {
        return;
    };
    for (end, now) in episode.held.iter().enumerate() {
        let Some(then) = used
            .iter()
            .filter_map(|episode| episode.held.get(end))
            .copied()
            .reduce(Gauge::most)
        else {
            continue;
        };
        if now.resident_mib > then.resident_mib + GROWTH_MIB {
            episode.broken.push(format!(
                "memory grew from {:.1} to {:.1} MiB",
                then.resident_mib, now.resident_mib
            ));
        }
        if now.descriptors > then.descriptors {
            episode.broken.push(format!(
                "{} descriptors, {} before",
                now.descriptors, then.descriptors
            ));
        }
        if now.threads > then.threads + PASSING_THREADS {
            episode
                .broken
                .push(format!("{} threads, {} before", now.threads, then.threads));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(resident_mib: f64, descriptors: usize) -> Episode {
        let held = Gauge {
            resident_mib,
            descriptors,
            threads: 9,
        };
        Episode {
            held: vec![held],
            ..Episode::default()
        }
    }

    #[test]
    fn memory_is_compared_with_the_most_of_the_first_episodes() {
        let mut first: Vec<_> = (0..=SETTLED_AFTER).map(|_| episode(40.0, 60)).collect();
        first[1] = episode(47.0, 60);
        let judged = |before: &[Episode], mut episode: Episode| {
            judge_memory(before, &mut episode);
            episode.broken
        };
        assert!(
            judged(&first[..SETTLED_AFTER], episode(90.0, 90)).is_empty(),
            "too early"
        );
        assert!(judged(&first, episode(47.0 + GROWTH_MIB, 60)).is_empty());
        assert_eq!(
            judged(&first, episode(51.1, 60)),
            ["memory grew from 47.0 to 51.1 MiB"]
        );
        assert_eq!(judged(&first, episode(40.0, 61)), ["61 descriptors, 60 before"]);
    }
}
