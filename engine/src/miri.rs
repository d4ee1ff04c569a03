//! How much of a test Miri runs: what takes a processor a millisecond takes Miri a second and more.

/// What a test goes through: `all`, or under Miri as much as there is time for, with every kind of input among it.
pub(crate) const fn cases<T: Copy>(all: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { all }
}
