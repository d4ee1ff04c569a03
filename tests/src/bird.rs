//! BIRD in a namespace: the routing daemon that we did not write, with the snippet that is shipped for it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::netns::Netns;
use crate::scene::SOON;
use crate::wait;

/// A running BIRD, ended on drop.
#[derive(Debug)]
pub struct Bird {
    child: Child,
    folder: TempDir,
}

impl Bird {
    /// Starts it in `ns`; returns when it answers.
    ///
    /// # Panics
    /// When it refuses the configuration or does not come up.
    #[track_caller]
    pub fn start(ns: &Netns, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("bird.conf");
        fs::write(&path, config).expect("write a configuration");
        let check = ns.try_run(&format!("bird -p -c {}", path.display()));
        assert!(
            check.status.success(),
            "bird refuses: {}\n{config}",
            String::from_utf8_lossy(&check.stderr)
        );
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(&path);
        command.arg("-s").arg(folder.path().join("ctl"));
        command.arg("-P").arg(folder.path().join("pid"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let bird = Self {
            child: ns.spawn(&mut command),
            folder,
        };
        wait::until("bird to answer", SOON * 2, || {
            let said = bird.ask("show status");
            if said.contains("Daemon is up") {
                Ok(())
            } else {
                Err(said)
            }
        });
        bird
    }

    /// Asks it something in birdc's words.
    pub fn ask(&self, question: &str) -> String {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(self.folder.path().join("ctl"))
            .args(question.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .expect("birdc of bird2; run tests/setup.sh");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The configuration that is shipped with the daemon, for `router` (`10.1.1.1/32`) and `prefix`.
    ///
    /// # Panics
    /// When the source tree is gone, or the file speaks of other addresses than this knows.
    pub fn snippet(router: &str, prefix: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../doc/anycast/bird.conf");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (here, there) = ("192.0.2.1/32", "2001:db8:0:1::/64");
        assert!(text.contains(here) && text.contains(there), "{text}");
        text.replace(here, router).replace(there, prefix)
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
