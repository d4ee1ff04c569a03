//! What stays, goes and is asked when, for every kind of answer (P1, P3; FAULTS 45, 46, 48).

use super::*;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const REFRESH: u64 = 3600;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn answer(ttl: u64, addrs: &[Ipv4Addr]) -> Result<Answer, LookupError> {
    Ok(Answer {
        addrs: addrs.to_vec(),
        ttl: secs(ttl),
        from_hosts_file: false,
    })
}

fn dead() -> Result<Answer, LookupError> {
    Err(LookupError::Temporary("no answer".into()))
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// A book with the name `x`, due now.
fn book(now: Instant, refresh: Option<Duration>) -> NameBook {
    let mut book = NameBook::new(refresh, Jitter::new(7));
    assert!(!book.set_servers(now, &[], &names(&["x"])));
    book
}

/// The same, answered.
fn answered(now: Instant, ttl: u64, addrs: &[Ipv4Addr]) -> NameBook {
    let mut book = book(now, Some(secs(REFRESH)));
    assert_eq!(book.due(now), ["x"]);
    assert!(book.answered(now, "x", answer(ttl, addrs)));
    book
}

fn wait(book: &NameBook, now: Instant) -> Duration {
    book.next_deadline().unwrap() - now
}

#[test]
fn a_name_is_asked_once_at_a_time() {
    let now = Instant::now();
    let mut book = book(now, Some(secs(REFRESH)));
    assert_eq!(book.next_deadline(), Some(now));
    assert_eq!(book.due(now), ["x"]);
    assert_eq!(book.due(now + secs(20)), Vec::<String>::new());
    // Its task has died.
    assert_eq!(book.next_deadline(), Some(now + secs(30)));
    assert_eq!(book.due(now + secs(30)), ["x"]);
}

/// P3: the lesser of PrlRefreshInterval and TTL, and never later than the former.
#[test]
fn p3_names_are_asked_again_when_the_answer_ends() {
    for (ttl, refresh, least, most) in [
        (5, Some(3600), 5.0, 5.25),
        (86400, Some(3600), 3420.0, 3600.0),
        (3600, Some(3600), 3420.0, 3600.0),
        (5, None, 5.0, 5.25),
        (0, Some(3600), 3420.0, 3600.0),
        (0, Some(1), 1.0, 1.0),
        (1, Some(1), 1.0, 1.0),
    ] {
        let now = Instant::now();
        let mut book = book(now, refresh.map(secs));
        book.due(now);
        book.answered(now, "x", answer(ttl, &[A]));
        let wait = wait(&book, now).as_secs_f64();
        assert!((least..=most).contains(&wait), "{ttl} {refresh:?}: {wait}");
        assert_eq!(book.members()[0].expires, Some(now + secs(ttl)));
    }
    let now = Instant::now();
    let mut book = book(now, None);
    book.due(now);
    let file = Answer {
        addrs: vec![A],
        ttl: secs(0),
        from_hosts_file: true,
    };
    book.answered(now, "x", Ok(file));
    assert_eq!((book.next_deadline(), book.members()[0].expires), (None, None));
    book.set_refresh(Some(secs(60)));
    assert_eq!(book.next_deadline(), Some(now + secs(60)));
    book.refresh_all(now + secs(1));
    assert_eq!(book.due(now + secs(1)), ["x"]);
}

#[test]
fn a_shorter_interval_holds_for_answers_in_hand() {
    let now = Instant::now();
    let mut book = answered(now, 86400, &[A]);
    book.set_refresh(Some(secs(10)));
    assert_eq!(wait(&book, now), secs(10));
    book.set_refresh(Some(secs(1000)));
    assert_eq!(wait(&book, now), secs(10), "longer: from the next answer on");
}

/// FAULTS 46: nothing is forgotten in an outage, however long; attempts come after 5, 10, ... 60 s, spread.
#[test]
fn an_outage_empties_no_list() {
    let start = Instant::now();
    let mut book = answered(start, 5, &[A, B]);
    let before = book.members().to_vec();
    let mut now = start + wait(&book, start);
    let mut gaps = Vec::new();
    while now < start + secs(10 * REFRESH) {
        assert_eq!(book.due(now), ["x"]);
        assert!(!book.answered(now, "x", dead()));
        gaps.push(wait(&book, now).as_secs_f64());
        now += wait(&book, now);
    }
    for (gap, expected) in gaps.iter().zip([5.0, 10.0, 20.0, 40.0, 60.0, 60.0]) {
        assert!((expected * 0.9..=expected * 1.1).contains(gap), "{gaps:?}");
    }
    assert_eq!(book.members(), before);
    assert_eq!(book.failures(), u64::try_from(gaps.len()).unwrap());
    book.due(now);
    assert!(!book.answered(now, "x", answer(5, &[B, A])), "the same, rotated");
    assert!(wait(&book, now) <= secs(6), "back to normal");
}

/// FAULTS 48: a router that a good answer leaves out is out at once.
#[test]
fn a_removed_record_is_gone_at_once() {
    let now = Instant::now();
    let mut book = answered(now, 5, &[A, B, C]);
    let later = now + secs(6);
    assert!(book.answered(later, "x", answer(5, &[C, A])));
    assert_eq!(book.addrs(), [A, C], "in the old order");
    assert!(book.answered(later, "x", answer(5, &[B, C, A])));
    assert_eq!(book.addrs(), [A, C, B]);
    assert_eq!((book.members()[0].since, book.members()[2].since), (now, later));
}

/// FAULTS 46: a denial is believed when nothing but denials came for a whole interval.
#[test]
fn a_denial_must_last() {
    let nowhere = [0, 127].map(|first| Ipv4Addr::new(first, 0, 0, 1));
    let denials = [
        Err(LookupError::NoSuchName),
        Err(LookupError::NoAddress),
        answer(5, &[]),
        answer(5, &nowhere),
    ];
    for denial in denials {
        let start = Instant::now();
        let mut book = answered(start, 5, &[A]);
        assert!(!book.answered(start, "x", denial.clone()));
        assert!(!book.answered(start + secs(REFRESH - 1), "x", denial.clone()));
        assert!(
            book.answered(start + secs(REFRESH), "x", denial.clone()),
            "{denial:?}"
        );
        assert_eq!(book.members(), []);
        assert_eq!(book.failures(), 3);
    }
    let start = Instant::now();
    for between in [dead(), answer(5, &[A])] {
        let mut book = answered(start, 5, &[A]);
        for minute in 0..1000 {
            let now = start + secs(60 * minute);
            let flap = if minute % 50 == 49 {
                between.clone()
            } else {
                Err(LookupError::NoSuchName)
            };
            assert!(!book.answered(now, "x", flap), "minute {minute}");
        }
        assert_eq!(book.addrs(), [A]);
    }
}

/// FAULTS 45, L8.
#[test]
fn impossible_own_and_repeated_addresses_are_no_members() {
    let now = Instant::now();
    let mut book = NameBook::new(Some(secs(REFRESH)), Jitter::new(7));
    book.set_servers(now, &[B, B], &names(&["x", "y", "x"]));
    assert_eq!(book.due(now), ["x", "y"]);
    let lies = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "0.1.2.3",
    ];
    let mut addrs: Vec<Ipv4Addr> = lies.map(|lie| lie.parse().unwrap()).to_vec();
    addrs.extend([A, B, A, C]);
    book.set_own(now, &[A]);
    assert!(book.answered(now, "x", answer(5, &addrs)));
    assert!(!book.answered(now, "y", answer(5, &[C])));
    assert_eq!(book.addrs(), [B, C]);
    assert_eq!(book.members()[0].origin, Origin::Configured);
    assert_eq!(book.members()[1].origin, Origin::Name("x".into()));
    let notes: Vec<_> = book.take_notes().iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "of the addresses of x, 6 cannot be a router's and are ignored",
            "x leads to 10.0.0.1, 10.0.0.2, 10.0.0.3",
            "y leads to 10.0.0.3",
        ]
    );
    book.answered(now, "x", answer(5, &addrs));
    assert_eq!(book.take_notes(), [], "said once");
    assert!(book.set_own(now, &[C]), "the machine has moved");
    assert_eq!(book.addrs(), [B, A]);
    assert!(!book.set_own(now, &[C]));
}

