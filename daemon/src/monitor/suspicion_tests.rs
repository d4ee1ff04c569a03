//! Workers that are stuck in each way, workers that wait, and reports and looks that cross each other.

use super::*;
use proptest::prelude::*;

/// What control says, and the monitor sees, of worker 0.
struct Stage {
    suspicions: Suspicions,
    now: Duration,
}

const INTERVAL: Duration = Duration::from_millis(200);

impl Stage {
    fn new() -> Self {
        Self {
            suspicions: Suspicions::default(),
            now: Duration::from_secs(1),
        }
    }

    /// A look of control's and one of the monitor's, one after the other, each on time.
    fn report(&mut self, turns: u64, seen: Option<(&str, u64)>) -> Verdict {
        self.now += INTERVAL;
        let at = self.now + Duration::from_millis(1);
        let said = suspect(turns, self.now);
        self.suspicions.heard(&said, || sample(seen, at))
    }
}

fn suspect(turns: u64, looked_at: Duration) -> Suspect {
    Suspect {
        worker: 0,
        thread: 4711,
        turns,
        looked_at: looked_at.as_nanos().try_into().unwrap(),
    }
}

/// A state, and milliseconds of a core.
fn sample(seen: Option<(&str, u64)>, at: Duration) -> Sample {
    Sample {
        progress: seen.map(|(state, ran)| Progress {
            state: match state {
                "R" => State::Runnable,
                "D" => State::Held,
                _ => State::Asleep,
            },
            ran: Duration::from_millis(ran),
        }),
        at,
    }
}

/// FAULTS 34: at the third report, asleep, traced, in circles, or in circles with naps; whether the kernel tells or not.
#[test]
fn a_stuck_worker_is_found_at_the_third_report() {
    let sleeps = Verdict::Stuck("sleeps");
    let spins = Verdict::Stuck("runs in circles");
    for (seen, verdict) in [
        ([Some(("S", 500)); 3], sleeps),
        ([Some(("t", 500)); 3], sleeps),
        ([None; 3], sleeps),
        ([Some(("R", 500)), Some(("R", 700)), Some(("R", 900))], spins),
        ([Some(("R", 500)), Some(("S", 600)), Some(("R", 700))], spins),
    ] {
        let mut stage = Stage::new();
        assert_ne!(stage.report(7, seen[0]), verdict, "{seen:?}");
        assert_ne!(stage.report(7, seen[1]), verdict, "{seen:?}");
        assert_eq!(stage.report(7, seen[2]), verdict, "{seen:?}");
    }
}

/// FAULTS 68: on a busy machine one in circles gets little of a core; what it gets adds up.
#[test]
fn one_that_runs_in_circles_is_found_on_a_busy_machine() {
    let mut stage = Stage::new();
    let found = (1..).find(|look| {
        let seen = Some(("R", 500 + look * 10));
        matches!(stage.report(7, seen), Verdict::Stuck(_))
    });
    assert_eq!(
        found,
        Some(12),
        "looks until a tenth of a second of a core is used up"
    );
}

/// FAULTS 68: whoever waits for a core is not stuck, however long, and it is told once.
#[test]
fn one_that_waits_for_a_core_is_not_stuck() {
    let mut stage = Stage::new();
    let heard: Vec<_> = (0..100)
        // Turns as well, now and then.
        .map(|look| stage.report(look / 30, Some(("R", 500 + look / 30))))
        .filter(|verdict| *verdict != Verdict::Nothing)
        .collect();
    assert_eq!(heard, [Verdict::Starved]);
    stage.now += QUIET;
    assert_eq!(stage.report(9, Some(("R", 600))), Verdict::Nothing);
    assert_eq!(
        stage.report(9, Some(("R", 600))),
        Verdict::Starved,
        "after a long time"
    );
}

/// FAULTS 68: nor is one that the kernel holds; it is told as seldom.
#[test]
fn one_that_the_kernel_holds_is_not_stuck() {
    let mut stage = Stage::new();
    let heard: Vec<_> = (0..100)
        .map(|_| stage.report(7, Some(("D", 500))))
        .filter(|verdict| *verdict != Verdict::Nothing)
        .collect();
    assert_eq!(heard, [Verdict::Held]);
    let asleep = [(); 3].map(|()| stage.report(7, Some(("S", 500))));
    assert_eq!(asleep[2], Verdict::Stuck("sleeps"));
}

