//! The pid file: proof that only one daemon runs, and where its process is.
//!
//! The lock is the proof, not the file: a file left behind by a crash stops nobody.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::config::diagnostic::shown;
use crate::exit::{ExitError, ExitStatus};

/// How long to wait for a lock: a predecessor may be about to remove the file.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Which file, whatever its name: device and number.
type Inode = (u64, u64);

/// A locked pid file with our process id in it; removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    lock: Option<Flock<File>>,
    dir: OwnedFd,
    name: OsString,
    id: Inode,
}

impl PidFile {
    /// Creates or takes over the file at `path`, locks it and writes our process id.
    ///
    /// # Errors
    /// 69 when another daemon holds it; 78 when it is a link or no file, or its directory is missing; 77 when we may not.
    pub fn acquire(path: &Path) -> Result<Self, ExitError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ExitError::config(format!(
                "pid file {}: this is not a file",
                shown(path)
            )));
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(parent, flags, Mode::empty()).map_err(|errno| failed(path, errno))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            if let Some((lock, id)) = Self::try_lock(&dir, path, name)? {
                let mut pidfile = Self {
                    lock: Some(lock),
                    dir,
                    name: name.to_owned(),
                    id,
                };
                pidfile.write_pid().map_err(|error| {
                    let what = format!("pid file {}", shown(path));
                    ExitError::from_io(&error, ExitStatus::Config, what)
                        .with_remedy("choose another file with --pidfile")
                })?;
                return Ok(pidfile);
            }
            if Instant::now() >= deadline {
                return Err(held(&dir, path, name));
            }
            std::thread::sleep(LOCK_POLL_INTERVAL);
        }
    }

    /// Takes over the locked `file` of a predecessor with the same process id, wherever it is: what an engine says of its place is no proof.
    ///
    /// # Errors
    /// It is none, or nobody has locked it.
    pub fn inherit(file: OwnedFd) -> Result<Self, ExitError> {
        let other = || ExitError::other("the pid file: another one was left");
        let file = File::from(file);
        let path = path_of(&file).map_err(|_| other())?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(other());
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(parent, flags, Mode::empty()).map_err(|errno| failed(&path, errno))?;
        let metadata = file.metadata().map_err(|_| failed(&path, Errno::EIO))?;
        // The lock is the open file's: whoever has the file has it.
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| other())?;
        Ok(Self {
            lock: Some(lock),
            dir,
            name: name.to_owned(),
            id: (metadata.dev(), metadata.ino()),
        })
    }

    /// Where it is.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn path(&self) -> std::io::Result<PathBuf> {
        match self.lock.as_deref() {
            Some(file) => path_of(file),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// A handle to the locked file, for a successor: it holds the lock as long as it is open.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn handle(&self) -> std::io::Result<OwnedFd> {
        match self.lock.as_deref() {
            Some(file) => Ok(file.try_clone()?.into()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Opens and locks; `None` when somebody holds the lock, or removed the file before we had it.
    fn try_lock(
        dir: &OwnedFd,
        path: &Path,
        name: &std::ffi::OsStr,
    ) -> Result<Option<(Flock<File>, Inode)>, ExitError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mode = Mode::from_bits_truncate(0o644);
        let file = File::from(openat(dir, name, flags, mode).map_err(|errno| failed(path, errno))?);
        let metadata = file.metadata().map_err(|_| failed(path, Errno::EIO))?;
        if !metadata.is_file() || metadata.nlink() > 1 {
            let message = format!("pid file {}: this is not a plain file with one name", shown(path));
            return Err(ExitError::config(message).with_remedy("remove it"));
        }
        let id = (metadata.dev(), metadata.ino());
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(failed(path, errno)),
        };
        let still_there = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == id);
        Ok(still_there.then_some((lock, id)))
    }

    fn write_pid(&mut self) -> std::io::Result<()> {
        let Some(file) = self.lock.as_deref_mut() else {
            return Ok(());
        };
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    }

    /// Removes the file, if it is still this one.
    pub fn remove(self) {}
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Under the lock, so that it cannot be a successor's file.
        let stat = fstatat(&self.dir, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.id) {
            let _ = unlinkat(&self.dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        drop(self.lock.take());
    }
}

