//! The engine as its owner sees it: open while privileged, start, steer, stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::unistd::gettid;

use super::descriptors::{Descriptors, Shape};
use super::punt::{Punt, PuntSender};
use super::run::{self, Duty};
use crate::capture::{self, Capture, CaptureConfig, CaptureRefused, Switchboard};
use crate::fib::{Locator, Reader};
use crate::io::control::{ControlSender, ControlWriter};
use crate::io::errors::SetupError;
use crate::io::gso_sizes::GsoSizes;
use crate::io::lane::{LaneChoice, LaneKind};
use crate::io::probe;
use crate::io::probe::{explain_memory, explain_setup};
use crate::io::raw::{RawReceiver, RawSender, ReceiverHandle};
use crate::io::restrict::RingScope;
use crate::io::steer::Shard;
use crate::io::syscall::SyscallLane;
use crate::io::uring::UringLane;
use crate::io::wake::Bell;
use crate::stats::{EngineStats, Harvest, LatencyCollector, latency_channels};

/// How many workers one engine may have: the TUN driver's limit of queues is 256.
pub const MAX_WORKERS: usize = 128;

/// How long a worker may take to set its lane up.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long workers may take to end because another one has no ring.
const STEP_BACK_LIMIT: Duration = Duration::from_secs(1);

/// What a worker's thread does first, given its lane: see [`EngineConfig::on_worker_start`].
#[derive(Clone)]
pub struct WorkerHook(Arc<dyn Fn(LaneKind) -> Result<(), String> + Send + Sync>);

impl WorkerHook {
    /// Runs `hook` in each worker's thread.
    pub fn new(hook: impl Fn(LaneKind) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }
}

impl std::fmt::Debug for WorkerHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerHook").finish_non_exhaustive()
    }
}

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which lane.
    pub lane: LaneChoice,
    /// What rings may be asked for.
    pub ring: RingScope,
    /// CPUs to pin workers to, dealt out in turn; empty pins nothing.
    pub cpus: Vec<usize>,
    /// Runs first in every worker thread once its lane is set up, before the first packet: the place to give up
    /// privileges. An error keeps the engine from starting.
    pub on_worker_start: WorkerHook,
}

/// An engine about to start.
#[derive(Debug)]
pub struct Prepared {
    config: EngineConfig,
    lane: LaneKind,
    without_ring: Option<String>,
    /// For workers of the other lane, where the choice is free: one ring works here, but there may be none for each worker.
    spare: Option<Descriptors>,
    shape: Shape,
    workers: Vec<(OwnedFd, RawReceiver, RawSender)>,
    receivers: Vec<ReceiverHandle>,
    error_queues: Vec<OwnedFd>,
    control: ControlSender,
    writer: ControlWriter,
    gso_sizes: GsoSizes,
}

/// How a worker ended.
#[derive(Clone, Debug)]
pub struct WorkerExit {
    /// Its number.
    pub worker: usize,
    /// Nothing when it was told to stop; otherwise why it could not go on.
    pub fault: Option<String>,
}

/// A running engine. Dropping it stops the workers.
#[derive(Debug)]
pub struct Engine {
    lane: LaneKind,
    without_ring: Option<String>,
    stats: EngineStats,
    receivers: Vec<ReceiverHandle>,
    error_queues: Vec<OwnedFd>,
    control: ControlSender,
    writer: ControlWriter,
    punts: Receiver<Punt>,
    latencies: LatencyCollector,
    captures: Switchboard,
    exits: Receiver<WorkerExit>,
    bell: Bell,
    stop: Arc<AtomicBool>,
    worker_bells: Vec<Bell>,
    #[cfg(debug_assertions)]
    faults: Vec<super::fault::Wish>,
    threads: Vec<JoinHandle<()>>,
    thread_ids: Vec<u32>,
}

