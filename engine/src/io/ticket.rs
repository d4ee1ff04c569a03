//! The numbers by which the kernel's answers find what they belong to: a place, and how often it was used before.
//!
//! A place is used again as soon as it is free. An answer that comes twice then names a use that is over, and is told from the
//! answer to the use that is under way (FAULTS 39).

/// Places a ticket can name.
pub(super) const PLACES: usize = 1 << PLACE_BITS;

const PLACE_BITS: u32 = 8;

/// How often a place has been used, as far as a ticket remembers: 2^24 uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses(u32);

impl Uses {
    /// One more.
    #[inline]
    pub(super) fn count(&mut self) {
        self.0 = self.0.wrapping_add(1 << PLACE_BITS);
    }

    /// The ticket for the use of `place` that is under way. Places are less than [`PLACES`].
    #[inline]
    pub(super) fn ticket(self, place: usize) -> u32 {
        debug_assert!(place < PLACES, "{place} is no place");
        #[allow(clippy::cast_possible_truncation, reason = "places are few")]
        let place = place as u32;
        self.0 | place
    }
}

/// The place a ticket names; whether the use is under way says [`Uses::ticket`] of that place.
#[inline]
pub(super) fn place(ticket: u32) -> usize {
    ticket as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FAULTS 39: a ticket is good for one use.
    #[test]
    fn a_ticket_names_one_use_of_one_place() {
        let mut uses = Uses::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            for at in [0, 1, PLACES - 1] {
                let ticket = uses.ticket(at);
                assert_eq!(place(ticket), at);
                assert!(seen.insert(ticket), "{ticket} again");
            }
            uses.count();
        }
    }
}
