//! Answers about the daemon: status, readiness, metrics, routes, the summary in the log.

use std::net::Ipv4Addr;
use std::time::Instant;

use isatap_engine::capture::CaptureConfig;
use isatap_engine::fib::{HopGroup, NextHop};
use isatap_engine::io::lane::LaneKind;
use isatap_engine::isatap::iid;
use tracing::info;

use super::daemon::Daemon;
use super::drain::DRAINING;
use super::explain;
use super::programs::Programs;
use crate::config::names::Key;
use crate::config::resolved::{self, Role};
use crate::link::mirror::V6Address;
use crate::link::{MirrorState, rulebook};
use crate::ops::capture::Running;
use crate::ops::live::Moment;
use crate::ops::metrics::{self, Scrape};
use crate::ops::query::Query;
use crate::ops::status::{
    InterfaceStatus, LocatorStatus, NameStatus, ProgramsStatus, RouteStatus, RouterStatus, Routes,
    SCHEMA_VERSION, SettingStatus, Status, Traffic, WorkerStatus,
};
use crate::prl::names::NameView;
use crate::prl::{Health, RouterView, Routers};

/// The name of the lane in which the kernel's programs carry, and workers what those leave.
const EBPF: &str = resolved::Lane::Ebpf.name();

/// The name of the tunnel interface's queues among those where the kernel drops; sockets have numbers.
const TUN_QUEUE: &str = "tun_txq";
/// And of its way in, which only programs use: what a worker writes in vain it counts itself.
const TUN_RECEIVE: &str = "tun_rx";

/// Routes shown at most: the answer must fit one line of the control socket.
const MAX_ROUTES_SHOWN: usize = 10_000;

/// The role in words.
pub(super) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Host => "host",
        Role::Router => "router",
    }
}

/// `uring lane`, or `ebpf lane, workers by uring`.
pub(super) fn lane_words(has_programs: bool, workers: LaneKind) -> String {
    if has_programs {
        format!("{EBPF} lane, workers by {}", workers.name())
    } else {
        format!("{} lane", workers.name())
    }
}

