//! A root file system for what installs, removes, or listens at fixed paths: this machine's, with every change thrown away.
//!
//! ```text
//!  overlay: this machine's files below, a tmpfs above        a mount namespace of its own, held by one process
//!     /dev   null, random, net/tun, terminals                /run, /tmp   empty
//!     /opt/isatapd-built   the programs under test
//! ```

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use tempfile::TempDir;

use crate::daemon::program;

/// Where programs under test are inside.
pub const BUILT: &str = "/opt/isatapd-built";

/// Arguments: a folder to mount on, the folder of the programs under test. Ends when standard input does.
const HOLD: &str = r#"
set -e
mount -t tmpfs scratch "$1"
mkdir "$1/upper" "$1/work" "$1/root"
# Daemons of tests that run beside this one make the usual root directory on this machine, at any time.
mkdir "$1/upper/var"
mknod "$1/upper/var/empty" c 0 0
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p opt/isatapd-built
mount --bind "$2" opt/isatapd-built
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run
mkdir -p run/lock
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=755 dev dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/net dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mknod -m 666 dev/net/tun c 10 200
ln -s /proc/self/fd dev/fd
: >run/inside
echo held
exec chroot . cat
"#;

/// The root, gone on drop with everything that still runs in it.
#[derive(Debug)]
pub struct ScratchRoot {
    holder: Child,
    _open: ChildStdin,
    _folder: TempDir,
}

impl ScratchRoot {
    /// Makes one.
    ///
    /// # Panics
    /// When it cannot be made: these tests need root, and a kernel with overlayfs.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let built = program("isatapd");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", HOLD, "sh"])
            .arg(folder.path())
            .arg(built.parent().expect("a program lies in a folder"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is installed");
        let open = holder.stdin.take().expect("a pipe was asked for");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe was asked for"))
            .read_line(&mut line)
            .expect("read from the holder");
        assert_eq!(
            line, "held\n",
            "the root cannot be made (root and overlayfs are needed)"
        );
        let root = Self {
            holder,
            _open: open,
            _folder: folder,
        };
        // Said just before the change of root: until then the way in leads to this machine's own files.
        crate::wait::holds("the holder to be inside", crate::scene::SOON, || {
            root.path("run/inside").exists()
        });
        fs::remove_file(root.path("run/inside")).expect("remove the mark");
        root
    }

    /// A file in it as seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        let inside = inside.trim_start_matches('/');
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// The content of a file.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Writes a file, with its folders.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(path, text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// A command that runs `program` inside; the process keeps its id.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--mount", "--root", "--wd", "--"])
            .arg(program);
        command
    }

    /// Runs a line of shell inside to its end, whatever its result.
    pub fn try_run(&self, line: &str) -> Output {
        let mut command = self.command("sh");
        command.args(["-c", line]).stdin(Stdio::null());
        command.output().expect("util-linux is installed")
    }

    /// Runs a line of shell inside and returns everything it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "`{line}` failed ({}): {text}",
            output.status
        );
        text
    }
}

impl Default for ScratchRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ScratchRoot {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_inside_stays_inside() {
        let root = ScratchRoot::new();
        root.run("echo inside > /etc/isatapd-scratch; rm /etc/hostname; echo x > /dev/null");
        assert_eq!(root.read("etc/isatapd-scratch"), "inside\n");
        assert!(!Path::new("/etc/isatapd-scratch").exists());
        assert!(!root.path("etc/hostname").exists() && Path::new("/etc/hostname").exists());
        assert!(root.run(&format!("{BUILT}/isatapd --help")).contains("--config"));
        assert_eq!(
            root.run("ls -A /run /tmp")
                .lines()
                .filter(|line| *line == "lock")
                .count(),
            1
        );
    }
}
