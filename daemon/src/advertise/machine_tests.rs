//! The advertiser's timing and its words, by moving the clock.

use super::*;
use crate::config::advertise::{AdvertisedPrefix, AdvertisedRoute};
use crate::slaac::Advert;
use isatap_engine::wire::nd::Preference;
use std::collections::BTreeMap;

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ALSO_US: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn prefix(prefix: &str, hosts: Option<&str>) -> AdvertisedPrefix {
    AdvertisedPrefix {
        prefix: prefix.parse().unwrap(),
        on_link: true,
        valid: 7200,
        preferred: 3600,
        hosts: hosts.map(|hosts| hosts.parse().unwrap()),
    }
}

fn says(prefixes: &[&str]) -> Advertise {
    Advertise {
        on: true,
        prefixes: prefixes.iter().map(|text| prefix(text, None)).collect(),
        routes: vec![AdvertisedRoute {
            prefix: "2001:db8::/32".parse().unwrap(),
            preference: Preference::Medium,
            lifetime: None,
        }],
        ..Advertise::default()
    }
}

/// A router that advertises 2001:db8:1::/64.
fn advertiser(now: Instant) -> Advertiser {
    let mut machine = Advertiser::new(now, Jitter::new(1));
    machine.set_locators(&[US, ALSO_US], false);
    machine.set(now, Some((&says(&["2001:db8:1::/64"]), 1280)), Tone::Normal);
    machine
}

fn from(v4: Ipv4Addr) -> Solicitation {
    Solicitation {
        from: v4,
        src: iid::link_local(v4),
        locator: US,
    }
}

/// Everything sent until `end`, with its time.
fn run(machine: &mut Advertiser, end: Instant) -> Vec<(Instant, Outgoing)> {
    let mut sent = Vec::new();
    while let Some(at) = machine.next_deadline().filter(|at| *at <= end) {
        sent.extend(machine.due(at).into_iter().map(|outgoing| (at, outgoing)));
    }
    sent
}

fn read(outgoing: &Outgoing) -> Advert {
    Advert::parse(&outgoing.packet).expect("a valid advertisement")
}

/// T3, T4: one unicast answer within half a second, from the address that was asked to the address that asked.
#[test]
fn a_solicitation_is_answered_once() {
    let start = Instant::now();
    let mut machine = advertiser(start);
    let mut delays = Vec::new();
    for number in 0..100u8 {
        let (now, host) = (
            start + Duration::from_secs(10) * number.into(),
            Ipv4Addr::new(10, 0, 3, number),
        );
        let asked = Solicitation {
            locator: ALSO_US,
            ..from(host)
        };
        assert_eq!(machine.solicited(now, &asked), Heard::Answered);
        for _ in 0..5 {
            assert_eq!(machine.solicited(now, &asked), Heard::Merged);
        }
        let sent = run(&mut machine, now + Duration::from_secs(9));
        let [(at, answer)] = &sent[..] else {
            panic!("{} answers", sent.len())
        };
        assert_eq!((answer.from, answer.to), (ALSO_US, host));
        assert_eq!(answer.kind, Kind::Solicited);
        assert_eq!(read(answer).source, iid::link_local(ALSO_US));
        assert_eq!(answer.packet[24..40], iid::link_local(host).octets());
        delays.push(at.duration_since(now));
    }
    assert!(delays.iter().all(|delay| *delay <= MAX_DELAY));
    let early = delays.iter().filter(|delay| **delay < MAX_DELAY / 2).count();
    assert!((25..=75).contains(&early), "{early} of 100 in the first half");
}

/// T3, T5: the answer goes to where the question came from, whatever it contains: to the host's link-local address with the
/// identifier that it gave, right or not; whoever gave none is answered at the group.
#[test]
fn the_answer_goes_where_the_question_came_from() {
    let now = Instant::now();
    let group = ALL_NODES.to_string();
    let askers = [
        ("fe80::5efe:10.0.0.5", "fe80::5efe:10.0.0.5"),
        ("fe80::200:5efe:10.0.0.5", "fe80::200:5efe:10.0.0.5"),
        ("2001:db8:1::5efe:10.0.0.5", "fe80::5efe:10.0.0.5"),
        ("2001:db8:1::200:5efe:10.0.0.5", "fe80::200:5efe:10.0.0.5"),
        ("::", &group),
        ("2001:db8:1::5", &group),
        ("fe80::5efe:10.0.0.6", &group),
    ];
    for (src, dst) in askers {
        let mut machine = advertiser(now);
        let asked = Solicitation {
            src: src.parse().unwrap(),
            ..from(HOST)
        };
        machine.solicited(now, &asked);
        let (_, answer) = run(&mut machine, now + MAX_DELAY).remove(0);
        let dst: Ipv6Addr = dst.parse().unwrap();
        assert_eq!(
            (answer.to, &answer.packet[24..40]),
            (HOST, &dst.octets()[..]),
            "from {src}"
        );
    }
}

