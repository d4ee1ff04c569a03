//! The mirror kept current: notifications in, a fresh dump whenever one got lost (FAULTS 55).

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::time::Instant;

use super::notices::{Notice, Notices};
use super::objects::Objects;
use super::{Effect, MirrorState, Netlink, NetlinkError};

/// What tells about changes: links, addresses of both families, IPv6 routes.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

/// Least time between two dumps, so that a storm of changes costs a bounded share of control's time.
const MIN_DUMP_INTERVAL: Duration = Duration::from_millis(50);

/// Failed dumps in a row before the caller is told, and the pause between them.
const MAX_FAILURES: u32 = 10;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A dump under way.
type Dumping = Pin<Box<dyn Future<Output = Result<Dump, NetlinkError>> + Send>>;
type Asking = Pin<Box<dyn Future<Output = Result<Objects, NetlinkError>> + Send>>;
type Dump = (Vec<RouteNetlinkMessage>, Objects);

/// MTUs that devices have no longer.
#[derive(Debug, Default)]
pub struct EndedMtus {
    /// In bytes, each the one of some device until a notification said otherwise.
    pub mtus: BTreeSet<u32>,
    /// There may be others: notifications were lost, or made good for by a dump.
    pub missed: bool,
}

/// The mirror and the sockets that feed it.
pub struct Watch {
    netlink: Netlink,
    notices: Notices,
    /// Of nexthop objects. When one leaves its group, or is replaced by another, nothing is told of the routes that it was part of.
    of_objects: Notices,
    objects: Objects,
    /// They are to be asked for again.
    ask: bool,
    state: MirrorState,
    resync: bool,
    /// It goes on when the caller had something else to do meanwhile: a large one takes longer than a daemon that is asked all
    /// the time is ever left alone, and would never end.
    dumping: Option<Dumping>,
    asking: Option<Asking>,
    dumped_at: Instant,
    overruns: u64,
    failures: u32,
    ended_mtus: EndedMtus,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("state", &self.state)
            .field("overruns", &self.overruns)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Subscribes, then dumps: what changes in between arrives again as a notification.
    ///
    /// # Errors
    /// When the kernel gives no socket or refuses the dump.
    pub async fn open(netlink: Netlink, if_index: u32) -> Result<Self, NetlinkError> {
        let notices = Notices::open(&GROUPS)?;
        let of_objects = Notices::open(&[MulticastGroup::Nexthop])?;
        let (dump, objects) = netlink.dump_with_objects(if_index).await?;
        let state = MirrorState::from_dump(if_index, &dump);
        Ok(Self {
            netlink,
            notices,
            of_objects,
            objects,
            ask: false,
            state,
            resync: false,
            dumping: None,
            asking: None,
            dumped_at: Instant::now(),
            overruns: 0,
            failures: 0,
            ended_mtus: EndedMtus::default(),
        })
    }

    /// The mirror now.
    pub fn state(&self) -> &MirrorState {
        &self.state
    }

    /// What devices took until they took something else, since this was asked last.
    pub fn take_ended_mtus(&mut self) -> EndedMtus {
        std::mem::take(&mut self.ended_mtus)
    }

    /// How often notifications were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Waits for something that concerns us: [`Effect::Changed`] or [`Effect::Gone`]. May be dropped at any await
    /// without losing a change.
    ///
    /// # Errors
    /// When the netlink socket died or a dump failed: the caller cannot go on blind.
    pub async fn changed(&mut self) -> Result<Effect, NetlinkError> {
        loop {
            if self.resync {
                return self.dump().await;
            }
            if self.ask {
                self.look_at_objects().await;
                continue;
            }
            let told = tokio::select! {
                // A route that came before an object changed is known first.
                biased;
                told = self.notices.next() => told,
                told = self.of_objects.next() => {
                    told.map_err(dead)?;
                    self.ask = true;
                    continue;
                }
            };
            let Some(mut burst) = told.map_err(dead)? else {
                self.overruns += 1;
                self.resync = true;
                continue;
            };
            self.resync = !self.complete(&mut burst);
            let effects = burst.iter().map(|(flags, message)| {
                let ended = self.state.mtu_ended_by(message);
                self.ended_mtus.mtus.extend(ended);
                self.state.apply(*flags, message)
            });
            match effects.fold(Effect::Nothing, Effect::max) {
                Effect::Nothing => {}
                effect @ (Effect::Changed | Effect::Gone) => return Ok(effect),
                Effect::Resync => self.resync = true,
            }
        }
    }

    /// Has routes say where their objects lead; false when there is one that is not known.
    fn complete(&self, burst: &mut [Notice]) -> bool {
        let if_index = self.state.if_index();
        burst.iter_mut().fold(true, |all, (_, message)| match message {
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                self.objects.complete(route, if_index) && all
            }
            _ => all,
        })
    }

    /// Asks for the objects again; routes may lead otherwise when those do.
    async fn look_at_objects(&mut self) {
        let if_index = self.state.if_index();
        if self.asking.is_none() {
            tokio::time::sleep_until(self.dumped_at + MIN_DUMP_INTERVAL).await;
        }
        let netlink = &self.netlink;
        let asking = self.asking.get_or_insert_with(|| {
            let netlink = netlink.clone();
            Box::pin(async move { netlink.objects(if_index).await })
        });
        let asked = asking.await;
        self.asking = None;
        self.ask = false;
        self.dumped_at = Instant::now();
        match asked {
            Ok(now) if !now.lead_otherwise_than(&self.objects) => self.objects = now,
            // A dump asks once more, and says what is wrong if it cannot.
            _ => self.resync = true,
        }
    }

    async fn dump(&mut self) -> Result<Effect, NetlinkError> {
        let if_index = self.state.if_index();
        if self.dumping.is_none() {
            tokio::time::sleep_until(self.dumped_at + MIN_DUMP_INTERVAL).await;
            // What waits already describes what the dump will show anyhow; later ones are kept.
            self.overruns += self.notices.discard().map_err(dead)?;
        }
        let netlink = &self.netlink;
        let dumping = self.dumping.get_or_insert_with(|| {
            let netlink = netlink.clone();
            Box::pin(async move { netlink.dump_with_objects(if_index).await })
        });
        let outcome = dumping.await;
        self.dumping = None;
        let (dump, objects) = match outcome {
            Ok(dump) => dump,
            Err(error) if error.errno() == Some(nix::libc::ENODEV) => return Ok(Effect::Gone),
            // The old state is better than none for the moment: the next attempt follows.
            Err(error) if self.failures < MAX_FAILURES => {
                tracing::warn!("{error}; trying again");
                self.failures += 1;
                self.dumped_at = Instant::now() + RETRY_AFTER;
                return Ok(Effect::Changed);
            }
            Err(error) => return Err(error),
        };
        self.failures = 0;
        self.state = MirrorState::from_dump(if_index, &dump);
        self.objects = objects;
        self.ended_mtus.missed = true;
        self.dumped_at = Instant::now();
        self.resync = false;
        Ok(Effect::Changed)
    }
}

fn dead(error: std::io::Error) -> NetlinkError {
    NetlinkError::Refused {
        operation: "wait for netlink notifications".to_owned(),
        error,
    }
}
