//! IPv4 identifications for the datagrams that we fragment ourselves (RFC 6864 4.3, M9).
//!
//! One table for all workers, each entry a counter for the pairs of addresses that fall on it: a pair sees a number again after
//! 65535 datagrams of its entry, which is 546 a second for the two minutes a fragment may live. The kernel, too, promises no
//! more. A peer that needs fragments gets all its packets without DF numbered here, so that the kernel's numbers for others do
//! not meet ours in its reassembly queue.

use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Counters; a power of two.
const ENTRIES: usize = 4096;

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

struct Table {
    /// Keyed at random: numbers must not tell one peer how much another gets.
    hash: ahash::RandomState,
    counters: Box<[AtomicU16]>,
}

impl Table {
    fn new() -> Self {
        let hash = ahash::RandomState::new();
        let start = |entry| AtomicU16::new(u16::try_from(hash.hash_one(entry) >> 48).unwrap_or(0));
        let counters = (0..ENTRIES).map(start).collect();
        Self { hash, counters }
    }

    fn next(&self, src: Ipv4Addr, dst: Ipv4Addr) -> u16 {
        let hash = self.hash.hash_one((src.to_bits(), dst.to_bits()));
        let entry = usize::try_from(hash).unwrap_or(0) % ENTRIES;
        loop {
            // 0 would have the kernel choose, for each fragment another.
            match self.counters[entry].fetch_add(1, Ordering::Relaxed) {
                0 => {}
                id => return id,
            }
        }
    }
}

/// The identification of the next datagram from `src` to `dst`; never 0.
pub(crate) fn next(src: Ipv4Addr, dst: Ipv4Addr) -> u16 {
    TABLE.next(src, dst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// M9: workers that send to one peer at once never use a number twice before all have been used.
    #[test]
    fn m9_no_number_comes_again_before_all_were_used() {
        let table = Table::new();
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let take = || (0..16_383).map(|_| table.next(src, dst)).collect::<Vec<_>>();
        let taken: Vec<u16> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        let distinct: BTreeSet<_> = taken.iter().copied().collect();
        assert_eq!((distinct.len(), taken.len()), (4 * 16_383, 4 * 16_383));
        assert!(!distinct.contains(&0));
    }
}