/// T10: each network its own prefixes; whoever is in none gets none.
#[test]
fn prefixes_by_network() {
    let now = Instant::now();
    let mut machine = advertiser(now);
    let mut config = says(&[]);
    config.prefixes = vec![
        prefix("2001:db8:a::/64", Some("10.0.0.0/28")),
        prefix("2001:db8:b::/64", Some("10.0.0.16/28")),
    ];
    machine.set(now, Some((&config, 1280)), Tone::Normal);
    for last in [5, 20, 40] {
        machine.solicited(now, &from(Ipv4Addr::new(10, 0, 0, last)));
    }
    let mut told: Vec<_> = run(&mut machine, now + Duration::from_secs(1))
        .iter()
        .map(|(_, outgoing)| {
            let prefixes = read(outgoing)
                .prefixes
                .into_iter()
                .filter(|prefix| prefix.valid > 0);
            (
                outgoing.to.octets()[3],
                prefixes.map(|p| p.prefix.to_string()).collect::<Vec<_>>(),
            )
        })
        .collect();
    told.sort();
    let expected = [
        (5, vec!["2001:db8:a::/64".to_owned()]),
        (20, vec!["2001:db8:b::/64".to_owned()]),
        (40, vec![]),
    ];
    assert_eq!(told, expected);
}

/// RFC 4861 6.2.4: a change is told three times, what vanished with lifetime 0 (6.2.7); no change, no word.
#[test]
fn a_change_is_told_to_everybody_known() {
    let start = Instant::now();
    let mut machine = advertiser(start);
    for last in 0..50 {
        machine.solicited(start, &from(Ipv4Addr::new(10, 0, 0, last)));
    }
    run(&mut machine, start + Duration::from_secs(1));
    let now = start + Duration::from_secs(5);
    machine.set(now, Some((&says(&["2001:db8:1::/64"]), 1280)), Tone::Normal);
    assert!(run(&mut machine, now + Duration::from_secs(40)).is_empty());

    let now = now + Duration::from_secs(40);
    machine.set(now, Some((&says(&["2001:db8:2::/64"]), 1280)), Tone::Normal);
    let sent = run(&mut machine, now + Duration::from_secs(100));
    assert_eq!(sent.len(), 150);
    let first: Vec<_> = sent.iter().filter(|(at, _)| *at <= now + MAX_DELAY).collect();
    assert_eq!(first.len(), 50, "the first round is soon");
    for (_, outgoing) in sent {
        assert_eq!(outgoing.kind, Kind::Unsolicited);
        let prefixes: Vec<_> = read(&outgoing)
            .prefixes
            .iter()
            .map(|p| (p.prefix.to_string(), p.valid))
            .collect();
        assert_eq!(
            prefixes,
            [
                ("2001:db8:2::/64".to_owned(), 7200),
                ("2001:db8:1::/64".to_owned(), 0)
            ]
        );
    }
}

/// T7, RFC 4861 6.2.4: where telling all takes longer than the time between two rounds, each round still tells each of them.
#[test]
fn rounds_of_many_hosts_follow_each_other() {
    const HOSTS: u32 = 5 * ROUND_PER_SECOND;
    let start = Instant::now();
    for (says_on, rounds) in [(true, CHANGE_ROUNDS), (false, FINAL_ROUNDS)] {
        let mut machine = advertiser(start);
        for number in 0..HOSTS {
            let at = start + Duration::from_millis(1) * number;
            machine.solicited(at, &from(Ipv4Addr::from_bits(0x0a01_0000 + number)));
            machine.due(at);
        }
        let now = start + Duration::from_secs(60);
        run(&mut machine, now);
        let news = says(&["2001:db8:2::/64"]);
        machine.set(now, says_on.then_some((&news, 1280)), Tone::Normal);
        let mut told = BTreeMap::<_, u8>::new();
        for (_, outgoing) in run(&mut machine, now + Duration::from_secs(60)) {
            *told.entry(outgoing.to).or_default() += 1;
        }
        assert_eq!(told.len(), HOSTS as usize);
        let missed = told.values().filter(|times| **times != rounds).count();
        // Whoever is the last of one round may be the first of the next.
        assert!(
            missed < HOSTS as usize / 100,
            "{missed} were not told {rounds} times"
        );
    }
}

