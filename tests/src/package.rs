//! What `make install` and `make deb` make, of the programs under test.
//!
//! The programs are those of the debug build, so that no test waits for a release build; lists, unit, scripts and
//! metadata are the ones of a release.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::program;
use crate::scratch_root::{BUILT, ScratchRoot};

/// The top of the source tree.
pub fn top() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

/// Man pages and completions, made as `make docs` does.
///
/// # Panics
/// When the program that writes them is not built.
pub fn documents() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let writer = program("examples/documents");
    let made = Command::new(writer).arg(folder.path()).status();
    assert!(made.expect("run the writer of documents").success());
    folder
}

/// A Debian package in a folder of its own.
#[derive(Debug)]
pub struct Package {
    folder: TempDir,
    file: PathBuf,
}

impl Package {
    /// Builds it.
    ///
    /// # Panics
    /// When it cannot be built, with the log.
    pub fn build() -> Self {
        let (folder, docs) = (tempfile::tempdir().expect("a temporary folder"), documents());
        let built = program("isatapd");
        let output = Command::new(top().join("daemon/packaging/deb.sh"))
            .arg(built.parent().expect("a folder"))
            .args([docs.path(), folder.path()])
            .env("FAST", "1")
            .env("DEB_BUILD_OPTIONS", "noautodbgsym")
            .output()
            .expect("run deb.sh");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let file = text.lines().find(|line| line.ends_with(".deb"));
        let file = PathBuf::from(file.unwrap_or_else(|| panic!("no package: {text}")));
        Self { folder, file }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The next version of it, with another configuration file: line `change` is added.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn next_version(&self, version: &str, change: &str) -> PathBuf {
        let tree = self.folder.path().join(version);
        let run = |command: &mut Command| {
            let output = command.output().expect("dpkg is installed");
            assert!(output.status.success(), "{command:?}: {output:?}");
        };
        run(Command::new("dpkg-deb").arg("-R").args([&self.file, &tree]));
        let edit = |path: &str, edit: &dyn Fn(String) -> String| {
            let path = tree.join(path);
            let text = std::fs::read_to_string(&path).expect("read");
            std::fs::write(&path, edit(text)).expect("write");
        };
        edit("DEBIAN/control", &|text| {
            let lines = text.lines().map(|line| match line.starts_with("Version:") {
                true => format!("Version: {version}\n"),
                false => format!("{line}\n"),
            });
            lines.collect()
        });
        edit("etc/isatapd.conf", &|text| format!("{text}{change}\n"));
        let file = self.folder.path().join(format!("{version}.deb"));
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "-b"])
            .args([&tree, &file]));
        file
    }
}

/// `make install`, or `make uninstall`, into a root.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn install_script(root: &ScratchRoot, docs: &Path, what: &str) -> String {
    let script = top().join("daemon/packaging/install.sh");
    let output = Command::new(script)
        .arg(what)
        .env("DESTDIR", root.path("/"))
        .env("BUILT", root.path(BUILT))
        .env("DOCS", docs)
        .output()
        .expect("run install.sh");
    assert!(output.status.success(), "{what}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
