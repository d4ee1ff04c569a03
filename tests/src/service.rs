//! A service of systemd run without systemd: confined as its unit says, with a socket that listens as the service manager
//! would.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::scratch_root::{BUILT, ScratchRoot};
use crate::unit::Unit;
use crate::wait;

/// A service that runs, with everything it told its service manager.
#[derive(Debug)]
pub struct Service<'a> {
    root: &'a ScratchRoot,
    ns: &'a Netns,
    unit: Unit,
    child: Child,
    told: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<Vec<String>>>,
    _threads: [JoinHandle<()>; 2],
}

/// How soon a watchdog of these tests wants a sign of life; the unit's own is too long to wait for.
pub const WATCHDOG: Duration = Duration::from_secs(2);

impl<'a> Service<'a> {
    /// Starts `unit` in `root` and `ns` as systemd would, checks first, and waits for READY.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(root: &'a ScratchRoot, ns: &'a Netns, unit: &Unit) -> Self {
        root.write("run/isatapd-filters.json", &unit.filters().to_string());
        root.write("run/isatapd-unit.sh", &unit.script());
        let notify = root.path("run/notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("a socket of the service manager");
        // Whoever the unit becomes may talk to it.
        chown(&notify, Some(user_id(root, unit.one("User"))), None).expect("chown");
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        let listener = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let mut lines = heard.lock().unwrap_or_else(PoisonError::into_inner);
                lines.extend(text.lines().map(str::to_owned));
            }
        });
        for check in unit.all("ExecStartPre") {
            let output = ns.enter(|| confined(root, check).output().expect("run a check"));
            assert!(output.status.success(), "{check}: {output:?}");
        }
        let mut command = confined(root, unit.one("ExecStart"));
        command
            .env("NOTIFY_SOCKET", "/run/notify")
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = ns.spawn(&mut command);
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&log);
        let stderr = BufReader::new(child.stderr.take().expect("a pipe was asked for"));
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut service = Self {
            root,
            ns,
            unit: unit.clone(),
            child,
            told,
            log,
            _threads: [listener, reader],
        };
        service.wait_ready();
        service
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        wait::until("READY=1 to be told", Duration::from_secs(20), || {
            let ended = self.child.try_wait().expect("wait");
            assert!(
                ended.is_none(),
                "it ended with {ended:?}: {:?}\n{}",
                self.told(),
                self.log()
            );
            if self.told().iter().any(|line| line == "READY=1") {
                Ok(())
            } else {
                Err(self.log())
            }
        });
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Everything that was told so far, a line each.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Forgets what was told.
    pub fn forget(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until a line that begins like this was told.
    ///
    /// # Panics
    /// When none is.
    #[track_caller]
    pub fn wait_told(&self, beginning: &str) -> String {
        wait::until(
            &format!("{beginning} to be told"),
            Duration::from_secs(20),
            || {
                let told = self.told();
                let found = told.iter().find(|line| line.starts_with(beginning)).cloned();
                found.ok_or_else(|| format!("{told:?}\n{}", self.log()))
            },
        )
    }

    /// What `systemctl reload` does: each command in turn until one fails, and whether all were done.
    pub fn reload(&self) -> Result<(), String> {
        for line in self.unit.all("ExecReload") {
            let mut command = confined(self.root, line);
            let output = self
                .ns
                .enter(|| command.output().expect("run a command of the unit"));
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the service");
    }

    /// Ends it as systemd would; the status it ended with.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait_told("STOPPING=1");
        wait::until("the service to end", Duration::from_secs(10), || {
            self.child.try_wait().ok().flatten().ok_or("it runs")
        })
        .code()
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command line of the unit, confined as the unit says.
fn confined(root: &ScratchRoot, line: &str) -> Command {
    let mut command = root.command("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "/run/isatapd-unit.sh",
    ]);
    command.arg(format!("{BUILT}/isatap-confined"));
    command
        .arg("/run/isatapd-filters.json")
        .args(line.split_whitespace());
    command
}

fn user_id(root: &ScratchRoot, name: &str) -> u32 {
    root.run(&format!("id -u {name}"))
        .trim()
        .parse()
        .expect("a number")
}
