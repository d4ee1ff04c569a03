//! The two processes of a daemon: found, stopped and let go on together. And where a thread runs.

use std::fs;

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::{Daemon, START_TIMEOUT};
use crate::wait;

/// Keeps the calling thread on the CPU that it is on.
///
/// # Panics
/// When the kernel refuses it.
pub(crate) fn stay_on_this_cpu() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu().expect("a CPU")).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &one).expect("this CPU alone");
}

impl Daemon<'_> {
    /// The process id of its engine, if there is one just now.
    pub fn try_engine_pid(&self) -> Option<i32> {
        let of_monitor = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            let (state, parent) = (fields.next(), fields.next());
            let name = stat.split(['(', ')']).nth(1);
            name == Some("isatapd-engine") && state != Some("Z") && parent == Some(&self.pid().to_string())
        };
        let all = fs::read_dir("/proc").expect("proc is there").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(of_monitor).max()
    }

    /// The process id of its engine: where the packets, names and clients are.
    ///
    /// # Panics
    /// When there is none for long.
    #[track_caller]
    pub fn engine_pid(&self) -> i32 {
        wait::until("an engine", START_TIMEOUT, || {
            self.try_engine_pid().ok_or_else(|| self.log())
        })
    }

    /// Stops it like a debugger would, the monitor first, and returns when every thread has stopped: what arrives from
    /// then on waits together.
    pub fn freeze(&self) {
        let both = [self.pid(), self.engine_pid()];
        for pid in both {
            kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("stop the daemon");
        }
        wait::holds("every thread of the daemon to stop", crate::scene::SOON, || {
            both.iter().all(|pid| all_stopped(*pid))
        });
    }

    /// Lets it go on after [`Daemon::freeze`].
    pub fn thaw(&self) {
        for pid in [self.engine_pid(), self.pid()] {
            kill(Pid::from_raw(pid), Signal::SIGCONT).expect("let the daemon go on");
        }
    }
}

fn all_stopped(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}
