//! The monitor's loop: signals and the engine's messages in; orders, changes of the interface and new engines out.
//!
//! ```text
//!            start                    Ready                 dies: cause, counted
//!   (none) ---------> starting ----------------> serving ------------------------> pause of `policy` --> starting
//!                        | dies before the daemon ever served: the daemon ends with its error
//!   TERM, INT: ordered to stop, waited for, then everything is taken away
//! ```

mod attach;
mod lane;
mod requests;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use isatap_engine::io::device::name_of;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use tracing::{error, info, warn};

use self::attach::Given;
use super::amount::Amount;
use super::binding::Binding;
use super::engine::{EngineProcess, Heard, LastWords, cause_of};
use super::gate::Refusal;
use super::holdings::Holdings;
use super::loading::Programs;
use super::others::Others;
use super::policy::Policy;
use super::programs::Held;
use super::silence::{SILENCE, Silence};
use super::suspicion::Suspicions;
use super::wire::{Answer, Asked, Cause, Say, Setup};
use super::{text, upgrade};
use crate::exit::{ExitError, ExitStatus};
use crate::launch::notify::Notice;
use crate::launch::{Ready, address_space};
use crate::link::change::Devices;
use crate::link::change::direct::Direct;

/// How long one may take to end in order.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long one that has closed its socket may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(1);
/// How long one that is about to die may take to be gone. One that the kernel or a debugger holds longer than that is
/// followed all the same: it runs no more.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
/// Messages taken in one turn, and how long that may take until no other is taken: a flood of them must not keep signals waiting.
const MAX_MESSAGES: usize = 64;
const LISTEN_LIMIT: Duration = Duration::from_millis(100);

/// Everything the monitor is.
#[derive(Debug)]
pub struct Monitor {
    /// What engines are handed.
    pub holdings: Holdings,
    /// The hands on the interface.
    pub direct: Direct,
    /// Who waits for the daemon.
    pub ready: Ready,
    /// The signals it is told by.
    pub signals: SignalFd,
    /// The engine's command line.
    pub arguments: Vec<OsString>,
    /// What an engine is told besides.
    pub setup: Setup,
    /// The programs of the `ebpf` lane, where that lane is used.
    pub programs: Programs,
    /// Which addresses may carry the tunnel.
    pub binding: Binding,
    /// The helper for name servers, to be waited for when it ends.
    pub helper: Option<Child>,
    /// Where the program is that an upgrade takes over to.
    pub program: PathBuf,
    /// The locked pid file.
    pub lock: OwnedFd,
    /// The daemon served before, in the hands of a predecessor.
    pub served: bool,
    /// For how long the service manager may hear nothing; `None` when it does not watch.
    pub watched: Option<Duration>,
}

/// What happens meanwhile.
#[derive(Debug)]
struct Running {
    monitor: Monitor,
    engine: Option<EngineProcess>,
    start_at: Option<Instant>,
    stopping: Option<Instant>,
    policy: Policy,
    served: bool,
    /// The engine hands over, and then comes the jump.
    upgrading: bool,
    refused: BTreeMap<Refusal, u64>,
    /// What was put into the kernel.
    amount: Amount,
    /// Engines that were followed before they were gone, to be waited for.
    corpses: Vec<EngineProcess>,
    silence: Silence,
    suspicions: Suspicions,
    /// What the engine was told of others.
    others: Option<Others>,
    /// From when on word of others is heard.
    hears_of_others_at: Instant,
    /// Where the programs may be, because the engine asked.
    given: Given,
    /// When the service manager last heard that the daemon lives.
    passed_on_at: Option<Instant>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Go,
    End,
}