/// `2 usable, 1 unreachable`.
pub(super) fn router_counts(routers: &Routers) -> String {
    let counts = Health::ALL
        .iter()
        .zip(routers.counts())
        .filter(|(_, count)| *count > 0);
    counts
        .map(|(health, count)| format!("{count} {}", health.name()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Link-local addresses of locators that are not ours now (A6). What advertisements brought, autoconfiguration takes
/// back; what an operator configured stays.
pub(super) fn stale_addresses(state: &MirrorState, locators: &[Ipv4Addr]) -> Vec<V6Address> {
    let is_stale = |own: &V6Address| {
        let made_for = iid::link_local_locator(&own.addr);
        made_for.is_some_and(|addr| !locators.contains(&addr))
    };
    state.own6().filter(is_stale).collect()
}

impl Daemon {
    /// Answers a question; whoever asked may have gone meanwhile.
    pub(super) fn answer(&mut self, query: Query) {
        match query {
            Query::Status(reply) => drop(reply.send(self.status())),
            Query::Moment(reply) => {
                let moment = Moment {
                    status: self.status(),
                    latencies: self.latencies.total(),
                    of_kernel: self.programs.as_ref().map(Programs::latencies),
                };
                drop(reply.send(moment));
            }
            Query::Metrics(reply) => drop(reply.send(metrics::encode(self.scrape()))),
            Query::Ready(reply) => {
                self.watched_at = Some(Instant::now());
                let obstacles = self.obstacles();
                drop(reply.send(if obstacles.is_empty() {
                    Ok(())
                } else {
                    Err(obstacles)
                }));
            }
            Query::Latency(reply) => {
                let kernel = self.programs.as_ref().map(Programs::latencies);
                drop(reply.send(self.latencies.rows(kernel.as_ref())));
            }
            Query::Routes(reply) => drop(reply.send(self.routes())),
            Query::Hosts(within, reply) => drop(reply.send(self.hosts(Instant::now(), within))),
            Query::Solicit(reply) => drop(reply.send(self.solicit_now())),
            Query::Drain(on, reply) => drop(reply.send(self.drain(on))),
            Query::Capture(config, reply) => {
                let running = self.capture(&config);
                // From here on every packet comes by a worker.
                self.publish_programs();
                drop(reply.send(running));
            }
            Query::Explain(request, reply) => {
                let rules = self.publisher.current();
                let said = explain::explain(&rules, self.locator, request, &self.carriers());
                drop(reply.send(said));
            }
            #[cfg(debug_assertions)]
            Query::Fault(_, reply) => drop(reply.send(Err("this is not answered here".to_owned()))),
            Query::Upgrade(reply) => drop(reply.send(Err("an upgrade cannot be answered here".to_owned()))),
            Query::Reload(reply) => drop(reply.send(Err("a reload cannot be answered here".to_owned()))),
        }
    }

    fn capture(&self, config: &CaptureConfig) -> Result<Running, String> {
        let capture = self.engine.capture(config).map_err(|error| error.to_string())?;
        Ok(Running {
            capture,
            interface: self.interface.name.clone(),
            workers: self.settings.workers,
        })
    }

    /// Why packets cannot be carried now; empty when they can.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        let (state, name) = (self.watch.state(), &self.interface.name);
        let own = iid::link_local(self.locator);
        if !state.is_up() {
            obstacles.push(format!("interface {name} is down"));
        }
        if !self.is_present() {
            obstacles.push(format!("this machine does not have the address {}", self.locator));
        } else if state.is_up() && !state.has_own6(own) {
            obstacles.push(format!(
                "interface {name} cannot be given {own}: is IPv6 off (sysctl net.ipv6.conf.{name}.disable_ipv6)?"
            ));
        }
        if self.settings.role == Role::Host && !self.routers.any_usable() {
            obstacles.push(self.router_obstacle());
        }
        if self.drained_at.is_some() {
            obstacles.push(DRAINING.to_owned());
        }
        obstacles
    }

    fn solicit_now(&mut self) -> Result<usize, String> {
        if self.settings.role == Role::Router {
            return Err("this is a router: it solicits nobody".to_owned());
        }
        let blocked: Vec<_> = self
            .obstacles()
            .into_iter()
            .filter(|why| *why != self.router_obstacle())
            .collect();
        if !blocked.is_empty() {
            return Err(format!("cannot solicit: {}", blocked.join("; ")));
        }
        let now = Instant::now();
        self.names.refresh_all(now);
        self.routers.solicit_all(now);
        Ok(self.routers.views().len())
    }

    fn scrape(&self) -> Scrape {
        Scrape {
            workers: self.engine.stats().snapshot(),
            kernel_drops: self.kernel_drops().collect(),
            qdisc_drops: self.losses.qdisc,
            device_drops: self.losses.device,
            routers: self.routers.counts(),
            clients: self.advertiser.clients(),
            latencies: self.latencies.total(),
            paths: [self.paths.links.len(), self.paths.routers.len()],
            control: self.counters.clone(),
            share: self.programs.as_ref().map(Programs::share),
            captures: self.engine.captures(),
            ready: self.obstacles().is_empty(),
            draining: self.drained_at.is_some(),
            is_router: self.settings.role == Role::Router,
            lane: self.lane_name().to_owned(),
            kernel: kernel_release(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let state = self.watch.state();
        let link = state.link().unwrap_or_default();
        let workers = self.engine.stats().snapshot();
        let share = self.programs.as_ref().map(Programs::share);
        let obstacles = self.obstacles();
        let now = Instant::now();
        Status {
            schema_version: SCHEMA_VERSION,
            host: host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: nix::unistd::getppid().as_raw().unsigned_abs(),
            engine_pid: std::process::id(),
            uptime_seconds: self.started_at.elapsed().as_secs_f64(),
            role: role_name(self.settings.role).to_owned(),
            lane: self.lane_name().to_owned(),
            workers_lane: self.engine.lane().name().to_owned(),
            ready: obstacles.is_empty(),
            not_ready: obstacles,
            draining_seconds: self.drained_at.map(|at| at.elapsed().as_secs_f64()),
            interface: InterfaceStatus {
                name: self.interface.name.clone(),
                index: self.interface.if_index,
                up: link.up,
                mtu: link.mtu,
                tunnel_mtu: self.settings.mtu,
                addresses: state
                    .own6()
                    .map(|own| format!("{}/{}", own.addr, own.prefix_len))
                    .collect(),
            },
            locator: LocatorStatus {
                address: self.locator,
                automatic: self.settings.bind.is_auto(),
                present: self.is_present(),
                shared_with: self.shared_with.clone(),
            },
            routers: self
                .routers
                .views()
                .iter()
                .map(|router| router_status(router, now))
                .collect(),
            names: self
                .names
                .name_views()
                .map(|view| name_status(view, now))
                .collect(),
            resolver: self.resolver_status(),
            advertising: self.advertising_status(),
            route_count: state.route_count(),
            paths: self.paths_status(),
            total: Traffic::total(&workers, share.as_ref()),
            workers: workers
                .iter()
                .enumerate()
                .map(|(number, worker)| WorkerStatus::new(number, worker))
                .collect(),
            kernel_drops: self.kernel_drops().collect(),
            qdisc_drops: self.losses.qdisc,
            device_drops: self.losses.device,
            captures: self.engine.captures(),
            programs: match &share {
                Some(share) => share.into(),
                None => ProgramsStatus::none(&self.without_programs),
            },
            sandbox: self.confinement.status(self.engine.lane()),
            configuration: self.configuration(),
            control: self.counters.clone(),
        }
    }

    fn lane_name(&self) -> &'static str {
        match &self.programs {
            Some(_) => EBPF,
            None => self.engine.lane().name(),
        }
    }

    /// Asks the kernel what it lost.
    pub(super) async fn refresh_losses(&mut self) {
        let locators = self.locators();
        let state = self.watch.state();
        let underlay = locators.iter().filter_map(|locator| state.device_of(*locator));
        self.losses
            .refresh(&self.netlink, self.interface.if_index, underlay)
            .await;
    }

    /// Packets the kernel dropped before a worker saw them, by queue.
    fn kernel_drops(&self) -> impl Iterator<Item = (String, u64)> {
        let sockets = self.engine.kernel_drops().into_iter().enumerate();
        sockets
            .map(|(queue, count)| (queue.to_string(), count))
            .chain([(TUN_QUEUE.to_owned(), self.losses.tun)])
            .chain(
                self.programs
                    .as_ref()
                    .map(|_| (TUN_RECEIVE.to_owned(), self.losses.tun_rx)),
            )
    }

    /// What is in force, as lines of the file would say it.
    fn configuration(&self) -> Vec<SettingStatus> {
        let lines = |key: &Key| {
            let lines = self.settings.lines_of(*key);
            let name = key.name();
            lines.into_iter().map(move |value| SettingStatus {
                name: name.to_owned(),
                value,
            })
        };
        Key::ALL.iter().flat_map(lines).collect()
    }

    fn routes(&self) -> Routes {
        let routers = self.routers.views();
        let host = self.publisher.current().source().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let choices = self.watch.state().routes(host, rulebook::is_reachable(&routers));
        let group = |number: u16| choices.groups.get(usize::from(number)).map(HopGroup::active);
        let list = |members: &[Ipv4Addr]| {
            let members: Vec<_> = members.iter().map(ToString::to_string).collect();
            members.join(" ")
        };
        let all = &choices.routes;
        let redirects = self.redirects.iter().map(|redirect| RouteStatus {
            prefix: format!("{}/128", redirect.destination),
            next_hop: redirect.target.to_string(),
        });
        let shown = all
            .iter()
            .take(MAX_ROUTES_SHOWN)
            .map(|(prefix, hop)| RouteStatus {
                prefix: prefix.to_string(),
                next_hop: match hop {
                    NextHop::OnLink => "on-link".to_owned(),
                    NextHop::Via(router) => router.to_string(),
                    NextHop::Group(number) => list(group(*number).unwrap_or_default()),
                    NextHop::Unreachable => "unreachable".to_owned(),
                },
            });
        Routes {
            total: all.len() + redirects.len(),
            routes: redirects.chain(shown).collect(),
        }
    }

    /// USR1, and the last words at exit.
    pub(super) fn log_summary(&self) {
        let status = self.status();
        for (name, direction) in [("encap", &status.total.encap), ("decap", &status.total.decap)] {
            let drops: Vec<_> = direction
                .drops
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect();
            info!(
                "{name}: {} received, {} delivered ({} bytes), {} punted, {} dropped{}{}",
                direction.received,
                direction.packets,
                direction.bytes,
                direction.punted,
                direction.dropped,
                if drops.is_empty() { "" } else { ": " },
                drops.join(", ")
            );
        }
        if self.settings.role == Role::Host {
            info!("routers: {}", router_counts(&self.routers));
        }
    }
}

fn router_status(router: &RouterView, now: Instant) -> RouterStatus {
    let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now).as_secs_f64());
    let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at).as_secs_f64());
    let schedule = &router.schedule;
    RouterStatus {
        address: router.addr,
        link_local: iid::link_local(router.addr),
        state: router.health.name().to_owned(),
        preference: router.preference,
        lifetime_seconds: until(schedule.usable_until),
        advertised_seconds_ago: since(schedule.advertised_at),
        next_solicitation_seconds: until(schedule.next_solicitation_at),
        solicitations: schedule.solicitations,
        advertisements: schedule.advertisements,
        answered_seconds_ago: since(router.reach.confirmed_at),
        round_trip_seconds: router.reach.round_trip.map(|time| time.as_secs_f64()),
    }
}

fn name_status(view: NameView, now: Instant) -> NameStatus {
    let until = |at: Instant| at.saturating_duration_since(now).as_secs_f64();
    NameStatus {
        name: view.name,
        addresses: view.addrs,
        answered_seconds_ago: view
            .answered_at
            .map(|at| now.saturating_duration_since(at).as_secs_f64()),
        ttl_seconds: view.expires.map(until),
        next_lookup_seconds: view.next_at.map(until),
        error: view.last_error.map(|error| error.to_string()),
        failures: view.failures,
    }
}

fn kernel_release() -> String {
    of_machine(|name| name.release().to_string_lossy().into_owned())
}

fn host_name() -> String {
    of_machine(|name| name.nodename().to_string_lossy().into_owned())
}

fn of_machine(read: impl Fn(&nix::sys::utsname::UtsName) -> String) -> String {
    nix::sys::utsname::uname().map_or_else(|_| "unknown".to_owned(), |name| read(&name))
}
