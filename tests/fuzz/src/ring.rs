//! The ring lane over a kernel that does what bytes say (FAULTS 37-40, 42).

/// Each byte changes one choice of a kernel that answers late, short, with any errno, in its own order or without buffers: every
/// slot has one owner and each packet one fate after every turn, and the lane rests when the faults end.
///
/// # Panics
/// A promise is broken.
pub fn ring_states(data: &[u8]) {
    isatap_engine::io::testing::ring(data);
}
