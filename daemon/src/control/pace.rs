//! When a change of the world becomes a Rulebook: at once after a pause, and so seldom in a storm of changes that publishing
//! leaves control time for everything else.

use std::time::{Duration, Instant};

/// Least time from one Rulebook to the next: a burst of route changes becomes a few of them.
const INTERVAL: Duration = Duration::from_millis(10);
/// Publishing takes no more than one in so many parts of control's time ...
const SHARE: u32 = 4;
/// ... unless it takes more than a third of this: nothing that has changed waits longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// When to publish. Pure.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    due: Option<Instant>,
    /// When it began last.
    began: Instant,
    /// Not before this again.
    earliest: Instant,
}

impl Pace {
    /// With everything to be published.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: Some(now),
            began: now,
            earliest: now,
        }
    }

    /// When to publish, if anything has changed since that began last.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something has changed.
    pub(super) fn mark_changed(&mut self, now: Instant) {
        self.due.get_or_insert(now.max(self.earliest));
    }

    /// Everything that has changed until now is being published.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = None;
        self.began = now;
    }

    /// It has been published.
    pub(super) fn end(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.began);
        let pause = (took * (SHARE - 1)).min(LONGEST_PAUSE);
        self.earliest = (self.began + INTERVAL).max(now + pause);
        self.due = self.due.map(|at| at.max(self.earliest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn publish(pace: &mut Pace, began: Instant, ended: Instant) {
        pace.begin(began);
        pace.end(ended);
        assert_eq!(pace.due(), None);
    }

    /// Publishes whenever it is due, with a change in each millisecond; how long it published, and how often.
    fn storm(took: Duration, lasts: Duration) -> (Duration, u32) {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let (mut now, mut publishing, mut count) = (began, Duration::ZERO, 0);
        while now < began + lasts {
            pace.mark_changed(now);
            if pace.due().is_some_and(|at| at <= now) {
                publish(&mut pace, now, now + took);
                now += took;
                publishing += took;
                count += 1;
            }
            now += MS;
        }
        (publishing, count)
    }

    #[test]
    fn a_storm_leaves_three_quarters_of_the_time() {
        const LASTS: Duration = Duration::from_secs(10);
        for took in [3, 5, 45, 200, 333] {
            let (publishing, count) = storm(MS * took, LASTS);
            let share = publishing.as_secs_f64() / LASTS.as_secs_f64();
            // The first one has no pause before it, the last one none after it.
            assert!((0.2..0.29).contains(&share), "{took} ms {count} times: {share}");
        }
        let (_, count) = storm(Duration::ZERO, LASTS);
        assert_eq!(count, 1000);
        let (_, count) = storm(Duration::from_secs(1), LASTS);
        assert_eq!(count, 5, "what takes a second has a second's pause");
    }

    #[test]
    fn a_change_after_a_pause_is_published_at_once() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert_eq!(pace.due(), Some(began));
        publish(&mut pace, began, began + 45 * MS);
        let later = began + 180 * MS;
        pace.mark_changed(later);
        assert_eq!(pace.due(), Some(later));
    }

    #[test]
    fn more_changes_do_not_put_it_off() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        publish(&mut pace, began, began + 45 * MS);
        pace.mark_changed(began + 46 * MS);
        pace.mark_changed(began + 170 * MS);
        assert_eq!(pace.due(), Some(began + 180 * MS));
        publish(&mut pace, began + 181 * MS, began + 182 * MS);
        pace.mark_changed(began + 183 * MS);
        assert_eq!(pace.due(), Some(began + 191 * MS));
    }

    #[test]
    fn a_change_meanwhile_is_the_next_ones() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.begin(began);
        pace.mark_changed(began + MS);
        pace.end(began + 45 * MS);
        assert_eq!(pace.due(), Some(began + 180 * MS));
    }
}
