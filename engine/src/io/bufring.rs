//! A provided-buffer ring: the slots that the kernel may fill for one multishot request.
//!
//! The ring is shared memory: we write entries and then the tail, the kernel reads them. Slots come back by id in
//! completions, and only through [`BufRing::reclaim`]. The id that travels tells the loans of a slot apart, so that a
//! completion that comes twice does not take back a slot that has been lent again (FAULTS 39).

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::buf::{Pool, Region, Slot, SlotId};

/// The ring of one buffer group, with the pool its slots come from.
#[derive(Debug)]
pub struct BufRing {
    entries: Region,
    mask: u16,
    tail: u16,
    group: u16,
    pool: Rc<Pool>,
    /// For each slot the bits of its id above those that name it: they count its loans.
    loans: Box<[u16]>,
}

impl BufRing {
    /// Registers a ring for `pool` as buffer group `group`. To be dropped after `ring`, which knows its memory.
    ///
    /// # Errors
    /// When the memory cannot be mapped, or the kernel (before 5.19) has no buffer rings.
    pub fn register(ring: &impl Ring, pool: Rc<Pool>, group: u16) -> io::Result<Self> {
        let count =
            u16::try_from(pool.count().next_power_of_two()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entries = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: the region is page-aligned, holds `count` entries, and outlives the ring: the lane drops its ring before
        // its buffer rings.
        unsafe { ring.register_buffers(entries.base(), count, group) }?;
        Ok(Self {
            entries,
            mask: count - 1,
            tail: 0,
            group,
            loans: vec![0; pool.count()].into(),
            pool,
        })
    }

    /// The group's number in requests.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// The pool behind the ring.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Bytes the kernel may write to a slot.
    pub fn buffer_len(&self) -> usize {
        self.pool.loan_len()
    }

    /// Lends every free slot to the kernel.
    pub fn replenish(&mut self) {
        let before = self.tail;
        while let Some(loan) = self.pool.lend() {
            let at = usize::from(self.tail & self.mask) * size_of::<BufRingEntry>();
            let entry = self.entries.at(at).cast::<BufRingEntry>().as_ptr();
            // SAFETY: `at` is the place of one whole entry in the region, and the kernel does not read it before the
            // tail moves past it. The entry's reserved field is the tail itself in entry 0 and is left alone.
            let entry = unsafe { &mut *entry };
            entry.set_addr(loan.addr.as_ptr() as u64);
            entry.set_len(u32::try_from(loan.len).unwrap_or(u32::MAX));
            let slot = loan.id.0;
            let loans = &mut self.loans[usize::from(slot)];
            *loans = loans.wrapping_add(self.mask + 1);
            entry.set_bid(slot | *loans);
            self.tail = self.tail.wrapping_add(1);
        }
        if self.tail != before {
            self.publish_tail();
        }
    }

    /// Takes back a slot named by a completion; `None` when the kernel does not hold it, or holds it by another loan.
    #[inline]
    pub fn reclaim(&self, id: u16) -> Option<Slot> {
        let slot = id & self.mask;
        let loans = self.loans.get(usize::from(slot))?;
        if id != slot | *loans {
            return None;
        }
        self.pool.reclaim(SlotId(slot))
    }

    fn publish_tail(&self) {
        let base = self.entries.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: `base` is the first entry of a registered ring; its reserved field is the tail, aligned to 2 bytes,
        // which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
