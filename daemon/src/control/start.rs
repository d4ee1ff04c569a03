//! Bringing up: what was handed over is taken, the interface set up or taken over, the workers started, readiness said.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::fib::Publisher;
use isatap_engine::io::probe;
use isatap_engine::io::restrict::RingScope;
use isatap_engine::isatap::mark::Mark;
use isatap_engine::path::limit::TokenBucket;
use isatap_engine::worker::{Engine, EngineConfig, SetupError};
use tracing::{info, warn};

use super::configure::slaac_config;
use super::daemon::{Daemon, Sources};
use super::error_limits::ErrorLimits;
use super::latency::LatencyBook;
use super::locator::Way;
use super::opening::Opening;
use super::pace::Pace;
use super::placement::cpus_for;
use super::punts::{ALL_ROUTERS_PER_SECOND, AdvertisementLimits, SOLICITATIONS_PER_SECOND};
use super::redirects::REDIRECTS_PER_SECOND;
use super::service::Service;
use super::slumber::Slumber;
use super::watchdog::Watchdog;
use super::{MonitorLink, Startup, icmp, locator};
use crate::advertise::Advertiser;
use crate::advertise::consistency::Told;
use crate::config::Settings;
use crate::config::names::Key;
use crate::config::resolved::{Layer, Role};
use crate::exit::{ExitError, ExitStatus};
use crate::launch::confine::filters::ThreadKind;
use crate::launch::descriptors;
use crate::launch::start::setup_error;
use crate::link::apply::{self, Installed, Known};
use crate::link::change::{Change, Changer as _};
use crate::link::dns::{DnsHandover, INHERITED_LIMIT};
use crate::link::losses::Losses;
use crate::link::setup::Interface;
use crate::link::{Netlink, NetlinkError, Watch, rulebook};
use crate::monitor::known_hosts::epoch;
use crate::monitor::wire::{Cause, Setup};
use crate::ops;
use crate::ops::status::ControlStatus;
use crate::pmtu::Paths;
use crate::prl::names::NameBook;
use crate::prl::redirects::Redirects;
use crate::prl::resolver;
use crate::prl::{Jitter, Routers, SolicitConfig};
use crate::slaac::Slaac;

