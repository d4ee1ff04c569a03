//! A map of the kernel in our memory: 64-bit words that programs in the kernel and we read and write without a system call.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// One map, mapped for as long as this lives.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<c_void>,
    words: usize,
}

impl Mapping {
    /// Maps the first `words` words of an array map that was made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// What `mmap` says; `InvalidInput` for a map that is shorter than that.
    pub(super) fn new(map: impl AsFd, words: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(words * size_of::<u64>()).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory we have.
        let base = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base, words })
    }

    /// All of it.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long, and stays until drop; every bit pattern is an integer, and
        // whoever else writes to it (programs in the kernel, another process) does so in whole words.
        unsafe { slice::from_raw_parts(self.base.cast().as_ptr(), self.words) }
    }
}

// SAFETY: the memory is shared with the kernel in any case, and accessed by atomic operations alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are what `mmap` gave us, and borrows of the words have ended.
        let unmapped = unsafe { munmap(self.base, self.words * size_of::<u64>()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
