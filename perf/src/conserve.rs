//! Nothing is lost without a counter: while the daemon carries, received = packets + punted + drops in each direction.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use isatap_tests::daemon::Daemon;
use isatap_tests::metrics::{Counters, Direction};

/// A scrape may see a batch half counted, and stragglers are still on the way.
const PATIENCE: Duration = Duration::from_millis(500);

/// Counters of daemons before a measurement.
#[derive(Debug)]
pub(crate) struct Watch<'a, 'b> {
    daemons: Vec<(&'b Daemon<'a>, Before)>,
}

/// A daemon before a measurement.
#[derive(Debug)]
struct Before {
    /// Its counters begin anew with another engine.
    engine: i32,
    counters: [Counters; 2],
}

/// What the daemons say afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Daemons that were asked.
    pub(crate) daemons: u64,
    /// Drops by direction and reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Sides that are not equal, in words.
    pub(crate) violations: Vec<String>,
}

impl<'a, 'b> Watch<'a, 'b> {
    pub(crate) fn new(daemons: impl Iterator<Item = &'b Daemon<'a>>) -> Self {
        let before = |daemon: &Daemon<'_>| Before {
            engine: daemon.engine_pid(),
            counters: counters(daemon),
        };
        Self {
            daemons: daemons.map(|daemon| (daemon, before(daemon))).collect(),
        }
    }

    /// Waits until each daemon's counters add up, or no longer.
    pub(crate) fn account(&self) -> Account {
        let mut account = Account {
            daemons: self.daemons.len() as u64,
            ..Account::default()
        };
        for (daemon, before) in &self.daemons {
            let began = Instant::now();
            let is_the_same = daemon.engine_pid() == before.engine;
            let since = loop {
                let now = counters(daemon);
                let since = if is_the_same {
                    let [encap, decap] = &before.counters;
                    [now[0].since(encap), now[1].since(decap)]
                } else {
                    now
                };
                if since.iter().all(Counters::balanced) || began.elapsed() > PATIENCE {
                    break since;
                }
                thread::sleep(Duration::from_millis(5));
            };
            for (direction, counters) in Direction::ALL.into_iter().zip(&since) {
                account.add(direction.label(), counters);
            }
        }
        account
    }
}

fn counters(daemon: &Daemon<'_>) -> [Counters; 2] {
    let metrics = daemon.metrics();
    Direction::ALL.map(|direction| metrics.direction(direction))
}

impl Account {
    fn add(&mut self, direction: &str, counters: &Counters) {
        for (reason, count) in &counters.drops {
            *self.drops.entry(format!("{direction}_{reason}")).or_default() += count;
        }
        if !counters.balanced() {
            self.violations.push(format!("{direction}: {counters}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_violation() {
        let mut account = Account::default();
        let mut counters = Counters {
            received: 10,
            delivered: 7,
            punted: 1,
            superpackets: 0,
            drops: BTreeMap::from([("no_route".into(), 2)]),
        };
        account.add("encap", &counters);
        assert!(account.violations.is_empty());
        counters.delivered = 6;
        account.add("encap", &counters);
        assert_eq!(account.drops, BTreeMap::from([("encap_no_route".into(), 4)]));
        assert!(account.violations[0].starts_with("encap: received 10 = delivered 6"));
    }
}
