//! What goes wrong: one row each, with whether a packet may be lost to it. Whatever it breaks it mends before it returns.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::fault::{kill_engine, wait_successor};
use isatap_tests::packet::{Inner, Outer, link_local};
use isatap_tests::raw::Injector;
use isatap_tests::scene::on_link;
use isatap_tests::topology::{UNDERLAY, mac};
use nix::sys::signal::Signal;

use crate::scene::{LEFT, Link, RIGHT, host, network};

/// Where faults strike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a, 'b> {
    pub(crate) link: &'b Link,
    pub(crate) daemons: &'b [&'b Daemon<'a>],
}

/// One row.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// No packet may be lost to it.
    pub(crate) lossless: bool,
    /// Engines that are followed by others because of it.
    pub(crate) restarts: u64,
    pub(crate) strike: fn(&Site<'_, '_>, &mut Dice) -> Result<()>,
}

/// All of them.
pub(crate) const FAULTS: &[Fault] = &[
    lossless("nothing", |_, _| Ok(())),
    lossless("reloads", reloads),
    lossless("broken file", broken_file),
    lossless("route storm", route_storm),
    lossless("scrapes", scrapes),
    lossless("captures", captures),
    lossless("upgrade", upgrade),
    lossy("garbage", garbage),
    lossy("spoofed sources", spoofed),
    lossy("underlay down", |site, dice| down(site, dice, UNDERLAY)),
    lossy("tunnel down", |site, dice| down(site, dice, TUNNEL)),
    lossy("locator gone", locator_gone),
    lossy("underlay narrow", narrow),
    lossy("full queue", full_queue),
    lossy("firewall", firewall),
    lossy("hogs", hogs),
    lossy("frozen", frozen),
    Fault {
        restarts: 1,
        ..lossy("engine killed", engine_killed)
    },
];

const fn lossless(name: &'static str, strike: fn(&Site<'_, '_>, &mut Dice) -> Result<()>) -> Fault {
    Fault {
        name,
        lossless: true,
        restarts: 0,
        strike,
    }
}

const fn lossy(name: &'static str, strike: fn(&Site<'_, '_>, &mut Dice) -> Result<()>) -> Fault {
    Fault {
        name,
        lossless: false,
        restarts: 0,
        strike,
    }
}

/// Random numbers that a seed repeats (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// A number in `low..high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `count`, which is not 0.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap_or(0)
    }

    fn millis(&mut self, low: f64, high: f64) -> Duration {
        Duration::from_secs_f64(self.between(low, high) / 1e3)
    }

    /// Dice of their own, for another thread.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// The same in another order.
    pub(crate) fn shuffled<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        let mut all = all.to_vec();
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
        all
    }
}

/// One of the two ends, and its address.
fn end<'b>(site: &Site<'_, 'b>, dice: &mut Dice) -> (&'b isatap_tests::netns::Netns, std::net::Ipv4Addr) {
    if dice.below(2) == 0 {
        (&site.link.left, LEFT)
    } else {
        (&site.link.right, RIGHT)
    }
}

fn reloads(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    for _ in 0..20 {
        let daemon = site.daemons[dice.below(site.daemons.len())];
        daemon.signal(Signal::SIGHUP);
        thread::sleep(dice.millis(0.0, 30.0));
    }
    Ok(())
}

fn broken_file(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let daemon = site.daemons[dice.below(site.daemons.len())];
    let path = daemon.folder().join("isatapd.conf");
    let text = std::fs::read_to_string(&path)?;
    // The first line is the harness's own, and comes again.
    let before = text.split_once('\n').map_or("", |(_, rest)| rest);
    daemon.rewrite_config(&format!("{before}\nMtu banana\n"));
    let refused = !daemon.ctl("reload").status.success();
    daemon.rewrite_config(before);
    let taken = daemon.ctl("reload").status.success();
    ensure!(refused, "a broken file was taken");
    ensure!(taken, "the old file was refused");
    Ok(())
}

fn route_storm(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let (ns, _) = end(site, dice);
    for action in ["add", "del"] {
        let mut lines = String::new();
        for k in 0..500 {
            let _ = writeln!(
                lines,
                "route {action} {}/128 via {} dev {TUNNEL}",
                network(k),
                link_local(host(k))
            );
        }
        ns.ip_batch(&lines);
    }
    Ok(())
}

fn scrapes(site: &Site<'_, '_>, _: &mut Dice) -> Result<()> {
    for _ in 0..50 {
        for daemon in site.daemons {
            daemon.metrics();
            ensure!(daemon.ctl("status --json").status.success(), "no status");
        }
    }
    Ok(())
}

/// Everything is copied, then only what is dropped.
fn captures(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    for (what, most) in [("", 3000.0), ("--drops ", 1000.0)] {
        let daemon = site.daemons[dice.below(site.daemons.len())];
        let seconds = dice.millis(500.0, most).as_secs_f64();
        let order = format!("capture {what}-w /dev/null --seconds {seconds:.1}");
        let output = daemon.ctl(&order);
        ensure!(output.status.success(), "{order}: {output:?}");
    }
    Ok(())
}

