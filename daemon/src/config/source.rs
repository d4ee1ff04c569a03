//! Where the configuration file is, and whether its content may be believed.
//!
//! The directory is kept open, so that a reload finds the file after the root directory was changed, also when an
//! editor has replaced it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::diagnostic::{ConfigError, shown};
use super::resolved::User;

/// The file read when none is named.
pub const DEFAULT_PATH: &str = "/etc/isatapd.conf";

/// Largest file read, in bytes.
pub const MAX_FILE_LEN: u64 = 1 << 20;

/// A place for a configuration file.
#[derive(Debug)]
pub struct ConfigSource {
    path: PathBuf,
    shown: Arc<str>,
    /// Whether the operator named the file: then it must exist.
    named: bool,
    /// The directory, and the name of the file in it; `None` when there is no such directory.
    place: Option<(OwnedFd, OsString)>,
    /// Who else but root may own the file: whoever started us.
    owner: u32,
}

/// What was read.
#[derive(Debug)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Content {
    /// Whether `user` could read the file again, by its permission bits.
    pub fn readable_by(&self, user: &User) -> bool {
        let bits = match (self.uid == user.uid, self.gid == user.gid) {
            (true, _) => self.mode >> 6,
            (false, true) => self.mode >> 3,
            (false, false) => self.mode,
        };
        bits & 0o4 != 0
    }
}

/// What says "no configuration at all" everywhere on Unix.
const NO_FILE: &str = "/dev/null";

/// What is said of one where the file should be.
const DIRECTORY: &str = "this is a directory, not a file";

impl ConfigSource {
    /// Finds the directory of `named`, or of the default file. A symbolic link is followed now and never again.
    ///
    /// # Errors
    /// A named file that is not there.
    pub fn open(named: Option<&Path>) -> Result<Self, ConfigError> {
        let written = named.unwrap_or(Path::new(DEFAULT_PATH));
        Self::open_at(written, named.is_some())
    }

    fn open_at(written: &Path, named: bool) -> Result<Self, ConfigError> {
        let shown: Arc<str> = shown(written).into();
        let owner = nix::unistd::geteuid().as_raw();
        let mut source = Self {
            path: written.to_owned(),
            shown,
            named,
            place: None,
            owner,
        };
        if written == Path::new(NO_FILE) {
            source.named = false;
            return Ok(source);
        }
        match std::fs::canonicalize(written) {
            Ok(real) => source.path = real,
            // A link that leads nowhere was put there by somebody.
            Err(error) if named || written.is_symlink() => return Err(source.cannot_read(&error)),
            Err(_) => {}
        }
        if let (Some(dir), Some(name)) = (source.path.parent(), source.path.file_name()) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            match open(dir, flags, Mode::empty()) {
                Ok(fd) => source.place = Some((fd, name.to_owned())),
                Err(errno) if named => return Err(source.cannot_read(&errno.into())),
                Err(_) => {}
            }
        }
        if named && source.place.is_none() {
            return Err(source.refuse("this is not a file"));
        }
        Ok(source)
    }

    /// The path as it is now, links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the file is read in again.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.place.as_ref().map(|(dir, _)| dir.as_fd())
    }

    /// The path as the operator wrote it, for messages.
    pub fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// Reads the file; `None` when nobody named it and it does not exist.
    ///
    /// # Errors
    /// It cannot be read, or somebody else could have written it.
    pub fn read(&self) -> Result<Option<Content>, ConfigError> {
        let Some((dir, name)) = &self.place else {
            return Ok(None);
        };
        // O_NONBLOCK: opening a FIFO must not wait for a writer.
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = match openat(dir, name.as_os_str(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) if !self.named => return Ok(None),
            Err(Errno::ELOOP) => {
                return Err(
                    self.refuse("this has become a symbolic link, which is followed only at start; restart")
                );
            }
            // The engine may read files below this folder and no folders, and is told no more than that.
            Err(Errno::EACCES) if is_directory(dir, name) => return Err(self.refuse(DIRECTORY)),
            Err(errno) => return Err(self.cannot_read(&errno.into())),
        };
        self.read_open(file).map(Some)
    }

    fn read_open(&self, file: File) -> Result<Content, ConfigError> {
        let metadata = file.metadata().map_err(|error| self.cannot_read(&error))?;
        if metadata.is_dir() {
            return Err(self.refuse(DIRECTORY));
        }
        if !metadata.is_file() {
            return Err(self.refuse("this is not a file"));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.uid() != 0 && metadata.uid() != self.owner {
            let uid = metadata.uid();
            return Err(self.refuse(&format!(
                "the file belongs to user {uid}, not to root; chown root it"
            )));
        }
        if mode & 0o022 != 0 {
            return Err(self.refuse(&format!(
                "others may write the file (mode {mode:04o}); chmod go-w it"
            )));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_LEN + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.cannot_read(&error))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_LEN {
            return Err(self.refuse(&format!("the file has more than {MAX_FILE_LEN} bytes")));
        }
        Ok(Content {
            bytes,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode,
        })
    }

    fn cannot_read(&self, error: &std::io::Error) -> ConfigError {
        // A daemon starts as one user and reads it again as another.
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "; after its start isatapd reads it as User, who must be able to"
            }
            _ => "",
        };
        self.refuse(&format!("the configuration cannot be read: {error}{remedy}"))
    }

    fn refuse(&self, reason: &str) -> ConfigError {
        ConfigError::single(format!("{}: {reason}", self.shown))
    }
}

