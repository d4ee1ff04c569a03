//! The routers of the PRL as a whole: solicited, probed, ranked. Pure.
//!
//! Two machines know half of the truth each: [`Solicitor`] what a router promised and whether it answers solicitations,
//! [`Reachability`] whether it answers right now. What others see is both.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::reach::{Known, Probe, ReachView, Reachability};
use super::solicit::{Advertisement, Schedule, SolicitConfig, Solicitor, UnknownRouter};
use super::{Health, Jitter, MAX_RTR_SOLICITATIONS};

/// What matters here of a router advertisement that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its source: the router's link-local address.
    pub source: Ipv6Addr,
    /// Router lifetime; zero means "no default router".
    pub router_lifetime: Duration,
    /// The shortest of all lifetimes in it that are neither zero nor infinite.
    pub shortest_lifetime: Option<Duration>,
    /// RFC 4191 preference as a default router: -1, 0, 1.
    pub preference: i8,
    /// `Reachable Time`, when specified.
    pub reachable_time: Option<Duration>,
    /// `Retrans Timer`, when specified.
    pub retrans_timer: Option<Duration>,
}

/// What is to be sent now: exactly one packet for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Router solicitations.
    pub solicit: Vec<Ipv4Addr>,
    /// Neighbour solicitations.
    pub probe: Vec<Probe>,
}

/// One router as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterView {
    /// `V4ADDR(i)`.
    pub addr: Ipv4Addr,
    /// Its health.
    pub health: Health,
    /// RFC 4191 preference as a default router: -1, 0, 1.
    pub preference: i8,
    /// What it was asked and promised.
    pub schedule: Schedule,
    /// Whether it answers.
    pub reach: ReachView,
}

impl RouterView {
    /// Whether packets for it have a chance: it answers probes, or was not asked yet.
    pub fn is_reachable(&self) -> bool {
        if self.reach.heard {
            !self.reach.failed
        } else {
            self.schedule.unanswered < MAX_RTR_SOLICITATIONS
        }
    }
}

/// All routers of the list.
#[derive(Clone, Debug)]
pub struct Routers {
    solicitor: Solicitor,
    reach: Reachability,
    preferences: Vec<(Ipv4Addr, i8)>,
}

impl Routers {
    /// An empty list. `jitters` spread solicitations and probes.
    pub fn new(config: SolicitConfig, jitters: [Jitter; 2]) -> Self {
        let [solicitations, probes] = jitters;
        Self {
            solicitor: Solicitor::new(config, solicitations),
            reach: Reachability::new(probes),
            preferences: Vec::new(),
        }
    }

    /// Makes the list `routers`, in this order: new ones are solicited at once, the others keep their state.
    pub fn set_routers(&mut self, now: Instant, routers: &[Ipv4Addr]) {
        self.solicitor.set_routers(now, routers);
        self.reach.set_routers(routers);
        self.preferences.retain(|(addr, _)| routers.contains(addr));
        self.seek(now);
    }

    /// For the next engine: whom this one has heard, and who of them does not answer.
    pub fn known(&self) -> Vec<Known> {
        self.reach.known()
    }

    /// What an engine before this one knew; the routers are on the list.
    pub fn recall(&mut self, now: Instant, known: &[Known]) {
        self.reach.recall(now, known);
    }

    /// New knobs: they hold from the next advertisement on.
    pub fn set_config(&mut self, config: SolicitConfig) {
        self.solicitor.set_config(config);
    }

    /// Whether a solicitation is to be sent now.
    pub fn must_solicit(&self, now: Instant) -> bool {
        self.solicitor.is_due(now)
    }

    /// What is to be sent now; `traffic` counts the packets sent through the tunnel so far. With `wait` solicitations
    /// stay due.
    pub fn due(&mut self, now: Instant, traffic: u64, wait: bool) -> Actions {
        let solicit = if wait { Vec::new() } else { self.solicitor.due(now) };
        let probe = self.reach.due(now, traffic);
        self.seek(now);
        Actions { solicit, probe }
    }

    /// When to call [`Routers::due`] next; solicitations wait until `held_until`.
    pub fn next_deadline(&self, held_until: Option<Instant>) -> Option<Instant> {
        let solicit = self.solicitor.next_deadline();
        let solicit = solicit.map(|at| held_until.map_or(at, |until| at.max(until)));
        [solicit, self.reach.next_deadline()].into_iter().flatten().min()
    }

    /// Takes an advertisement from the router at `from`.
    ///
    /// # Errors
    /// [`UnknownRouter`] when `from` is not in the PRL (P4).
    pub fn advertised(&mut self, now: Instant, from: Ipv4Addr, heard: &Heard) -> Result<(), UnknownRouter> {
        let promise = Advertisement {
            router_lifetime: heard.router_lifetime,
            shortest_lifetime: heard.shortest_lifetime,
        };
        self.solicitor.advertised(now, from, promise)?;
        self.reach
            .advertised(now, from, heard.source, heard.reachable_time, heard.retrans_timer);
        self.preferences.retain(|(addr, _)| *addr != from);
        self.preferences.push((from, heard.preference));
        self.seek(now);
        Ok(())
    }

