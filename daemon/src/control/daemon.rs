//! The running daemon: one event at a time, then whatever became due.
//!
//! A change of the world marks what has to be done and when: the Rulebook to be published, the interface to be
//! repaired. [`Daemon::catch_up`] does it, so that a storm of events costs a bounded rate of work.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use isatap_engine::fib::{Locator, Publisher};
use isatap_engine::io::errqueue::SendFailure;
use isatap_engine::isatap::mark::Mark;
use isatap_engine::path::PuntKind;
use isatap_engine::path::limit::TokenBucket;
use isatap_engine::worker::Engine;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::client::{Ordered, Orders};
use super::error_limits::ErrorLimits;
use super::latency::LatencyBook;
use super::opening::Opening;
use super::pace::Pace;
use super::programs::Programs;
use super::punts::AdvertisementLimits;
use super::reload::Loading;
use super::service::Service;
use super::slumber::Slumber;
use super::start::STOP_LIMIT;
use super::watchdog::Watchdog;
use super::watched::watch;
use super::{Failure, MonitorLink};
use crate::advertise::Advertiser;
use crate::advertise::consistency::Told;
use crate::config::resolved::{Facility, LogLevel, Role};
use crate::config::{Loader, Settings};
use crate::exit::ExitError;
use crate::launch::confine::Confinement;
use crate::launch::notify::Notice;
use crate::link::apply::Installed;
use crate::link::dns::DnsHandover;
use crate::link::losses::Losses;
use crate::link::setup::Interface;
use crate::link::{Effect, Netlink, NetlinkError, Watch, rulebook};
use crate::monitor::known_hosts::KnownHosts;
use crate::monitor::wire::{Asked, Cause};
use crate::ops::query::{Ask, Queries, Query};
use crate::ops::status::ControlStatus;
use crate::pmtu::Paths;
use crate::prl::Routers;
use crate::prl::names::{Answer, LookupError, NameBook};
use crate::prl::redirects::Redirects;
use crate::prl::resolver::{Lookups, Results};
use crate::slaac::Slaac;

/// How long after an event suppressed log lines are told.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Time for answers that are under way when the engine hands over.
const LAST_ANSWERS: Duration = Duration::from_millis(5);
/// How long retired Rulebooks wait before the workers are asked whether they still hold them.
const COLLECT_INTERVAL: Duration = Duration::from_secs(1);

/// Where events come from.
pub(super) struct Sources {
    orders: Orders,
    queries: Queries,
    icmp: mpsc::Receiver<SendFailure>,
    bell: AsyncFd<OwnedFd>,
    names: Results,
    pub(super) loading: Option<Loading>,
    reload_again: bool,
}

/// One event.
enum Event {
    /// `None`: the monitor is gone.
    Order(Option<Ordered>),
    /// Something about IPv4 routing.
    Underlay,
    Mirror(Result<Effect, NetlinkError>),
    Query(Query),
    Bell,
    Icmp(SendFailure),
    Loaded(Box<super::reload::Outcome>),
    LookedUp(String, Result<Answer, LookupError>),
    Timer,
}

/// What the loop ends for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The daemon stops.
    Stop,
    /// Another engine takes over.
    HandOver,
}

