//! What the kernel has come to doubt, told together: each time CPUs look again at all that they remember.
//!
//! It may wait, for the kernel asks a neighbour in doubt no sooner than five seconds after it has a packet for it. And it has to: whoever
//! asks this machine for its address makes the kernel know somebody, in doubt, as often as he likes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::io::ebpf::Neighbour;

/// How long the first of them waits for others.
const PATIENCE: Duration = Duration::from_millis(100);

/// Those that wait, by address and device. Pure.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    waiting: BTreeMap<(Ipv4Addr, u32), Neighbour>,
    due: Option<Instant>,
}

impl Doubts {
    /// What of `news` is to be told at once, in its order; what `may_wait` waits until something else is said of that neighbour.
    pub(super) fn sort(
        &mut self,
        news: Vec<Neighbour>,
        may_wait: impl Fn(&Neighbour) -> bool,
        now: Instant,
    ) -> Vec<Neighbour> {
        let at_once = news.into_iter().filter(|news| {
            let key = (news.addr, news.device);
            if may_wait(news) {
                self.waiting.insert(key, *news);
                self.due.get_or_insert(now + PATIENCE);
                return false;
            }
            self.waiting.remove(&key);
            true
        });
        at_once.collect()
    }

    /// When they are to be told, if any wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// They are being told, or all neighbours are looked at anew.
    pub(super) fn take(&mut self) -> Vec<Neighbour> {
        self.due = None;
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u32 = 7;
    const LINKS: Option<[[u8; 6]; 2]> = Some([[2; 6], [4; 6]]);

    fn neighbour(host: u8, is_doubted: bool) -> Neighbour {
        Neighbour {
            addr: Ipv4Addr::new(10, 0, 0, host),
            device: DEVICE,
            link: LINKS,
            is_doubted,
        }
    }

    fn is_doubted(news: &Neighbour) -> bool {
        news.is_doubted
    }

    #[test]
    fn doubts_wait_for_each_other_and_nothing_else_for_them() {
        let (start, mut doubts) = (Instant::now(), Doubts::default());
        let news = vec![neighbour(1, true), neighbour(2, false), neighbour(3, true)];
        assert_eq!(doubts.sort(news, is_doubted, start), [neighbour(2, false)]);
        assert_eq!(doubts.due(), Some(start + PATIENCE));
        let later = start + PATIENCE / 2;
        assert_eq!(doubts.sort(vec![neighbour(4, true)], is_doubted, later), []);
        assert_eq!(
            doubts.due(),
            Some(start + PATIENCE),
            "the first one waits no longer"
        );
        assert_eq!(
            doubts.take(),
            [neighbour(1, true), neighbour(3, true), neighbour(4, true)]
        );
        assert_eq!((doubts.due(), doubts.take()), (None, Vec::new()));
    }

    #[test]
    fn what_is_said_last_of_a_neighbour_counts() {
        let (now, mut doubts) = (Instant::now(), Doubts::default());
        doubts.sort(vec![neighbour(1, true), neighbour(2, true)], is_doubted, now);
        let gone = Neighbour {
            link: None,
            ..neighbour(2, false)
        };
        let news = vec![neighbour(1, false), gone];
        assert_eq!(doubts.sort(news.clone(), is_doubted, now), news);
        assert_eq!(doubts.take(), []);
        let moved = Neighbour {
            link: Some([[6; 6], [4; 6]]),
            ..neighbour(1, true)
        };
        doubts.sort(vec![neighbour(1, true), moved], is_doubted, now);
        assert_eq!(doubts.take(), [moved]);
    }

    #[test]
    fn a_neighbour_behind_another_device_is_another_one() {
        let (now, mut doubts) = (Instant::now(), Doubts::default());
        let behind = Neighbour {
            device: DEVICE + 1,
            ..neighbour(1, false)
        };
        doubts.sort(vec![neighbour(1, true), behind], is_doubted, now);
        assert_eq!(doubts.take(), [neighbour(1, true)]);
    }
}