    /// A router that does not answer is no reason to leave out those that declined.
    fn seek(&mut self, now: Instant) {
        let is_needed = !self.any_usable();
        self.solicitor.seek(now, is_needed);
    }

    /// A router answered a probe.
    pub fn confirmed(&mut self, now: Instant, router: Ipv4Addr, traffic: u64) {
        self.reach.confirmed(now, router, traffic);
    }

    /// Solicits every router now: an operator asks, or the interface came up and lost its addresses.
    pub fn solicit_all(&mut self, now: Instant) {
        self.solicitor.solicit_all(now);
        self.reach.ask_all(now);
    }

    /// A hint that a router may be gone, never a proof (N5): it is probed if it was heard before, else solicited.
    pub fn suspect(&mut self, now: Instant, router: Ipv4Addr) {
        if self.reach.view(router).heard {
            self.reach.suspect(now, router);
        } else {
            self.solicitor.suspect(now, router);
        }
    }

    /// Every router, in the order of the list.
    pub fn views(&self) -> Vec<RouterView> {
        let view = |schedule: Schedule| {
            let reach = self.reach.view(schedule.addr);
            let preference = self.preferences.iter().find(|(addr, _)| *addr == schedule.addr);
            RouterView {
                addr: schedule.addr,
                health: health(schedule.health, reach),
                preference: preference.map_or(0, |(_, preference)| *preference),
                schedule,
                reach,
            }
        };
        self.solicitor.routers().map(view).collect()
    }

    /// The health of each router, in the order of the list: what changes when others should hear of it.
    pub fn healths(&self) -> Vec<Health> {
        self.views().into_iter().map(|view| view.health).collect()
    }

    /// Whether at least one router can carry packets.
    pub fn any_usable(&self) -> bool {
        self.healths().contains(&Health::Usable)
    }

    /// Routers in each state, in the order of [`Health::ALL`].
    pub fn counts(&self) -> [usize; Health::ALL.len()] {
        let healths = self.healths();
        Health::ALL.map(|health| healths.iter().filter(|known| **known == health).count())
    }
}