/// Everything control knows and holds.
pub(super) struct Daemon {
    pub(super) settings: Settings,
    pub(super) loader: Option<Loader>,
    pub(super) set_log: Box<dyn Fn(LogLevel, Facility)>,
    pub(super) reopen_log: Box<dyn Fn()>,
    pub(super) flush_log: Box<dyn Fn() -> bool>,
    pub(super) service: Service,
    /// When suppressed lines are to be told; set by whatever happens, so that an idle daemon sleeps.
    pub(super) flush_at: Option<Instant>,
    pub(super) engine: Engine,
    pub(super) publisher: Publisher,
    /// The programs of the `ebpf` lane, where they are loaded.
    pub(super) programs: Option<Programs>,
    /// Why they are not, although the configuration would have them; empty otherwise.
    pub(super) without_programs: String,
    /// What is to be done when it serves; until then it answers nobody.
    pub(super) opening: Option<Opening>,
    pub(super) watch: Watch,
    pub(super) netlink: Netlink,
    pub(super) interface: Interface,
    /// Carries out what changes the interface.
    pub(super) link: MonitorLink,
    /// What this process is confined to.
    pub(super) confinement: Confinement,
    pub(super) watchdog: Watchdog,
    pub(super) slumber: Slumber,
    pub(super) routers: Routers,
    pub(super) slaac: Slaac,
    /// What autoconfiguration has set in the kernel.
    pub(super) installed: Installed,
    pub(super) configure_at: Option<Instant>,
    /// Where advertised name servers go; `None` for a router, or when there is no way.
    pub(super) name_servers: Option<DnsHandover>,
    pub(super) names: NameBook,
    pub(super) lookups: Lookups,
    /// The locator in force, whether the machine has it now or not.
    pub(super) locator: Ipv4Addr,
    /// Nobody knew a router when it was chosen.
    pub(super) locator_is_guess: bool,
    /// What the sockets' filters let in.
    pub(super) attached: Vec<Locator>,
    pub(super) was_up: bool,
    pub(super) was_mtu: u32,
    pub(super) was_present: bool,
    pub(super) warned_ambiguous: bool,
    /// Other ISATAP interfaces of this machine with one of our locators, by name.
    pub(super) shared_with: Vec<String>,
    /// Of routes, in words.
    pub(super) not_honoured: Vec<String>,
    /// When to look again for an address that can carry the tunnel.
    pub(super) follow_at: Option<Instant>,
    pub(super) latencies: LatencyBook,
    /// What the kernel lost, when somebody wanted to know last.
    pub(super) losses: Losses,
    /// What the paths to peers take.
    pub(super) paths: Paths,
    /// Identifies our packets with DF, as long as this process lives.
    pub(super) mark: Mark,
    pub(super) counters: ControlStatus,
    pub(super) pace: Pace,
    /// When to ask whether the workers still hold retired Rulebooks.
    pub(super) collect_at: Option<Instant>,
    pub(super) repair_at: Option<Instant>,
    pub(super) repaired_at: Option<Instant>,
    pub(super) advertisement_limits: AdvertisementLimits,
    pub(super) solicitation_limit: TokenBucket,
    pub(super) all_routers_limit: TokenBucket,
    pub(super) redirect_limit: TokenBucket,
    pub(super) redirects: Redirects,
    /// Tells hosts about this router.
    pub(super) advertiser: Advertiser,
    /// Those it knows, for the next engine.
    pub(super) known_hosts: KnownHosts,
    /// Since when this router is being taken out of service.
    pub(super) drained_at: Option<Instant>,
    /// When it was last told that hosts cannot be advertised to.
    pub(super) unsent_told_at: Option<Instant>,
    /// When somebody last asked whether packets can be carried.
    pub(super) watched_at: Option<Instant>,
    /// Disagreements with other routers that have been told.
    pub(super) disagreements: Told,
    pub(super) error_limits: ErrorLimits,
    pub(super) started_at: Instant,
    pub(super) sources: Option<Sources>,
    pub(super) ask: Ask,
    pub(super) metrics_server: Option<JoinHandle<()>>,
}

impl Sources {
    pub(super) fn new(
        orders: Orders,
        queries: Queries,
        icmp: mpsc::Receiver<SendFailure>,
        names: Results,
        engine: &Engine,
    ) -> std::io::Result<Self> {
        let bell = watch(engine.bell().as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self {
            orders,
            queries,
            icmp,
            bell,
            names,
            loading: None,
            reload_again: false,
        })
    }

