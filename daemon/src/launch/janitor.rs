//! Removes the daemon's files once the daemon is gone.
//!
//! An unprivileged daemon in a chroot cannot remove its pid file from `/run`, and a killed one removes nothing. A small
//! process, this program again, waits for the other end of its standard input to close, then removes exactly the files
//! it was told, if they are still the same ones. It reads nothing, and keeps no capability but that of removing files.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The hidden first argument that makes this program a janitor; triples of path, device and inode follow.
pub const ARGUMENT: &str = "--remove-when-closed";

/// How long [`Janitor::finish`] waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which file, beyond its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Absolute path.
    pub path: PathBuf,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl FileId {
    /// The file that is at `path` now; a link is not followed.
    ///
    /// # Errors
    /// There is none.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            dev: metadata.dev(),
            ino: metadata.ino(),
        })
    }
}

/// The daemon's side.
#[derive(Debug)]
pub struct Janitor {
    stream: UnixStream,
    child: Child,
}

impl Janitor {
    /// Starts a janitor for `files`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(files: &[FileId]) -> std::io::Result<Self> {
        Self::start_program(&std::env::current_exe()?, files)
    }

    /// The same with a program that is `isatapd`; for tests, where the running one is not.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_program(program: &Path, files: &[FileId]) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command.arg0("isatapd-janitor").arg(ARGUMENT).current_dir("/");
        for file in files {
            command
                .arg(&file.path)
                .arg(file.dev.to_string())
                .arg(file.ino.to_string());
        }
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        drop(command);
        // It says that it is set up by one byte: from then on no signal to our process group ends it early.
        let mut stream = ours;
        stream.set_read_timeout(Some(PATIENCE))?;
        if let Err(error) = stream.read_exact(&mut [0]) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { stream, child })
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Has the files removed; returns when they are gone, or after a second.
    pub fn finish(self) {
        let Self {
            mut stream,
            mut child,
        } = self;
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let closed = stream.read(&mut [0]).is_ok_and(|len| len == 0);
        if closed {
            let _ = child.wait();
        }
    }
}

/// The files a command line asks to be removed, when it asks for a janitor at all. `arguments` begins with the name of
/// the program.
pub fn requested(arguments: &[OsString]) -> Option<Vec<FileId>> {
    let (flag, rest) = arguments.get(1..)?.split_first()?;
    if flag != ARGUMENT {
        return None;
    }
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse().ok());
    let triples = rest.chunks_exact(3);
    let file = |triple: &[OsString]| match triple {
        [path, dev, ino] => Some(FileId {
            path: path.into(),
            dev: number(dev)?,
            ino: number(ino)?,
        }),
        _ => None,
    };
    Some(triples.filter_map(file).collect())
}

/// The janitor's whole life. Standard input must be the socket of [`Janitor::start`].
///
/// # Errors
/// Privileges cannot be given up, or standard input is not usable.
pub fn run(files: &[FileId]) -> std::io::Result<()> {
    // So that a look for "isatapd" among the processes finds the daemon alone.
    let _ = nix::sys::prctl::set_name(c"isatapd-janitor");
    // Whoever ends the daemon ends its whole group or unit: the janitor comes last and goes by itself.
    let _ = nix::unistd::setsid();
    nix::sys::signal::SigSet::all().thread_block()?;
    let places: Vec<_> = files.iter().filter_map(Place::open).collect();
    keep_only_removing()?;
    let stdin = std::io::stdin();
    let mut stream = UnixStream::from(std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?);
    std::io::Write::write_all(&mut stream, &[1])?;
    let mut ignored = [0; 64];
    while stream.read(&mut ignored).is_ok_and(|len| len > 0) {}
    for place in places {
        place.remove();
    }
    Ok(())
}

fn keep_only_removing() -> std::io::Result<()> {
    let held = caps::read(None, CapSet::Permitted).map_err(std::io::Error::other)?;
    let wanted: CapsHashSet = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER]
        .into_iter()
        .collect();
    let keep: CapsHashSet = held.intersection(&wanted).copied().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep).map_err(std::io::Error::other)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(std::io::Error::other)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

struct Place<'a> {
    dir: OwnedFd,
    file: &'a FileId,
}

impl<'a> Place<'a> {
    fn open(file: &'a FileId) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(file.path.parent()?, flags, Mode::empty()).ok()?;
        Some(Self { dir, file })
    }

    fn remove(&self) {
        let Some(name) = self.file.path.file_name() else {
            return;
        };
        // A successor may have taken over the very same pid file: it is ours only if nobody holds its lock.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let _lock = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => match Flock::lock(std::fs::File::from(fd), FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Some(lock),
                Err(_) => return,
            },
            // A socket cannot be opened, and has no lock: every daemon makes its own.
            Err(Errno::ENXIO) => None,
            Err(_) => return,
        };
        let same = fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (self.file.dev, self.file.ino));
        if same {
            let _ = unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Whether `path` is a socket, for messages of those who bind one.
pub fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(requested(&words(&["isatapd", "-f"])), None);
        assert_eq!(requested(&words(&["isatapd"])), None);
        assert_eq!(requested(&[]), None);
        let file = FileId {
            path: "/run/x".into(),
            dev: 7,
            ino: 8,
        };
        assert_eq!(
            requested(&words(&["isatapd", ARGUMENT, "/run/x", "7", "8"])),
            Some(vec![file])
        );
        assert_eq!(
            requested(&words(&["isatapd", ARGUMENT, "/run/x", "7"])),
            Some(vec![])
        );
    }

    #[test]
    fn only_the_same_and_unlocked_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let id = FileId::of(&path).unwrap();

        let held = Flock::lock(std::fs::File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        Place::open(&id).unwrap().remove();
        assert!(path.exists(), "a successor held it");
        drop(held);

        let other = FileId {
            ino: id.ino + 1,
            ..id.clone()
        };
        Place::open(&other).unwrap().remove();
        assert!(path.exists(), "it was another file");

        Place::open(&id).unwrap().remove();
        assert!(!path.exists());

        let socket = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        Place::open(&FileId::of(&socket).unwrap()).unwrap().remove();
        assert!(!is_socket(&socket));
    }
}