/// A report that was under way when the monitor looked says nothing about what it saw.
#[test]
fn reports_that_waited_for_the_monitor_prove_nothing() {
    let mut suspicions = Suspicions::default();
    let looked = Duration::from_secs(1);
    let at = |late| sample(Some(("S", 500)), looked + late);
    for late in 0..9 {
        let verdict = suspicions.heard(&suspect(7, looked + late * INTERVAL), || {
            assert_eq!(late, 0, "a second look would be for nothing");
            at(9 * INTERVAL)
        });
        assert_eq!(verdict, Verdict::Nothing, "{late}");
    }
    let later = |late| suspect(7, looked + late * INTERVAL);
    assert_eq!(
        suspicions.heard(&later(10), || at(10 * INTERVAL)),
        Verdict::Nothing
    );
    assert_eq!(
        suspicions.heard(&later(11), || at(11 * INTERVAL)),
        Verdict::Stuck("sleeps")
    );
}

/// Each worker has a case of its own, and a turn ends it; so does another thread.
#[test]
fn workers_are_told_apart() {
    let mut suspicions = Suspicions::default();
    let mut heard = |worker, thread, turns, millis| {
        let now = Duration::from_millis(millis);
        let said = Suspect {
            worker,
            thread,
            ..suspect(turns, now)
        };
        suspicions.heard(&said, || sample(Some(("S", 1)), now))
    };
    for round in 0..20 {
        assert_eq!(heard(0, 10, round / 2, 1000 + round * 10), Verdict::Nothing);
        assert_eq!(
            heard(u16::MAX, 11, round / 2, 1000 + round * 10),
            Verdict::Nothing
        );
        assert_eq!(
            heard(7, 12 + u32::from(round % 2 == 0), 1, 1000 + round * 10),
            Verdict::Nothing
        );
    }
}

/// What happens next on a machine without time.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Control looks, reports and wakes.
    Look,
    /// The monitor takes the oldest report, looks at the thread, and gets round to noting when.
    Judge,
    /// The worker, if it was woken, begins its next turn.
    Turn,
    /// It works.
    Work,
    /// It is through with its turn, and sleeps if nobody has woken it meanwhile.
    Rest,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// FAULTS 68: whoever makes its turn when it gets a core is never taken for stuck, in whatever order the three get theirs
    /// and however many reports wait.
    #[test]
    fn nobody_is_condemned_for_want_of_a_core(
        steps in proptest::collection::vec(
            prop_oneof![
                3 => Just(Step::Look),
                3 => Just(Step::Judge),
                1 => Just(Step::Turn),
                2 => Just(Step::Work),
                1 => Just(Step::Rest),
            ],
            0..300,
        ),
    ) {
        let mut suspicions = Suspicions::default();
        let mut reports = std::collections::VecDeque::new();
        let (mut seen, mut turns) = (u64::MAX, 0u64);
        let (mut woken, mut busy) = (false, false);
        let (mut ran, mut ran_this_turn) = (0u64, 0u64);
        for (step, number) in steps.into_iter().zip(1u32..) {
            let now = Duration::from_millis(50) * number;
            match step {
                Step::Look => {
                    if std::mem::replace(&mut seen, turns) == turns {
                        reports.push_back(suspect(turns, now));
                    }
                    woken = true;
                }
                Step::Judge => {
                    let Some(report) = reports.pop_front() else { continue };
                    let state = if woken || busy { "R" } else { "S" };
                    let noted = now + Duration::from_millis(40);
                    let verdict = suspicions.heard(&report, || sample(Some((state, ran)), noted));
                    prop_assert!(!matches!(verdict, Verdict::Stuck(_)), "{verdict:?} at {number}");
                }
                Step::Turn if woken => {
                    (turns, woken, busy, ran_this_turn) = (turns + 1, false, true, 0);
                }
                Step::Work if (woken || busy) && ran_this_turn < 90 => {
                    (ran, ran_this_turn) = (ran + 30, ran_this_turn + 30);
                }
                Step::Turn | Step::Work => {}
                Step::Rest => busy = false,
            }
        }
    }
}