/// Where an open file is; one that was removed has a name there that no other file has.
fn path_of(file: &File) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether `path` could be used as a pid file, without touching it; for `--check-config`.
///
/// # Errors
/// Status 78, as [`PidFile::acquire`].
pub fn check(path: &Path) -> Result<(), ExitError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(failed(path, Errno::ELOOP)),
        Ok(metadata) if !metadata.is_file() => Err(ExitError::config(format!(
            "pid file {}: this is not a file",
            shown(path)
        ))),
        _ => Ok(()),
    }
}

fn failed(path: &Path, errno: Errno) -> ExitError {
    let path = shown(path);
    match errno {
        Errno::ELOOP => {
            let message = format!("pid file {path}: this is a symbolic link, which is never followed");
            ExitError::config(message).with_remedy("remove it, or choose another with --pidfile")
        }
        Errno::EACCES | Errno::EPERM => {
            ExitError::not_permitted(format!("pid file {path}: {}", errno.desc()))
                .with_remedy("choose a folder that this user may write to with --pidfile")
        }
        Errno::ENOENT => ExitError::config(format!("pid file {path}: its folder does not exist"))
            .with_remedy("make it, or choose another file with --pidfile"),
        _ => ExitError::from_io(&errno.into(), ExitStatus::Config, format!("pid file {path}"))
            .with_remedy("choose another file with --pidfile"),
    }
}

fn held(dir: &OwnedFd, path: &Path, name: &std::ffi::OsStr) -> ExitError {
    let mut text = String::new();
    if let Ok(fd) = openat(
        dir,
        name,
        OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    ) {
        let _ = File::from(fd).take(16).read_to_string(&mut text);
    }
    let who = match text.trim().parse::<u32>() {
        Ok(pid) => format!("another isatapd (process {pid})"),
        Err(_) => "another process".to_owned(),
    };
    ExitError::unavailable(format!("{who} holds the pid file {}", shown(path)))
        .with_remedy("stop it first, or give this one its own with --pidfile")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn bench() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("isatapd.pid");
        (dir, path)
    }

    #[test]
    fn holds_our_pid_and_goes_away() {
        let (_dir, path) = bench();
        let pidfile = PidFile::acquire(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        pidfile.remove();
        assert!(!path.exists());
    }

    #[test]
    fn the_second_one_is_told_who_the_first_is() {
        let (_dir, path) = bench();
        let _first = PidFile::acquire(&path).unwrap();
        let error = PidFile::acquire(&path).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Unavailable);
        let expected = format!(
            "another isatapd (process {}) holds the pid file {}; stop it first, or give this one its own with --pidfile",
            std::process::id(),
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(path.exists());
    }

    #[test]
    fn a_file_left_behind_stops_nobody() {
        let (_dir, path) = bench();
        std::fs::write(&path, "4194304 and a lot more text").unwrap();
        let _pidfile = PidFile::acquire(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
    }

    /// FAULTS 73.
    #[test]
    fn links_and_other_things_are_refused_untouched() {
        let (dir, path) = bench();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        let error = PidFile::acquire(&path).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Config);
        assert!(
            error
                .to_string()
                .contains("this is a symbolic link, which is never followed"),
            "{error}"
        );
        assert_eq!(check(&path).unwrap_err(), error);

        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&victim, &path).unwrap();
        assert_eq!(PidFile::acquire(&path).unwrap_err().status(), ExitStatus::Config);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");

        let missing = dir.path().join("no/such/dir/x");
        assert_eq!(
            PidFile::acquire(&missing).unwrap_err().status(),
            ExitStatus::Config
        );
        assert_eq!(
            PidFile::acquire(dir.path()).unwrap_err().status(),
            ExitStatus::Config
        );
        assert_eq!(
            PidFile::acquire(Path::new("/")).unwrap_err().status(),
            ExitStatus::Config
        );
    }

    #[test]
    fn a_file_can_be_left_to_a_successor() {
        let (_dir, path) = bench();
        let first = PidFile::acquire(&path).unwrap();
        let second = PidFile::inherit(first.handle().unwrap()).unwrap();
        // As after an exec: nobody closes anything in order.
        std::mem::forget(first);
        assert_eq!(
            PidFile::acquire(&path).unwrap_err().status(),
            ExitStatus::Unavailable
        );
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_successors_file_is_left_alone() {
        let (_dir, path) = bench();
        let first = PidFile::acquire(&path).unwrap();
        // An operator removed the file and started another daemon.
        std::fs::remove_file(&path).unwrap();
        let second = PidFile::acquire(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