impl Monitor {
    /// Runs the daemon until it is told to stop, or cannot go on. The interface is gone afterwards.
    ///
    /// # Errors
    /// Why it could not start, or could not go on; and who is to hear of it.
    pub fn run(self) -> Result<(), (Ready, ExitError)> {
        let now = Instant::now();
        let mut running = Running {
            served: self.served,
            upgrading: false,
            monitor: self,
            engine: None,
            start_at: Some(now),
            stopping: None,
            policy: Policy::default(),
            refused: BTreeMap::new(),
            amount: Amount::default(),
            corpses: Vec::new(),
            silence: Silence::new(now),
            suspicions: Suspicions::default(),
            others: None,
            hears_of_others_at: now,
            given: Given::of(Devices::default(), now),
            passed_on_at: None,
        };
        let outcome = loop {
            match running.turn() {
                Ok(Flow::Go) => {}
                Ok(Flow::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        running.close();
        outcome.map_err(|error| (running.monitor.ready, error))
    }
}

impl Running {
    fn turn(&mut self) -> Result<Flow, ExitError> {
        let now = Instant::now();
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            self.start_engine()?;
        }
        let [signalled, spoken, moved, loaded, others] = self.wait(now)?;
        if signalled && self.signalled()? == Flow::End {
            return Ok(Flow::End);
        }
        if loaded {
            self.take_programs()?;
        }
        if moved {
            self.addresses_changed();
        }
        let closed = spoken && self.listen();
        if let (true, Some(programs)) = (spoken, self.monitor.programs.held_mut()) {
            programs.exchange();
        }
        if closed {
            self.revoke_neighbours();
        }
        if others {
            self.others_changed();
        }
        self.watch_over(spoken);
        self.look_after(closed)
    }

    /// Waits for a signal, a message, word of an address, programs that were being loaded, or word of others who have a say; says which
    /// there is.
    fn wait(&self, now: Instant) -> Result<[bool; 5], ExitError> {
        let (here, coming) = match &self.monitor.programs {
            Programs::Here(here) => (Some(here), None),
            Programs::Coming(coming) => (None, Some(coming.as_fd())),
            Programs::Without(_) => (None, None),
        };
        let word = here.map(|here| here.held.word().as_fd());
        let [chains, policies, shaping] = here
            .filter(|_| self.hears_of_others_at <= now)
            .map_or([None; 3], |here| here.words_of_others());
        let heeded = [
            Some(self.monitor.signals.as_fd()),
            self.engine.as_ref().map(AsFd::as_fd),
            word.filter(|_| self.given.listens_at <= now),
            coming,
            chains,
            policies,
            shaping,
        ];
        let mut sources: Vec<_> = heeded
            .into_iter()
            .flatten()
            .map(|source| PollFd::new(source, PollFlags::POLLIN))
            .collect();
        let silence = self.engine.as_ref().map(|_| now + SILENCE);
        let dead = self.engine.as_ref().and_then(EngineProcess::dying_since);
        let dead = dead.map(|since| since + DEATH_LIMIT);
        let listens_at = word.map(|_| self.given.listens_at).filter(|at| *at > now);
        let hears_at = here.map(|_| self.hears_of_others_at).filter(|at| *at > now);
        let until = [self.start_at, self.stopping, silence, dead, listens_at, hears_at]
            .into_iter()
            .flatten()
            .min();
        let timeout = until.map_or(PollTimeout::NONE, |at| {
            // Rounded up, so that what is due then is due.
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut sources, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(ExitError::other(format!(
                    "the monitor cannot wait: {}",
                    errno.desc()
                )));
            }
        }
        let mut ready = sources
            .iter()
            .map(|source| source.revents().is_some_and(|events| !events.is_empty()));
        let [signalled, spoken, moved, loaded, chains, policies, shaping] =
            heeded.map(|source| source.is_some() && ready.next().unwrap_or(false));
        Ok([signalled, spoken, moved, loaded, chains || policies || shaping])
    }

    fn start_engine(&mut self) -> Result<(), ExitError> {
        let monitor = &self.monitor;
        let started = EngineProcess::start(&monitor.arguments).map(|engine| {
            let handed = monitor.holdings.hand_out(monitor.setup.clone(), engine.socket());
            (engine, handed)
        });
        match started {
            // One that does not take it has something to say, or is dead: both are found out.
            Ok((engine, handed)) => {
                if let Err(error) = handed {
                    warn!("the engine does not take what it is handed: {error}");
                }
                self.engine = Some(engine);
                self.others = None;
                self.tell_of_programs();
                self.silence.broken(Instant::now());
                self.suspicions = Suspicions::default();
                Ok(())
            }
            Err(error) if self.served => {
                warn!("the engine cannot be started: {error}");
                self.start_at = Some(Instant::now() + self.policy.died(None));
                Ok(())
            }
            Err(error) => Err(ExitError::other(format!("the engine cannot be started: {error}"))),
        }
    }

    fn signalled(&mut self) -> Result<Flow, ExitError> {
        loop {
            let signal = match self.monitor.signals.read_signal() {
                Ok(Some(info)) => i32::try_from(info.ssi_signo).ok(),
                Ok(None) => return Ok(Flow::Go),
                Err(errno) => {
                    return Err(ExitError::other(format!(
                        "signals cannot be read: {}",
                        errno.desc()
                    )));
                }
            };
            let asked = match signal.and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGTERM) => Asked::Terminate,
                Some(Signal::SIGINT) => Asked::Interrupt,
                Some(Signal::SIGHUP) => Asked::Reload,
                Some(Signal::SIGUSR1) => Asked::Summary,
                Some(Signal::SIGUSR2) => Asked::ReopenLogs,
                _ => continue,
            };
            if matches!(asked, Asked::Terminate | Asked::Interrupt) {
                self.upgrading = false;
                if self.stopping.is_none() {
                    self.monitor.ready.tell(&Notice::Stopping);
                    self.stopping = Some(Instant::now() + STOP_LIMIT);
                }
                self.start_at = None;
                if self.engine.is_none() {
                    return Ok(Flow::End);
                }
            }
            match &self.engine {
                Some(engine) => engine.ask(asked),
                // The next one loads the configuration as it is kept, so that a reload is made up for.
                None => info!("there is no engine just now: {asked:?} is passed over"),
            }
        }
    }