/// T7, L9: three last rounds, and silence; at the stop of the daemon everybody known at once.
#[test]
fn the_end_is_told_three_times() {
    let start = Instant::now();
    let mut machine = advertiser(start);
    machine.solicited(start, &from(HOST));
    let now = start + Duration::from_secs(1);
    run(&mut machine, now);
    let words: Vec<_> = machine.last_words().collect();
    assert_eq!(words.len(), 1);
    assert_eq!((words[0].to, words[0].kind), (HOST, Kind::Final));
    let last = read(&words[0]);
    assert_eq!((last.router_lifetime.as_secs(), last.routes[0].lifetime), (0, 0));

    machine.set(now, None, Tone::Normal);
    machine.set(now, None, Tone::Normal);
    assert_eq!(machine.solicited(now, &from(US)), Heard::Noted);
    let sent = run(&mut machine, now + Duration::from_secs(60));
    let times: Vec<_> = sent
        .iter()
        .filter(|(_, outgoing)| outgoing.to == HOST)
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(times.len(), usize::from(FINAL_ROUNDS));
    assert!(
        times
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= FINAL_INTERVAL - MAX_DELAY)
    );
    assert!(
        sent.iter()
            .all(|(_, outgoing)| read(outgoing).router_lifetime.is_zero())
    );
    assert_eq!(machine.last_words().count(), 0);
    assert_eq!(
        machine.solicited(now + Duration::from_secs(60), &from(HOST)),
        Heard::Noted
    );
    assert!(
        run(&mut machine, now + Duration::from_secs(90)).is_empty(),
        "silence"
    );
}

/// T1: by default nothing is said, and nothing at the end.
#[test]
fn who_does_not_advertise_says_nothing() {
    let now = Instant::now();
    let mut machine = Advertiser::new(now, Jitter::new(1));
    machine.set_locators(&[US], false);
    machine.set(now, None, Tone::Normal);
    assert_eq!(machine.solicited(now, &from(HOST)), Heard::Noted);
    assert!(run(&mut machine, now + Duration::from_secs(600)).is_empty());
    assert_eq!(machine.last_words().count(), 0);
}

/// Another program's words to all nodes go to whoever solicited lately, the newest only.
#[test]
fn the_words_of_others_are_spread() {
    let start = Instant::now();
    let mut machine = Advertiser::new(start, Jitter::new(1));
    machine.set_locators(&[US, ALSO_US], false);
    let mut packet = vec![0; 60];
    packet[8..24].copy_from_slice(&iid::link_local(ALSO_US).octets());
    machine.spread(start, packet.clone().into());
    assert!(
        run(&mut machine, start + Duration::from_secs(1)).is_empty(),
        "nobody is known"
    );
    for last in 5..8 {
        machine.solicited(start, &from(Ipv4Addr::new(10, 0, 0, last)));
    }
    machine.spread(start, Bytes::from_static(b"older"));
    machine.spread(start, packet.clone().into());
    let sent = run(&mut machine, start + Duration::from_secs(1));
    assert_eq!(sent.len(), 3);
    for (_, outgoing) in sent {
        assert_eq!((outgoing.from, outgoing.kind), (ALSO_US, Kind::Spread));
        assert_eq!(outgoing.packet, packet);
    }
    machine.set(start, Some((&says(&[]), 1280)), Tone::Normal);
    machine.spread(start, packet.into());
    run(&mut machine, start + Duration::from_secs(60))
        .iter()
        .for_each(|(_, outgoing)| assert_eq!(outgoing.kind, Kind::Unsolicited));
}

/// T4, FAULTS 51: a flood of hosts gets no more than the limit, in turns that end; memory has its bound.
#[test]
fn floods_are_limited() {
    let start = Instant::now();
    let mut machine = advertiser(start);
    let mut sent = 0;
    for number in 0..100_000u32 {
        let now = start + Duration::from_micros(10) * number;
        machine.solicited(now, &from(Ipv4Addr::from_bits(0x0a10_0000 + number)));
        let list = machine.due(now);
        assert!(list.len() <= MAX_PER_TURN);
        sent += list.len();
        assert!(machine.clients() <= super::super::MAX_CLIENTS);
    }
    assert!(sent <= (SENT_PER_SECOND + SENT_BURST) as usize, "{sent}");
    assert!(sent > 1000, "{sent}");
}