impl Engine {
    /// Makes an engine of what was opened for it. Needs no privilege; nothing is received yet.
    ///
    /// # Errors
    /// [`SetupError`] names what is missing and what would help.
    pub fn prepare(config: EngineConfig, descriptors: Descriptors) -> Result<Prepared, SetupError> {
        let (lane, without_ring) = choose_lane(config.lane, config.ring)?;
        let may_step_back = config.lane == LaneChoice::Auto && lane == LaneKind::Uring;
        // Where no descriptors are left for it, the rings have to do.
        let spare = may_step_back.then(|| descriptors.try_clone().ok()).flatten();
        let Descriptors {
            shape,
            workers: parts,
            control,
            gso_sizes,
        } = descriptors;
        let refused = |source| SetupError::Interface {
            name: shape.interface.clone(),
            action: "duplicate a queue of",
            source,
        };
        let first = parts
            .first()
            .ok_or_else(|| refused(io::ErrorKind::NotFound.into()))?;
        let writer = ControlWriter::from_queue(first.queue.try_clone().map_err(refused)?);
        let count = parts.len();
        let (mut workers, mut receivers, mut error_queues) = (Vec::new(), Vec::new(), Vec::new());
        for (index, part) in parts.into_iter().enumerate() {
            let (receiver, sender) = (
                RawReceiver::from_fd(part.receiver),
                RawSender::from_fd(part.sender),
            );
            receivers.push(receiver.handle(Shard {
                index,
                count,
                key: shape.key,
            })?);
            error_queues.push(sender.error_handle()?);
            workers.push((part.queue, receiver, sender));
        }
        let control = ControlSender::from_fd(control);
        error_queues.push(control.error_handle()?);
        let gso_sizes = gso_sizes
            .and_then(|map| GsoSizes::new(&map).ok())
            .unwrap_or_default();
        Ok(Prepared {
            config,
            lane,
            without_ring,
            spare,
            shape,
            workers,
            receivers,
            error_queues,
            control,
            writer,
            gso_sizes,
        })
    }
}

/// The lane, and why it is not the ring's where that was free to choose.
fn choose_lane(choice: LaneChoice, ring: RingScope) -> Result<(LaneKind, Option<String>), SetupError> {
    if choice == LaneChoice::Syscall {
        return Ok((LaneKind::Syscall, None));
    }
    match (choice, probe::uring(ring)) {
        (_, Ok(_)) => Ok((LaneKind::Uring, None)),
        (LaneChoice::Uring, Err(reason)) => Err(SetupError::Lane {
            lane: "uring",
            reason,
        }),
        (_, Err(reason)) => Ok((LaneKind::Syscall, Some(reason))),
    }
}

impl Prepared {
    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.shape.interface
    }

    /// The interface's index.
    pub fn if_index(&self) -> u32 {
        self.shape.if_index
    }

    /// Whether UDP superpackets are exchanged with the kernel too.
    pub fn udp_offload(&self) -> bool {
        self.shape.udp_offload
    }

    /// Whether flows are kept on their queue by our own steering program.
    pub fn steered(&self) -> bool {
        self.shape.steered
    }

    /// Starts the workers. They carry what the TUN interface gives at once; nothing is received from the IPv4 network
    /// before [`Engine::set_locators`]. Where the choice is free and one of them gets no ring, all take the other lane.
    ///
    /// # Errors
    /// [`SetupError`] when a worker cannot set its lane up or its hook fails; the others are stopped.
    pub fn start(mut self, rules: &Reader) -> Result<Engine, SetupError> {
        let (config, spare) = (self.config.clone(), self.spare.take());
        match (self.launch(rules), spare) {
            (Err(SetupError::Lane { reason, .. }), Some(descriptors)) => {
                let lane = LaneChoice::Syscall;
                let mut other = Engine::prepare(EngineConfig { lane, ..config }, descriptors)?;
                other.without_ring = Some(reason);
                other.launch(rules)
            }
            (outcome, _) => outcome,
        }
    }

    /// Starts workers of the lane that was chosen.
    fn launch(self, rules: &Reader) -> Result<Engine, SetupError> {
        let wake_failed = |source| SetupError::Socket {
            action: "make a bell for",
            source,
        };
        let count = self.workers.len();
        let bell = Bell::new().map_err(wake_failed)?;
        let (punt_sender, punts) = PuntSender::new(bell.clone());
        let (exit_sender, exits) = unbounded();
        let (latencies, recorders) = latency_channels(count);
        let (captures, taps) = capture::switchboard(count);
        let (ready_sender, ready) = bounded(count);
        let mut engine = Engine {
            lane: self.lane,
            without_ring: self.without_ring,
            stats: EngineStats::new(count),
            receivers: self.receivers,
            error_queues: self.error_queues,
            control: self.control,
            writer: self.writer,
            punts,
            latencies,
            captures,
            exits,
            bell,
            stop: Arc::new(AtomicBool::new(false)),
            worker_bells: Vec::new(),
            #[cfg(debug_assertions)]
            // Not one wish for all.
            faults: (0..count).map(|_| super::fault::Wish::default()).collect(),
            threads: Vec::new(),
            thread_ids: vec![0; count],
        };
        let parts = self
            .workers
            .into_iter()
            .zip(recorders.into_iter().zip(taps))
            .enumerate();
        for (worker, ((queue, receiver, sender), (latency, taps))) in parts {
            let worker_bell = Bell::new().map_err(wake_failed)?;
            engine.worker_bells.push(worker_bell.clone());
            let thread = WorkerThread {
                worker,
                lane: self.lane,
                ring: self.config.ring,
                cpu: self
                    .config
                    .cpus
                    .get(worker % self.config.cpus.len().max(1))
                    .copied(),
                hook: self.config.on_worker_start.clone(),
                duty: Some(Duty {
                    rules: rules.clone(),
                    punts: punt_sender.clone(),
                    latency,
                    taps,
                    gso_sizes: self.gso_sizes.clone(),
                    udp_offload: self.shape.udp_offload,
                    stop: Arc::clone(&engine.stop),
                    #[cfg(debug_assertions)]
                    fault: engine.faults[worker].clone(),
                }),
                stats: engine.stats.clone(),
                ready: ready_sender.clone(),
                exits: exit_sender.clone(),
                engine_bell: engine.bell.clone(),
            };
            let handle = thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(move || thread.main(queue, receiver, sender, worker_bell))
                .map_err(|error| SetupError::Thread {
                    worker,
                    source: error,
                })?;
            engine.threads.push(handle);
        }
        match engine.await_workers(&ready) {
            Ok(()) => Ok(engine),
            Err(error) => {
                // Sockets go on to receive, for those who may follow.
                let _ = engine.pause(STEP_BACK_LIMIT);
                Err(error)
            }
        }
    }
}