    /// Takes what the engine has said; whether that was the end of it.
    fn listen(&mut self) -> bool {
        let until = Instant::now() + LISTEN_LIMIT;
        for number in 0..MAX_MESSAGES {
            if number > 0 && Instant::now() >= until {
                return false;
            }
            let Some(engine) = &self.engine else { return false };
            match engine.hear() {
                Heard::Said(say, along) => self.said(say, along),
                Heard::Nothing => return false,
                Heard::End => return true,
                Heard::Nonsense => {
                    self.condemn(Cause::Fault, "it said something that is no message");
                    return false;
                }
            }
        }
        false
    }

    fn said(&mut self, say: Say, along: Vec<OwnedFd>) {
        match say {
            Say::Ready => {
                self.monitor.ready.tell(&Notice::Ready);
                self.served = true;
                if let Some(engine) = &mut self.engine {
                    engine.ready_at.get_or_insert_with(Instant::now);
                }
            }
            Say::Reloading => self.monitor.ready.tell(&Notice::Reloading),
            Say::Status(status) => self.monitor.ready.tell(&Notice::Status(status)),
            Say::Alive => {
                self.pass_life_on();
                self.tell_of_others();
                // A thread whose panic did not matter.
                if let Some(engine) = &mut self.engine {
                    engine.last_words.take_if(|words| words.cause == Cause::Panic);
                }
            }
            Say::Reloaded => {
                self.monitor.binding.read_again();
                self.judge_again();
            }
            Say::Keep => self.keep(along),
            Say::Failed(cause, status, text) => {
                if cause == Cause::Panic {
                    error!("a thread of the engine: {text}");
                }
                // The first reason is the reason.
                if let Some(engine) = &mut self.engine {
                    engine.say_for_it(LastWords::new(cause, status, text));
                }
            }
            Say::Change(number, change) => {
                let answer = self.change(&change);
                self.answer(number, answer, None);
            }
            Say::Listen(number, addr) => {
                let (answer, listener) = self.listen_at(addr);
                self.answer(number, answer, listener);
            }
            Say::StopListening => self.monitor.holdings.metrics = None,
            Say::Upgrade(number) => self.upgrade(number),
            Say::Attend(number) => self.answer(number, Answer::Done, None),
            Say::WithoutPrograms(why) => self.give_programs_up(why),
            Say::Suspect(suspect) => self.suspected(&suspect),
        }
    }

    fn upgrade(&mut self, number: u32) {
        let monitor = &self.monitor;
        let checked = upgrade::check(&monitor.program, &monitor.arguments, &monitor.holdings);
        match checked {
            Ok(version) => {
                info!("isatapd {version} takes over");
                self.answer(number, Answer::Done, None);
                self.upgrading = true;
                // Its patience is for the engine's end.
                self.stopping = Some(Instant::now() + STOP_LIMIT);
                if let Some(engine) = &self.engine {
                    engine.ask(Asked::HandOver);
                }
            }
            Err(why) => {
                warn!("no upgrade: {why}");
                self.answer(number, Answer::Refused(why), None);
            }
        }
    }

    /// Becomes the new program; if that fails, goes on with an engine of the old one.
    fn jump(&mut self) {
        self.upgrading = false;
        self.stopping = None;
        let monitor = &mut self.monitor;
        monitor.setup.successor = true;
        let setup = Setup {
            upgrades: monitor.setup.upgrades + 1,
            ..monitor.setup.clone()
        };
        let descriptors: Vec<_> = [Some(monitor.lock.as_fd()), monitor.direct.sysctls()]
            .into_iter()
            .flatten()
            .collect();
        let programs = monitor.programs.here().map(|here| &here.held);
        let error = upgrade::jump(
            &monitor.program,
            &monitor.arguments,
            &monitor.holdings,
            setup,
            monitor.binding.left(),
            &descriptors,
            programs.into_iter().flat_map(Held::attachments),
        );
        error!("the upgrade failed, the program of before goes on: {error}");
        self.start_at = Some(Instant::now());
    }