    async fn next(
        &mut self,
        watch: &mut Watch,
        programs: Option<&mut Programs>,
        deadline: Option<Instant>,
        is_open: bool,
    ) -> Event {
        let underlay = async {
            match programs {
                Some(programs) => programs.noticed().await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let loaded = async {
            match &mut self.loading {
                Some(loading) => loading.finished().await,
                None => std::future::pending().await,
            }
        };
        // Never fails but with the runtime itself, which ends this loop as well.
        let bell = async {
            if let Ok(mut guard) = self.bell.readable().await {
                guard.clear_ready();
            }
        };
        tokio::select! {
            asked = self.orders.next() => Event::Order(asked),
            effect = watch.changed() => Event::Mirror(effect),
            () = underlay => Event::Underlay,
            Some(query) = self.queries.next(), if is_open => Event::Query(query),
            Some(failure) = self.icmp.recv() => Event::Icmp(failure),
            () = bell => Event::Bell,
            outcome = loaded => Event::Loaded(outcome),
            (name, result) = self.names.next() => Event::LookedUp(name, result),
            () = timer => Event::Timer,
        }
    }
}

impl Daemon {
    /// Runs until an order or a failure.
    pub(super) async fn serve(&mut self) -> Result<(), Failure> {
        let Some(mut sources) = self.sources.take() else {
            let error = ExitError::other("the control loop was started twice");
            return Err((Cause::Fault, error));
        };
        let outcome = self.turn(&mut sources).await;
        let hands_over = matches!(outcome, Ok(End::HandOver));
        let stopped = if hands_over {
            self.keep_settings();
            // Whoever asked for it is still to be told that it begins.
            tokio::time::sleep(LAST_ANSWERS).await;
            // What arrives from here on is the successor's.
            self.engine.pause(STOP_LIMIT)
        } else {
            // Whoever asks from now on hears that this daemon stops.
            drop(sources);
            let handed_over_at = self.handed_over_at();
            self.take_leave().await;
            if let Some(at) = handed_over_at {
                tokio::time::sleep_until(at.into()).await;
            }
            self.engine.stop(STOP_LIMIT)
        };
        if let Err(workers) = stopped {
            warn!("workers {workers:?} did not end in time");
        }
        self.log_summary();
        outcome.map(|_| ()).map_err(|error| (Cause::Fault, error))
    }

    async fn turn(&mut self, sources: &mut Sources) -> Result<End, ExitError> {
        loop {
            let (deadline, is_open) = (self.deadline(), self.is_open());
            let mut timer = false;
            match sources
                .next(&mut self.watch, self.programs.as_mut(), deadline, is_open)
                .await
            {
                Event::Order(Some(Ordered::Asked(Asked::Terminate))) => {
                    info!("stopping on signal TERM");
                    return Ok(End::Stop);
                }
                Event::Order(Some(Ordered::Asked(Asked::Interrupt))) => {
                    info!("stopping on signal INT");
                    return Ok(End::Stop);
                }
                Event::Order(Some(Ordered::Asked(Asked::HandOver))) => return Ok(End::HandOver),
                Event::Order(None) => {
                    warn!("the monitor is gone: stopping");
                    return Ok(End::Stop);
                }
                // One that comes before it serves is made up for.
                Event::Order(Some(Ordered::Asked(Asked::Reload))) if !is_open => sources.reload_again = true,
                Event::Order(Some(Ordered::Asked(Asked::Reload))) => self.start_reload(sources, None),
                Event::Order(Some(Ordered::Asked(Asked::Summary))) => self.log_summary(),
                Event::Order(Some(Ordered::Asked(Asked::ReopenLogs))) => (self.reopen_log)(),
                Event::Order(Some(Ordered::Programs(programs))) => {
                    self.told_of_programs(programs)?;
                    if std::mem::take(&mut sources.reload_again) {
                        self.start_reload(sources, None);
                    }
                }
                Event::Order(Some(Ordered::Others(others))) => {
                    if let Some(programs) = &mut self.programs {
                        programs.set_others(others);
                    }
                }
                Event::Underlay => {
                    if let Some(programs) = &mut self.programs {
                        programs.look_soon();
                    }
                }
                Event::Mirror(effect) => self.mirrored(effect)?,
                Event::Query(Query::Reload(reply)) => self.start_reload(sources, Some(reply)),
                #[cfg(debug_assertions)]
                Event::Query(Query::Fault(fault, reply)) => {
                    let outcome = self.go_wrong(fault).await;
                    drop(reply.send(outcome));
                }
                Event::Query(Query::Upgrade(reply)) => drop(reply.send(self.link.upgrade().await)),
                Event::Query(query) => {
                    // What is shown is what the workers have, not what they are about to get.
                    if query.is_about_rules() && self.pace.due().is_some() {
                        self.publish(Instant::now())?;
                    }
                    if query.needs_latencies() {
                        self.latencies.gather(&self.engine, self.settings.workers).await;
                    }
                    if query.needs_losses() {
                        self.refresh_losses().await;
                    }
                    self.answer(query);
                }
                Event::Bell => self.rung()?,
                Event::Icmp(failure) => self.icmp_error(&failure),
                Event::Loaded(outcome) => {
                    self.finish_reload(*outcome).await;
                    sources.loading = None;
                    if std::mem::take(&mut sources.reload_again) {
                        self.start_reload(sources, None);
                    }
                }
                Event::LookedUp(name, result) => self.looked_up(&name, result),
                Event::Timer => timer = true,
            }
            if !timer {
                let now = Instant::now();
                self.flush_at.get_or_insert(now + FLUSH_AFTER);
                self.service.mark_changed(now);
            }
            self.catch_up().await?;
        }
    }

    /// Reads the file on a thread of its own: names may have to be looked up. Requests that come meanwhile make one
    /// more reload afterwards, however many they are (FAULTS 61).
    fn start_reload(&mut self, sources: &mut Sources, reply: Option<super::reload::Reply>) {
        match (&mut sources.loading, self.loader.take()) {
            (None, Some(loader)) => {
                self.service.tell(Notice::Reloading);
                sources.loading = Some(Loading::start(loader, reply));
            }
            (Some(loading), loader) => {
                self.loader = loader;
                match reply {
                    Some(reply) => loading.also_tell(reply),
                    None => sources.reload_again = true,
                }
            }
            (None, None) => error!("the configuration cannot be loaded again: its reader was lost"),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let discover = self
            .routers
            .next_deadline(self.names.held_until())
            .filter(|_| self.can_solicit());
        let names = self.names.next_deadline();
        [
            discover,
            names,
            self.configure_due(),
            self.pace.due(),
            self.advertiser.next_deadline(),
            self.repair_at,
            self.follow_at,
            self.redirects.next_deadline(),
            self.paths.next_deadline(),
            self.flush_at,
            self.service.next_deadline(),
            self.programs.as_ref().and_then(Programs::due),
            Some(self.watchdog.due()),
            self.collect_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(super) async fn catch_up(&mut self) -> Result<(), ExitError> {
        let now = Instant::now();
        self.watch_workers(now);
        self.look_for_slumber();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = (self.flush_log)().then(|| now + FLUSH_AFTER);
        }
        if self.follow_at.is_some_and(|at| at <= now) {
            self.follow_locator();
        }
        if self.repair_at.is_some_and(|at| at <= now) {
            self.repair(now).await;
        }
        if self.configure_due().is_some_and(|at| at <= now) {
            self.configure(now).await?;
        }
        self.expire_redirects(now);
        self.raise_paths(now);
        self.keep_paths(now);
        if self.pace.due().is_some_and(|at| at <= now) {
            self.publish(now)?;
        }
        self.guide_programs(now).await;
        self.look_up(now);
        // After the rules and the sockets' filters: the answer comes at once.
        self.discover(now);
        self.advertise(now);
        self.report_to_manager(now);
        if self.collect_at.is_some_and(|at| at <= now) {
            let held = self.publisher.collect();
            self.collect_at = (held > 0).then_some(now + COLLECT_INTERVAL);
        }
        Ok(())
    }

    /// A new Rulebook is needed.
    pub(super) fn mark_changed(&mut self) {
        self.pace.mark_changed(Instant::now());
    }

    pub(super) fn publish(&mut self, now: Instant) -> Result<(), ExitError> {
        self.pace.begin(Instant::now());
        let routers = self.routers.views();
        let mut builder = rulebook::compile(self.watch.state(), &self.settings, &self.locators(), &routers);
        builder.own6.extend(self.coming_addresses(now));
        self.add_redirects(&mut builder);
        self.add_paths(&mut builder);
        let locators = builder.locators.clone();
        let speakers: Vec<_> = locators.iter().map(|locator| locator.addr).collect();
        builder.advertises = self.answers_solicitations();
        if self.advertiser.set_locators(&speakers, self.is_shared()) {
            self.set_advertising(now);
        }
        match builder.build() {
            Ok(rulebook) => {
                self.publisher.publish(rulebook);
                self.collect_at = Some(now + COLLECT_INTERVAL);
                self.counters.rulebooks += 1;
            }
            Err(error) => error!("the rules in force stay: {error}"),
        }
        if locators != self.attached {
            let refused =
                |error| ExitError::other(format!("cannot change what the raw sockets receive: {error}"));
            self.engine.set_locators(&locators).map_err(refused)?;
            self.attached = locators;
        }
        self.publish_programs();
        self.tell_not_honoured();
        self.pace.end(Instant::now());
        Ok(())
    }

    /// Takes what the workers have for us.
    fn rung(&mut self) -> Result<(), ExitError> {
        self.engine.bell().silence();
        if let Ok(exit) = self.engine.exits().try_recv() {
            let fault = exit
                .fault
                .unwrap_or_else(|| "it ended without being told to".to_owned());
            return Err(ExitError::other(format!(
                "worker {} cannot go on: {fault}",
                exit.worker
            )));
        }
        // Bounded by what the channel holds; what comes later rings again.
        for _ in 0..isatap_engine::worker::MAX_PUNTS_WAITING {
            let Ok(punt) = self.engine.punts().try_recv() else {
                break;
            };
            match punt.kind {
                PuntKind::RouterAdvertisement if self.settings.role == Role::Router => {
                    self.peer_advertised(&punt.packet);
                }
                PuntKind::RouterAdvertisement => self.advertised(&punt.packet),
                PuntKind::NeighborAdvertisement => self.answered_probe(&punt.packet),
                PuntKind::RouterSolicitation => self.solicited_by_kernel(&punt.packet),
                PuntKind::AllRouters => self.tell_all_routers(&punt.packet),
                PuntKind::Redirect => self.redirected(&punt.packet),
                PuntKind::EcnAlarm => super::punts::tell_ecn(&punt.packet),
                PuntKind::HostSolicitation => self.solicited_by_host(&punt),
                PuntKind::OwnAdvertisement => self.spread(punt.packet),
            }
        }
        Ok(())
    }

    /// Nanoseconds since the start, for the limits.
    pub(super) fn clock(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Serves HTTP on `listener` instead of wherever it was served before.
    pub(super) fn serve_metrics(&mut self, listener: std::net::TcpListener) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.stop_metrics();
        let server = crate::ops::http::serve(listener, self.ask.clone(), crate::ops::http::Limits::default());
        self.metrics_server = Some(tokio::spawn(server));
        Ok(())
    }

    /// Serves HTTP no longer.
    pub(super) fn stop_metrics(&mut self) {
        if let Some(server) = self.metrics_server.take() {
            server.abort();
        }
    }
}
