//! The configuration in force ([`crate::config::kept`]) in memory, for the engines to come: a file that is being edited,
//! or has gone bad since, must not keep the next one from starting. The monitor never looks into it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Longest text kept, in bytes: several times the longest configuration file.
pub const MAX_TEXT_LEN: u64 = 8 << 20;

/// A descriptor that yields `bytes` and can never be changed by anybody.
///
/// # Errors
/// What the kernel says.
pub fn keep(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(
        c"isatapd.conf",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// What such a descriptor yields, whoever has made it.
///
/// # Errors
/// What the kernel says; `InvalidData` when it is no plain file, or longer than [`MAX_TEXT_LEN`].
pub fn read(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    // Anything else could make the reader wait.
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // The place in it is shared with everybody who has it.
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_LEN + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_TEXT_LEN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_again_and_again_and_never_written() {
        let kept = keep(b"Mtu 1400\n").unwrap();
        for _ in 0..2 {
            assert_eq!(read(kept.try_clone().unwrap()).unwrap(), b"Mtu 1400\n");
        }
        let mut file = File::from(kept.try_clone().unwrap());
        file.rewind().unwrap();
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(read(kept).unwrap(), b"Mtu 1400\n");
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(read(pipe.into()).is_err(), "and nobody waits for a writer");
    }
}