    /// The service manager hears it a few times in the time it allows.
    fn pass_life_on(&mut self) {
        let Some(allowed) = self.monitor.watched else {
            return;
        };
        if self.passed_on_at.is_none_or(|at| at.elapsed() >= allowed / 4) {
            self.passed_on_at = Some(Instant::now());
            self.monitor.ready.tell(&Notice::Alive);
        }
    }

    /// Keeps what the engine has in force, for the next one. It is not looked into.
    fn keep(&mut self, along: Vec<OwnedFd>) {
        let kept = along
            .into_iter()
            .next()
            .ok_or(io::Error::from(io::ErrorKind::InvalidData))
            .and_then(text::read)
            .and_then(|bytes| text::keep(&bytes));
        match kept {
            Ok(text) => self.monitor.holdings.text = text,
            Err(error) => warn!("the configuration in force cannot be kept for the next engine: {error}"),
        }
    }

    /// Whether the engine has ended, and what follows.
    fn look_after(&mut self, closed: bool) -> Result<Flow, ExitError> {
        if let Some(helper) = &mut self.monitor.helper {
            let _ = helper.try_wait();
        }
        self.corpses.retain_mut(|corpse| corpse.ended().is_none());
        let Some(engine) = &mut self.engine else {
            return Ok(Flow::Go);
        };
        let overdue = self.stopping.is_some_and(|at| at <= Instant::now());
        let ended = match engine.ended() {
            None if overdue => {
                warn!("the engine does not end in order");
                engine.wait(Duration::ZERO)
            }
            None if closed => engine.wait(GONE_LIMIT),
            ended => ended,
        };
        let lingers = engine
            .dying_since()
            .is_some_and(|since| since.elapsed() >= DEATH_LIMIT);
        if ended.is_none() && !lingers && !closed && !overdue {
            return Ok(Flow::Go);
        }
        if ended.is_none() {
            engine.signal(Signal::SIGKILL);
        }
        // What it said last is still there to be read.
        self.listen();
        let Some(engine) = self.engine.take() else {
            return Ok(Flow::Go);
        };
        if !closed {
            self.revoke_neighbours();
        }
        if self.upgrading {
            // The program to come is given them.
            self.take_programs()?;
            self.jump();
            return Ok(Flow::Go);
        }
        if self.stopping.is_some() {
            return Ok(Flow::End);
        }
        let (cause, words) = cause_of(ended, engine.last_words.as_ref());
        if !self.served {
            return Err(failure(&engine, &words));
        }
        if !self.has_interface() {
            let name = &self.monitor.holdings.descriptors.shape.interface;
            return Err(ExitError::other(format!("interface {name} was deleted"))
                .with_remedy("start isatapd again to create it"));
        }
        let pause = self.policy.died(engine.served());
        if ended.is_none() {
            warn!("the engine of before is not gone yet: something holds it");
            self.corpses.push(engine);
        }
        let at = Cause::ALL.iter().position(|known| *known == cause).unwrap_or(0);
        self.monitor.setup.restarts[at] += 1;
        self.monitor.setup.successor = true;
        if pause.is_zero() {
            warn!("the engine is started again: {words}");
        } else {
            warn!("the engine is started again in {pause:?}, since it dies again and again: {words}");
        }
        let status = format!("the engine is started again: {words}");
        self.monitor.ready.tell(&Notice::Status(status));
        self.start_at = Some(Instant::now() + pause);
        if !pause.is_zero() {
            self.tell_of_others();
        }
        Ok(Flow::Go)
    }

    /// Under whatever name: the kernel gives no index twice.
    fn has_interface(&self) -> bool {
        name_of(self.monitor.holdings.descriptors.shape.if_index).is_ok()
    }

    /// Takes everything away.
    fn close(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.wait(Duration::ZERO);
        }
        self.detach();
        if let Err(error) = self.monitor.direct.delete() {
            tracing::debug!("the interface cannot be deleted: {error}");
        }
    }
}

/// What the daemon ends with when its first engine does not come up.
fn failure(engine: &EngineProcess, words: &str) -> ExitError {
    match &engine.last_words {
        Some(said) => ExitError::new(ExitStatus::from_code(said.status), said.text.clone()),
        None => {
            let error = ExitError::other(format!("the engine ended before it was ready: {words}"));
            // An allocation that fails ends the process without words of its own.
            match address_space::limit() {
                Some(limit) => error.with_remedy(format!(
                    "it may have {} MiB of address space: if that was too little, {}",
                    limit >> 20,
                    address_space::REMEDY
                )),
                None => error,
            }
        }
    }
}
