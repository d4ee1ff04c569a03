//! Where a test's choices come from: a seed, which makes them again, and bytes that have a say in them.

/// A source of choices.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    /// Its state is a seed, too.
    seed: u64,
    /// Each of the next choices is another one by one of these.
    script: std::vec::IntoIter<u8>,
}

/// How likely something is, of 65536.
pub(crate) type Odds = u16;

impl Dice {
    /// The choices this seed stands for.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::scripted(seed, &[])
    }

    /// The same, changed choice by choice: whoever changes a byte changes what happens then, and leaves the rest as likely
    /// as it was.
    pub(crate) fn scripted(seed: u64, script: &[u8]) -> Self {
        Self {
            seed,
            script: Vec::from(script).into_iter(),
        }
    }

    /// Any 16 bits: SplitMix64 (Steele, Lea, Flood 2014), since it fits on three lines and takes any seed.
    fn word(&mut self) -> u16 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = u16::try_from((z ^ (z >> 31)) >> 48).unwrap_or(0);
        word ^ u16::from(self.script.next().unwrap_or(0)) << 8
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