/// FAULTS 45: 1000 records, in another order each time, make 64 members that stay.
#[test]
fn the_list_is_bounded() {
    let now = Instant::now();
    let mut all: Vec<Ipv4Addr> = (0..1000).map(|i| Ipv4Addr::from_bits(0x0a00_0001 + i)).collect();
    let mut book = answered(now, 5, &all);
    assert_eq!(book.addrs(), all[..MAX_SERVERS]);
    let notes: Vec<_> = book.take_notes().iter().map(ToString::to_string).collect();
    assert_eq!(
        notes[0],
        "of the addresses of x, 936 are ignored: 64 are the most"
    );
    assert!(notes[1].ends_with(", 10.0.0.8 and 56 more"), "{notes:?}");
    all.rotate_right(500);
    assert!(!book.answered(now, "x", answer(5, &all)));
    assert_eq!(book.take_notes(), []);
    book.set_servers(now, &[C], &names(&["x"]));
    assert_eq!((book.members().len(), book.addrs()[0]), (MAX_SERVERS, C));
    book.set_servers(now, &[Ipv4Addr::new(192, 0, 2, 1)], &names(&["x"]));
    assert_eq!(book.take_notes(), [Note::Full { beyond: 1 }]);
    let many: Vec<String> = (0..200).map(|number| format!("n{number}")).collect();
    book.set_servers(now, &[], &many);
    assert_eq!(book.due(now).len(), MAX_NAMES);
}

