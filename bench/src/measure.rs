//! How a burst is timed: filling the slots is the kernel's work and is not counted, nor is their way back to the pool.

use std::hint::black_box;
use std::time::{Duration, Instant};

use isatap_engine::buf::Packet;

use crate::carry::BURST;

/// Carries `count` packets in bursts of [`BURST`] and returns what `read_ahead` and `carry` alone took: the median burst, times their
/// number, so that a burst during which the machine did something else does not count.
///
/// # Panics
/// When `fill` yields nothing or `carry` refuses: the bench would measure refusals.
pub fn bursts(
    count: u64,
    mut fill: impl FnMut() -> Option<Packet>,
    mut read_ahead: impl FnMut(&[Packet]),
    mut carry: impl FnMut(&mut Packet) -> bool,
) -> Duration {
    let mut burst = Vec::with_capacity(BURST);
    let mut times = Vec::new();
    for _ in 0..count.div_ceil(BURST as u64) {
        burst.clear();
        for _ in 0..BURST {
            burst.push(fill().expect("a packet in a slot"));
        }
        let start = Instant::now();
        read_ahead(&burst);
        let carried = burst
            .iter_mut()
            .filter_map(|packet| carry(packet).then_some(()))
            .count();
        times.push(start.elapsed());
        assert_eq!(carried, BURST, "every packet is carried");
        black_box(&mut burst);
    }
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    // A bench runs for less than a minute: its nanoseconds are exact in an f64.
    #[allow(clippy::cast_precision_loss)]
    median.mul_f64(count as f64 / BURST as f64)
}
