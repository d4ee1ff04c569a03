//! A pool of equal packet slots, each owned by exactly one of pool, kernel and worker.
//!
//! The state of every slot is recorded, so that a completion naming a slot the kernel does not hold (duplicate, late,
//! invented) is refused instead of handing one slot to two owners (FAULTS 39). `free + kernel + held = total` always.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

use super::region::Region;

/// Bytes before what the kernel writes: with the 10-byte vnet header the IPv6 header starts at a cache line.
pub const HEAD_ROOM: usize = 54;

/// Number of a slot within its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(pub(crate) u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Pool,
    Kernel,
    Worker,
}

/// How many slots each owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// In the pool.
    pub free: usize,
    /// With the kernel, to be filled.
    pub kernel: usize,
    /// In the worker's hands, or with the kernel to be sent.
    pub held: usize,
}

/// Equal slots in one mapping. Lives on one thread.
#[derive(Debug)]
pub struct Pool {
    region: Region,
    slot_len: usize,
    owners: Vec<Cell<Owner>>,
    free: RefCell<Vec<SlotId>>,
    kernel: Cell<usize>,
}

/// A slot lent to the kernel: where it may write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelLoan {
    pub(crate) id: SlotId,
    pub(crate) addr: NonNull<u8>,
    pub(crate) len: usize,
}

/// A slot in the worker's hands; returns to its pool when dropped.
#[derive(Debug)]
pub struct Slot {
    pool: Rc<Pool>,
    id: SlotId,
}

impl Pool {
    /// A pool of `count` slots of `slot_len` bytes, head room included.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new(count: u16, slot_len: usize) -> io::Result<Rc<Self>> {
        let region = Region::new(usize::from(count) * slot_len)?;
        Ok(Rc::new(Self {
            region,
            slot_len,
            owners: (0..count).map(|_| Cell::new(Owner::Pool)).collect(),
            free: RefCell::new((0..count).rev().map(SlotId).collect()),
            kernel: Cell::new(0),
        }))
    }

    /// How many slots there are.
    pub fn count(&self) -> usize {
        self.owners.len()
    }

    /// A free slot for the worker.
    pub fn take(self: &Rc<Self>) -> Option<Slot> {
        let id = self.pop(Owner::Worker)?;
        Some(Slot {
            pool: Rc::clone(self),
            id,
        })
    }

    /// Lends a free slot to the kernel.
    pub(crate) fn lend(&self) -> Option<KernelLoan> {
        let id = self.pop(Owner::Kernel)?;
        self.kernel.set(self.kernel.get() + 1);
        let addr = self.region.at(usize::from(id.0) * self.slot_len + HEAD_ROOM);
        Some(KernelLoan {
            id,
            addr,
            len: self.loan_len(),
        })
    }

    /// Bytes of a slot that the kernel may write.
    pub(crate) fn loan_len(&self) -> usize {
        self.slot_len - HEAD_ROOM
    }

    /// Takes back a slot that the kernel has filled; `None` when the kernel does not hold it.
    pub(crate) fn reclaim(self: &Rc<Self>, id: SlotId) -> Option<Slot> {
        let owner = self.owners.get(usize::from(id.0))?;
        if owner.get() != Owner::Kernel {
            return None;
        }
        owner.set(Owner::Worker);
        self.kernel.set(self.kernel.get() - 1);
        Some(Slot {
            pool: Rc::clone(self),
            id,
        })
    }

    /// Who owns how many slots.
    pub fn census(&self) -> Census {
        let count = |owner| self.owners.iter().filter(|o| o.get() == owner).count();
        Census {
            free: count(Owner::Pool),
            kernel: count(Owner::Kernel),
            held: count(Owner::Worker),
        }
    }

    /// How many slots the kernel has to fill: a constant-time part of the census.
    pub(crate) fn census_kernel(&self) -> usize {
        self.kernel.get()
    }

    /// How many slots the pool has to give: a constant-time part of the census.
    pub(crate) fn census_free(&self) -> usize {
        self.free.borrow().len()
    }

    /// Gives the memory of all slots back, unless the worker holds one; says whether it did. Slots, lent ones too, are zero then, and
    /// take memory again as they are written.
    ///
    /// # Safety
    /// The kernel has written nothing to a slot that it was lent which somebody is still to read, and does not write now.
    pub(crate) unsafe fn discard(&self) -> bool {
        let held = self.count() - self.kernel.get() - self.census_free();
        // SAFETY: the worker holds no slot, so that nobody has a reference into the region; the rest the caller vouches for.
        held == 0 && unsafe { self.region.discard() }.is_ok()
    }

    fn pop(&self, to: Owner) -> Option<SlotId> {
        let id = self.free.borrow_mut().pop()?;
        self.owners[usize::from(id.0)].set(to);
        Some(id)
    }
}

