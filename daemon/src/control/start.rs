//! Bringing up: everything privileged first, then the workers, then readiness.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use isatap_engine::fib::Publisher;
use isatap_engine::isatap::mark::Mark;
use isatap_engine::path::limit::TokenBucket;
use isatap_engine::worker::{Engine, EngineConfig, Prepared, SetupError};
use tracing::{info, warn};

use super::configure::slaac_config;
use super::daemon::{Daemon, Sources};
use super::error_limits::ErrorLimits;
use super::latency::LatencyBook;
use super::locator::Way;
use super::placement::cpus_for;
use super::punts::{ALL_ROUTERS_PER_SECOND, AdvertisementLimits, SOLICITATIONS_PER_SECOND};
use super::redirects::REDIRECTS_PER_SECOND;
use super::service::Service;
use super::signals::Signals;
use super::{Startup, icmp, locator};
use crate::advertise::Advertiser;
use crate::advertise::consistency::Told;
use crate::config::resolved::Role;
use crate::exit::{ExitError, ExitStatus};
use crate::launch::notify::Notice;
use crate::link::apply::Installed;
use crate::link::dns::DnsHelper;
use crate::link::losses::Losses;
use crate::link::setup::Interface;
use crate::link::sysctl::{self, Sysctls};
use crate::link::{Netlink, NetlinkError, Watch, rulebook};
use crate::ops;
use crate::ops::status::ControlStatus;
use crate::pmtu::Paths;
use crate::prl::names::NameBook;
use crate::prl::redirects::Redirects;
use crate::prl::resolver::{self, Resolver};
use crate::prl::{Jitter, Routers, SolicitConfig};
use crate::slaac::Slaac;

/// Opens, sets up, gives up privileges, starts, and says so.
pub(super) async fn bring_up(startup: Startup) -> Result<Daemon, ExitError> {
    let Startup {
        settings,
        loader,
        metrics,
        control,
        hooks,
    } = startup;
    let signals = Signals::install()?;
    let prepared = open_engine(&EngineConfig {
        interface: settings.interface.clone(),
        workers: settings.workers,
        lane: settings.lane,
        cpus: cpus_for(settings.workers),
        on_worker_start: hooks.worker_start,
    })
    .await?;
    let interface = Interface {
        if_index: prepared.if_index(),
        name: prepared.interface().to_owned(),
    };
    let sysctls = Sysctls::open(&interface.name);
    sysctls.apply(settings.role);
    if settings.role == Role::Router && !sysctl::forwards() {
        warn!(
            "this machine does not forward IPv6: hosts reach this router and nothing behind it; \
             set sysctl net.ipv6.conf.all.forwarding=1"
        );
    }
    let netlink = Netlink::open().map_err(netlink_error)?;
    let watch = Watch::open(netlink.clone(), interface.if_index)
        .await
        .map_err(netlink_error)?;
    let first = locator::choose(watch.state(), settings.bind, settings.bind.addr(), || {
        Way::NoRouter
    });
    let address = match first {
        locator::Choice::Move(address) => address,
        _ => settings.bind.addr(),
    };
    let present = watch.state().device_of(address).is_some();
    interface
        .set_up(&netlink, settings.mtu, present.then_some(address))
        .await
        .map_err(netlink_error)?;
    let helper = dns_helper(settings.role, &interface.name);
    // Its files are below the root directory of now.
    let (lookups, looked_up) = resolver::lookups(Resolver::open());
    (hooks.drop_privileges)()?;

    let now = Instant::now();
    let mut routers = Routers::new(
        SolicitConfig::from_secs(settings.min_router_solicit_interval),
        [Jitter::from_environment(), Jitter::from_environment()],
    );
    let mut names = NameBook::new(
        NameBook::refresh_from_secs(settings.prl_refresh_interval),
        Jitter::from_environment(),
    );
    names.set_servers(now, &settings.servers, &settings.server_names);
    routers.set_routers(now, &names.addrs());
    let locators = locator::set(watch.state(), settings.bind, address);
    let first = rulebook::compile(watch.state(), &settings, &locators, &routers.views())
        .build()
        .map_err(|error| ExitError::config(error.to_string()))?;
    let publisher = Publisher::new(first);
    let engine = prepared.start(&publisher.reader()).map_err(engine_error)?;
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
        signals,
        queries,
        icmp::drain(queues).map_err(descriptor_error)?,
        looked_up,
        &engine,
    )
    .map_err(descriptor_error)?;
    info!(
        "{} lane, {} worker(s), interface {} with tunnel MTU {}, {} at {address}",
        engine.lane().name(),
        settings.workers,
        interface.name,
        settings.mtu,
        super::report::role_name(settings.role),
    );
    if !present {
        warn!("this machine does not have the address {address} yet: nothing is carried until it does");
    }
    let slaac = Slaac::new(slaac_config(&settings));
    let mut installed = Installed::default();
    installed.set_mtu(settings.mtu);
    let locator_is_guess = settings.bind.is_auto() && settings.servers.is_empty();
    // A router takes part in the prefixes it advertises.
    let configure_at = (settings.role == Role::Router).then_some(now);
    let mut daemon = Daemon {
        settings,
        loader: Some(loader),
        set_log: hooks.set_log,
        reopen_log: hooks.reopen_log,
        flush_log: hooks.flush_log,
        service: Service::new(now, hooks.notify, hooks.watchdog),
        flush_at: None,
        engine,
        publisher,
        watch,
        netlink,
        interface,
        sysctls,
        routers,
        slaac,
        installed,
        configure_at,
        name_servers: helper
            .map(DnsHelper::hand_over)
            .transpose()
            .map_err(descriptor_error)?,
        names,
        lookups,
        locator: address,
        locator_is_guess,
        attached: Vec::new(),
        was_up: true,
        was_mtu: 0,
        was_present: present,
        warned_ambiguous: false,
        follow_at: None,
        latencies: LatencyBook::default(),
        losses: Losses::default(),
        paths: Paths::default(),
        mark: random_mark(),
        was_link_mtu: u16::MAX,
        counters: ControlStatus::default(),
        publish_at: Some(now),
        published_at: None,
        repair_at: Some(now),
        repaired_at: None,
        advertisement_limits: AdvertisementLimits::default(),
        solicitation_limit: TokenBucket::new(SOLICITATIONS_PER_SECOND, SOLICITATIONS_PER_SECOND),
        all_routers_limit: TokenBucket::new(ALL_ROUTERS_PER_SECOND, ALL_ROUTERS_PER_SECOND),
        redirect_limit: TokenBucket::new(REDIRECTS_PER_SECOND, REDIRECTS_PER_SECOND),
        redirects: Redirects::default(),
        advertiser: Advertiser::new(now, Jitter::from_environment()),
        drained_at: None,
        disagreements: Told::default(),
        error_limits: ErrorLimits::default(),
        started_at: now,
        sources: Some(sources),
        ask,
        metrics_server: None,
    };
    if let Some(listener) = metrics {
        daemon.serve_metrics(listener).map_err(descriptor_error)?;
    }
    daemon.follow_own_addresses();
    daemon.set_advertising(now);
    daemon.catch_up().await?;
    daemon.service.tell(Notice::Ready);
    Ok(daemon)
}

