//! Giving up power: root directory, user, groups, capabilities. What cannot be given up stops the daemon.
//!
//! The monitor keeps what starting an engine and working on the interface takes; the engine's process keeps nothing, in
//! no thread (FAULTS 71). What that is, and what a start takes besides, is listed in [`super::require`].

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use caps::{CapSet, CapsHashSet};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use tracing::warn;

use super::require::{Identity, kept_by_monitor};
use crate::config::diagnostic::shown;
use crate::config::resolved::Lane;
use crate::exit::{ExitError, ExitStatus};

/// Leaves this process, the monitor, what [`kept_by_monitor`] lists for this lane, and takes the way to more from it and from
/// every process it starts.
///
/// # Errors
/// What could not be given up. The process must end then.
pub fn confine_monitor(lane: Lane) -> Result<(), ExitError> {
    let failed = |error: String| ExitError::not_permitted(format!("privileges cannot be dropped: {error}"));
    let text = |error: caps::errors::CapsError| failed(error.to_string());
    let wanted: CapsHashSet = kept_by_monitor(lane).collect();
    let held = caps::read(None, CapSet::Permitted).map_err(text)?;
    let keep: CapsHashSet = held.intersection(&wanted).copied().collect();
    limit_bounding_set(&wanted);
    nix::sys::prctl::set_no_new_privs().map_err(|errno| failed(errno.desc().to_owned()))?;
    // Root's children have what root may have; those of another user only what is handed down to them.
    let inherited = if nix::unistd::geteuid().is_root() {
        CapsHashSet::new()
    } else {
        keep.clone()
    };
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, &keep).map_err(text)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(text)?;
    caps::set(None, CapSet::Inheritable, &inherited).map_err(text)?;
    if !inherited.is_empty() {
        caps::set(None, CapSet::Ambient, &inherited).map_err(text)?;
    }
    check_set(CapSet::Permitted, &keep)
        .and_then(|()| check_set(CapSet::Effective, &keep))
        .map_err(failed)
}

/// The root directory to be: open, and checked.
#[derive(Debug)]
pub struct ChrootDir {
    dir: OwnedFd,
}

impl ChrootDir {
    /// Creates `path` (mode 0555, empty) if it is missing, opens and checks it; warns of one that is not empty.
    ///
    /// # Errors
    /// Status 78 when it is no directory or others could put something there; 77 when we may not create it.
    pub fn prepare(path: &Path) -> Result<Self, ExitError> {
        if !path.exists() {
            create(path).map_err(|error| {
                ExitError::from_io(&error, ExitStatus::Config, name(path))
                    .with_remedy("choose another with --chrootdir")
            })?;
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(path, flags, Mode::empty())
            .map_err(|errno| ExitError::from_io(&errno.into(), ExitStatus::Config, name(path)))?;
        check(path)?;
        if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            warn!(
                "{} is not empty: whoever broke into the engine would see what is there; empty it, or choose another",
                name(path)
            );
        }
        Ok(Self { dir })
    }

    /// The descriptor by which a process enters it.
    pub fn into_fd(self) -> OwnedFd {
        self.dir
    }
}

/// Whether an existing `path` could be the root directory; for `--check-config`. One that is missing will be made.
///
/// # Errors
/// Status 78, as [`ChrootDir::prepare`].
pub fn check(path: &Path) -> Result<(), ExitError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ExitError::from_io(&error, ExitStatus::Config, name(path))),
    };
    if !metadata.is_dir() {
        return Err(ExitError::config(format!(
            "{}: this is not a directory",
            name(path)
        )));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.uid() != 0 || mode & 0o022 != 0 {
        let message = format!(
            "{}: others may write there (owner {}, mode {mode:04o})",
            name(path),
            metadata.uid()
        );
        return Err(ExitError::config(message).with_remedy("chown root and chmod 0555 it, or choose another"));
    }
    Ok(())
}

fn name(path: &Path) -> String {
    format!("chroot directory {}", shown(path))
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o555))
}

