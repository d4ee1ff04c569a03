//! Whether the routers of the PRL still answer: neighbour unreachability detection (RFC 4861 7.3, RFC 5214 8.4).
//!
//! ```text
//!            used                 3 unanswered
//!    stale --------> probing ---------------------> failed
//!      ^  \             | ^                           |
//!      |   \ hint       | | hint, advertisement       |  probed on, ever more slowly
//!      |    `---------->| |                           |
//!      |  not used      v |           answered        |
//!      `----------- reachable <-----------------------'
//! ```
//!
//! Differences from a host on a shared link, with their reasons: there is no DELAY state, since nothing but the answer
//! to a probe confirms a router here (the packet path keeps no state per neighbour); a router counts as used when
//! anything was sent through the tunnel; and a reachable router is asked again after [`CONFIRM_INTERVAL`] rather than
//! half a minute, so that hosts leave a dead router within seconds. A `Reachable Time` that a router advertises goes
//! before that.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Jitter;

/// How long an answer holds when the router advertises no `Reachable Time`: DELAY_FIRST_PROBE_TIME of RFC 4861 10.
pub(super) const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);
/// RETRANS_TIMER of RFC 4861 10: from probe to probe, unless the router advertises another.
pub(super) const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// MAX_UNICAST_SOLICIT of RFC 4861 10.
pub(super) const MAX_UNICAST_SOLICIT: u32 = 3;
/// Spread of an advertised reachable time (MIN_RANDOM_FACTOR and MAX_RANDOM_FACTOR of RFC 4861 10).
const RANDOM_SHARE: f64 = 0.5;
/// Spread of our own interval: less, since it bounds how late a dead router is noticed.
const CONFIRM_SHARE: f64 = 0.1;
/// How often traffic is looked at while a router is stale.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause between probes of a router that does not answer.
const MAX_FAILED_INTERVAL: Duration = Duration::from_secs(30);
/// What a router may make of its retransmission timer: more would be a flood, or never end.
const RETRANS_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// What a router may make of its reachable time: an hour is the most RFC 4861 6.2.1 allows.
const REACHABLE_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What is known about one router's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never heard: nothing to probe.
    Unheard,
    /// Heard once, and not asked since.
    Stale { look_at: Instant },
    /// Answered a moment ago.
    Reachable { until: Instant },
    /// Being asked.
    Probing { unanswered: u32, next_at: Instant },
    /// Does not answer.
    Failed { next_at: Instant, pause: Duration },
}

/// What one engine leaves to the next about a router that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// `V4ADDR(i)`.
    pub router: Ipv4Addr,
    /// Its link-local address as it shows it.
    pub link_local: Ipv6Addr,
    /// It does not answer.
    pub silent: bool,
}

/// What others may know of a router's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReachView {
    /// It advertised itself at least once, to this engine or one before: probes can tell about it.
    pub heard: bool,
    /// Three probes in a row went unanswered.
    pub failed: bool,
    /// A probe is out and late.
    pub doubtful: bool,
    /// When it last answered a probe.
    pub confirmed_at: Option<Instant>,
    /// How long the last answer took.
    pub round_trip: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Neighbour {
    addr: Ipv4Addr,
    /// Its link-local address as it shows it: either value of the u bit (A2).
    target: Option<Ipv6Addr>,
    state: State,
    reachable_time: Option<Duration>,
    retrans: Duration,
    probed_at: Option<Instant>,
    confirmed_at: Option<Instant>,
    round_trip: Option<Duration>,
    /// Packets sent through the tunnel when it last became reachable or stale.
    traffic: u64,
}

/// One solicitation to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The router.
    pub router: Ipv4Addr,
    /// Destination and target: its link-local address.
    pub target: Ipv6Addr,
}

/// The detection for all routers.
#[derive(Clone, Debug)]
pub(super) struct Reachability {
    routers: Vec<Neighbour>,
    jitter: Jitter,
}

impl Neighbour {
    fn new(addr: Ipv4Addr) -> Self {
        Self {
            addr,
            target: None,
            state: State::Unheard,
            reachable_time: None,
            retrans: RETRANS_TIMER,
            probed_at: None,
            confirmed_at: None,
            round_trip: None,
            traffic: 0,
        }
    }

    fn ask(&mut self, now: Instant) {
        if self.target.is_some() {
            self.state = State::Probing {
                unanswered: 0,
                next_at: now,
            };
        }
    }