/// Whether that is the name of a directory now; asked of a handle that opens nothing.
fn is_directory(dir: &OwnedFd, name: &OsStr) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let handle = openat(dir, name, flags, Mode::empty()).map(File::from);
    handle.is_ok_and(|handle| handle.metadata().is_ok_and(|metadata| metadata.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.path(name);
            fs::write(&path, "Mtu 1400\n").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }

        fn refusal(&self, path: &Path) -> String {
            let error = match ConfigSource::open(Some(path)) {
                Err(error) => error,
                Ok(source) => source.read().unwrap_err(),
            };
            assert_eq!(error.status(), crate::exit::ExitStatus::Config);
            error
                .to_string()
                .replace(self.dir.path().to_str().unwrap(), "DIR")
        }
    }

    #[test]
    fn only_a_named_file_must_exist() {
        let bench = Bench::new();
        let missing = bench.path("missing");
        assert_eq!(
            bench.refusal(&missing),
            "DIR/missing: the configuration cannot be read: No such file or directory (os error 2)"
        );
        for path in [missing, bench.path("no/such/dir")] {
            assert!(
                ConfigSource::open_at(&path, false)
                    .unwrap()
                    .read()
                    .unwrap()
                    .is_none()
            );
        }
    }

    #[test]
    fn a_default_file_that_leads_nowhere_is_told_of() {
        let bench = Bench::new();
        let path = bench.path("f");
        for (to, why) in [
            ("missing", "No such file"),
            ("f", "Too many levels of symbolic links"),
        ] {
            std::os::unix::fs::symlink(to, &path).unwrap();
            let error = ConfigSource::open_at(&path, false).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_default_file_that_appears_later_is_read() {
        let bench = Bench::new();
        let source = ConfigSource::open_at(&bench.path("f"), false).unwrap();
        assert!(source.read().unwrap().is_none());
        bench.write("f", 0o644);
        assert_eq!(source.read().unwrap().unwrap().bytes, b"Mtu 1400\n");
    }

    #[test]
    fn a_file_others_may_write_is_refused() {
        let bench = Bench::new();
        for (mode, shown) in [(0o666, "0666"), (0o664, "0664"), (0o646, "0646")] {
            let path = bench.write("f", mode);
            let expected = format!("DIR/f: others may write the file (mode {shown}); chmod go-w it");
            assert_eq!(bench.refusal(&path), expected);
        }
        let path = bench.write("f", 0o600);
        assert!(ConfigSource::open(Some(&path)).unwrap().read().unwrap().is_some());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let bench = Bench::new();
        let path = bench.write("f", 0o644);
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert_eq!(
            bench.refusal(&path),
            "DIR/f: the file belongs to user 65534, not to root; chown root it"
        );
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let bench = Bench::new();
        nix::unistd::mkfifo(&bench.path("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(bench.refusal(&bench.path("fifo")), "DIR/fifo: this is not a file");
        fs::create_dir(bench.path("dir")).unwrap();
        assert_eq!(
            bench.refusal(&bench.path("dir")),
            "DIR/dir: this is a directory, not a file"
        );
        assert_eq!(bench.refusal(Path::new("/")), "/: this is not a file");
        let nothing = ConfigSource::open(Some(Path::new("/dev/null"))).unwrap();
        assert!(nothing.read().unwrap().is_none());
    }

    #[test]
    fn links_are_followed_at_start_only() {
        let bench = Bench::new();
        let real = bench.write("real", 0o644);
        std::os::unix::fs::symlink(&real, bench.path("link")).unwrap();
        let source = ConfigSource::open(Some(&bench.path("link"))).unwrap();
        assert!(source.read().unwrap().is_some());
        fs::remove_file(&real).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &real).unwrap();
        let error = source.read().unwrap_err().to_string();
        assert!(
            error.ends_with("this has become a symbolic link, which is followed only at start; restart"),
            "{error}"
        );
    }

    #[test]
    fn a_replaced_file_is_found_again() {
        let bench = Bench::new();
        let path = bench.write("f", 0o644);
        let source = ConfigSource::open(Some(&path)).unwrap();
        fs::write(bench.path("new"), "Mtu 1300\n").unwrap();
        fs::rename(bench.path("new"), &path).unwrap();
        assert_eq!(source.read().unwrap().unwrap().bytes, b"Mtu 1300\n");
    }

    #[test]
    fn a_huge_file_is_refused() {
        let bench = Bench::new();
        let path = bench.write("f", 0o644);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_FILE_LEN + 1)
            .unwrap();
        assert_eq!(
            bench.refusal(&path),
            "DIR/f: the file has more than 1048576 bytes"
        );
    }

    #[test]
    fn who_can_read_it_again() {
        let user = User {
            name: "u".into(),
            uid: 7,
            gid: 8,
        };
        let content = |uid, gid, mode| Content {
            bytes: Vec::new(),
            uid,
            gid,
            mode,
        };
        assert!(content(0, 0, 0o644).readable_by(&user));
        assert!(!content(0, 0, 0o640).readable_by(&user));
        assert!(content(0, 8, 0o640).readable_by(&user));
        assert!(content(7, 0, 0o400).readable_by(&user));
        assert!(!content(7, 0, 0o044).readable_by(&user));
    }
}