/// What the engine's process enters before it reads anything.
#[derive(Debug)]
pub struct Sandbox {
    root: OwnedFd,
    ids: [u32; 2],
}

impl Sandbox {
    /// Of a root directory that [`ChrootDir::prepare`] has opened, and user and group to become.
    pub fn new(root: OwnedFd, ids: [u32; 2]) -> Self {
        Self { root, ids }
    }

    /// Changes the root directory, becomes the user, keeps no capability, and checks that it is so. To be called while
    /// there is one thread: those started afterwards inherit this state.
    ///
    /// # Errors
    /// Anything that could not be given up. The process must end then.
    pub fn enter(self) -> Result<(), ExitError> {
        self.change_root().map_err(|errno| {
            ExitError::from_io(
                &errno.into(),
                ExitStatus::Other,
                "the chroot directory cannot be entered",
            )
        })?;
        let [uid, gid] = self.ids;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let become_user = || -> nix::Result<()> {
            limit_bounding_set(&CapsHashSet::new());
            // A service manager may have made us this user already, and then not have given us what a change takes.
            let identity = Identity::read()?;
            if !identity.has_only_group(gid) {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setresgid(gid, gid, gid)?;
            }
            if !identity.has_user(uid) {
                nix::unistd::setresuid(uid, uid, uid)?;
            }
            nix::sys::prctl::set_no_new_privs()
        };
        become_user().map_err(|errno| {
            let context = format!("cannot become user {uid}");
            ExitError::from_io(&errno.into(), ExitStatus::NotPermitted, context)
        })?;
        keep_in_thread(&CapsHashSet::new())
            .and_then(|()| verify_user(uid, gid))
            .map_err(|reason| ExitError::not_permitted(format!("privileges cannot be dropped: {reason}")))
    }

    fn change_root(&self) -> nix::Result<()> {
        nix::unistd::fchdir(self.root.as_fd())?;
        nix::unistd::chroot(".")?;
        nix::unistd::chdir("/")
    }
}

/// As far as possible: without CAP_SETPCAP the set stays, and no_new_privs makes it worthless all the same.
fn limit_bounding_set(keep: &CapsHashSet) {
    if let Ok(bounding) = caps::read(None, CapSet::Bounding) {
        for cap in bounding.difference(keep) {
            let _ = caps::drop(None, CapSet::Bounding, *cap);
        }
    }
}

fn check_set(set: CapSet, expected: &CapsHashSet) -> Result<(), String> {
    let held = caps::read(None, set).map_err(|error| error.to_string())?;
    if held == *expected {
        Ok(())
    } else {
        Err(format!("the {set:?} set is {held:?} afterwards"))
    }
}

/// Leaves the calling thread exactly the capabilities `keep`, none of them inheritable, and checks it.
fn keep_in_thread(keep: &CapsHashSet) -> Result<(), String> {
    let failed = |error: caps::errors::CapsError| error.to_string();
    // Kernels before 4.3 have no ambient set; then there is nothing to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, keep).map_err(failed)?;
    caps::set(None, CapSet::Permitted, keep).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    for (set, expected) in [
        (CapSet::Effective, keep),
        (CapSet::Permitted, keep),
        (CapSet::Inheritable, &CapsHashSet::new()),
    ] {
        check_set(set, expected)?;
    }
    match caps::read(None, CapSet::Ambient) {
        Ok(ambient) if !ambient.is_empty() => Err(format!("the ambient set is {ambient:?} afterwards")),
        _ => Ok(()),
    }
}

fn verify_user(uid: Uid, gid: Gid) -> Result<(), String> {
    let failed = |errno: nix::errno::Errno| errno.desc().to_owned();
    let identity = Identity::read().map_err(failed)?;
    if !identity.has_user(uid) || !identity.has_only_group(gid) {
        return Err(format!("the process is {identity:?} afterwards"));
    }
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err("the process could become root again".into());
    }
    if !nix::sys::prctl::get_no_new_privs().map_err(failed)? {
        return Err("no_new_privs is not set afterwards".into());
    }
    Ok(())
}