impl Slot {
    /// Every byte of the slot, head room included.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the slot lies inside the region, is initialised (anonymous memory is zeroed), and only this `Slot`
        // owns it: the pool hands an id to one owner at a time.
        unsafe { std::slice::from_raw_parts(self.addr().as_ptr(), self.pool.slot_len) }
    }

    /// Every byte of the slot, head room included.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` makes this borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.addr().as_ptr(), self.pool.slot_len) }
    }

    #[inline]
    fn addr(&self) -> NonNull<u8> {
        self.pool.region.at(usize::from(self.id.0) * self.pool.slot_len)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.owners[usize::from(self.id.0)].set(Owner::Pool);
        self.pool.free.borrow_mut().push(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the region that take memory.
    fn resident(pool: &Pool) -> usize {
        let len = pool.count() * pool.slot_len;
        let mut pages = vec![0_u8; len / 4096];
        // SAFETY: a question about a mapping of our own, with a byte for each page.
        let asked =
            unsafe { nix::libc::mincore(pool.region.base().as_ptr().cast(), len, pages.as_mut_ptr()) };
        assert_eq!(asked, 0);
        pages.iter().filter(|page| **page & 1 == 1).count() * 4096
    }

    #[test]
    #[cfg_attr(miri, ignore = "it has no mincore")]
    fn memory_is_given_back_while_nobody_holds_a_slot() {
        let pool = Pool::new(4, 8192).unwrap();
        let mut held = pool.take().unwrap();
        let loan = pool.lend().unwrap();
        held.bytes_mut().fill(7);
        let before = resident(&pool);
        assert!(before >= 8192);
        // SAFETY: no kernel writes here.
        assert!(!unsafe { pool.discard() }, "a packet is in it");
        assert_eq!((resident(&pool), held.bytes()[8191]), (before, 7));
        drop(held);
        // SAFETY: no kernel writes here.
        assert!(unsafe { pool.discard() });
        assert_eq!(resident(&pool), 0);
        let lent = pool.reclaim(loan.id).unwrap();
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_slot_has_one_owner_at_any_time() {
        let pool = Pool::new(3, 4096).unwrap();
        let mut held = pool.take().unwrap();
        let loan = pool.lend().unwrap();
        assert_eq!(
            pool.census(),
            Census {
                free: 1,
                kernel: 1,
                held: 1
            }
        );
        held.bytes_mut()[0] = 7;
        assert_eq!(held.bytes().len(), 4096);
        assert_eq!(loan.len, 4096 - HEAD_ROOM);

        let back = pool.reclaim(loan.id).unwrap();
        assert!(
            pool.reclaim(loan.id).is_none(),
            "a duplicate completion must not yield the slot twice"
        );
        assert!(
            pool.reclaim(SlotId(99)).is_none(),
            "an invented id must not yield a slot"
        );
        drop(held);
        drop(back);
        assert_eq!(
            pool.census(),
            Census {
                free: 3,
                kernel: 0,
                held: 0
            }
        );
    }

    #[test]
    fn an_empty_pool_says_so() {
        let pool = Pool::new(1, 4096).unwrap();
        let only = pool.take();
        assert!(pool.take().is_none() && pool.lend().is_none());
        drop(only);
        assert!(pool.take().is_some());
    }
}