/// A router that is drained goes on answering, and everything it says ends its part; the undoing is told as a change.
#[test]
fn a_drained_router_says_so_until_it_is_back() {
    let start = Instant::now();
    let mut machine = advertiser(start);
    machine.solicited(start, &from(HOST));
    run(&mut machine, start + Duration::from_secs(1));
    let content = says(&["2001:db8:1::/64"]);
    let lifetimes = |outgoing: &Outgoing| {
        let read = read(outgoing);
        (read.router_lifetime.as_secs(), read.routes[0].lifetime)
    };

    let now = start + Duration::from_secs(2);
    machine.set(now, Some((&content, 1280)), Tone::Final);
    machine.set(now, Some((&content, 1280)), Tone::Final);
    let sent = run(&mut machine, now + Duration::from_secs(60));
    assert_eq!(sent.len(), usize::from(FINAL_ROUNDS));
    assert!(sent[0].0 <= now + MAX_DELAY, "at once");
    assert!(sent.iter().all(|(_, outgoing)| lifetimes(outgoing) == (0, 0)));
    assert_eq!(machine.solicited(now, &from(ALSO_US)), Heard::Answered);
    let answer = &run(&mut machine, now + Duration::from_secs(61))[0].1;
    assert_eq!((answer.kind, lifetimes(answer)), (Kind::Final, (0, 0)));

    let now = now + Duration::from_secs(90);
    machine.set(now, Some((&content, 1280)), Tone::Normal);
    let sent = run(&mut machine, now + MAX_DELAY);
    assert_eq!(sent.len(), 2, "both hosts hear that it is back");
    assert!(
        sent.iter()
            .all(|(_, outgoing)| outgoing.kind == Kind::Unsolicited && lifetimes(outgoing).0 == 1800)
    );
}

/// Drained in another program's place: the end of the draining is no end of a router, and is told to nobody.
#[test]
fn silence_follows_on_words_in_anothers_place() {
    let start = Instant::now();
    let mut machine = Advertiser::new(start, Jitter::new(1));
    machine.set_locators(&[US], false);
    assert_eq!(machine.solicited(start, &from(HOST)), Heard::Noted);
    let nothing = Advertise::default();
    machine.set(start, Some((&nothing, 1280)), Tone::Final);
    let sent = run(&mut machine, start + MAX_DELAY);
    assert_eq!(sent.len(), 1);
    let told = read(&sent[0].1);
    assert!(told.router_lifetime.is_zero() && told.prefixes.is_empty());
    machine.set(start + Duration::from_secs(1), None, Tone::Normal);
    assert!(run(&mut machine, start + Duration::from_secs(60)).is_empty());
    assert_eq!(
        machine.solicited(start + Duration::from_secs(60), &from(HOST)),
        Heard::Noted
    );
}

/// P16: under an address that other routers have as well nobody is told that its router goes: another one carries on.
#[test]
fn a_shared_address_has_no_last_words() {
    let start = Instant::now();
    let mut machine = advertiser(start);
    machine.set_locators(&[US], true);
    machine.solicited(start, &from(HOST));
    run(&mut machine, start + Duration::from_secs(1));
    assert_eq!(machine.last_words().count(), 0);
    let now = start + Duration::from_secs(2);
    machine.set(now, Some((&says(&["2001:db8:1::/64"]), 1280)), Tone::Final);
    assert!(
        run(&mut machine, now + Duration::from_secs(60)).is_empty(),
        "drained"
    );
    assert_eq!(machine.solicited(now, &from(HOST)), Heard::Answered);
    let answer = &run(&mut machine, now + Duration::from_secs(61))[0].1;
    assert_eq!(read(answer).router_lifetime.as_secs(), 1800);
    let now = now + Duration::from_secs(90);
    machine.set(now, None, Tone::Normal);
    assert!(
        run(&mut machine, now + Duration::from_secs(60)).is_empty(),
        "silent"
    );
}

/// A6: an address that is gone speaks no more; the preferred one does.
#[test]
fn the_locator_may_change() {
    let now = Instant::now();
    let mut machine = advertiser(now);
    machine.solicited(now, &from(HOST));
    machine.set_locators(&[ALSO_US], false);
    assert_eq!(run(&mut machine, now + MAX_DELAY)[0].1.from, ALSO_US);
    machine.solicited(now, &from(HOST));
    machine.set_locators(&[], false);
    assert!(run(&mut machine, now + Duration::from_secs(1)).is_empty());
}
