//! Who was heard last: places in two queues, the longest silent first.
//!
//! Each place knows the one before and the one after it in its queue, so that to be heard again is to be taken out and put
//! at the end: no search, nothing allocated, four bytes a place.

/// A place in the table of hosts.
pub(super) type Place = u16;
/// No place.
const NONE: Place = Place::MAX;

/// How real a host seems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// It solicited once, or as hosts do that are not answered.
    Stranger,
    /// It came back later.
    Steady,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: Place,
    after: Place,
}

impl Link {
    const NOWHERE: Self = Self {
        before: NONE,
        after: NONE,
    };
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: Place,
    last: Place,
}

/// The queues. A place is in one of them at most.
#[derive(Debug)]
pub(super) struct Order {
    links: Vec<Link>,
    ends: [Ends; 2],
}

impl Default for Order {
    fn default() -> Self {
        let empty = Ends {
            first: NONE,
            last: NONE,
        };
        Self {
            links: Vec::new(),
            ends: [empty; 2],
        }
    }
}

impl Order {
    /// Puts a place that is in no queue at the end of one.
    pub(super) fn push(&mut self, queue: Queue, place: Place) {
        let needed = usize::from(place) + 1;
        if self.links.len() < needed {
            self.links.resize(needed, Link::NOWHERE);
        }
        let ends = &mut self.ends[queue as usize];
        let last = std::mem::replace(&mut ends.last, place);
        self.links[usize::from(place)] = Link {
            before: last,
            after: NONE,
        };
        match self.links.get_mut(usize::from(last)) {
            Some(link) => link.after = place,
            None => ends.first = place,
        }
    }

    /// Takes a place out of its queue.
    pub(super) fn take(&mut self, queue: Queue, place: Place) {
        let Link { before, after } = self.links[usize::from(place)];
        let ends = &mut self.ends[queue as usize];
        match self.links.get_mut(usize::from(before)) {
            Some(link) => link.after = after,
            None => ends.first = after,
        }
        match self.links.get_mut(usize::from(after)) {
            Some(link) => link.before = before,
            None => ends.last = before,
        }
    }

    /// A queue's places, the longest silent first.
    pub(super) fn iter(&self, queue: Queue) -> impl Iterator<Item = Place> {
        let first = self.ends[queue as usize].first;
        let after = |place: &Place| self.links.get(usize::from(*place)).map(|link| link.after);
        std::iter::successors(Some(first), after).take_while(|place| *place != NONE)
    }
}

#[cfg(test)]
impl Order {
    /// The memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// As two queues that are searched.
        #[test]
        fn places_go_and_come_in_order(moves in prop::collection::vec((0..20 as Place, any::<bool>()), 0..200)) {
            let mut order = Order::default();
            let mut model: [VecDeque<Place>; 2] = Default::default();
            for (place, steady) in moves {
                let queue = if steady { Queue::Steady } else { Queue::Stranger };
                let held = [Queue::Stranger, Queue::Steady].into_iter().find(|queue| model[*queue as usize].contains(&place));
                if let Some(held) = held {
                    order.take(held, place);
                    model[held as usize].retain(|other| *other != place);
                }
                // Some stay away.
                if held != Some(queue) {
                    order.push(queue, place);
                    model[queue as usize].push_back(place);
                }
                for queue in [Queue::Stranger, Queue::Steady] {
                    prop_assert!(order.iter(queue).eq(model[queue as usize].iter().copied()));
                }
            }
        }
    }
}
