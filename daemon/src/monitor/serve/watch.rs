//! Engines that stand still: when the monitor looks at one, and what it does with one that is stuck (FAULTS 34, 68).

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::warn;

use super::Running;
use crate::exit::ExitStatus;
use crate::monitor::engine::LastWords;
use crate::monitor::gate;
use crate::monitor::loading::Programs;
use crate::monitor::progress::{Progress, Sample};
use crate::monitor::silence::Meaning;
use crate::monitor::suspicion::Verdict;
use crate::monitor::wire::{Cause, Suspect};

/// How long an engine may take to serve once it has everything.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What helps one that gets no core.
const MORE_TIME: &str = "waits for a core that others have: give it more (Nice=, CPUWeight= of the unit)";
/// What helps one that the kernel holds.
const KERNEL_HOLDS: &str = "is held by the kernel in a call, as a rule until others have let go of routing's lock: it goes on by itself";

impl Running {
    /// An engine that says nothing is wedged, unless it waits for a core or for the kernel.
    pub(super) fn watch_over(&mut self, spoken: bool) {
        let now = Instant::now();
        if spoken {
            self.silence.broken(now);
            return;
        }
        let Some(engine) = &self.engine else { return };
        if self.stopping.is_some() {
            return;
        }
        if engine.ready_at.is_none() {
            let waits = matches!(self.monitor.programs, Programs::Coming(_));
            if !waits && engine.equipped_at.elapsed() > START_LIMIT {
                self.condemn(Cause::WedgedControl, "it does not get ready");
            }
            return;
        }
        let id = engine.process_id();
        // Control is the first thread.
        match self.silence.lasts(now, || Progress::of(id, id)) {
            Meaning::Nothing => {}
            Meaning::Starved => warn!("the engine {MORE_TIME}"),
            Meaning::Held => warn!("the engine {KERNEL_HOLDS}"),
            Meaning::Wedged => self.condemn(Cause::WedgedControl, "its control loop gives no sign of life"),
        }
    }

    /// A worker that makes no turn is stuck, unless it waits for a core or for the kernel.
    pub(super) fn suspected(&mut self, suspect: &Suspect) {
        let worker = suspect.worker;
        let workers = self.monitor.holdings.descriptors.workers.len();
        if let Err(refusal) = gate::suspect(suspect, workers) {
            self.refuse(refusal, &format!("look after worker {worker}"));
            return;
        }
        let Some(engine) = &self.engine else { return };
        let id = engine.process_id();
        match self.suspicions.heard(suspect, || Sample::of(id, suspect.thread)) {
            Verdict::Nothing => {}
            Verdict::Starved => warn!("worker {worker} {MORE_TIME}"),
            Verdict::Held => warn!("worker {worker} {KERNEL_HOLDS}"),
            Verdict::Stuck(how) => {
                let text = format!("worker {worker} is stuck: it was woken, makes no turn and {how}");
                self.condemn(Cause::WedgedWorker, &text);
            }
        }
    }

    /// Ends it for this reason.
    pub(super) fn condemn(&mut self, cause: Cause, text: &str) {
        if let Some(engine) = &mut self.engine {
            engine.say_for_it(LastWords::new(cause, ExitStatus::Other.code(), text.to_owned()));
            engine.signal(Signal::SIGKILL);
        }
    }
}