#[test]
fn a_changed_configuration_touches_what_changed() {
    let now = Instant::now();
    let mut book = answered(now, 60, &[A]);
    let deadline = book.next_deadline();
    assert!(book.set_servers(now, &[B], &names(&["x"])));
    assert_eq!((book.addrs(), book.next_deadline()), (vec![B, A], deadline));
    assert!(!book.set_servers(now, &[B], &names(&["y", "x"])));
    assert_eq!(book.due(now), ["y"]);
    assert!(book.set_servers(now, &[B], &names(&["y"])));
    assert_eq!(book.addrs(), [B]);
    assert!(!book.answered(now, "x", answer(5, &[A])), "nobody asks any more");
    assert_eq!(book.name_views().map(|view| view.name).collect::<Vec<_>>(), ["y"]);
}

/// A reload during a lookup: its answer may be from the old resolv.conf, so it is asked again at once.
#[test]
fn a_refresh_during_a_lookup_asks_again() {
    let now = Instant::now();
    let mut book = book(now, Some(secs(REFRESH)));
    book.due(now);
    book.refresh_all(now);
    assert_eq!(book.due(now), Vec::<String>::new());
    book.answered(now, "x", dead());
    assert_eq!(book.due(now), ["x"]);
    book.answered(now, "x", answer(5, &[A]));
    assert_eq!(book.due(now), Vec::<String>::new());
}

