//! A control group with little memory, of either version of the kernel's interface, gone on drop.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::daemon::program;

/// Groups of one process of tests are told apart by this.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A group whose processes may use so much memory together.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    second_version: bool,
}

impl MemoryGroup {
    /// With a limit in bytes.
    ///
    /// # Panics
    /// When this machine has no memory controller to make a group of.
    pub fn new(limit: u64) -> Self {
        let name = format!(
            "it-{}-{}",
            std::process::id(),
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let first = Path::new("/sys/fs/cgroup/memory");
        let second_version = !first.is_dir();
        let root = if second_version {
            // The root may have processes and groups with controllers both.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            Path::new("/sys/fs/cgroup")
        } else {
            first
        };
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("a group at {}: {e}", folder.display()));
        let group = Self {
            folder,
            second_version,
        };
        group.limit(limit);
        group
    }

    /// Sets another limit, in bytes.
    ///
    /// # Panics
    /// When there is no memory controller.
    pub fn limit(&self, bytes: u64) {
        let file = self.either("memory.max", "memory.limit_in_bytes");
        fs::write(&file, bytes.to_string()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// How often a process was ended because there was no more.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn killed(&self) -> u64 {
        let file = self.either("memory.events", "memory.oom_control");
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or_else(|| panic!("no count of kills in {text}"))
    }

    /// A program that becomes `name` inside the group; it lies in `folder`.
    ///
    /// # Panics
    /// When `folder` cannot be written to.
    pub fn enclosing(&self, folder: &TempDir, name: &str) -> PathBuf {
        let script = folder.path().join(name);
        let text = format!(
            "#!/bin/sh\necho $$ >{}\nexec {} \"$@\"\n",
            self.folder.join("cgroup.procs").display(),
            program(name).display()
        );
        fs::write(&script, text).expect("write the script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("make it a program");
        script
    }

    /// Moves this machine's process `pid` into the group.
    ///
    /// # Panics
    /// When it is not there any more.
    pub fn adopt(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("a process to move");
    }

    fn either(&self, second: &str, first: &str) -> PathBuf {
        self.folder.join(if self.second_version { second } else { first })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // What is still inside goes where it came from.
        let procs = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        let outside = self.folder.with_file_name("cgroup.procs");
        for pid in procs.lines() {
            let _ = fs::write(&outside, pid);
        }
        let _ = fs::remove_dir(&self.folder);
    }
}
