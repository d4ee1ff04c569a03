//! The schedule of solicitations with a clock moved by hand (P2-P10, V3, N5).

use super::*;

impl Solicitor {
    fn health(&self, router: Ipv4Addr) -> Option<Health> {
        self.routers()
            .find(|entry| entry.addr == router)
            .map(|entry| entry.health)
    }

    fn counts(&self) -> [usize; Health::ALL.len()] {
        Health::ALL.map(|health| self.routers().filter(|entry| entry.health == health).count())
    }
}

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ra(router_lifetime: u64, shortest: Option<u64>) -> Advertisement {
    Advertisement {
        router_lifetime: secs(router_lifetime),
        shortest_lifetime: shortest.map(secs),
    }
}

fn machine(now: Instant, min_interval: u32, routers: &[Ipv4Addr]) -> Solicitor {
    let mut machine = Solicitor::new(SolicitConfig::from_secs(min_interval), Jitter::new(7));
    machine.set_routers(now, routers);
    machine
}

fn gaps(machine: &mut Solicitor, start: Instant, count: usize) -> Vec<f64> {
    let mut now = start;
    let mut gaps = Vec::new();
    machine.due(now);
    while gaps.len() < count {
        let next = machine
            .routers()
            .next()
            .and_then(|r| r.next_solicitation_at)
            .unwrap();
        gaps.push((next - now).as_secs_f64());
        now = next;
        assert_eq!(machine.due(now), [A]);
    }
    gaps
}

/// P8: a silent router is asked after about 4, 8, 16, ... seconds, at most an hour apart, without end.
#[test]
fn p8_a_silent_router_is_asked_ever_more_slowly() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A]);
    let gaps = gaps(&mut machine, now, 40);
    assert!((3.6..=4.4).contains(&gaps[0]), "{gaps:?}");
    for pair in gaps.windows(2).take_while(|pair| pair[1] < 3200.0) {
        assert!((1.9..=2.1).contains(&(pair[1] / pair[0])), "{gaps:?}");
    }
    assert!(
        gaps[14..].iter().all(|gap| (3240.0..=3960.0).contains(gap)),
        "{gaps:?}"
    );
}

/// P5, P9: the next solicitation comes before the shortest lifetime ends, also after a good answer.
#[test]
fn p5_refresh_comes_before_the_shortest_lifetime_ends() {
    for (router, shortest, at_least, at_most) in [
        (1800, Some(600), 420, 480),
        (300, None, 210, 240),
        (1800, None, 1260, 1440),
        (9000, Some(86400), 3600, 3600),
    ] {
        let now = Instant::now();
        let mut machine = machine(now, 120, &[A]);
        machine.due(now);
        machine.advertised(now, A, ra(router, shortest)).unwrap();
        let view = machine.routers().next().unwrap();
        let wait = view.next_solicitation_at.unwrap() - now;
        assert!(
            (secs(at_least)..=secs(at_most)).contains(&wait),
            "{router} {shortest:?}: {wait:?}"
        );
        assert_eq!(view.health, Health::Usable);
    }
}

/// P2: each router of the list has a timer of its own.
#[test]
fn p2_routers_with_different_lifetimes_are_refreshed_apart() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A, B]);
    assert_eq!(machine.due(now), [A, B]);
    machine.advertised(now, A, ra(300, None)).unwrap();
    machine.advertised(now, B, ra(1800, None)).unwrap();
    let times: Vec<_> = machine
        .routers()
        .filter_map(|router| router.next_solicitation_at)
        .collect();
    assert!((secs(210)..=secs(240)).contains(&(times[0] - now)), "{times:?}");
    assert!((secs(1260)..=secs(1440)).contains(&(times[1] - now)), "{times:?}");
    assert_eq!(machine.due(times[0]), [A]);
    let again = times[0] + secs(1);
    machine.advertised(again, A, ra(300, None)).unwrap();
    let next = machine.routers().nth(1).and_then(|b| b.next_solicitation_at);
    assert_eq!(next, Some(times[1]), "A's answer moves nothing of B's");
}