/// A worker that serves.
struct Started {
    worker: usize,
    /// The kernel's number of its thread.
    thread: u32,
}

/// What a worker thread is born with.
struct WorkerThread {
    worker: usize,
    lane: LaneKind,
    ring: RingScope,
    cpu: Option<usize>,
    hook: WorkerHook,
    duty: Option<Duty>,
    stats: EngineStats,
    ready: Sender<Result<Started, SetupError>>,
    exits: Sender<WorkerExit>,
    engine_bell: Bell,
}

impl WorkerThread {
    fn main(mut self, queue: OwnedFd, receiver: RawReceiver, sender: RawSender, bell: Bell) {
        if let Some(id) = self.cpu {
            // A CPU that may not be used is no reason to stop: the worker runs wherever it may (FAULTS 35).
            core_affinity::set_for_current(CoreId { id });
        }
        let body = AssertUnwindSafe(|| match self.lane {
            LaneKind::Uring => self.serve(UringLane::new(queue, receiver, sender, bell, self.ring)),
            LaneKind::Syscall => self.serve(SyscallLane::new(queue, receiver, sender, bell)),
        });
        let fault =
            catch_unwind(body).unwrap_or_else(|panic| Some(format!("panicked: {}", panic_text(&*panic))));
        let _ = self.exits.send(WorkerExit {
            worker: self.worker,
            fault,
        });
        self.engine_bell.ring();
    }