/// A mark that nobody can foresee.
fn random_mark() -> Mark {
    // The standard library keys each RandomState from the kernel's random numbers.
    let random = RandomState::new();
    Mark::new([random.hash_one(0u8), random.hash_one(1u8)])
}

/// Only a host hears of name servers. Without a helper everything else works, so that its failure is said, not fatal.
fn dns_helper(role: Role, interface: &str) -> Option<DnsHelper> {
    if role == Role::Router {
        return None;
    }
    DnsHelper::start(interface)
        .inspect_err(|error| warn!("advertised name servers are not used: {error}"))
        .ok()
}

/// A daemon that was killed leaves its interface behind for a moment, until the kernel has taken its rings apart: one
/// that is started at once waits for that (FAULTS 60).
async fn open_engine(config: &EngineConfig) -> Result<Prepared, ExitError> {
    let deadline = Instant::now() + NAME_LIMIT;
    loop {
        match Engine::open(config.clone()) {
            Err(SetupError::InterfaceTaken { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(NAME_RETRY).await;
            }
            opened => return opened.map_err(engine_error),
        }
    }
}

fn unix_listener(listener: std::os::unix::net::UnixListener) -> Result<tokio::net::UnixListener, ExitError> {
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(listener))
        .map_err(descriptor_error)
}

fn engine_error(error: SetupError) -> ExitError {
    let status = if error.is_permission() {
        ExitStatus::NotPermitted
    } else {
        ExitStatus::Unavailable
    };
    ExitError::new(status, error.to_string())
}

fn netlink_error(error: NetlinkError) -> ExitError {
    let status = match error.errno() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => ExitStatus::NotPermitted,
        _ => ExitStatus::Unavailable,
    };
    ExitError::new(status, error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn descriptor_error(error: std::io::Error) -> ExitError {
    ExitError::other(format!("the control loop cannot watch a descriptor: {error}"))
}

/// How long the interface's name may still be taken, and how often to look.
const NAME_LIMIT: Duration = Duration::from_millis(600);
const NAME_RETRY: Duration = Duration::from_millis(20);

/// Time the workers get to finish what they hold.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(700);