/// P6: MinRouterSolicitInterval bounds refreshes from below; infinite switches them off (P10).
#[test]
fn p6_no_refresh_sooner_than_the_least_interval() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A]);
    machine.due(now);
    machine.advertised(now, A, ra(10, Some(10))).unwrap();
    let view = machine.routers().next().unwrap();
    assert_eq!(view.next_solicitation_at, Some(now + secs(120)));
    machine.set_config(SolicitConfig::from_secs(u32::MAX));
    machine.advertised(now, A, ra(10, Some(10))).unwrap();
    assert_eq!(machine.routers().next().unwrap().next_solicitation_at, None);
    assert_eq!(
        machine.next_deadline(),
        Some(now + secs(10)),
        "the end of the lifetime"
    );
}

#[test]
fn health_follows_answers_silence_and_lifetimes() {
    let start = Instant::now();
    let mut machine = machine(start, 1, &[A, B]);
    assert_eq!(machine.due(start), [A, B]);
    assert_eq!(machine.counts(), [0, 0, 0, 2]);
    machine.advertised(start, A, ra(100, None)).unwrap();
    let mut now = start;
    let mut seen = vec![(Health::Usable, Health::Unknown)];
    while let Some(next) = machine.next_deadline().filter(|at| *at < start + secs(200)) {
        now = now.max(next);
        machine.due(now);
        let state = (machine.health(A).unwrap(), machine.health(B).unwrap());
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
    use Health::{Probing, Unknown, Unreachable, Usable};
    assert_eq!(
        seen,
        [
            (Usable, Unknown),
            (Usable, Unreachable),
            (Probing, Unreachable),
            (Unreachable, Unreachable)
        ]
    );
    machine.advertised(now, B, ra(100, None)).unwrap();
    assert_eq!(machine.health(B), Some(Usable));
}

/// V3: router lifetime 0 ends the use of a router at once, and refreshes go on.
#[test]
fn v3_lifetime_zero_is_no_default_router() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A]);
    machine.advertised(now, A, ra(1800, None)).unwrap();
    machine.advertised(now, A, ra(0, Some(600))).unwrap();
    let view = machine.routers().next().unwrap();
    assert_eq!((view.health, view.usable_until), (Health::Unreachable, None));
    assert!(view.next_solicitation_at.unwrap() <= now + secs(480));
    // One that promises nothing may be back soon, and has no other way to say so.
    machine.advertised(now, A, ra(0, None)).unwrap();
    let next = machine.routers().next().unwrap().next_solicitation_at.unwrap();
    assert!((now + secs(280)..=now + secs(320)).contains(&next));
}

/// P4: only members of the PRL are heard.
#[test]
fn p4_strangers_are_refused() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A]);
    assert_eq!(machine.advertised(now, B, ra(1800, None)), Err(UnknownRouter(B)));
    assert_eq!(machine.counts(), [0, 0, 0, 1]);
}

#[test]
fn a_changed_list_touches_only_what_changed() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A]);
    machine.due(now);
    machine.advertised(now, A, ra(1800, None)).unwrap();
    let later = now + secs(5);
    machine.set_routers(later, &[B, A]);
    assert_eq!(machine.due(later), [B]);
    assert_eq!(machine.health(A), Some(Health::Usable));
    machine.set_routers(later, &[B]);
    assert_eq!(machine.health(A), None);
}

/// An interface that flaps makes no storm of solicitations.
#[test]
fn asking_again_and_again_keeps_a_distance() {
    let start = Instant::now();
    let mut machine = machine(start, 120, &[A]);
    let mut sent = 0;
    for millis in 0..1000 {
        let now = start + Duration::from_millis(millis);
        machine.solicit_all(now);
        sent += machine.due(now).len();
    }
    assert_eq!(sent, 4);
}

/// N5: errors are a hint; the router is asked once, and stays in use until it fails to answer.
#[test]
fn n5_a_hint_asks_once() {
    let now = Instant::now();
    let mut machine = machine(now, 120, &[A]);
    machine.due(now);
    machine.advertised(now, A, ra(1800, None)).unwrap();
    let now = now + secs(1);
    machine.suspect(now, A);
    machine.suspect(now, A);
    assert_eq!(machine.due(now), [A]);
    machine.suspect(now, A);
    assert_eq!(machine.due(now), Vec::<Ipv4Addr>::new());
    assert_eq!(machine.health(A), Some(Health::Probing));
    machine.advertised(now, A, ra(1800, None)).unwrap();
    assert_eq!(machine.health(A), Some(Health::Usable));
}
