//! The hosts that a router knows, in memory that its engines share one after the other: one that dies, or is exchanged, takes
//! nothing along, and the next one can still tell them that the router changes, or goes. The monitor never looks into it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::warn;

use super::progress::monotonic;
use crate::advertise::MEMORY_LEN;

/// The memory.
#[derive(Debug)]
pub struct KnownHosts {
    file: File,
    told: bool,
}

/// A moment before all others, and the same in every process until the machine starts anew.
pub fn epoch() -> Instant {
    let now = Instant::now();
    now.checked_sub(monotonic()).unwrap_or(now)
}

impl KnownHosts {
    /// With nobody in it: zeros, which take no memory yet, of a length that nobody can change.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn nobody() -> io::Result<OwnedFd> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"isatapd.hosts", flags)?);
        file.set_len(u64::try_from(MEMORY_LEN).unwrap_or(u64::MAX))?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file.into())
    }

    /// What every engine is handed.
    pub fn new(memory: OwnedFd) -> Self {
        Self {
            file: memory.into(),
            told: false,
        }
    }

    /// Everything in it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        self.file
            .by_ref()
            .take(u64::try_from(MEMORY_LEN).unwrap_or(u64::MAX))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Keeps these bytes at this place.
    pub fn keep(&mut self, offset: usize, bytes: &[u8]) {
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        if let Err(error) = self.file.write_all_at(bytes, offset)
            && !std::mem::replace(&mut self.told, true)
        {
            warn!(
                "hosts are not kept for the next engine: {error}; one that it does not know it cannot tell of changes"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_one_keeps_the_next_one_reads() {
        let memory = KnownHosts::nobody().unwrap();
        let mut before = KnownHosts::new(memory.try_clone().unwrap());
        assert!(before.read().unwrap().iter().all(|byte| *byte == 0));
        before.keep(MEMORY_LEN - 2, &[1, 2]);
        before.keep(0, &[3]);
        let bytes = KnownHosts::new(memory.try_clone().unwrap()).read().unwrap();
        assert_eq!(bytes.len(), MEMORY_LEN);
        assert_eq!((bytes[0], &bytes[MEMORY_LEN - 2..]), (3, &[1, 2][..]));
        // What has no place is not kept, and nobody ends for it.
        before.keep(MEMORY_LEN - 1, &[1, 2]);
        before.keep(usize::MAX, &[1]);
        let file = File::from(memory);
        assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
    }

    #[test]
    fn the_epoch_stays() {
        let (first, second) = (epoch(), epoch());
        let apart = second.max(first) - first.min(second);
        assert!(apart < Duration::from_millis(100), "{apart:?}");
    }
}