/// The same program takes over.
fn upgrade(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let daemon = site.daemons[dice.below(site.daemons.len())];
    let old = daemon.engine_pid();
    let output = daemon.ctl("upgrade");
    ensure!(output.status.success(), "{output:?}");
    wait_successor(daemon, old);
    Ok(())
}

fn engine_killed(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let daemon = site.daemons[dice.below(site.daemons.len())];
    let old = kill_engine(daemon);
    wait_successor(daemon, old);
    Ok(())
}

/// Outer packets of random bytes, lengths and sources.
fn garbage(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let injector = Injector::ethernet(&site.link.left, UNDERLAY, mac(&site.link.right, UNDERLAY));
    for _ in 0..20_000 {
        let len = dice.below(200);
        let bytes: Vec<u8> = (0..len).map(|_| dice.next().to_le_bytes()[0]).collect();
        let from = host(u32::try_from(dice.below(1 << 16))?);
        // A full queue takes no more; that is what queues are for.
        let _ = injector.try_send(&Outer::new(from, RIGHT).wrap(&bytes));
    }
    Ok(())
}

/// Good packets, each from a host that did not send it.
fn spoofed(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let injector = Injector::ethernet(&site.link.left, UNDERLAY, mac(&site.link.right, UNDERLAY));
    for _ in 0..20_000 {
        let (claimed, sender) = (dice.below(1 << 16), dice.below(1 << 16));
        let inner = Inner::new(on_link(host(u32::try_from(claimed)?)), on_link(RIGHT)).udp(1, 7001, &[0; 64]);
        let _ = injector.try_send(&Outer::new(host(u32::try_from(sender)?), RIGHT).wrap(&inner));
    }
    Ok(())
}

fn down(site: &Site<'_, '_>, dice: &mut Dice, device: &str) -> Result<()> {
    let (ns, v4) = end(site, dice);
    ns.ip(&format!("link set {device} down"));
    thread::sleep(dice.millis(50.0, 1500.0));
    ns.ip(&format!("link set {device} up"));
    // The kernel forgets addresses of an interface that is down; this one is the operator's.
    restore_address(ns, v4);
    Ok(())
}

fn restore_address(ns: &isatap_tests::netns::Netns, v4: std::net::Ipv4Addr) {
    ns.ip(&format!("addr replace {}/64 dev {TUNNEL} nodad", on_link(v4)));
}

fn locator_gone(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let (ns, v4) = end(site, dice);
    ns.ip(&format!("addr del {v4}/24 dev {UNDERLAY}"));
    thread::sleep(dice.millis(50.0, 1500.0));
    ns.ip(&format!("addr add {v4}/24 dev {UNDERLAY}"));
    restore_address(ns, v4);
    Ok(())
}

fn narrow(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let (ns, _) = end(site, dice);
    for mtu in [1300, 600, 1500] {
        ns.ip(&format!("link set {UNDERLAY} mtu {mtu}"));
        thread::sleep(dice.millis(200.0, 800.0));
    }
    Ok(())
}

fn full_queue(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let (ns, _) = end(site, dice);
    ns.run(&format!(
        "tc qdisc add dev {UNDERLAY} root tbf rate 2mbit burst 3000 limit 6000"
    ));
    thread::sleep(dice.millis(500.0, 1500.0));
    ns.run(&format!("tc qdisc del dev {UNDERLAY} root"));
    Ok(())
}

fn firewall(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let (ns, _) = end(site, dice);
    ns.run("nft add table ip soak");
    ns.run("nft add chain ip soak out { type filter hook output priority 0 ; }");
    ns.run("nft add rule ip soak out ip protocol 41 drop");
    thread::sleep(dice.millis(200.0, 1000.0));
    ns.run("nft delete table ip soak");
    Ok(())
}

/// More busy threads than there are CPUs.
fn hogs(_: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let until = Instant::now() + dice.millis(1000.0, 3000.0);
    let count = thread::available_parallelism()?.get() * 4;
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            });
        }
    });
    Ok(())
}

fn frozen(site: &Site<'_, '_>, dice: &mut Dice) -> Result<()> {
    let daemon = site.daemons[dice.below(site.daemons.len())];
    daemon.freeze();
    thread::sleep(dice.millis(50.0, 400.0));
    daemon.thaw();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself() {
        let order = |seed| Dice::new(seed).shuffled(&(0..20).collect::<Vec<_>>());
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        let mut dice = Dice::new(4);
        assert!((0..1000).all(|_| (0.1..0.4).contains(&dice.between(0.1, 0.4))));
    }

    #[test]
    fn names_are_told_apart() {
        for (at, fault) in FAULTS.iter().enumerate() {
            assert!(
                FAULTS[..at].iter().all(|other| other.name != fault.name),
                "{}",
                fault.name
            );
        }
    }
}
