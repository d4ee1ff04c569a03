//! When a worker gives memory back: after a while in which it had little to do. Pure.
//!
//! Slots of 68 KiB are touched once a superpacket has been in them, 13 MiB a worker, and most workers carry superpackets for a
//! moment: during a capture, while programs in the kernel are exchanged, in the one large transfer of a day.

/// Turns that brought nothing, until there is a look at how many packets there were: control wakes each worker five times a second
/// ([`super::Engine::nudge`]), so that it is five seconds or less.
const EMPTY_TURNS: u32 = 25;
/// Packets between two looks that are little to do. The memory of all slots, taken again within that time, costs a millisecond.
const FEW: usize = 2048;

/// What a worker did lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leisure {
    empty_turns: u32,
    packets: usize,
    /// There is memory to give back.
    used: bool,
}

impl Leisure {
    /// A turn that brought so many packets.
    #[inline]
    pub(super) fn carried(&mut self, packets: usize) {
        self.packets += packets;
        self.used = true;
    }

    /// A turn that brought nothing: whether it is time to give memory back.
    pub(super) fn is_due(&mut self) -> bool {
        self.empty_turns += 1;
        if self.empty_turns < EMPTY_TURNS {
            return false;
        }
        self.empty_turns = 0;
        let few = std::mem::take(&mut self.packets) <= FEW;
        few && self.used
    }

    /// It was given back.
    pub(super) fn rested(&mut self) {
        self.used = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(leisure: &mut Leisure, looks: u32) -> usize {
        (0..looks * EMPTY_TURNS).filter(|_| leisure.is_due()).count()
    }

    #[test]
    fn memory_is_given_back_once_after_the_load() {
        let mut leisure = Leisure::default();
        assert_eq!(dues(&mut leisure, 3), 0, "nothing was used");
        leisure.carried(100_000);
        assert_eq!(dues(&mut leisure, 1), 0, "much to do");
        assert_eq!(dues(&mut leisure, 1), 1);
        leisure.rested();
        assert_eq!(dues(&mut leisure, 3), 0);
        leisure.carried(1);
        assert_eq!(dues(&mut leisure, 1), 1);
        assert_eq!(dues(&mut leisure, 2), 2, "it was not possible then: again");
    }

    #[test]
    fn under_load_it_never_is() {
        let mut leisure = Leisure::default();
        for _ in 0..1000 {
            leisure.carried(FEW / 20);
            assert!(!leisure.is_due());
        }
    }

    #[test]
    fn a_packet_now_and_then_keeps_nothing() {
        let mut leisure = Leisure::default();
        leisure.carried(100_000);
        let mut given_back = 0;
        for turn in 0..20 * EMPTY_TURNS {
            if turn % 5 == 0 {
                leisure.carried(1);
            }
            if leisure.is_due() {
                given_back += 1;
                leisure.rested();
            }
        }
        assert_eq!(given_back, 19);
    }
}
