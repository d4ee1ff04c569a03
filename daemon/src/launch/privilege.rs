//! Giving up power: root directory, user, groups, capabilities. What cannot be given up stops the daemon.
//!
//! Capabilities belong to threads. The control thread keeps CAP_NET_ADMIN for its interface; threads that carry packets
//! keep nothing. FAULTS 71.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use super::require::Identity;
use crate::config::diagnostic::shown;
use crate::config::resolved::User;
use crate::exit::{ExitError, ExitStatus};

/// What the control thread keeps.
const KEPT: Capability = Capability::CAP_NET_ADMIN;

/// The root directory to be: open, and checked.
#[derive(Debug)]
pub struct ChrootDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl ChrootDir {
    /// Creates `path` (mode 0555, empty) if it is missing, opens and checks it.
    ///
    /// # Errors
    /// Status 78 when it is no directory or others could put something there; 77 when we may not create it.
    pub fn prepare(path: &Path) -> Result<Self, ExitError> {
        if !path.exists() {
            create(path).map_err(|error| ExitError::from_io(&error, ExitStatus::Config, name(path)))?;
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(path, flags, Mode::empty())
            .map_err(|errno| ExitError::from_io(&errno.into(), ExitStatus::Config, name(path)))?;
        check(path)?;
        Ok(Self {
            path: path.to_owned(),
            dir,
        })
    }

    fn enter(&self) -> Result<(), ExitError> {
        let failed = |errno: nix::errno::Errno| {
            ExitError::from_io(
                &errno.into(),
                ExitStatus::Other,
                format!("{}: cannot be entered", name(&self.path)),
            )
        };
        nix::unistd::fchdir(&self.dir).map_err(failed)?;
        nix::unistd::chroot(".").map_err(failed)?;
        nix::unistd::chdir("/").map_err(failed)
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

/// Everything the control thread enters when the privileged part of the start is over.
#[derive(Debug)]
pub struct Sandbox {
    root: ChrootDir,
    user: User,
}

impl Sandbox {
    /// Prepares; nothing is given up yet.
    ///
    /// # Errors
    /// As [`ChrootDir::prepare`].
    pub fn prepare(root: &Path, user: User) -> Result<Self, ExitError> {
        Ok(Self {
            root: ChrootDir::prepare(root)?,
            user,
        })
    }

    /// Changes the root directory, becomes the user, keeps CAP_NET_ADMIN in the calling thread and nothing else, and
    /// checks that it is so. Threads started afterwards inherit this state; [`drop_all_in_thread`] takes the rest.
    ///
    /// # Errors
    /// Anything that could not be given up. The process must end then.
    pub fn enter(self) -> Result<(), ExitError> {
        self.root.enter()?;
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        let become_user = || -> nix::Result<()> {
            drop_bounding_set();
            // A service manager may have made us this user already, and then not have given us what a change takes.
            let identity = Identity::read()?;
            if !identity.has_only_group(gid) {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setresgid(gid, gid, gid)?;
            }
            if !identity.has_user(uid) {
                nix::sys::prctl::set_keepcaps(true)?;
                nix::unistd::setresuid(uid, uid, uid)?;
                nix::sys::prctl::set_keepcaps(false)?;
            }
            nix::sys::prctl::set_no_new_privs()
        };
        become_user().map_err(|errno| {
            let context = format!("cannot become user {}", self.user.name);
            ExitError::from_io(&errno.into(), ExitStatus::NotPermitted, context)
        })?;
        let keep: CapsHashSet = [KEPT].into_iter().collect();
        keep_in_thread(&keep)
            .and_then(|()| verify_user(uid, gid))
            .map_err(|reason| ExitError::not_permitted(format!("privileges cannot be dropped: {reason}")))
    }
}

/// As far as possible: without CAP_SETPCAP the set stays, and no_new_privs makes it worthless all the same.
fn drop_bounding_set() {
    if let Ok(bounding) = caps::read(None, CapSet::Bounding) {
        for cap in bounding {
            let _ = caps::drop(None, CapSet::Bounding, cap);
        }
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
        let held = caps::read(None, set).map_err(failed)?;
        if held != *expected {
            return Err(format!("the {set:?} set is {held:?} afterwards"));
        }
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

/// Takes every capability from the calling thread for ever, and checks it: what a worker does first.
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
    fn the_sandbox_leaves_net_admin_and_nothing_else() {
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
            ("0000000000001000", "0000000000001000")
        );
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
        assert!(text.contains("\nroot: 0 entries\n"), "{text}");
        assert!(text.contains("\nthread: 0000000000000000\n"), "{text}");
    }

    #[test]
    #[ignore = "run by the_sandbox_leaves_net_admin_and_nothing_else in a process of its own"]
    fn inside_the_sandbox() {
        let Some(root) = std::env::var_os(INSIDE) else {
            return;
        };
        let user = User {
            name: "nobody".into(),
            uid: 65534,
            gid: 65534,
        };
        // The file of another thread shows nothing of this one; it is read through descriptors opened here.
        let of_this_thread = || std::fs::File::open("/proc/thread-self/status").unwrap();
        let mut control = of_this_thread();
        let (sender, receiver) = std::sync::mpsc::channel();
        Sandbox::prepare(Path::new(&root), user).unwrap().enter().unwrap();
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