/// Checks that the calling thread has no capability and no way to one, and takes what there were: what a worker does first.
///
/// # Errors
/// What is left. The thread must not run then.
pub fn drop_all_in_thread() -> Result<(), String> {
    nix::sys::prctl::set_no_new_privs().map_err(|errno| format!("no_new_privs: {}", errno.desc()))?;
    keep_in_thread(&CapsHashSet::new())?;
    match nix::sys::prctl::get_no_new_privs() {
        Ok(true) => Ok(()),
        _ => Err("no_new_privs is not set afterwards".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::process::Command;

    fn status(text: &str) -> HashMap<String, String> {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| {
                (
                    name.to_owned(),
                    value.split_whitespace().collect::<Vec<_>>().join(" "),
                )
            })
            .collect()
    }

    #[test]
    fn a_thread_gives_up_everything_and_its_siblings_nothing() {
        let before = caps::read(None, CapSet::Effective).unwrap();
        let after = std::thread::spawn(|| {
            drop_all_in_thread().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let after = status(&after.join().unwrap());
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(after[set], "0000000000000000", "{set}");
        }
        assert_eq!(after["NoNewPrivs"], "1");
        assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before);
    }

    #[test]
    fn the_root_directory_is_made_and_checked() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("var/empty/isatapd");
        ChrootDir::prepare(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o555);
        ChrootDir::prepare(&path).unwrap();

        for mode in [0o775, 0o757] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = ChrootDir::prepare(&path).unwrap_err();
            assert_eq!(error.status(), ExitStatus::Config);
            assert!(
                error
                    .to_string()
                    .contains(&format!("others may write there (owner 0, mode {mode:04o})"))
            );
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert_eq!(
            ChrootDir::prepare(&path).unwrap_err().status(),
            ExitStatus::Config
        );
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            ChrootDir::prepare(&file).unwrap_err().status(),
            ExitStatus::Config
        );
        assert_eq!(check(&file).unwrap_err().status(), ExitStatus::Config);
    }

    const INSIDE: &str = "ISATAPD_TEST_SANDBOX";

    /// The whole process changes for ever, so this test runs itself again in a process that may.
    #[test]
    fn the_sandbox_leaves_nothing() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let test = "launch::privilege::tests::inside_the_sandbox";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(INSIDE, dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let status = status(&text);
        assert_eq!(status["Uid"], "65534 65534 65534 65534");
        assert_eq!(status["Gid"], "65534 65534 65534 65534");
        assert_eq!(status["Groups"], "");
        assert_eq!(
            (status["CapPrm"].as_str(), status["CapEff"].as_str()),
            ("0000000000000000", "0000000000000000")
        );
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
        assert!(text.contains("\nroot: 0 entries\n"), "{text}");
        assert!(text.contains("\nthread: 0000000000000000\n"), "{text}");
    }

    #[test]
    #[ignore = "run by the_sandbox_leaves_nothing in a process of its own"]
    fn inside_the_sandbox() {
        let Some(root) = std::env::var_os(INSIDE) else {
            return;
        };
        // The file of another thread shows nothing of this one; it is read through descriptors opened here.
        let of_this_thread = || std::fs::File::open("/proc/thread-self/status").unwrap();
        let mut control = of_this_thread();
        let (sender, receiver) = std::sync::mpsc::channel();
        let root = ChrootDir::prepare(Path::new(&root)).unwrap().into_fd();
        Sandbox::new(root, [65534, 65534]).enter().unwrap();
        let worker = std::thread::spawn(move || {
            drop_all_in_thread().unwrap();
            sender
                .send(caps::read(None, CapSet::Effective).unwrap().len())
                .unwrap();
        });
        worker.join().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut control, &mut text).unwrap();
        println!("\n{text}");
        println!("\nroot: {} entries", std::fs::read_dir("/").unwrap().count());
        println!("\nthread: {:016x}", receiver.recv().unwrap());
    }
}