/// Takes over, sets up, starts, and says so.
pub(super) async fn bring_up(startup: Startup) -> Result<Daemon, ExitError> {
    let Startup {
        settings,
        drained_at,
        taken_back,
        known_routers,
        heard_routers,
        known_paths,
        loader,
        setup,
        known_hosts,
        descriptors,
        control,
        metrics,
        names,
        resolver,
        forwards,
        link,
        confinement,
        hooks,
    } = startup;
    let orders = link.listen().map_err(descriptor_error)?;
    let workers = descriptors.workers.len();
    let prepared = Engine::prepare(
        EngineConfig {
            lane: settings.lane.of_workers(),
            ring: confinement.ring(),
            cpus: cpus_for(workers),
            on_worker_start: hooks.worker_start,
        },
        descriptors,
    )
    .map_err(|error| lane_error(error, confinement.ring()))?;
    let if_index = prepared.if_index();
    let netlink = Netlink::open().map_err(netlink_error)?;
    let watch = Watch::open(netlink.clone(), if_index)
        .await
        .map_err(netlink_error)?;
    let interface = Interface {
        if_index,
        name: watch
            .state()
            .name()
            .unwrap_or_else(|| prepared.interface())
            .to_owned(),
    };
    let first = locator::choose(watch.state(), settings.bind, settings.bind.addr(), || {
        Way::NoRouter
    });
    let address = match first {
        locator::Choice::Move(address) => address,
        _ => settings.bind.addr(),
    };
    let present = watch.state().device_of(address).is_some();
    if !setup.successor {
        set_up(&settings, &interface, &link, &netlink, present.then_some(address)).await?;
        if settings.role == Role::Router && !forwards {
            warn!(
                "this machine does not forward IPv6: hosts reach this router and nothing behind it; \
                 set sysctl net.ipv6.conf.all.forwarding=1"
            );
        }
    }
    let (lookups, looked_up) = resolver::lookups(resolver);

    let now = Instant::now();
    let mut routers = Routers::new(
        SolicitConfig::from_secs(settings.min_router_solicit_interval),
        [Jitter::from_environment(), Jitter::from_environment()],
    );
    let mut book = NameBook::new(
        NameBook::refresh_from_secs(settings.prl_refresh_interval),
        Jitter::from_environment(),
    );
    book.set_servers(now, &settings.servers, &settings.server_names);
    book.recall(now, &known_routers);
    routers.set_routers(now, &book.addrs());
    routers.recall(now, &heard_routers);
    let locators = locator::set(watch.state(), settings.bind, address);
    let first = rulebook::compile(watch.state(), &settings, &locators, &routers.views())
        .build()
        .map_err(|error| ExitError::config(error.to_string()))?;
    let publisher = Publisher::new(first);
    let engine = prepared.start(&publisher.reader()).map_err(setup_error)?;
    if let Some(why) = engine.without_ring() {
        info!("the syscall lane carries, since io_uring cannot: {why}");
    }
    // The workers have their rings: no other is made from here on. Helpers of this thread come later.
    confinement.enter_thread(ThreadKind::Control)?;
    start_reader().await?;
    let queues = engine
        .error_queues()
        .map(|queue| queue.try_clone_to_owned())
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(descriptor_error)?;
    let (ask, queries) = ops::query::channel();
    tokio::spawn(ops::socket::serve(
        unix_listener(control)?,
        ask.clone(),
        ops::socket::Limits::default(),
    ));
    let sources = Sources::new(
        orders,
        queries,
        icmp::drain(queues).map_err(descriptor_error)?,
        looked_up,
        &engine,
    )
    .map_err(descriptor_error)?;
    if !present {
        warn!("this machine does not have the address {address} yet: nothing is carried until it does");
    }
    let mut slaac = Slaac::new(slaac_config(&settings));
    let mut installed = Installed::default();
    installed.set_mtu(settings.mtu);
    if setup.successor {
        let dump = netlink.dump(interface.if_index).await.map_err(netlink_error)?;
        adopt(
            &apply::known(interface.if_index, &dump, now),
            &mut slaac,
            &mut installed,
            now,
        );
    }
    let locator_is_guess = settings.bind.is_auto() && settings.servers.is_empty() && known_routers.is_empty();
    // A router takes part in the prefixes it advertises.
    let configure_at = (settings.role == Role::Router).then_some(now);
    let mut daemon = Daemon {
        settings,
        loader: Some(loader),
        set_log: hooks.set_log,
        reopen_log: hooks.reopen_log,
        flush_log: hooks.flush_log,
        service: Service::new(now, hooks.notify),
        flush_at: None,
        watchdog: Watchdog::new(workers),
        slumber: Slumber::new(),
        engine,
        publisher,
        programs: None,
        without_programs: String::new(),
        opening: Some(Opening {
            metrics,
            let_terminal_go: hooks.let_terminal_go,
        }),
        watch,
        netlink,
        interface,
        link,
        confinement,
        routers,
        slaac,
        installed,
        configure_at,
        name_servers: names
            .map(|names| DnsHandover::begin(names, setup.successor.then_some(INHERITED_LIMIT)))
            .transpose()
            .map_err(descriptor_error)?,
        names: book,
        lookups,
        locator: address,
        locator_is_guess,
        attached: Vec::new(),
        was_up: true,
        was_mtu: 0,
        was_present: present,
        warned_ambiguous: false,
        shared_with: Vec::new(),
        not_honoured: Vec::new(),
        follow_at: None,
        latencies: LatencyBook::default(),
        losses: Losses::default(),
        paths: Paths::default(),
        mark: random_mark(),
        counters: ControlStatus {
            engine_restarts: restarts(&setup),
            upgrades: setup.upgrades,
            ..ControlStatus::default()
        },
        pace: Pace::new(now),
        collect_at: None,
        repair_at: Some(now),
        repaired_at: None,
        advertisement_limits: AdvertisementLimits::default(),
        solicitation_limit: TokenBucket::new(SOLICITATIONS_PER_SECOND, SOLICITATIONS_PER_SECOND),
        all_routers_limit: TokenBucket::new(ALL_ROUTERS_PER_SECOND, ALL_ROUTERS_PER_SECOND),
        redirect_limit: TokenBucket::new(REDIRECTS_PER_SECOND, REDIRECTS_PER_SECOND),
        redirects: Redirects::default(),
        advertiser: Advertiser::new(epoch(), Jitter::from_environment()),
        known_hosts,
        drained_at,
        unsent_told_at: None,
        watched_at: None,
        disagreements: Told::default(),
        error_limits: ErrorLimits::default(),
        started_at: now,
        sources: Some(sources),
        ask,
        metrics_server: None,
    };
    daemon.follow_own_addresses();
    daemon.look_for_others();
    daemon.advertiser.recall_taken_back(now, taken_back);
    daemon.paths.routers.recall_all(now, epoch(), &known_paths);
    daemon.set_advertising(now);
    if setup.successor {
        daemon.recall_hosts(now);
    }
    daemon.catch_up().await?;
    if !setup.successor {
        descriptors::require_spare(&daemon.link)?;
    }
    if !setup.programs {
        daemon.open()?;
    }
    Ok(daemon)
}

