//! Control groups with little of something, of either version of the kernel's interface, gone on drop.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::daemon::program;

/// Groups of one process of tests are told apart by this.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A group of one controller.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    second_version: bool,
}

impl Group {
    fn new(controller: &str) -> Self {
        let name = format!(
            "it-{}-{}",
            std::process::id(),
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let first = Path::new("/sys/fs/cgroup").join(controller);
        let second_version = !first.is_dir();
        let root = if second_version {
            // The root may have processes and groups with controllers both.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"));
            PathBuf::from("/sys/fs/cgroup")
        } else {
            first
        };
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("a group at {}: {e}", folder.display()));
        Self {
            folder,
            second_version,
        }
    }

    fn write(&self, name: &str, value: &str) {
        let file = self.folder.join(name);
        fs::write(&file, value).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    fn read(&self, name: &str) -> String {
        let file = self.folder.join(name);
        fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    fn either<'a>(&self, second: &'a str, first: &'a str) -> &'a str {
        if self.second_version { second } else { first }
    }
}

impl Drop for Group {
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

/// A group whose processes may use so much memory together.
#[derive(Debug)]
pub struct MemoryGroup(Group);

impl MemoryGroup {
    /// With a limit in bytes.
    ///
    /// # Panics
    /// When this machine has no memory controller to make a group of.
    pub fn new(limit: u64) -> Self {
        let group = Self(Group::new("memory"));
        group.limit(limit);
        group
    }

    /// Sets another limit, in bytes.
    ///
    /// # Panics
    /// When there is no memory controller.
    pub fn limit(&self, bytes: u64) {
        let name = self.0.either("memory.max", "memory.limit_in_bytes");
        self.0.write(name, &bytes.to_string());
    }

    /// How often a process was ended because there was no more.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn killed(&self) -> u64 {
        let text = self.0.read(self.0.either("memory.events", "memory.oom_control"));
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
            self.0.folder.join("cgroup.procs").display(),
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
        self.0.write("cgroup.procs", &pid.to_string());
    }
}

/// A group whose processes get no further thread or process.
#[derive(Debug)]
pub struct FullGroup {
    _group: Group,
}

impl FullGroup {
    /// With these processes of this machine, and all their threads.
    ///
    /// # Panics
    /// When one is not there any more, or this machine has no controller of numbers of processes to make a group of.
    pub fn around(processes: &[i32]) -> Self {
        let group = Group::new("pids");
        for process in processes {
            group.write("cgroup.procs", &process.to_string());
        }
        // No less than there are: what is inside stays.
        group.write("pids.max", "0");
        Self { _group: group }
    }
}
