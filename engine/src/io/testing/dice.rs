//! Where a test's choices come from: a seed, which makes them again.

/// A source of choices. Its state is a seed, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

/// How likely something is, of 65536.
pub(crate) type Odds = u16;

impl Dice {
    /// The choices this seed stands for.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 16 bits: SplitMix64 (Steele, Lea, Flood 2014), since it fits on three lines and takes any seed.
    fn word(&mut self) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((z ^ (z >> 31)) >> 48).unwrap_or(0)
    }

    /// Whether something that likely happens now.
    pub(crate) fn roll(&mut self, odds: Odds) -> bool {
        odds > 0 && self.word() < odds
    }

    /// A number below `bound`, which is at most 65536; 0 for 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (usize::from(self.word()) * bound) >> 16
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