    /// Moves on with the time; whether a probe is due.
    fn due(&mut self, now: Instant, traffic: u64) -> bool {
        let used = traffic != self.traffic;
        match self.state {
            State::Reachable { until } if until <= now && !used => {
                self.state = State::Stale {
                    look_at: now + LOOK_INTERVAL,
                };
            }
            State::Reachable { until } if until <= now => self.ask(now),
            State::Stale { look_at } if look_at <= now && !used => {
                self.state = State::Stale {
                    look_at: now + LOOK_INTERVAL,
                };
            }
            State::Stale { look_at } if look_at <= now => self.ask(now),
            _ => {}
        }
        match self.state {
            State::Probing { unanswered, next_at } if next_at <= now => {
                if unanswered < MAX_UNICAST_SOLICIT {
                    self.state = State::Probing {
                        unanswered: unanswered + 1,
                        next_at: now + self.retrans,
                    };
                } else {
                    self.state = State::Failed {
                        next_at: now + self.retrans,
                        pause: self.retrans,
                    };
                    return false;
                }
            }
            State::Failed { next_at, pause } if next_at <= now => {
                let pause = (pause * 2).min(MAX_FAILED_INTERVAL);
                self.state = State::Failed {
                    next_at: now + pause,
                    pause,
                };
            }
            _ => return false,
        }
        self.probed_at = Some(now);
        true
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Unheard => None,
            State::Stale { look_at } => Some(look_at),
            State::Reachable { until } => Some(until),
            State::Probing { next_at, .. } | State::Failed { next_at, .. } => Some(next_at),
        }
    }
}

impl Reachability {
    /// A detection without routers.
    pub(super) fn new(jitter: Jitter) -> Self {
        Self {
            routers: Vec::new(),
            jitter,
        }
    }

    /// Makes the list `routers`, in this order; those that stay keep their state.
    pub(super) fn set_routers(&mut self, routers: &[Ipv4Addr]) {
        let mut old = std::mem::take(&mut self.routers);
        self.routers = routers
            .iter()
            .map(|addr| match old.iter().position(|known| known.addr == *addr) {
                Some(at) => old.swap_remove(at),
                None => Neighbour::new(*addr),
            })
            .collect();
    }

    /// What is to be known of each router that was heard.
    pub(super) fn known(&self) -> Vec<Known> {
        let known = |neighbour: &Neighbour| {
            Some(Known {
                router: neighbour.addr,
                link_local: neighbour.target?,
                silent: matches!(neighbour.state, State::Failed { .. }),
            })
        };
        self.routers.iter().filter_map(known).collect()
    }

    /// Goes on from what an engine before this one knew: all of them are asked at once, and who was silent then is until it answers.
    pub(super) fn recall(&mut self, now: Instant, known: &[Known]) {
        for known in known {
            let Some(router) = self.find(known.router).filter(|router| router.target.is_none()) else {
                continue;
            };
            router.target = Some(known.link_local);
            router.ask(now);
            if known.silent {
                router.state = State::Failed {
                    next_at: now,
                    pause: router.retrans,
                };
            }
        }
    }

    /// A router advertised itself from `source`. That proves one direction only (RFC 4861 7.3.1): unless it answered a
    /// moment ago, it is asked (RFC 5214 8.4, "first reachability confirmation"). Timers of zero are unspecified (V2).
    pub(super) fn advertised(
        &mut self,
        now: Instant,
        router: Ipv4Addr,
        source: Ipv6Addr,
        reachable_time: Option<Duration>,
        retrans: Option<Duration>,
    ) {
        let Some(known) = self.find(router) else { return };
        known.target = Some(source);
        if let Some(time) = reachable_time {
            known.reachable_time = Some(time.clamp(REACHABLE_RANGE.0, REACHABLE_RANGE.1));
        }
        if let Some(time) = retrans {
            known.retrans = time.clamp(RETRANS_RANGE.0, RETRANS_RANGE.1);
        }
        if !matches!(known.state, State::Reachable { .. } | State::Probing { .. }) {
            known.ask(now);
        }
    }

    /// A router answered: a solicited neighbour advertisement from its own link-local address.
    pub(super) fn confirmed(&mut self, now: Instant, router: Ipv4Addr, traffic: u64) {
        let Some(at) = self.routers.iter().position(|known| known.addr == router) else {
            return;
        };
        let known = &mut self.routers[at];
        // An answer nobody asked for proves nothing.
        let Some(probed_at) = known.probed_at.take() else {
            return;
        };
        let hold = match known.reachable_time {
            Some(time) => self.jitter.around(time, RANDOM_SHARE),
            None => self.jitter.around(CONFIRM_INTERVAL, CONFIRM_SHARE),
        };
        known.round_trip = Some(now.saturating_duration_since(probed_at));
        known.confirmed_at = Some(now);
        known.traffic = traffic;
        known.state = State::Reachable { until: now + hold };
    }