/// Has the first of the threads for files start. It stays: by the time of a reload the machine may have no room for another.
async fn start_reader() -> Result<(), ExitError> {
    let failed = |error| {
        ExitError::from_io(
            &error,
            ExitStatus::Unavailable,
            "the thread that reads files cannot be started",
        )
    };
    // Where the kernel gives none, the runtime does not say so but panics.
    let tried = std::thread::Builder::new().spawn(|| ()).map_err(failed)?;
    let _ = tried.join();
    let started = tokio::task::spawn_blocking(|| ()).await;
    started.map_err(|error| failed(std::io::Error::other(error)))
}

/// What a new interface is given; a successor finds it done, and leaves it as people have made it since.
async fn set_up(
    settings: &Settings,
    interface: &Interface,
    link: &MonitorLink,
    netlink: &Netlink,
    locator: Option<Ipv4Addr>,
) -> Result<(), ExitError> {
    let sysctls = link.change(Change::Sysctls(settings.role)).await;
    sysctls.map_err(netlink_error)?;
    interface
        .set_up(link, netlink, settings.mtu, locator)
        .await
        .map_err(netlink_error)
}

/// Takes over what an engine before this one has set: it lives on as long as it was to live, and is this one's to change.
fn adopt(known: &Known, slaac: &mut Slaac, installed: &mut Installed, now: Instant) {
    let (addresses, routes) = known.advertised();
    slaac.adopt(now, &addresses, &routes);
    installed.adopt(known);
    let (addresses, routes) = installed.counts();
    info!("taken over from the engine before: {addresses} address(es), {routes} route(s)");
}

/// How often an engine was started again, by the name of the cause.
fn restarts(setup: &Setup) -> BTreeMap<String, u64> {
    let names = Cause::NAMES.into_iter().map(str::to_owned);
    names
        .zip(setup.restarts)
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// A mark that nobody can foresee.
fn random_mark() -> Mark {
    // The standard library keys each RandomState from the kernel's random numbers.
    let random = RandomState::new();
    Mark::new([random.hash_one(0u8), random.hash_one(1u8)])
}

fn unix_listener(listener: std::os::unix::net::UnixListener) -> Result<tokio::net::UnixListener, ExitError> {
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(listener))
        .map_err(descriptor_error)
}

/// Who insists on a lane whose ring cannot be restricted, and could do without that, is told so.
fn lane_error(error: SetupError, ring: RingScope) -> ExitError {
    let could_be_waived = matches!(error, SetupError::Lane { .. })
        && ring == RingScope::Lane
        && probe::uring(RingScope::Anything).is_ok();
    let error = setup_error(error);
    if could_be_waived {
        let (key, layer) = (Key::SandboxWaive, Layer::Ring.name());
        error.with_remedy(format!("\"{key} {layer}\" in the configuration uses it as it is"))
    } else {
        error
    }
}

fn netlink_error(error: NetlinkError) -> ExitError {
    let status = match error.errno() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => ExitStatus::NotPermitted,
        _ => ExitStatus::Unavailable,
    };
    ExitError::new(status, error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(super) fn descriptor_error(error: std::io::Error) -> ExitError {
    ExitError::from_io(
        &error,
        ExitStatus::Other,
        "the control loop cannot watch a descriptor",
    )
}

/// Time the workers get to finish what they hold.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(700);