    /// Reports readiness and runs; `None` after an orderly end, else why there was none.
    fn serve<L: crate::io::lane::Lane>(&mut self, lane: io::Result<L>) -> Option<String> {
        let (ready, worker) = (self.ready.clone(), self.worker);
        let refuse = |reason: String| {
            let _ = ready.send(Err(SetupError::Worker {
                worker,
                reason: reason.clone(),
            }));
            Some(reason)
        };
        let lane = match (lane, self.lane) {
            (Ok(lane), _) => lane,
            (Err(error), LaneKind::Uring) => {
                let reason = format!("worker {worker}: {}", explain_setup(&error));
                let _ = ready.send(Err(SetupError::Lane {
                    lane: self.lane.name(),
                    reason: reason.clone(),
                }));
                return Some(reason);
            }
            (Err(error), LaneKind::Syscall) => return refuse(explain_memory(&error)),
        };
        if let Err(reason) = (self.hook.0)(self.lane) {
            return refuse(reason);
        }
        let (Some(stats), Some(duty)) = (self.stats.worker(worker), self.duty.take()) else {
            return refuse("it has no counters or no duty".into());
        };
        let thread = u32::try_from(gettid().as_raw()).unwrap_or(0);
        let _ = ready.send(Ok(Started { worker, thread }));
        run::run(lane, duty, stats).err().map(|fault| fault.to_string())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}

impl Engine {
    /// Waits until every worker serves.
    fn await_workers(&mut self, ready: &Receiver<Result<Started, SetupError>>) -> Result<(), SetupError> {
        for worker in 0..self.thread_ids.len() {
            match ready.recv_timeout(START_LIMIT) {
                Ok(started) => {
                    let started = started?;
                    self.thread_ids[started.worker] = started.thread;
                }
                Err(_) => {
                    return Err(SetupError::Worker {
                        worker,
                        reason: "it does not get ready".into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The lane in force.
    pub fn lane(&self) -> LaneKind {
        self.lane
    }

    /// Why the lane that was free to choose is not the ring's.
    pub fn without_ring(&self) -> Option<&str> {
        self.without_ring.as_deref()
    }

    /// The counters of all workers.
    pub fn stats(&self) -> &EngineStats {
        &self.stats
    }

    /// The kernel's number of a worker's thread, as in `/proc/self/task`; `None` if there is no such worker.
    pub fn thread_id(&self, worker: usize) -> Option<u32> {
        self.thread_ids.get(worker).copied()
    }

    /// Packets that are control's business; [`Engine::bell`] rings when one waits.
    pub fn punts(&self) -> &Receiver<Punt> {
        &self.punts
    }

    /// Workers that ended; [`Engine::bell`] rings for each. Before [`Engine::stop`] every one is a fault.
    pub fn exits(&self) -> &Receiver<WorkerExit> {
        &self.exits
    }

    /// Rings for punts and exits: readable while it rings.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Receives what arrives for these locators from now on; each filter is replaced in one step.
    ///
    /// # Errors
    /// What the kernel says; sockets before the failing one have the new filter.
    pub fn set_locators(&self, locators: &[Locator]) -> io::Result<()> {
        self.receivers
            .iter()
            .try_for_each(|receiver| receiver.attach_filter(locators))
    }

    /// Control's own way to the IPv4 network.
    pub fn control(&self) -> &ControlSender {
        &self.control
    }

    /// Control's own way to the kernel.
    pub fn writer(&self) -> &ControlWriter {
        &self.writer
    }

    /// The error queues of all send sockets: the workers' hold the kernel's own refusals, control's the ICMPv4 errors.
    pub fn error_queues(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.error_queues.iter().map(AsFd::as_fd)
    }

    /// Packets that the kernel dropped because a worker's receive buffer was full, per worker.
    pub fn kernel_drops(&self) -> Vec<u64> {
        self.receivers
            .iter()
            .map(|receiver| receiver.kernel_drops().unwrap_or(0))
            .collect()
    }

    /// Has a worker go wrong at its next turn, for a test.
    #[cfg(debug_assertions)]
    pub fn inject(&self, worker: usize, fault: super::WorkerFault) {
        if let (Some(wish), Some(bell)) = (self.faults.get(worker), self.worker_bells.get(worker)) {
            wish.utter(fault);
            bell.ring();
        }
    }

    /// Wakes every worker for nothing: one that works makes a turn, which [`WorkerStats::turns`] shows.
    ///
    /// [`WorkerStats::turns`]: crate::stats::WorkerStats::turns
    pub fn nudge(&self) {
        self.worker_bells.iter().for_each(Bell::ring);
    }

    /// Asks every worker for its latencies since the last time; idle workers are woken for it.
    pub fn request_latencies(&self) {
        self.latencies.request();
        self.worker_bells.iter().for_each(Bell::ring);
    }

    /// Latencies that workers have handed over; each value is handed over once.
    pub fn latencies(&self) -> &Receiver<Harvest> {
        self.latencies.answers()
    }

    /// Starts a capture in every worker.
    ///
    /// # Errors
    /// [`CaptureRefused`].
    pub fn capture(&self, config: &CaptureConfig) -> Result<Capture, CaptureRefused> {
        self.captures.start(config, &self.worker_bells)
    }

    /// Captures that run now.
    pub fn captures(&self) -> usize {
        self.captures.running()
    }

    /// Stops receiving, lets the workers finish what they hold, and waits for them until `limit`.
    ///
    /// # Errors
    /// The numbers of workers that did not end in time; their threads are left to the end of the process.
    pub fn stop(&mut self, limit: Duration) -> Result<(), Vec<usize>> {
        for receiver in &self.receivers {
            let _ = receiver.detach();
        }
        self.pause(limit)
    }

    /// As [`Engine::stop`], for the sake of a successor: the sockets go on to receive, and what arrives waits for it.
    ///
    /// # Errors
    /// As [`Engine::stop`].
    pub fn pause(&mut self, limit: Duration) -> Result<(), Vec<usize>> {
        self.stop.store(true, Ordering::Release);
        self.worker_bells.iter().for_each(Bell::ring);
        let deadline = Instant::now() + limit;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if self.exits.recv_deadline(deadline).is_err() && Instant::now() >= deadline {
                break;
            }
        }
        let mut late = Vec::new();
        for (worker, thread) in std::mem::take(&mut self.threads).into_iter().enumerate() {
            // A worker announces its exit just before its thread ends: give the thread that moment.
            while !thread.is_finished() && Instant::now() < deadline {
                thread::yield_now();
            }
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                late.push(worker);
            }
        }
        if late.is_empty() { Ok(()) } else { Err(late) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            let _ = self.stop(Duration::from_secs(1));
        }
    }
}
