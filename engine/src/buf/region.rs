//! Page-aligned anonymous memory of a fixed size, zeroed by the kernel, given back on drop.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// One anonymous mapping. Not `Sync`: a worker owns it.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

impl Region {
    /// Maps `len` bytes (rounded up to a page by the kernel).
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` for length 0.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory we have.
        let base = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
            )
        }?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The address `offset` bytes in.
    ///
    /// # Panics
    /// When `offset` lies past the end.
    #[inline]
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset <= self.len,
            "offset {offset} in a region of {} bytes",
            self.len
        );
        // SAFETY: the offset was just checked to stay within (or one past) the mapping.
        unsafe { self.base.add(offset) }
    }

    /// Gives the memory back: all bytes are zero from now on, and take memory again when they are written.
    ///
    /// # Errors
    /// What `madvise` says.
    ///
    /// # Safety
    /// Nobody has a reference to a byte of it, or is still to read what was written there.
    pub(crate) unsafe fn discard(&self) -> io::Result<()> {
        // SAFETY: the mapping is ours, private and anonymous; the caller vouches for its content.
        unsafe { madvise(self.base.cast(), self.len, MmapAdvise::MADV_DONTNEED) }?;
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let base: NonNull<c_void> = self.base.cast();
        // SAFETY: `base` and `len` are what `mmap` gave us, and whoever owns the region has let go of every pointer.
        let unmapped = unsafe { munmap(base, self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