fn health(promised: Health, reach: ReachView) -> Health {
    match promised {
        // Unknown: an engine before this one has heard it.
        Health::Usable | Health::Probing | Health::Unknown if reach.failed => Health::Unreachable,
        Health::Usable if reach.doubtful => Health::Probing,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn heard(router: Ipv4Addr, lifetime: u64, preference: i8) -> Heard {
        Heard {
            source: isatap_engine::isatap::iid::link_local(router),
            router_lifetime: Duration::from_secs(lifetime),
            shortest_lifetime: None,
            preference,
            reachable_time: None,
            retrans_timer: None,
        }
    }

    fn machine(now: Instant) -> Routers {
        let mut routers = Routers::new(SolicitConfig::from_secs(120), [Jitter::new(1), Jitter::new(2)]);
        routers.set_routers(now, &[A, B]);
        routers
    }

    /// N2, P12: a router that promised half an hour and is silent is left after its probes, and used again when it answers.
    #[test]
    fn n2_promises_do_not_make_a_silent_router_usable() {
        let start = Instant::now();
        let mut routers = machine(start);
        assert_eq!(routers.due(start, 0, false).solicit, [A, B]);
        routers.advertised(start, A, &heard(A, 1800, 0)).unwrap();
        let mut seen = vec![Health::Usable];
        let mut now = start;
        while let Some(at) = routers
            .next_deadline(None)
            .filter(|at| *at <= start + Duration::from_secs(4))
        {
            now = now.max(at);
            routers.due(now, 0, false);
            let health = routers.healths()[0];
            if seen.last() != Some(&health) {
                seen.push(health);
            }
        }
        assert_eq!(seen, [Health::Usable, Health::Probing, Health::Unreachable]);
        assert!(!routers.views()[0].is_reachable() && !routers.any_usable());
        routers.confirmed(now, A, 0);
        assert_eq!(routers.healths(), [Health::Usable, Health::Unknown]);
        assert!(routers.views()[0].is_reachable());
    }

    /// P3: a solicitation may have to wait for a name; probes do not.
    #[test]
    fn solicitations_can_wait() {
        let now = Instant::now();
        let mut routers = machine(now);
        let until = now + Duration::from_secs(2);
        assert!(routers.must_solicit(now));
        assert!(routers.due(now, 0, true).solicit.is_empty());
        assert_eq!(routers.next_deadline(Some(until)), Some(until));
        assert_eq!(routers.due(until, 0, false).solicit, [A, B]);
        assert!(!routers.must_solicit(until));
    }

    /// A router that never answered a solicitation has no routes to take part in, but may be a gateway somebody set.
    #[test]
    fn a_router_never_heard_is_judged_by_its_solicitations() {
        let start = Instant::now();
        let mut routers = machine(start);
        assert!(
            routers.views().iter().all(RouterView::is_reachable),
            "nobody asked yet"
        );
        let mut now = start;
        while now < start + Duration::from_secs(40) {
            now = routers.next_deadline(None).unwrap().max(now);
            routers.due(now, 0, false);
        }
        assert!(!routers.views().iter().any(RouterView::is_reachable));
    }

    /// Every solicitation until `end`, and after how many seconds; each is answered by nobody, or with this lifetime.
    fn asked(routers: &mut Routers, start: Instant, end: u64, answer: Option<u64>) -> Vec<(Ipv4Addr, u64)> {
        let (mut now, mut asked) = (start, Vec::new());
        while let Some(at) = routers
            .next_deadline(None)
            .filter(|at| *at < start + Duration::from_secs(end))
        {
            now = now.max(at);
            let actions = routers.due(now, 0, false);
            for probe in actions.probe {
                routers.confirmed(now, probe.router, 0);
            }
            for router in actions.solicit {
                asked.push((router, (now - start).as_secs()));
                if let Some(lifetime) = answer {
                    routers
                        .advertised(now, router, &heard(router, lifetime, 0))
                        .unwrap();
                }
            }
        }
        asked
    }

    /// P8, V3: without a default router the search goes on, ever more slowly, whether those that declined answer or not.
    #[test]
    fn p8_who_declined_is_asked_while_nobody_else_is_there() {
        for answer in [None, Some(0)] {
            let start = Instant::now();
            let mut routers = machine(start);
            routers.set_routers(start, &[A]);
            routers.due(start, 0, false);
            routers.advertised(start, A, &heard(A, 1800, 0)).unwrap();
            routers.advertised(start, A, &heard(A, 0, 0)).unwrap();
            let times: Vec<u64> = asked(&mut routers, start, 3 * 3600, answer)
                .into_iter()
                .map(|(_, at)| at)
                .collect();
            assert!((4..8).contains(&times[0]), "{answer:?}: {times:?}");
            let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps[..5].is_sorted() && gaps[4] >= 64, "{answer:?}: {gaps:?}");
            assert!(gaps[5..].iter().all(|gap| *gap >= 128), "{answer:?}: {gaps:?}");
            // Once it is willing it is left in peace, as ever.
            routers.advertised(start, A, &heard(A, 1800, 0)).unwrap();
            let next = routers.views()[0].schedule.next_solicitation_at.unwrap();
            assert!(next >= start + Duration::from_secs(1260), "{:?}", next - start);
        }
    }

    /// P8: while there is another, a router that declined is asked seldom, and at once when the other one goes.
    #[test]
    fn p8_who_declined_is_left_alone_while_another_serves() {
        let start = Instant::now();
        let mut routers = machine(start);
        routers.due(start, 0, false);
        routers.advertised(start, B, &heard(B, 1800, 0)).unwrap();
        routers.advertised(start, A, &heard(A, 0, 0)).unwrap();
        let times = asked(&mut routers, start, 1000, Some(0));
        assert!(times.len() <= 3 && times[0].1 >= 280, "{times:?}");
        assert!(times.iter().all(|(router, _)| *router == A), "{times:?}");
        let now = start + Duration::from_secs(1000);
        routers.advertised(now, B, &heard(B, 0, 0)).unwrap();
        let mut soon = asked(&mut routers, now, 8, Some(0));
        soon.sort_unstable();
        let who: Vec<_> = soon.iter().map(|(router, _)| *router).collect();
        assert_eq!(who, [A, B], "{soon:?}");
    }

    /// P10: who is told to ask each router once asks none again.
    #[test]
    fn p10_nobody_is_sought_with_an_infinite_interval() {
        let start = Instant::now();
        let mut routers = machine(start);
        routers.set_config(SolicitConfig::from_secs(u32::MAX));
        routers.set_routers(start, &[A]);
        routers.due(start, 0, false);
        routers.advertised(start, A, &heard(A, 0, 0)).unwrap();
        assert_eq!(asked(&mut routers, start, 3600, Some(0)), []);
    }

    /// V3: lifetime 0 ends the default route, and the router may still be a gateway for its other routes.
    #[test]
    fn v3_no_default_router_is_still_reachable() {
        let now = Instant::now();
        let mut routers = machine(now);
        routers.advertised(now, A, &heard(A, 0, 1)).unwrap();
        let view = routers.views()[0];
        assert_eq!((view.health, view.preference), (Health::Unreachable, 1));
        assert!(view.is_reachable());
        assert_eq!(routers.counts(), [0, 0, 1, 1]);
        assert_eq!(
            routers.advertised(now, Ipv4Addr::new(10, 0, 0, 9), &heard(A, 0, 1)),
            Err(UnknownRouter(Ipv4Addr::new(10, 0, 0, 9)))
        );
    }
}
