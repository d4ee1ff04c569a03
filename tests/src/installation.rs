//! A daemon that is installed where a test can replace it: by another version, by something that is none, by nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::daemon::program;

/// A folder with the program in it.
#[derive(Debug)]
pub struct Installation {
    folder: TempDir,
    path: PathBuf,
}

impl Installation {
    /// With a copy of the daemon of this workspace.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isatapd");
        let installation = Self { folder, path };
        installation.put_daemon();
        installation
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another program in its place, with this mode.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, program: impl AsRef<[u8]>, mode: u32) {
        let new = self.folder.path().join("new");
        fs::write(&new, program).expect("a program");
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("a mode");
        fs::rename(&new, &self.path).expect("in its place");
    }

    /// Puts the daemon of this workspace in its place.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn put_daemon(&self) {
        self.put(fs::read(program("isatapd")).expect("the daemon"), 0o755);
    }

    /// Puts the daemon in its place, with programs for the kernel that no kernel takes.
    ///
    /// # Panics
    /// When they are not found in it.
    pub fn put_without_programs(&self) {
        /// An object file of the kernel's machine: ELF of 64 bits, little end first.
        const START: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
        const MACHINE: [u8; 2] = [247, 0];
        let mut bytes = fs::read(program("isatapd")).expect("the daemon");
        let starts: Vec<_> = (0..bytes.len() - 20)
            .filter(|at| bytes[*at..].starts_with(&START) && bytes[at + 18..].starts_with(&MACHINE))
            .collect();
        assert_eq!(starts.len(), 1, "the object of the programs");
        bytes[starts[0]] = 0;
        self.put(bytes, 0o755);
    }

    /// Puts a program in its place whose trial waits for [`Installation::vanish`], and is passed then.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put_patient(&self) {
        let bell = self.bell();
        mkfifo(&bell, Mode::S_IRWXU).expect("a pipe");
        let script = format!(
            "#!/bin/sh\nread line < {}\nexec {} \"$@\"\n",
            bell.display(),
            program("isatapd").display()
        );
        self.put(script, 0o755);
    }

    /// Waits until [that](Installation::put_patient) is being tried, and takes it away before the trial is passed.
    ///
    /// # Panics
    /// When it is not there.
    pub fn vanish(&self) {
        // Opened when the other side is.
        let mut ring = fs::OpenOptions::new()
            .write(true)
            .open(self.bell())
            .expect("a listener");
        self.remove();
        ring.write_all(b"now\n").expect("a listener");
    }

    /// Takes the program away.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&self) {
        fs::remove_file(&self.path).expect("it is there");
    }

    fn bell(&self) -> PathBuf {
        self.folder.path().join("bell")
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self::new()
    }
}
