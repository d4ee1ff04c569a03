//! radvd in a namespace: the router advertisements we did not write ourselves.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::netns::Netns;
use crate::wait;

/// A running radvd, ended on drop.
#[derive(Debug)]
pub struct Radvd {
    child: Child,
    _folder: TempDir,
}

impl Radvd {
    /// Starts it in `ns`; returns when it listens.
    ///
    /// # Panics
    /// When it refuses the configuration or does not come up.
    #[track_caller]
    pub fn start(ns: &Netns, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("radvd.conf");
        fs::write(&path, config).expect("write a configuration");
        let check = ns.try_run(&format!("radvd -c -C {}", path.display()));
        assert!(
            check.status.success(),
            "radvd refuses: {}",
            String::from_utf8_lossy(&check.stderr)
        );
        let mut command = Command::new("radvd");
        command
            .args(["-n", "-m", "stderr", "-C"])
            .arg(&path)
            .arg("-p")
            .arg(folder.path().join("pid"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let radvd = Self {
            child: ns.spawn(&mut command),
            _folder: folder,
        };
        wait::holds("radvd to open its ICMPv6 socket", Duration::from_secs(5), || {
            let sockets = ns
                .enter(|| fs::read_to_string("/proc/thread-self/net/raw6"))
                .unwrap_or_default();
            sockets.lines().any(|line| line.contains(":003A "))
        });
        radvd
    }

    /// The configuration that is shipped with the daemon: 2001:db8:1::/64 on `is0`.
    ///
    /// # Panics
    /// When the source tree is gone.
    pub fn snippet() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/packaging/radvd.conf.snippet");
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

impl Drop for Radvd {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