    /// A hint that a router may be gone (N5): it is asked at once.
    pub(super) fn suspect(&mut self, now: Instant, router: Ipv4Addr) {
        if let Some(known) = self.find(router)
            && matches!(known.state, State::Reachable { .. } | State::Stale { .. })
        {
            known.ask(now);
        }
    }

    /// Asks every router that was heard, now.
    pub(super) fn ask_all(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|known| known.ask(now));
    }

    /// Who is to be asked now; `traffic` counts the packets sent through the tunnel so far.
    pub(super) fn due(&mut self, now: Instant, traffic: u64) -> Vec<Probe> {
        let due = self.routers.iter_mut().filter_map(|known| {
            let target = known.target?;
            known.due(now, traffic).then_some(Probe {
                router: known.addr,
                target,
            })
        });
        due.collect()
    }

    /// When to call [`Reachability::due`] next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.routers.iter().filter_map(Neighbour::deadline).min()
    }

    /// What is known of one router.
    pub(super) fn view(&self, router: Ipv4Addr) -> ReachView {
        let found = self.routers.iter().find(|known| known.addr == router);
        found.map_or_else(ReachView::default, |known| ReachView {
            heard: known.target.is_some(),
            failed: matches!(known.state, State::Failed { .. }),
            doubtful: matches!(known.state, State::Probing { unanswered: 2.., .. }),
            confirmed_at: known.confirmed_at,
            round_trip: known.round_trip,
        })
    }

    fn find(&mut self, router: Ipv4Addr) -> Option<&mut Neighbour> {
        self.routers.iter_mut().find(|known| known.addr == router)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn link_local(addr: Ipv4Addr) -> Ipv6Addr {
        isatap_engine::isatap::iid::link_local(addr)
    }

    fn machine(now: Instant) -> Reachability {
        let mut machine = Reachability::new(Jitter::new(3));
        machine.set_routers(&[A, B]);
        machine.advertised(now, A, link_local(A), None, None);
        machine
    }

    /// What an engine knew holds for the next one until the router says otherwise, and each is asked at once.
    #[test]
    fn the_next_engine_goes_on_from_what_was_known() {
        let now = Instant::now();
        let mut before = machine(now);
        let (_, failed) = run(&mut before, now, 4000, 0);
        assert!(failed.is_some());
        before.advertised(now, B, link_local(B), None, None);
        let known = before.known();
        assert_eq!(
            known.iter().map(|known| known.silent).collect::<Vec<_>>(),
            [true, false]
        );

        let mut next = Reachability::new(Jitter::new(3));
        next.set_routers(&[B, A]);
        next.recall(now, &known);
        assert!(next.view(A).failed && !next.view(B).failed);
        let asked: Vec<_> = next.due(now, 0).iter().map(|probe| probe.router).collect();
        assert_eq!(asked, [B, A]);
        next.confirmed(now, A, 0);
        assert!(!next.view(A).failed);
        // What it has heard itself is newer.
        next.recall(now, &known);
        assert!(!next.view(A).failed);
    }

    /// Runs to `end`; returns when probes went out, in milliseconds, and when the router failed.
    fn run(machine: &mut Reachability, start: Instant, end: u64, traffic: u64) -> (Vec<u128>, Option<u128>) {
        let (mut sent, mut failed) = (Vec::new(), None);
        while let Some(now) = machine
            .next_deadline()
            .filter(|at| *at <= start + Duration::from_millis(end))
        {
            let elapsed = (now - start).as_millis();
            if machine.due(now, traffic).iter().any(|probe| probe.router == A) {
                sent.push(elapsed);
            }
            if machine.view(A).failed {
                failed.get_or_insert(elapsed);
            }
        }
        (sent, failed)
    }

    /// N2: a router that was heard is asked at once, three times a second apart, and then counts as failed; it is asked
    /// on for ever, ever more slowly.
    #[test]
    fn n2_a_silent_router_fails_after_three_probes() {
        let start = Instant::now();
        let mut machine = machine(start);
        let (sent, failed) = run(&mut machine, start, 100_000, 0);
        assert_eq!(failed, Some(3000));
        assert_eq!(
            sent,
            [0, 1000, 2000, 4000, 6000, 10_000, 18_000, 34_000, 64_000, 94_000]
        );
    }

    /// A router nobody heard of is not probed: its solicitations are another machine's.
    #[test]
    fn an_unheard_router_is_left_alone() {
        let start = Instant::now();
        let mut machine = Reachability::new(Jitter::new(3));
        machine.set_routers(&[A]);
        assert_eq!(machine.next_deadline(), None);
        machine.suspect(start, A);
        machine.ask_all(start);
        assert_eq!(machine.due(start, 9), []);
        assert_eq!(machine.view(A), ReachView::default());
    }

    /// An answered router is asked again only while it is used.
    #[test]
    fn an_idle_router_is_not_probed() {
        let start = Instant::now();
        let mut machine = machine(start);
        assert_eq!(machine.due(start, 0).len(), 1);
        machine.confirmed(start, A, 7);
        let (sent, failed) = run(&mut machine, start, 60_000, 7);
        assert_eq!((sent, failed), (vec![], None));
        // Traffic begins: noticed within a second, and a dead router left three seconds later.
        let (sent, failed) = run(&mut machine, start, 70_000, 8);
        assert_eq!(sent.len(), 4 + 1);
        assert!(
            sent[0] <= 61_000 && failed.unwrap() <= 64_000,
            "{sent:?} {failed:?}"
        );
    }

    /// A used router that falls silent is left within nine seconds.
    #[test]
    fn a_used_router_is_left_within_seconds() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.due(start, 0);
        machine.confirmed(start, A, 0);
        let (sent, failed) = run(&mut machine, start, 9_000, 1);
        assert!((4_500..=5_500).contains(&sent[0]), "{sent:?}");
        assert!(failed.unwrap() <= 8_500);
    }

    /// Return: an answer to a slow probe, or an advertisement and the answer to the probe it causes.
    #[test]
    fn a_router_comes_back() {
        let start = Instant::now();
        let mut machine = machine(start);
        run(&mut machine, start, 5_000, 0);
        assert!(machine.view(A).failed);
        let later = start + Duration::from_millis(5_500);
        machine.advertised(later, A, link_local(A), None, None);
        assert!(!machine.view(A).failed);
        assert_eq!(machine.due(later, 0).len(), 1);
        machine.confirmed(later + Duration::from_millis(40), A, 0);
        let view = machine.view(A);
        assert_eq!(view.round_trip, Some(Duration::from_millis(40)));
        assert!(!view.failed && !view.doubtful);
    }

    /// N5: a hint asks at once and decides nothing.
    #[test]
    fn n5_a_hint_asks_at_once() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.due(start, 0);
        machine.confirmed(start, A, 0);
        let now = start + Duration::from_secs(1);
        machine.suspect(now, A);
        machine.suspect(now, A);
        assert_eq!(machine.due(now, 0).len(), 1);
        assert_eq!(machine.due(now, 0), []);
        assert!(!machine.view(A).failed);
    }

    /// N4: what was not asked for confirms nothing.
    #[test]
    fn n4_an_answer_without_a_question_is_ignored() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.confirmed(start, A, 0);
        assert_eq!(machine.view(A).confirmed_at, None);
        machine.confirmed(start, Ipv4Addr::new(10, 9, 9, 9), 0);
    }

    /// V2: advertised timers hold, within bounds; zero (unspecified) changes nothing.
    #[test]
    fn v2_timers_of_the_router_hold() {
        let start = Instant::now();
        let mut machine = machine(start);
        let millis = |ms| Some(Duration::from_millis(ms));
        machine.advertised(start, A, link_local(A), millis(30_000), millis(300));
        machine.advertised(start, A, link_local(A), None, None);
        let (sent, failed) = run(&mut machine, start, 1_000, 0);
        assert_eq!((&sent[..3], failed), (&[0, 300, 600][..], Some(900)));
        machine.due(start + Duration::from_secs(2), 0);
        machine.confirmed(start + Duration::from_secs(2), A, 0);
        let until = machine.next_deadline().unwrap() - start - Duration::from_secs(2);
        assert!(
            (Duration::from_secs(15)..=Duration::from_secs(45)).contains(&until),
            "{until:?}"
        );
        machine.advertised(start, A, link_local(A), None, millis(1));
        assert_eq!(machine.routers[0].retrans, RETRANS_RANGE.0);
    }

    #[test]
    fn a_changed_list_keeps_what_stays() {
        let start = Instant::now();
        let mut machine = machine(start);
        run(&mut machine, start, 5_000, 0);
        machine.set_routers(&[B, A]);
        assert!(machine.view(A).failed);
        machine.set_routers(&[B]);
        machine.set_routers(&[A]);
        assert!(!machine.view(A).failed, "a new member starts anew");
    }
}