/// P3: TTL 0 means one lookup before each solicitation.
#[test]
fn p3_ttl_zero_is_asked_before_each_solicitation() {
    let now = Instant::now();
    let mut book = answered(now, 0, &[A]);
    assert!(!book.ask_before_solicitation(now), "that answer is for this one");
    for round in 1..4 {
        let now = now + secs(100 * round);
        assert!(book.ask_before_solicitation(now));
        assert_eq!(book.held_until(), Some(now + SOLICIT_WAIT));
        assert_eq!(book.due(now), ["x"]);
        assert!(book.ask_before_solicitation(now + secs(1)), "not answered yet");
        assert_eq!(book.held_until(), Some(now + SOLICIT_WAIT));
        book.answered(now, "x", answer(0, &[A]));
        assert!(!book.ask_before_solicitation(now));
        assert_eq!(book.held_until(), None);
    }
    let later = now + secs(1000);
    assert!(book.ask_before_solicitation(later));
    book.due(later);
    assert!(!book.ask_before_solicitation(later + SOLICIT_WAIT), "long enough");
    assert_eq!(book.held_until(), None);
    book.answered(later + secs(10), "x", dead());
    assert!(
        !book.ask_before_solicitation(later + secs(11)),
        "it fails already"
    );
    let mut kept = answered(now, 5, &[A]);
    kept.ask_before_solicitation(now);
    assert!(!kept.ask_before_solicitation(now));
}

/// What an engine leaves to the next is in force at once, asked for at once, and replaced by any answer.
#[test]
fn what_another_engine_knew_is_no_more_than_a_start() {
    let now = Instant::now();
    let before = answered(now, 3600, &[A, B]).answers();
    let mut next = book(now, Some(secs(REFRESH)));
    assert_eq!(next.answers(), [].into());
    next.recall(now, &before);
    assert_eq!((next.addrs(), next.answers()), (vec![A, B], before));
    assert_eq!(next.due(now), ["x"]);
    assert!(!next.answered(now, "x", dead()));
    assert_eq!(next.due(now + secs(6)), ["x"]);
    assert!(next.answered(now, "x", answer(5, &[C])));
    assert_eq!(next.addrs(), [C]);
}

/// A machine may come to another network, and may do so often.
#[test]
fn another_network_is_asked_soon() {
    let now = Instant::now();
    let mut book = answered(now, 3600, &[A]);
    for millis in [0, 400, 800] {
        book.refresh_soon(now + Duration::from_millis(millis));
    }
    assert_eq!(wait(&book, now), MIN_REFRESH);
    assert_eq!(book.due(now + MIN_REFRESH), ["x"]);
    // The servers of before are asked just now: not the last word.
    book.refresh_soon(now + MIN_REFRESH);
    let failed_at = now + secs(8);
    book.answered(failed_at, "x", dead());
    assert_eq!(book.due(failed_at), ["x"]);
    // Pauses between attempts begin anew.
    (0..5).for_each(|_| _ = book.answered(failed_at, "x", dead()));
    assert!(wait(&book, failed_at) > secs(30));
    book.refresh_soon(failed_at);
    assert_eq!(wait(&book, failed_at), MIN_REFRESH);
}

#[test]
fn operators_hear_of_changes_once() {
    let now = Instant::now();
    let mut book = answered(now, 5, &[A]);
    let said = |book: &mut NameBook| -> Vec<String> {
        let notes = book.take_notes();
        notes
            .iter()
            .map(|note| format!("{} {note}", note.is_warning()))
            .collect()
    };
    assert_eq!(said(&mut book), ["false x leads to 10.0.0.1"]);
    for (result, expected) in [
        (answer(5, &[A]), vec![]),
        (
            dead(),
            vec!["true x cannot be looked up: no answer; its last 1 router(s) stay in use, trying again"],
        ),
        (dead(), vec![]),
        (
            Err(LookupError::NoSuchName),
            vec![
                "true x cannot be looked up: there is no such name; its last 1 router(s) stay in use, trying again",
            ],
        ),
        (
            answer(5, &[B]),
            vec!["false x can be looked up again", "false x leads to 10.0.0.2"],
        ),
    ] {
        book.answered(now, "x", result);
        assert_eq!(said(&mut book), expected);
    }
    let view = book.name_views().next().unwrap();
    assert_eq!((view.failures, view.last_error, view.addrs), (3, None, vec![B]));
    assert_eq!((view.answered_at, view.expires), (Some(now), Some(now + secs(5))));
}
